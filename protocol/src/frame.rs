//! **The table** of frames: the closed set of what kernel and worker say to each other, with direction and cap.
//!
//! A frame is a small header (a MessagePack map, see [`crate::codec`]) and raw payloads. What a payload holds is
//! written at the frame that carries it. Raw stdout and stderr never travel here: they are two pipes, and a
//! frame whose place among the output matters says the [`Position`] it stands at.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::handshake::{Hello, Ready};
use crate::json::Json;
use crate::limits::{
    DISPLAY_FRAME_BYTES_MAX, HANDSHAKE_FRAME_BYTES_MAX, HELLO_FRAME_BYTES_MAX, PLAIN_FRAME_BYTES_MAX,
    REQUEST_FRAME_BYTES_MAX,
};

/// Who sends a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the kernel to the worker.
    ToWorker,
    /// From the worker to the kernel.
    ToKernel,
    /// Either way.
    Both,
}

/// The names of the two output pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamName {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

impl StreamName {
    /// The name Jupyter uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Bytes written to each output pipe, since the worker started, when a frame was sent.
///
/// The kernel brings both pipes out up to here before it lets the frame take effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Bytes written to stdout.
    pub stdout: u64,
    /// Bytes written to stderr.
    pub stderr: u64,
}

/// Number of a request that can produce output: a cell, or a comm message of a front end.
///
/// Kernel and worker name the request by it; 0 stands for "no request" (code that runs before the first).
pub type ExecutionNumber = u64;

/// Number of a question, unique per direction within one worker.
pub type RequestNumber = u64;

/// What an interrupt of a question aims at: a number that no execution has.
#[must_use]
pub fn question_target(request: RequestNumber) -> u64 {
    request | (1 << 63)
}

/// Marks the numbers of questions that may be asked twice.
const REPEATABLE: RequestNumber = 1 << 62;

/// The number of the `count`th call, of this kind. Questions that change nothing when they are asked twice are no
/// promises: whoever takes over from a host does not know them, and has them asked [again](Outcome::Again).
#[must_use]
pub fn call_number(count: u64, kind: &str) -> RequestNumber {
    match kind {
        "tools" | "channel_open" | "channel_send" | "channel_recv" | "channel_close" | "checkpoint"
        | "checkpoints" | "restore" => count | REPEATABLE,
        _ => count,
    }
}

/// Whether a call of this number may be asked twice.
#[must_use]
pub fn is_repeatable(request: RequestNumber) -> bool {
    request & REPEATABLE != 0
}

/// Run code. Payload 0: the source text, UTF-8. Answered by [`Done`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execute {
    /// Names this execution in every frame that belongs to it.
    pub execution: ExecutionNumber,
    /// The number users see: `In [count]`.
    pub count: u32,
    /// No result is displayed, no history is kept.
    pub silent: bool,
    /// Whether `In`, `Out`, `_` are updated.
    pub store_history: bool,
    /// Whether `input()` may ask; if not it raises at once.
    pub allow_stdin: bool,
    /// Expressions to evaluate after the code: a JSON object, name to source.
    pub user_expressions: Json,
    /// The client's header, for libraries that ask which message they run for.
    pub parent: Json,
}

/// Propose completions. Payload 0: the source text, UTF-8. Answered by [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complete {
    /// Names the question.
    pub request: RequestNumber,
    /// Place of the cursor, in Unicode code points.
    pub cursor: usize,
}

/// Describe what stands at the cursor. Payload 0: the source text, UTF-8. Answered by [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspect {
    /// Names the question.
    pub request: RequestNumber,
    /// Place of the cursor, in Unicode code points.
    pub cursor: usize,
    /// 0: signature and documentation; 1: also the source.
    pub detail: u8,
}

/// Names, types and sizes of the variables. Answered by [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Names the question.
    pub request: RequestNumber,
}

/// Go on as two: the worker as it was, and a process that waits and is a checkpoint. A socket of packets travels beside
/// this frame; over it the waiting process says `frozen`, or the worker why there is none ([`crate::zygote::Report`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Also when something would be missing in the checkpoint.
    pub force: bool,
}

/// No checkpoint of this worker is left: what was done for their sake (Python's garbage collector looks away) can be
/// undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfreeze {}

