//! One socket for many sessions: how agents reach a server.
//!
//! [`AgentEndpoint`] is the half that a server binds, in up to three places: a local socket, a loopback port with a key,
//! and any other address under CURVE. [`ServerFile`] says where they are, [`KeyFolder`] who may come by the last;
//! [`AgentConnection`] is the half of a client.

mod connection;
mod discovery;
mod endpoint;
mod keys;

pub use connection::{
    AgentConnection, AgentError, Call, EventNotice, Execute, Execution, Message, Outcome, Refusal,
    ServerPlace, Step,
};
pub use discovery::{Curve, ServerFile, ServerFileError, Signed};
pub use endpoint::{AgentCounters, AgentEndpoint, AgentEvent, AgentPeer, AgentSender, Place, Trust};
pub use keys::{ClientKey, KeyError, KeyFolder, ServerKey};

pub use crate::zmtp::curve::{KeyTextError, NameError, PublicKey, SecretKey};
