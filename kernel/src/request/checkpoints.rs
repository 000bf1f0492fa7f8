//! What a session is asked about checkpoints.

use cob_pool::Frozen;
use cob_protocol::ids::CheckpointId;
use cob_protocol::time::Timestamp;

/// A checkpoint that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Take {
    /// A name for people.
    pub label: Option<String>,
    /// Also in the store.
    pub durable: bool,
    /// Also when something would be missing in it.
    pub force: bool,
}

/// A way back that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoBack {
    /// Where to.
    pub to: Target,
    /// At once, whatever runs or waits.
    pub now: bool,
    /// Of a durable one: in a fresh worker.
    pub fresh: bool,
    /// Of a durable one: also with another interpreter or other packages.
    pub force: bool,
}

/// Where a session goes back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This checkpoint: one of the session, or a durable one of whichever session.
    Checkpoint(CheckpointId),
    /// The newest one with this label.
    Label(String),
    /// Before the last so many executions.
    Undo(u64),
}

/// What another session needs to begin where this one stood.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The process that it comes of.
    pub frozen: Frozen,
    /// What that is called.
    pub checkpoint: CheckpointId,
    /// The last execution that it knows of.
    pub execution: u64,
    /// The highest `In [count]`.
    pub count: u32,
    /// When it was taken.
    pub taken_at: Timestamp,
}