/// Take in a [bundle](crate::bundle), which comes over a socket or pipe that travels beside this frame. Answered by
/// [`Answer`], with a [`crate::checkpoint::Loaded`], or declined with the reasons why it does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Names the question.
    pub request: RequestNumber,
    /// Also when interpreter or packages are other ones.
    pub force: bool,
}

/// Is this code whole? Payload 0: the source text, UTF-8. Answered by [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsComplete {
    /// Names the question.
    pub request: RequestNumber,
}

/// What happens to a comm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommAction {
    /// `comm_open`
    Open,
    /// `comm_msg`
    Msg,
    /// `comm_close`
    Close,
}

/// A comm message, either way. Payloads: its binary buffers, in order.
///
/// To the worker it is a request: code may run and print, and [`Done`] answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comm {
    /// What happens to the comm.
    pub action: CommAction,
    /// To the worker: names this request. From it: the execution that sent the message.
    pub execution: ExecutionNumber,
    /// The comm.
    pub comm_id: String,
    /// Set when opening: who shall answer on the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_name: Option<String>,
    /// Set when opening: a module that provides the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_module: Option<String>,
    /// The message.
    pub data: Json,
    /// Message metadata (ipywidgets keeps its protocol version here).
    pub metadata: Json,
    /// To the worker: the client's header. From it: `{}`.
    #[serde(default)]
    pub parent: Json,
    /// From the worker: the place among the output.
    #[serde(default)]
    pub at: Position,
}

/// How a question ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer.
    Value(Json),
    /// The asker reached the end of its input; says why.
    Eof(String),
    /// The one who was asked refused; says why.
    Declined(String),
    /// Nobody answered in time.
    TimedOut(String),
    /// The one who was asked tried and failed.
    Failed {
        /// Name of the error's type.
        ename: String,
        /// Its message.
        evalue: String,
    },
    /// The host that was asked is gone, and the one that took its place does not know the question: ask again. Only of
    /// questions that can be asked twice ([`is_repeatable`]).
    Again,
}

/// The answer to [`Complete`], [`Inspect`], [`IsComplete`], [`Namespace`], [`Load`] (to the kernel) or [`Call`] (to the worker).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The number of the question.
    pub request: RequestNumber,
    /// The answer.
    pub outcome: Outcome,
}

/// Running code asks its host. Answered by [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Names the question.
    pub request: RequestNumber,
    /// The execution that asks.
    pub execution: ExecutionNumber,
    /// What is asked: `input`, `execution`, `tool`, `tools`, `channel_open`, `channel_send`, `channel_recv`,
    /// `channel_close`, `checkpoint`, `checkpoints`, `restore`.
    pub kind: String,
    /// Arguments by kind; `input`: `{"prompt": text, "password": bool}`.
    pub arguments: Json,
    /// The place among the output.
    pub at: Position,
}

/// How the payload of a MIME type is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MimeEncoding {
    /// UTF-8 text; becomes a JSON string.
    Text,
    /// A JSON document; embedded as it stands.
    Json,
    /// Raw bytes; become Base64 text on the way to a client.
    Binary,
}

/// One representation in a MIME bundle; its payload has the same index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mime {
    /// For example `text/plain`.
    pub mime: String,
    /// How to read the payload.
    pub encoding: MimeEncoding,
}

/// A rich output: `display`, `update_display` or `result`. Payload *i* belongs to `data[i]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Display {
    /// The execution it belongs to.
    pub execution: ExecutionNumber,
    /// The representations.
    pub data: Vec<Mime>,
    /// Metadata by MIME type: a JSON object.
    pub metadata: Json,
    /// `{"display_id": …}` or `{}`.
    pub transient: Json,
    /// The place among the output.
    pub at: Position,
}

/// Remove the output so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearOutput {
    /// The execution it belongs to.
    pub execution: ExecutionNumber,
    /// Only when the next output arrives.
    pub wait: bool,
    /// The place among the output.
    pub at: Position,
}

/// Text of an execution that is not the running one (a thread or task of an earlier cell). Payload 0: UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The execution it belongs to.
    pub execution: ExecutionNumber,
    /// Which stream.
    pub name: StreamName,
    /// The place among the output.
    pub at: Position,
}

