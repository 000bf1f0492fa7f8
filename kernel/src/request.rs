//! A request on its way into a session, and the address its reply goes to.

use bytes::Bytes;
use cob_protocol::json::Json;
use cob_protocol::message::{Channel, Incoming};
use tokio::sync::mpsc;

/// Where replies to a client go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The client's name for itself (Jupyter's `session`); keys and aborts are scoped by it.
    pub session: String,
    /// The routing identity of its sockets.
    pub identity: Bytes,
}

/// A request that was verified.
#[derive(Debug)]
pub struct ClientRequest {
    /// Who asks.
    pub client: Client,
    /// On which channel.
    pub channel: Channel,
    /// What.
    pub message: Incoming,
}

impl ClientRequest {
    /// Joins a message with the place it came from.
    #[must_use]
    pub fn new(identity: Bytes, channel: Channel, message: Incoming) -> Self {
        let session = message.header.session.clone();
        Self { client: Client { session, identity }, channel, message }
    }

    /// What replies carry as their parent.
    #[must_use]
    pub fn parent(&self) -> Json {
        self.message.header_json.clone()
    }

    /// What it weighs in a queue.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let buffers: usize = self.message.buffers.iter().map(Bytes::len).sum();
        self.message.content.len() + buffers + self.message.header_json.as_str().len()
    }
}

/// What the process, not a client, asks of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Stop the running code.
    Interrupt,
    /// End the session.
    Shutdown,
}

/// The ways into a session, by lane. Control never waits behind the others.
#[derive(Debug)]
pub struct Inputs {
    /// From the process itself.
    pub commands: mpsc::Receiver<Command>,
    /// Requests that must not wait behind code.
    pub control: mpsc::Receiver<ClientRequest>,
    /// Answers to questions.
    pub stdin: mpsc::Receiver<ClientRequest>,
    /// Requests that run or ask about code.
    pub shell: mpsc::Receiver<ClientRequest>,
}

/// The other ends of [`Inputs`].
#[derive(Clone, Debug)]
pub struct InputSenders {
    /// See [`Inputs::commands`].
    pub commands: mpsc::Sender<Command>,
    /// See [`Inputs::control`].
    pub control: mpsc::Sender<ClientRequest>,
    /// See [`Inputs::stdin`].
    pub stdin: mpsc::Sender<ClientRequest>,
    /// See [`Inputs::shell`].
    pub shell: mpsc::Sender<ClientRequest>,
}

/// Requests on their way between two tasks; the queue proper is the session's.
const IN_FLIGHT: usize = 16;

/// Makes the lanes of a session.
#[must_use]
pub fn lanes() -> (InputSenders, Inputs) {
    let (commands_in, commands) = mpsc::channel(IN_FLIGHT);
    let (control_in, control) = mpsc::channel(IN_FLIGHT);
    let (stdin_in, stdin) = mpsc::channel(IN_FLIGHT);
    let (shell_in, shell) = mpsc::channel(IN_FLIGHT);
    let senders =
        InputSenders { commands: commands_in, control: control_in, stdin: stdin_in, shell: shell_in };
    (senders, Inputs { commands, control, stdin, shell })
}
