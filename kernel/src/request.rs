//! A request on its way into a session, and the address its reply goes to.

use bytes::Bytes;
use cob_protocol::content::ExecuteOptions;
use cob_protocol::json::Json;
use cob_protocol::message::{Channel, Header, Incoming};
use cob_protocol::promise::Key;
use cob_protocol::signing::body_hash;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

/// Where replies to a client go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The client's name for itself (Jupyter's `session`); keys and aborts are scoped by it.
    pub session: String,
    /// The routing identity of its sockets.
    pub identity: Bytes,
}

/// Who asks when a client names its request itself: all who hold the key of the connection are one.
const ANY_CLIENT: &str = "*";

/// A request as it is recorded.
#[derive(Serialize, Deserialize)]
struct Record {
    /// Hexadecimal digits.
    identity: String,
    channel: String,
    header: Json,
    metadata: Json,
    content: Json,
    /// It had binary parts, which are not recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_partial: bool,
}

/// A request that was verified.
#[derive(Clone, Debug)]
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

    /// What names it: the key that the client chose for it, whichever client that is, else the message's own id.
    #[must_use]
    pub fn key(&self, options: &ExecuteOptions) -> Key {
        let content = &self.message.content;
        match &options.idempotency_key {
            // Another client writes the same content in another way.
            Some(key) => {
                let canonical = serde_json::from_slice::<Value>(content).map(|value| value.to_string());
                let body = canonical.map_or_else(|_| body_hash(content), |text| body_hash(text.as_bytes()));
                Key { principal: ANY_CLIENT.to_owned(), key: key.clone(), body }
            }
            None => Key {
                principal: self.client.session.clone(),
                key: self.message.header.msg_id.clone(),
                body: body_hash(content),
            },
        }
    }

    /// Everything that is needed to run it and to reply to it after a restart; but not its binary parts, which cannot
    /// be recorded.
    #[must_use]
    pub fn record(&self) -> Option<Json> {
        let content = std::str::from_utf8(&self.message.content).ok()?;
        let record = Record {
            identity: hex::encode(&self.client.identity),
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
        Ok((Self::new(Bytes::from(identity), channel, message), !record.is_partial))
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
}