/// The code failed. The outcome itself follows in [`Done`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The execution it belongs to.
    pub execution: ExecutionNumber,
    /// Name of the error's type.
    pub ename: String,
    /// Text of the error.
    pub evalue: String,
    /// Lines for people, with ANSI colours.
    pub traceback: Vec<String>,
    /// The place among the output.
    pub at: Position,
}

/// How a request that ran code ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoneStatus {
    /// The code ran to its end.
    Ok,
    /// The code failed; an [`Failure`] came before.
    Error,
    /// The code was interrupted; a [`Failure`] came before.
    Interrupted,
}

/// The end of an execution or comm request: nothing of it follows but late output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The request that ended.
    pub execution: ExecutionNumber,
    /// How it ended.
    pub status: DoneStatus,
    /// Results of the user expressions: a JSON object.
    pub user_expressions: Json,
    /// Jupyter's payloads (pager, `ask_exit`, `set_next_input`): a JSON array.
    pub payload: Json,
    /// The place among the output.
    pub at: Position,
}

/// The code switches between the two streams: what stands before comes out first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The place among the output.
    pub at: Position,
    /// What is written next. Until the next frame with a place it stands before the other stream, which then holds
    /// only what did not go through the language's streams.
    pub next: StreamName,
}

/// End the process. `restart` tells exit hooks why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// A new worker will follow.
    pub restart: bool,
}

/// Are you there?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back in [`Pong`].
    pub number: u64,
}

/// Yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// From [`Ping`].
    pub number: u64,
}

/// The worker waits for its `hello`: the first frame it sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {}

/// The worker has taken over a new frame socket: the first frame on it, and the only one that has the number 0.
/// Whatever it sent before and nobody acknowledged ([`crate::page`]) follows, with the numbers it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Number of the last frame that it took from the kernel.
    pub received: u64,
    /// The latest request for code ([`Execute`], [`Comm`]) that it took; 0 when there was none. One with a higher number
    /// has not reached it and never will, unless it is sent again.
    pub execution: ExecutionNumber,
    /// The question of running code ([`Call`]) that waits for its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<RequestNumber>,
}

/// What the worker has to say to the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// `error`, `warn`, `info` or `debug`.
    pub level: String,
    /// One line.
    pub text: String,
}

macro_rules! frames {
    ($($number:literal $kind:ident($body:ty) $name:literal $direction:ident $cap:expr;)*) => {
        /// What a frame is; the number is its byte on the wire and never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $(#[doc = concat!("`", $name, "`")] $kind = $number,)* }

        impl Kind {
            /// Every row of the table.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The kind with this byte, if there is one.
            #[must_use]
            pub fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($number => Some(Self::$kind),)* _ => None }
            }

            /// The name in documents and logs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// Who sends it.
            #[must_use]
            pub fn direction(self) -> Direction {
                match self { $(Self::$kind => Direction::$direction,)* }
            }

            /// The largest frame of this kind, everything after the length field counted.
            #[must_use]
            pub fn bytes_max(self) -> usize {
                match self { $(Self::$kind => $cap,)* }
            }
        }

        /// The header of a frame, by kind.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Frame { $(#[doc = concat!("`", $name, "`")] $kind($body),)* }

        impl Frame {
            /// Its row in the table.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)* }
            }

            pub(crate) fn encode_header(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
                match self { $(Self::$kind(body) => rmp_serde::to_vec_named(body),)* }
            }

            pub(crate) fn decode_header(kind: Kind, header: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
                match kind { $(Kind::$kind => rmp_serde::from_slice(header).map(Self::$kind),)* }
            }
        }

        $(impl From<$body> for Frame {
            fn from(body: $body) -> Self { Self::$kind(body) }
        })*
    };
}

/// A display whose target is an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UpdateDisplay(pub Display);

/// The value of a cell's last expression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultValue {
    /// The number users see: `Out[count]`.
    pub count: u32,
    /// The value's representations.
    pub display: Display,
}

