//! The client's side: signed requests out, verified replies and notices in.
//!
//! For the command line, for Rust programs and for the tests. [`AgentConnection`] is one connection that has said hello;
//! [`Execution`] runs code over it and survives its loss.

mod dealer;
mod error;
mod execution;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cob_protocol::content::agent::AGENT_PROTOCOL_VERSION;
use cob_protocol::event::{Event, EventNumber};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::{
    AGENT_PING_MS, AGENT_UNREAD_MESSAGES_MAX, CONNECT_MS_MAX, RECONNECT_PAUSE_MS_MAX, RECONNECT_PAUSE_MS_MIN,
    RECONNECTS_MAX,
};
use cob_protocol::message::{Header, HeaderWriter, Incoming, Outgoing};
use cob_protocol::registry::agent_row;
use cob_protocol::signing::{ReplayWindow, Signer};
use cob_protocol::time::Clock;
use cob_protocol::wire;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use self::dealer::Dealer;
pub use self::error::{AgentError, Refusal};
pub use self::execution::{Call, Execute, Execution, Outcome, Step};
use super::ServerFile;
use crate::zmtp::Endpoint;
use crate::zmtp::codec::Encoded;

/// Where a server listens, and the key that it knows its clients by.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerPlace {
    endpoint: Endpoint,
    key: String,
}

impl ServerPlace {
    /// The local endpoint of the server that has left this file.
    ///
    /// # Errors
    /// [`AgentError::Endpoint`] when the file names none.
    pub fn of(file: &ServerFile) -> Result<Self, AgentError> {
        Self::at(&file.ipc, String::new())
    }

    /// An address, `ipc://…` or `tcp://…`, and the key that goes with it.
    ///
    /// # Errors
    /// [`AgentError::Endpoint`].
    pub fn at(url: &str, key: String) -> Result<Self, AgentError> {
        Ok(Self { endpoint: url.parse()?, key })
    }

    /// The server that a text names: an address, or the path of its file.
    ///
    /// # Errors
    /// [`AgentError::Endpoint`] or [`AgentError::File`].
    pub fn named(text: &str, key: String) -> Result<Self, AgentError> {
        if text.contains("://") { Self::at(text, key) } else { Self::of(&ServerFile::read(Path::new(text))?) }
    }
}

impl std::fmt::Display for ServerPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.endpoint.fmt(f)
    }
}

impl std::fmt::Debug for ServerPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerPlace").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A message from the server.
#[derive(Clone, Debug)]
pub struct Message {
    /// The row of the table.
    pub msg_type: String,
    /// `msg_id` of the request that it answers or belongs to; empty when there is none.
    pub parent: String,
    /// Metadata, a JSON object.
    pub metadata: Json,
    /// Content, not read yet.
    pub content: Bytes,
    /// Binary parts.
    pub buffers: Vec<Bytes>,
}

impl Message {
    /// Whether this is the one reply of a request; everything else is a notice.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.msg_type.ends_with("_reply")
    }

    /// Reads the content.
    ///
    /// # Errors
    /// [`AgentError::Content`].
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, AgentError> {
        serde_json::from_slice(&self.content)
            .map_err(|source| AgentError::Content { msg_type: self.msg_type.clone(), source })
    }

    /// The same, unless it is a refusal.
    ///
    /// # Errors
    /// [`AgentError::Refused`].
    pub fn accepted(self) -> Result<Self, AgentError> {
        #[derive(serde::Deserialize)]
        struct Status {
            #[serde(default)]
            status: String,
        }
        if self.is_reply() && self.read::<Status>()?.status == "error" {
            return Err(AgentError::Refused(self.read()?));
        }
        Ok(self)
    }
}

/// One connection that has said hello. Dropping it closes it; sessions and executions go on.
pub struct AgentConnection {
    place: ServerPlace,
    client: String,
    principal: Option<String>,
    clock: Arc<dyn Clock>,
    signer: Signer,
    headers: HeaderWriter,
    dealer: Dealer,
    /// Of this connection.
    window: ReplayWindow,
    /// What came while a reply was waited for.
    kept: VecDeque<Message>,
    pulse: Pulse,
}

