//! A request on its way into a session, and the address its reply goes to.

mod checkpoints;

use std::path::PathBuf;

use bytes::Bytes;
use cob_protocol::checkpoint::{CheckpointView, Policy, Restoration};
use cob_protocol::content::ExecuteOptions;
use cob_protocol::content::agent::{CloseMode, Tool, ToolFailure};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::EventNumber;
use cob_protocol::ids::{CheckpointId, PromiseId};
use cob_protocol::json::Json;
use cob_protocol::limits::SESSION_OPEN_MAX;
use cob_protocol::message::{Channel, Header, Incoming};
use cob_protocol::promise::{CHANNEL_PRINCIPAL, Key, Tally};
use cob_protocol::signing::body_hash;
use cob_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

pub use checkpoints::{GoBack, Seed, Take, Target};

/// One who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The client's name for itself (Jupyter's `session`); keys and aborts are scoped by it.
    pub session: String,
    /// Where replies to it go.
    pub address: Address,
}

impl Client {
    /// Whether it is the same one. Agents keep their names when they come back by another connection.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let are_agents = self.address.via == Via::Agents && other.address.via == Via::Agents;
        self.session == other.session && (are_agents || self.address == other.address)
    }
}

/// Where replies to a client go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// By which sockets.
    pub via: Via,
    /// The routing identity of the client's sockets.
    pub identity: Bytes,
}

/// The sockets that a client uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The only ones that the session has: its own Jupyter channels, or those of the command line.
    #[default]
    Own,
    /// The Jupyter channels of a front end that is attached to a session of a server.
    Attachment(u64),
    /// The endpoint of agents.
    Agents,
}

/// Who asks when a client names its request itself: all who hold the key of the connection are one.
pub const ANY_CLIENT: &str = "*";

/// A request as it is recorded.
#[derive(Serialize, Deserialize)]
struct Record {
    /// Hexadecimal digits.
    identity: String,
    #[serde(default, skip_serializing_if = "is_own")]
    via: Via,
    #[serde(default = "any_client", skip_serializing_if = "is_any_client")]
    principal: String,
    channel: String,
    header: Json,
    metadata: Json,
    content: Json,
    /// It had binary parts, which are not recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_partial: bool,
}

fn is_own(via: &Via) -> bool {
    *via == Via::Own
}

fn any_client() -> String {
    ANY_CLIENT.to_owned()
}

fn is_any_client(principal: &str) -> bool {
    principal == ANY_CLIENT
}

/// A request that was verified.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    /// Who asks.
    pub client: Client,
    /// On whose behalf: the keys that clients choose are scoped by it.
    pub principal: String,
    /// On which channel.
    pub channel: Channel,
    /// What.
    pub message: Incoming,
}

impl ClientRequest {
    /// Joins a message with the place it came from, when there is only one.
    #[must_use]
    pub fn new(identity: Bytes, channel: Channel, message: Incoming) -> Self {
        Self::of(Address { via: Via::Own, identity }, any_client(), channel, message)
    }

    /// Joins a message with the place it came from, and with whoever stands behind it.
    #[must_use]
    pub fn of(address: Address, principal: String, channel: Channel, message: Incoming) -> Self {
        let session = message.header.session.clone();
        Self { client: Client { session, address }, principal, channel, message }
    }

    /// Whether it came from an agent: what becomes of it is delivered from the journal.
    #[must_use]
    pub fn is_agents(&self) -> bool {
        self.client.address.via == Via::Agents
    }

    /// What replies carry as their parent.
    #[must_use]
    pub fn parent(&self) -> Json {
        self.message.header_json.clone()
    }

    /// What names it: the key that the client chose for it, whichever client that is, else the message's own id.
    #[must_use]
    pub fn key(&self, options: &ExecuteOptions) -> Key {
        let content = &self.message.content;
        match &options.idempotency_key {
            // Another client writes the same content in another way.
            Some(key) => {
                let canonical = serde_json::from_slice::<Value>(content).map(|mut value| {
                    // Whether a value keeps the order of its keys depends on who else is built into this program.
                    value.sort_all_objects();
                    value.to_string()
                });
                let body = canonical.map_or_else(|_| body_hash(content), |text| body_hash(text.as_bytes()));
                Key { principal: self.principal.clone(), key: key.clone(), body }
            }
            None => Key {
                principal: self.client_name(),
                key: self.message.header.msg_id.clone(),
                body: body_hash(content),
            },
        }
    }

