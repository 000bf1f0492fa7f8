//! What agents ask about checkpoints.

use serde::Deserialize;

use crate::ids::{CheckpointId, SessionId, session_text};

/// `checkpoint`: at the next moment at which no code runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeCheckpoint {
    /// Of which.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// A name for people.
    #[serde(default)]
    pub label: Option<String>,
    /// Also in the store; answered when it is there.
    #[serde(default)]
    pub durable: bool,
    /// Also when something would be missing in it.
    #[serde(default)]
    pub force: bool,
}

/// `restore`: exactly one of `checkpoint`, `label` and `undo`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// Which session.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// Back to this one, which may be a durable one of another session…
    #[serde(default)]
    pub checkpoint: Option<CheckpointId>,
    /// …or to the newest one of this session with this label…
    #[serde(default)]
    pub label: Option<String>,
    /// …or to before the last so many executions.
    #[serde(default)]
    pub undo: Option<u64>,
    /// At once: what runs or waits is settled as canceled. Otherwise when the running code has ended.
    #[serde(default)]
    pub now: bool,
    /// Of a durable one: in a fresh worker, so that nothing else is there. Otherwise it is merged into what is there.
    #[serde(default)]
    pub fresh: bool,
    /// Of a durable one: also with another interpreter or other packages.
    #[serde(default)]
    pub force: bool,
}

/// `fork`: sessions that begin where another one stands, or stood.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkRequest {
    /// Of which.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// From this one in memory; absent: from now on.
    #[serde(default)]
    pub checkpoint: Option<CheckpointId>,
    /// How many.
    #[serde(default = "one")]
    pub count: usize,
    /// For people; several get a number behind it.
    #[serde(default)]
    pub name: Option<String>,
    /// Also when something would be missing in them.
    #[serde(default)]
    pub force: bool,
    /// Asked for again with this key, they are the same sessions.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

fn one() -> usize {
    1
}

/// `checkpoint_delete`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointDelete {
    /// Which.
    pub checkpoint: CheckpointId,
}

/// `hibernate`: everything into the store, and no worker until the next request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hibernate {
    /// Which.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// Also when something cannot be saved, and is lost.
    #[serde(default)]
    pub force: bool,
}

/// `checkpoint_export`: only for the operator.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointExport {
    /// Which: a durable one.
    pub checkpoint: CheckpointId,
    /// The file that is made on the server's host, named from the root on.
    pub path: String,
}

/// `checkpoint_import`: only for the operator.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointImport {
    /// To which session.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// The file on the server's host, named from the root on.
    pub path: String,
    /// The key of the server that made it, in hexadecimal digits; absent: this one's.
    #[serde(default)]
    pub key: Option<String>,
}
