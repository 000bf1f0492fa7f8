//! What agents ask of `cob serve`, beside the Jupyter requests that it hands on to sessions.
//!
//! Unlike Jupyter's bodies these are read strictly: a field that is unknown is an error that names it, because an
//! idempotency key with a slip of the pen would run code twice.

mod checkpoints;

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::event::EventNumber;
use crate::ids::{PromiseId, SessionId, session_text};
use crate::json::Json;
use crate::permissions::Permissions;
use crate::promise::{Durability, Kind};

pub use checkpoints::{
    CheckpointDelete, CheckpointExport, CheckpointImport, ForkRequest, Hibernate, RestoreRequest,
    TakeCheckpoint,
};

/// Version of the agent protocol.
pub const AGENT_PROTOCOL_VERSION: u32 = 1;

/// A request that names nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// `hello_request`: the first message of every connection.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HelloRequest {
    /// Versions of the agent protocol that the client speaks.
    pub versions: Vec<u32>,
    /// What the client is, for logs.
    #[serde(default)]
    pub client: Option<String>,
    /// On whose behalf it asks; absent: `local`, or what its key says.
    #[serde(default)]
    pub principal: Option<String>,
}

/// `session_open`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionOpen {
    /// `python`
    #[serde(default = "python")]
    pub language: String,
    /// What the code finds around it.
    #[serde(default)]
    pub environment: Environment,
    /// What it may use, as on the command line: `memory=2G,time=30s`.
    #[serde(default)]
    pub limits: Option<String>,
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// Milliseconds without an execution after which it is closed.
    #[serde(default)]
    pub idle_timeout_ms: Option<u64>,
    /// Milliseconds between an interrupt and the end by force.
    #[serde(default)]
    pub interrupt_grace_ms: Option<u64>,
    /// How safe its records are before anybody is told, unless a request says otherwise.
    #[serde(default)]
    pub durability: Option<Durability>,
    /// Asked for again with this key, it is the same session.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// `"auto"`, `"manual"`, `"off"`, or a [`Policy`]; absent: the server's default.
    #[serde(default)]
    pub checkpoints: Option<Json>,
}

fn python() -> String {
    "python".to_owned()
}

/// What the code of a session finds around it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The interpreter; absent: the server's default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// The working directory; absent: one of its own, removed with the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables, beside a few harmless ones of the server.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What it may reach, in JavaScript; absent: the server's default, which is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
}

/// `session_close`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionClose {
    /// Which.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// What becomes of that which runs or waits.
    #[serde(default)]
    pub mode: CloseMode,
}

/// What becomes of what runs or waits in a session that is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseMode {
    /// It is interrupted, and settled as canceled.
    #[default]
    Now,
    /// It runs to its end first; nothing new is taken.
    Drain,
}

/// A request about one session, and nothing else.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfSession {
    /// Which.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
}

/// `session_list`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionList {
    /// Also those that have ended.
    #[serde(default)]
    pub closed: bool,
    /// Only those after this one: for the next page.
    #[serde(default, with = "crate::ids::session_text_option")]
    pub after: Option<SessionId>,
    /// At most so many.
    #[serde(default)]
    pub count: Option<usize>,
}

/// `session_info`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionInfoRequest {
    /// Which.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// With the names, types and sizes of its variables; never their values.
    #[serde(default)]
    pub namespace: bool,
}

/// `execute_request`: Jupyter's fields and ours.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentExecute {
    /// Where.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// Source text.
    pub code: String,
    /// No input in the history, no count.
    #[serde(default)]
    pub silent: bool,
    /// Whether the code enters the history.
    #[serde(default = "yes")]
    pub store_history: bool,
    /// Name to expression, evaluated afterwards.
    #[serde(default)]
    pub user_expressions: Option<Json>,
    /// Whether `input()` asks this client; otherwise it ends with `EOFError` at once.
    #[serde(default)]
    pub allow_stdin: bool,
    /// Whether an error cancels what this client has queued.
    #[serde(default = "yes")]
    pub stop_on_error: bool,
    /// With the same key and content it runs once.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// Milliseconds from its arrival after which it ends as timed out.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// How safe its records must be.
    #[serde(default)]
    pub durability: Option<Durability>,
    /// Bytes of text that are kept of it.
    #[serde(default)]
    pub output_limit: Option<u64>,
    /// Before those with a lower one in the queue; −100 to 100.
    #[serde(default)]
    pub priority: i32,
    /// Events that may be sent at once; 0: none, they are not subscribed to.
    #[serde(default)]
    pub credit: u64,
}