    /// The client's name for itself; it may call itself as it likes, but not what no client is called.
    fn client_name(&self) -> String {
        let name = self.client.session.as_str();
        if name == CHANNEL_PRINCIPAL { format!("{name}_") } else { name.to_owned() }
    }

    /// Everything that is needed to run it and to reply to it after a restart; but not its binary parts, which cannot
    /// be recorded.
    #[must_use]
    pub fn record(&self) -> Option<Json> {
        let content = std::str::from_utf8(&self.message.content).ok()?;
        let record = Record {
            identity: hex::encode(&self.client.address.identity),
            via: self.client.address.via,
            principal: self.principal.clone(),
            channel: self.channel.as_str().to_owned(),
            header: self.message.header_json.clone(),
            metadata: self.message.metadata.clone(),
            content: Json::parse(content).ok()?,
            is_partial: !self.message.buffers.is_empty(),
        };
        Json::of(&record).ok()
    }

    /// The request that was recorded, and whether that is all of it: without its binary parts it can be replied to, but
    /// not run.
    ///
    /// # Errors
    /// A sentence, when the record is not one.
    pub fn from_record(record: &Json) -> Result<(Self, bool), String> {
        let record: Record = record.read().map_err(|error| error.to_string())?;
        let identity = hex::decode(&record.identity).map_err(|error| error.to_string())?;
        let header: Header = record.header.read().map_err(|error| error.to_string())?;
        let channel = Channel::named(&record.channel).ok_or("a channel that does not exist")?;
        let message = Incoming {
            header,
            header_json: record.header,
            metadata: record.metadata,
            content: record.content.into_bytes(),
            buffers: Vec::new(),
        };
        let address = Address { via: record.via, identity: Bytes::from(identity) };
        Ok((Self::of(address, record.principal, channel, message), !record.is_partial))
    }

    /// What it weighs in a queue.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let buffers: usize = self.message.buffers.iter().map(Bytes::len).sum();
        self.message.content.len() + buffers + self.message.header_json.as_str().len()
    }
}

/// What the process asks of a session, for itself or for an agent. It overtakes everything, and never waits for code.
#[derive(Debug)]
pub enum Command {
    /// Stop the running code.
    Interrupt,
    /// End the session.
    Shutdown,
    /// End the session, in one of two ways; answered when everything of it is settled and recorded.
    Close(CloseMode, Asked<()>),
    /// A fresh namespace: what runs or waits is settled as canceled.
    Restart(Asked<()>),
    /// An execution is not wanted any more; answered with where it stood.
    Cancel(PromiseId, Asked<Canceled>),
    /// The answer to a call.
    Answer(PromiseId, Given, Asked<()>),
    /// The deadline of one of its promises has passed.
    Overdue(PromiseId),
    /// How does it stand?
    Look(oneshot::Sender<Snapshot>),
    /// Names, types and sizes of its variables: a JSON array. Refused as busy while code runs.
    Namespace(Asked<Json>),
    /// Keep the session as it is, at the next moment at which no code runs; answered when it is recorded.
    Checkpoint(Take, Asked<CheckpointView>),
    /// Which checkpoints are there?
    Checkpoints(Asked<Vec<CheckpointView>>),
    /// Go back; answered when the session is there.
    Restore(GoBack, Asked<Restoration>),
    /// This checkpoint is not needed any more.
    DropCheckpoint(CheckpointId, Asked<()>),
    /// What another session needs to begin at this checkpoint in memory, or at the next moment at which no code runs;
    /// the flag forces it.
    Branch(Option<CheckpointId>, bool, Asked<Seed>),
    /// Everything into the store, and no worker until there is something to do; the flag forces it.
    Hibernate(bool, Asked<CheckpointView>),
    /// Take in a bundle from a file, with the key of the store that made it.
    Import(PathBuf, Option<String>, Asked<CheckpointView>),
    /// Memory is short: give up automatic checkpoints; answered with the bytes that only they held.
    Shed(Asked<u64>),
    /// A client offers functions to the code.
    RegisterTools(Address, Vec<Tool>, Asked<()>),
    /// It does not any more: these, or all.
    UnregisterTools(Address, Option<Vec<String>>, Asked<()>),
    /// The promise of what the code sends into a channel, which is made if need be, and how the other direction stands.
    OpenChannel(String, Asked<ChannelState>),
    /// An item for the code, with the number it shall have; answered with that when it is recorded.
    ChannelData(String, Option<EventNumber>, Json, Asked<EventNumber>),
    /// The code gets no more items.
    CloseChannel(String, Asked<()>),
    /// The reader of what the code sends has granted that it may come this far.
    ChannelGranted(String, EventNumber),
}