/// Watches over the silence of a server.
struct Pulse {
    due: Instant,
    /// It was asked, and nothing came since.
    is_asked: bool,
    /// The last ping, whose reply is nobody's.
    ping: String,
}

impl Pulse {
    fn begin() -> Self {
        Self { due: next_pulse(), is_asked: false, ping: String::new() }
    }

    fn heard(&mut self) {
        (self.due, self.is_asked) = (next_pulse(), false);
    }
}

fn next_pulse() -> Instant {
    Instant::now() + Duration::from_millis(AGENT_PING_MS)
}

impl AgentConnection {
    /// Connects and says hello. `client` names this client and must be unique (a UUID); absent, the `principal` is the
    /// operator, or who the connection proves one to be.
    ///
    /// # Errors
    /// [`AgentError::NoServer`], [`AgentError::Refused`] when the server does not want us.
    pub async fn open(
        place: &ServerPlace,
        client: String,
        principal: Option<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AgentError> {
        let signer = Signer::new("hmac-sha256", place.key.as_bytes())
            .map_err(|error| AgentError::Lost(error.to_string()))?;
        let dealer = connect(place, &client).await?;
        let mut connection = Self {
            place: place.clone(),
            headers: HeaderWriter::new(client.clone()),
            client,
            principal,
            clock,
            signer,
            dealer,
            window: ReplayWindow::default(),
            kept: VecDeque::new(),
            pulse: Pulse::begin(),
        };
        connection.hello().await?;
        Ok(connection)
    }

    /// The same client on a new connection. What the old one had not delivered is gone; subscriptions are as well.
    ///
    /// # Errors
    /// As [`AgentConnection::open`].
    pub async fn reconnect(&mut self) -> Result<(), AgentError> {
        self.dealer = connect(&self.place, &self.client).await?;
        self.window = ReplayWindow::default();
        self.kept.clear();
        self.pulse = Pulse::begin();
        self.hello().await
    }

    /// Reconnects to a server that was lost: tries a bounded number of times, at growing intervals.
    ///
    /// # Errors
    /// Those of the last attempt.
    pub async fn regain(&mut self) -> Result<(), AgentError> {
        let mut pause = RECONNECT_PAUSE_MS_MIN;
        for _ in 1..RECONNECTS_MAX {
            match self.reconnect().await {
                Err(AgentError::Lost(_) | AgentError::NoServer { .. }) => {}
                done => return done,
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
            pause = (pause * 2).min(RECONNECT_PAUSE_MS_MAX);
        }
        self.reconnect().await
    }

    async fn hello(&mut self) -> Result<(), AgentError> {
        let client = concat!("cob ", env!("CARGO_PKG_VERSION"));
        let mut hello = json!({ "versions": [AGENT_PROTOCOL_VERSION], "client": client });
        if let Some(principal) = &self.principal {
            hello["principal"] = json!(principal);
        }
        let patience = Duration::from_millis(CONNECT_MS_MAX);
        match tokio::time::timeout(patience, self.request("hello_request", hello)).await {
            Ok(greeted) => greeted.map(drop),
            // What is not signed with its key a server leaves unanswered.
            Err(_) => Err(AgentError::Unanswered { place: self.place.to_string() }),
        }
    }

    /// Where the server is.
    #[must_use]
    pub fn place(&self) -> &ServerPlace {
        &self.place
    }

    /// Sends a request and waits for its reply. What arrives meanwhile is kept in order for [`Self::next`]. Not
    /// cancel-safe: a reply that nobody waits for any more comes as a message of its own.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when the reply is an error, [`AgentError::Lost`].
    pub async fn request(
        &mut self,
        msg_type: &'static str,
        content: impl Serialize,
    ) -> Result<Message, AgentError> {
        let id = self.send(msg_type, content).await?;
        let reply = agent_row(msg_type).map_or("", |(reply, _)| reply);
        loop {
            let message = self.arrival().await?;
            if message.parent == id && message.msg_type == reply {
                return message.accepted();
            }
            if self.kept.len() >= AGENT_UNREAD_MESSAGES_MAX {
                return Err(AgentError::Lost("more notices than anybody reads".to_owned()));
            }
            self.kept.push_back(message);
        }
    }

    /// Sends a request, and does not wait for anything but room in the queue. Its `msg_id` is what the answers name as
    /// their parent. Cancel-safe: it was sent or it was not.
    ///
    /// # Errors
    /// [`AgentError::Lost`], [`AgentError::Request`].
    pub async fn send(
        &mut self,
        msg_type: &'static str,
        content: impl Serialize,
    ) -> Result<String, AgentError> {
        let content = Json::of(&content).map_err(AgentError::Request)?;
        let room = self.dealer.outgoing.reserve().await;
        let room = room.map_err(|_| AgentError::Lost("it was closed".to_owned()))?;
        let message = Outgoing::new(msg_type, Json::object(), content);
        let parts = wire::write(message, &self.signer, &mut self.headers, self.clock.now());
        room.send(Encoded::message(&parts));
        // Delimiter, signature, header: what was just written can be read.
        let header = parts.get(2).and_then(|header| serde_json::from_slice::<Header>(header).ok());
        Ok(header.map(|header| header.msg_id).unwrap_or_default())
    }

    /// The next message in the order of their arrival. Cancel-safe. Asks a server that is silent whether it is there.
    ///
    /// # Errors
    /// [`AgentError::Lost`] when the connection has ended, or the server answers no more.
    pub async fn next(&mut self) -> Result<Message, AgentError> {
        match self.kept.pop_front() {
            Some(message) => Ok(message),
            None => self.arrival().await,
        }
    }

    /// The next message off the wire, but for the answers to our own pings.
    async fn arrival(&mut self) -> Result<Message, AgentError> {
        loop {
            tokio::select! {
                biased;
                arrived = self.dealer.incoming.recv() => {
                    let parts = match arrived {
                        Some(Ok(parts)) => parts,
                        Some(Err(error)) => return Err(AgentError::Lost(error.to_string())),
                        None => return Err(AgentError::Lost("it was closed".to_owned())),
                    };
                    self.pulse.heard();
                    let (message, parent) = wire::parse_answer(&parts, &self.signer, &mut self.window)?;
                    let message = message_of(message, &parent);
                    if message.parent.is_empty() || message.parent != self.pulse.ping {
                        return Ok(message);
                    }
                }
                () = tokio::time::sleep_until(self.pulse.due) => {
                    if self.pulse.is_asked {
                        return Err(AgentError::Lost("the server does not answer".to_owned()));
                    }
                    let ping = self.send("ping", &json!({})).await?;
                    self.pulse = Pulse { due: next_pulse(), is_asked: true, ping };
                }
            }
        }
    }
}

/// An event of a subscription.
#[derive(Clone, Debug)]
pub struct EventNotice {
    /// Of which subscription.
    pub subscription: String,
    /// Of which execution.
    pub promise: PromiseId,
    /// Its number there.
    pub number: EventNumber,
    /// When it was recorded.
    pub at: String,
    /// What happened; `None` for a kind that this client does not know.
    pub event: Option<Event>,
}

impl EventNotice {
    /// Reads the content of an `event`.
    ///
    /// # Errors
    /// [`AgentError::Content`].
    pub fn of(message: &Message) -> Result<Self, AgentError> {
        #[derive(serde::Deserialize)]
        struct Content {
            subscription: String,
            promise: PromiseId,
            number: EventNumber,
            #[serde(default)]
            at: String,
            kind: String,
            content: Json,
        }
        let Content { subscription, promise, number, at, kind, content } = message.read()?;
        let event = Json::of(&HashMap::from([(kind, content)])).and_then(|event| event.read::<Event>());
        Ok(Self { subscription, promise, number, at, event: event.ok() })
    }
}

impl std::fmt::Debug for AgentConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentConnection").field("place", &self.place).finish_non_exhaustive()
    }
}

async fn connect(place: &ServerPlace, client: &str) -> Result<Dealer, AgentError> {
    Dealer::connect(&place.endpoint, client.as_bytes())
        .await
        .map_err(|source| AgentError::NoServer { place: place.to_string(), source })
}

fn message_of(message: Incoming, parent: &Bytes) -> Message {
    // `{}`, which is no header, stands for none.
    let parent = serde_json::from_slice(parent).map(|header: Header| header.msg_id).unwrap_or_default();
    let Incoming { header, metadata, content, buffers, .. } = message;
    Message { msg_type: header.msg_type, parent, metadata, content, buffers }
}
