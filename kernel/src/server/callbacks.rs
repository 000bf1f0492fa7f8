//! What the hub asks of whoever opens and ends sessions.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use cob_protocol::content::agent::{ForkRequest, SessionAttach, SessionOpen};
use cob_protocol::ids::SessionId;
use tokio::sync::oneshot;

use super::branch::Branches;
use crate::request::Refusal;

/// What is answered later.
pub type Later<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>;

/// What the hub asks of whoever opens and ends sessions. Nobody waits for one of these but the request that asked.
pub struct Life {
    /// Opens a session for a principal, or finds the one of its key. Answered when it is recorded and in the directory.
    pub open: Box<dyn Fn(String, SessionOpen) -> Later<SessionId> + Send + Sync>,
    /// Forks sessions off another for a principal who may use that one, or finds those of his key. Answered when they can
    /// be used.
    pub fork: Box<dyn Fn(String, ForkRequest) -> Later<Branches> + Send + Sync>,
    /// Binds Jupyter channels for a session. What is answered says, later, why they were closed without being asked to.
    pub attach: Box<dyn Fn(SessionAttach) -> Later<oneshot::Receiver<String>> + Send + Sync>,
    /// Closes those channels.
    pub detach: Box<dyn Fn(SessionId, u64) -> Later<()> + Send + Sync>,
    /// Records everything and leaves the workers to the next server; what is answered is sent, then the server ends.
    pub handover: Box<dyn Fn() -> Later<()> + Send + Sync>,
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Life")
    }
}