/// Where an answer goes; whoever asked may have gone.
pub type Asked<T> = oneshot::Sender<Result<T, Refusal>>;

/// Why something that was asked is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The row of the table.
    pub code: ErrorCode,
    /// A sentence.
    pub why: String,
}

impl Refusal {
    /// With a sentence of its own.
    #[must_use]
    pub fn new(code: ErrorCode, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }
}

/// Where an execution stood when it was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Canceled {
    /// It waited, and is settled.
    Queued,
    /// It runs, and was interrupted.
    Running,
}

/// What a client answers to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// What the code gets.
    Value(Json),
    /// There is no more input.
    Eof,
    /// The client refuses, and says why.
    Declined(String),
    /// The tool failed.
    Failed(ToolFailure),
}

/// How a durable channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelState {
    /// The promise whose events are the items from the code.
    pub from_code: PromiseId,
    /// The number that the next item to the code will have.
    pub next: EventNumber,
    /// The code gets no more items.
    pub is_closed: bool,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its first worker is on its way.
    Starting,
    /// Nothing runs.
    Idle,
    /// Code runs.
    Busy,
    /// Code waits for an answer.
    Asking,
    /// Another worker is on its way.
    Restarting,
    /// It has no worker; the next request starts one.
    Dormant,
    /// It is ending.
    Closing,
    /// It has ended.
    Closed,
    /// It has ended, because no worker could be started.
    Dead,
}

/// A session at one moment: what can be told without asking its worker.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Where it stands.
    pub state: Phase,
    /// The execution that runs.
    pub running: Option<PromiseId>,
    /// What that has printed so far.
    pub output: Option<Tally>,
    /// What waits, in the order of its turns.
    pub queue: Vec<Waiting>,
    /// The call that is open.
    pub asking: Option<PromiseId>,
    /// Highest `In [count]`.
    pub execution_count: u32,
    /// When it last ran code, or began.
    pub last_active_at: Timestamp,
    /// Process id of its worker, and where that came from.
    pub worker: Option<WorkerView>,
    /// Its limits and what enforces each.
    pub limits: Json,
    /// What confines it: sentences.
    pub confinement: Vec<String>,
    /// Functions that clients offer.
    pub tools: Vec<Tool>,
    /// Durable channels, by name.
    pub channels: Vec<String>,
    /// What it does about checkpoints.
    pub checkpoint_policy: Policy,
    /// How many it has in memory, and the bytes that only they hold, as last measured.
    pub checkpoints: usize,
    /// See above.
    pub checkpoint_bytes: u64,
    /// Why the last automatic one was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_skipped: Option<String>,
    /// What its variables came from, if it was restored since it last ran code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restoration>,
    /// The checkpoint that its next worker will begin at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wakes_at: Option<CheckpointId>,
}

/// An execution that waits.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Waiting {
    /// Its promise.
    pub promise: PromiseId,
    /// As asked.
    pub priority: i32,
}

/// The worker of a session.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WorkerView {
    /// Process id.
    pub pid: u32,
    /// `warm`, `forked` or `cold`.
    pub origin: &'static str,
    /// Resident bytes.
    pub resident_bytes: u64,
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