frames! {
    1 Hello(Hello) "hello" ToWorker HELLO_FRAME_BYTES_MAX;
    2 Ready(Ready) "ready" ToKernel HANDSHAKE_FRAME_BYTES_MAX;
    3 Execute(Execute) "execute" ToWorker REQUEST_FRAME_BYTES_MAX;
    4 Complete(Complete) "complete" ToWorker REQUEST_FRAME_BYTES_MAX;
    5 Inspect(Inspect) "inspect" ToWorker REQUEST_FRAME_BYTES_MAX;
    6 IsComplete(IsComplete) "is_complete" ToWorker REQUEST_FRAME_BYTES_MAX;
    7 Comm(Comm) "comm" Both REQUEST_FRAME_BYTES_MAX;
    8 Call(Call) "call" ToKernel DISPLAY_FRAME_BYTES_MAX;
    9 Answer(Answer) "answer" Both DISPLAY_FRAME_BYTES_MAX;
    10 Shutdown(Shutdown) "shutdown" ToWorker PLAIN_FRAME_BYTES_MAX;
    11 Ping(Ping) "ping" ToWorker PLAIN_FRAME_BYTES_MAX;
    12 Pong(Pong) "pong" ToKernel PLAIN_FRAME_BYTES_MAX;
    13 Mark(Mark) "mark" ToKernel PLAIN_FRAME_BYTES_MAX;
    14 Stream(Stream) "stream" ToKernel PLAIN_FRAME_BYTES_MAX;
    15 Display(Display) "display" ToKernel DISPLAY_FRAME_BYTES_MAX;
    16 UpdateDisplay(UpdateDisplay) "update_display" ToKernel DISPLAY_FRAME_BYTES_MAX;
    17 ClearOutput(ClearOutput) "clear_output" ToKernel PLAIN_FRAME_BYTES_MAX;
    18 Error(Failure) "error" ToKernel PLAIN_FRAME_BYTES_MAX;
    19 Result(ResultValue) "result" ToKernel DISPLAY_FRAME_BYTES_MAX;
    20 Done(Done) "done" ToKernel DISPLAY_FRAME_BYTES_MAX;
    21 Log(Log) "log" ToKernel PLAIN_FRAME_BYTES_MAX;
    22 Parked(Parked) "parked" ToKernel HANDSHAKE_FRAME_BYTES_MAX;
    23 Attached(Attached) "attached" ToKernel HANDSHAKE_FRAME_BYTES_MAX;
    24 Namespace(Namespace) "namespace" ToWorker PLAIN_FRAME_BYTES_MAX;
    25 Freeze(Freeze) "freeze" ToWorker PLAIN_FRAME_BYTES_MAX;
    26 Unfreeze(Unfreeze) "unfreeze" ToWorker PLAIN_FRAME_BYTES_MAX;
    27 Load(Load) "load" ToWorker PLAIN_FRAME_BYTES_MAX;
}

impl Frame {
    /// The place among the output, for the kinds that have one.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Comm(Comm { at, .. })
            | Self::Call(Call { at, .. })
            | Self::Mark(Mark { at, .. })
            | Self::Stream(Stream { at, .. })
            | Self::Display(Display { at, .. })
            | Self::UpdateDisplay(UpdateDisplay(Display { at, .. }))
            | Self::ClearOutput(ClearOutput { at, .. })
            | Self::Error(Failure { at, .. })
            | Self::Result(ResultValue { display: Display { at, .. }, .. })
            | Self::Done(Done { at, .. }) => Some(*at),
            Self::Hello(_)
            | Self::Ready(_)
            | Self::Execute(_)
            | Self::Complete(_)
            | Self::Inspect(_)
            | Self::IsComplete(_)
            | Self::Namespace(_)
            | Self::Freeze(_)
            | Self::Unfreeze(_)
            | Self::Load(_)
            | Self::Answer(_)
            | Self::Shutdown(_)
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::Parked(_)
            | Self::Attached(_)
            | Self::Log(_) => None,
        }
    }
}

/// A frame as it travels: numbered, with its payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Number of this frame in its direction, from 1.
    pub sequence: u64,
    /// Highest number received (to the worker: and recorded) from the other side.
    pub acknowledged: u64,
    /// What it says.
    pub frame: Frame,
    /// Raw bytes; meaning by kind.
    pub payloads: Vec<Bytes>,
}
