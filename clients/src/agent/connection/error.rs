//! What can go wrong between a client and a server.

use std::io;

use cob_protocol::wire::WireError;
use serde::Deserialize;
use thiserror::Error;

use crate::agent::ServerFileError;
use crate::zmtp::EndpointError;

/// A request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    /// Name of the error, as a notebook shows it.
    #[serde(default)]
    pub ename: String,
    /// What was wrong.
    #[serde(default, rename = "evalue")]
    pub message: String,
    /// The stable name for machines.
    #[serde(default)]
    pub code: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: String,
    /// When it may be worth another try.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
}

/// Why a client and its server do not understand each other.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The server will not.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// Nobody listens there.
    #[error("no server listens at {place}: {source}")]
    NoServer {
        /// Where.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// Something listens there that does not answer us.
    #[error("what listens at {place} does not answer; if it is a server, this is not its key")]
    Unanswered {
        /// Where.
        place: String,
    },
    /// The connection has ended. What was recorded is safe: connect again.
    #[error("the connection to the server was lost: {0}")]
    Lost(String),
    /// The address of the server is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The file that describes the server cannot be used.
    #[error(transparent)]
    File(#[from] ServerFileError),
    /// What arrived is no message that was signed with our key.
    #[error("a message of the server cannot be read: {0}")]
    Message(#[from] WireError),
    /// A content that is not what the protocol says.
    #[error("the content of the server's `{msg_type}` cannot be read: {source}")]
    Content {
        /// The message.
        msg_type: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The content of a request cannot be written as JSON.
    #[error("the request cannot be written: {0}")]
    Request(#[source] serde_json::Error),
}

impl AgentError {
    /// The code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }

    /// Whether the same request may be sent on a new connection.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}