/// Requests on their way between two tasks; the queue proper is the session's. All executions that a session may have
/// open, and a few questions: a server does not wait for one session.
const IN_FLIGHT: usize = 2 * SESSION_OPEN_MAX;

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(client: &str, content: &str) -> ClientRequest {
        let header_json =
            Json::from(json!({ "msg_id": "m", "msg_type": "execute_request", "session": client }));
        let message = Incoming {
            header: header_json.read().unwrap(),
            header_json,
            metadata: Json::from(json!({ "cob": {}, "tags": ["x"] })),
            content: Bytes::copy_from_slice(content.as_bytes()),
            buffers: Vec::new(),
        };
        ClientRequest::new(Bytes::from_static(&[0, 255, 7]), Channel::Shell, message)
    }

    #[test]
    fn what_is_recorded_of_a_request_is_the_request() {
        let asked = request("c", "{\"code\":  \"1\"}");
        let record = Json::parse(asked.record().unwrap().as_str()).unwrap();
        let (again, is_whole) = ClientRequest::from_record(&record).unwrap();
        assert!(is_whole);
        assert_eq!((&again.client, again.channel), (&asked.client, asked.channel));
        assert_eq!(again.parent().as_str(), asked.parent().as_str());
        assert_eq!(again.message.metadata.as_str(), asked.message.metadata.as_str());
        // The key is a hash of these very bytes.
        assert_eq!(again.message.content, asked.message.content);
        assert_eq!(again.key(&ExecuteOptions::default()), asked.key(&ExecuteOptions::default()));
    }

    #[test]
    fn the_order_of_keys_makes_no_other_request_of_a_retry() {
        let options = ExecuteOptions { idempotency_key: Some("k".to_owned()), ..ExecuteOptions::default() };
        let key = |content| request("c", content).key(&options);
        let first = key("{\"code\": \"1\", \"user_expressions\": {\"a\": \"1\", \"b\": \"2\"}}");
        assert_eq!(first, key("{\"user_expressions\":{\"b\":\"2\",\"a\":\"1\"},\"code\":\"1\"}"));
        assert_ne!(first, key("{\"user_expressions\":{\"b\":\"1\",\"a\":\"2\"},\"code\":\"1\"}"));
    }

    #[test]
    fn binary_parts_are_not_recorded_and_that_is_said() {
        let mut asked = request("c", "{}");
        asked.message.buffers = vec![Bytes::from_static(b"\0")];
        let (again, is_whole) = ClientRequest::from_record(&asked.record().unwrap()).unwrap();
        assert!(!is_whole && again.message.buffers.is_empty());
        assert_eq!(again.client, asked.client);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let good = request("c", "{}").record().unwrap();
        let good: Value = good.read().unwrap();
        for (name, value) in [
            ("identity", json!("xyz")),
            ("channel", json!("elsewhere")),
            ("header", json!(5)),
            ("content", json!(null)),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            if name == "content" {
                bad.as_object_mut().unwrap().remove(name);
            }
            assert!(ClientRequest::from_record(&Json::from(bad)).is_err(), "{name}");
        }
        assert!(ClientRequest::from_record(&Json::array()).is_err());
    }

    #[test]
    fn a_chosen_key_is_everybodys_and_a_message_id_its_clients() {
        let options = |key: Option<&str>| ExecuteOptions {
            idempotency_key: key.map(str::to_owned),
            ..ExecuteOptions::default()
        };
        let (one, two) = (request("one", "{\"a\": 1, \"b\": 2}"), request("two", "{\"b\":2,\"a\":1}"));
        assert_eq!(one.key(&options(Some("k"))), two.key(&options(Some("k"))));
        assert_ne!(one.key(&options(Some("k"))), request("one", "{\"a\":1}").key(&options(Some("k"))));
        assert_ne!(one.key(&options(None)), two.key(&options(None)));
        assert_ne!(one.key(&options(None)), one.key(&options(Some("m"))));
    }

    #[test]
    fn no_client_can_have_its_code_taken_for_a_channel() {
        assert!(!request(CHANNEL_PRINCIPAL, "{}").key(&ExecuteOptions::default()).is_channel());
    }
}