fn yes() -> bool {
    true
}

/// `subscribe`: to a promise, or to everything in a session.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// One execution…
    #[serde(default)]
    pub promise: Option<PromiseId>,
    /// …or all of a session.
    #[serde(default, with = "crate::ids::session_text_option")]
    pub session_id: Option<SessionId>,
    /// The first event, or the first execution; from 1.
    #[serde(default = "first")]
    pub from: EventNumber,
    /// Events that may be sent at once.
    pub credit: u64,
}

fn first() -> u64 {
    1
}

/// What is there is a value, also when it is `null`.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// `credit`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credit {
    /// Whose.
    pub subscription: String,
    /// So many more events.
    pub credit: u64,
}

/// `unsubscribe`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    /// Which.
    pub subscription: String,
}

/// `promise_get`: by its name, or by the key of the request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromiseGet {
    /// Its name…
    #[serde(default)]
    pub promise: Option<PromiseId>,
    /// …or its session…
    #[serde(default, with = "crate::ids::session_text_option")]
    pub session_id: Option<SessionId>,
    /// …and the key that this client gave it.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// `promise_wait`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromiseWait {
    /// Which.
    pub promise: PromiseId,
    /// Milliseconds after which it is answered although it is not settled; absent: for as long as it takes.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// `promise_list`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromiseList {
    /// Only of this session.
    #[serde(default, with = "crate::ids::session_text_option")]
    pub session_id: Option<SessionId>,
    /// Only of this kind.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// Only settled ones, or only those that are not.
    #[serde(default)]
    pub settled: Option<bool>,
    /// Only those after this one: for the next page.
    #[serde(default)]
    pub after: Option<PromiseId>,
    /// At most so many.
    #[serde(default)]
    pub count: Option<usize>,
}

/// `answer`: exactly one of the four.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerRequest {
    /// The call.
    pub promise: PromiseId,
    /// What the code gets; `null` is a value too.
    #[serde(default, deserialize_with = "present")]
    pub value: Option<Json>,
    /// There is no more input.
    #[serde(default)]
    pub eof: bool,
    /// The client refuses, and says why.
    #[serde(default)]
    pub declined: Option<String>,
    /// The tool failed.
    #[serde(default)]
    pub error: Option<ToolFailure>,
}

/// How a tool failed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct ToolFailure {
    /// Name of the error's type.
    pub ename: String,
    /// Its message.
    #[serde(default)]
    pub evalue: String,
}

/// `cancel`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// The execution.
    pub promise: PromiseId,
}

/// `tool_register`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolRegister {
    /// Where the tools are offered.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// What this client can do.
    pub tools: Vec<Tool>,
}

/// A function of a client that code may call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// An identifier.
    pub name: String,
    /// For people and models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Json>,
}

/// `tool_unregister`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolUnregister {
    /// Where.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// Which.
    pub names: Vec<String>,
}

/// `channel_open`: reads what the code sends.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelOpen {
    /// Where.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// Its name.
    pub channel: String,
    /// The first item, from 1.
    #[serde(default = "first")]
    pub from: EventNumber,
    /// Items that may be sent at once.
    pub credit: u64,
}

/// `channel_data`: an item for the code.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelData {
    /// Where.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// Its name.
    pub channel: String,
    /// The number that the item shall have: sent again with it, it is there once.
    #[serde(default)]
    pub number: Option<EventNumber>,
    /// The item.
    pub data: Json,
}

/// `channel_close`: the code gets no more items.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelClose {
    /// Where.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// Its name.
    pub channel: String,
}

/// `session_attach`: the session's Jupyter channels shall be bound here.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionAttach {
    /// Which.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// A number that the client chose: replies find their way by it, also after the server was started again.
    pub attachment: u64,
    /// The content of a Jupyter connection file.
    pub connection: Json,
}

/// `session_detach`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionDetach {
    /// Which attachment.
    pub attachment: u64,
}
