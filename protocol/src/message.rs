//! The envelope of a client message: header, parent, metadata, content, buffers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::json::Json;
use crate::time::Timestamp;

/// Version of the Jupyter messaging protocol that cob speaks.
pub const PROTOCOL_VERSION: &str = "5.5";

/// The channels of a Jupyter kernel that carry messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Requests that run or ask about code.
    Shell,
    /// Requests that must not wait behind code.
    Control,
    /// The kernel asks, the client answers.
    Stdin,
    /// What everybody sees.
    Iopub,
}

impl Channel {
    /// Its name in Jupyter.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Control => "control",
            Self::Stdin => "stdin",
            Self::Iopub => "iopub",
        }
    }

    /// The channel with this name in Jupyter.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Shell, Self::Control, Self::Stdin, Self::Iopub].into_iter().find(|it| it.as_str() == name)
    }
}

/// The header of a message. Only id and type are insisted on: real clients leave out the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Unique per message.
    pub msg_id: String,
    /// The row of [`crate::registry`].
    pub msg_type: String,
    /// Names the client.
    #[serde(default)]
    pub session: String,
    /// Who uses the client.
    #[serde(default)]
    pub username: String,
    /// When it was sent, ISO 8601.
    #[serde(default)]
    pub date: String,
    /// Protocol version of the sender.
    #[serde(default)]
    pub version: String,
}

/// A message that arrived and was verified. `header_json` is the exact text that replies carry as their parent.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The header, read.
    pub header: Header,
    /// The header as the client wrote it.
    pub header_json: Json,
    /// Metadata, a JSON object.
    pub metadata: Json,
    /// Content, not read yet.
    pub content: Bytes,
    /// Binary parts.
    pub buffers: Vec<Bytes>,
}

/// A message to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The row of [`crate::registry`].
    pub msg_type: &'static str,
    /// Header of the message that caused this one; `{}` when none did.
    pub parent: Json,
    /// Metadata, a JSON object.
    pub metadata: Json,
    /// Content, a JSON object.
    pub content: Json,
    /// Binary parts.
    pub buffers: Vec<Bytes>,
}

impl Outgoing {
    /// A message with empty metadata and no buffers.
    #[must_use]
    pub fn new(msg_type: &'static str, parent: Json, content: Json) -> Self {
        Self { msg_type, parent, metadata: Json::object(), content, buffers: Vec::new() }
    }
}

/// Writes the headers of one sender: unique ids, its session, the time of each message.
#[derive(Debug)]
pub struct HeaderWriter {
    session: String,
    next: u64,
}

impl HeaderWriter {
    /// `session` must be unique among senders, and safe inside a JSON string (a UUID is).
    #[must_use]
    pub fn new(session: String) -> Self {
        Self { session, next: 0 }
    }

    /// The session of this sender.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.session
    }

    /// The header of the next message.
    pub fn write(&mut self, msg_type: &str, now: Timestamp) -> Vec<u8> {
        self.next += 1;
        let (session, next) = (&self.session, self.next);
        format!(
            "{{\"msg_id\":\"{session}_{next}\",\"msg_type\":\"{msg_type}\",\"username\":\"cob\",\
             \"session\":\"{session}\",\"date\":\"{now}\",\"version\":\"{PROTOCOL_VERSION}\"}}"
        )
        .into_bytes()
    }
}
