//! What can go wrong: a request that is refused, and a store that fails.

use cob_protocol::event::EventNumber;
use cob_protocol::ids::{CheckpointId, PromiseId, SessionId};
use cob_protocol::limits::BUNDLES_MAX;
use cob_protocol::promise::Refused;
use thiserror::Error;

/// Why a write or a read is refused, whatever the state of the disk.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BridgeError {
    /// The key was used for a request with another body.
    #[error(
        "key_reused: `{key}` already names another request ({id}; its body has the SHA-256 {known}, this one {given})"
    )]
    KeyReused {
        /// The key.
        key: String,
        /// What it names.
        id: PromiseId,
        /// Hash of the body that it names, in hexadecimal digits.
        known: String,
        /// Hash of the body that came now.
        given: String,
    },
    /// Too many promises are pending.
    #[error("busy: {0} promises are pending")]
    Full(usize),
    /// No such promise, or it is forgotten.
    #[error("no promise {0} is known")]
    Unknown(PromiseId),
    /// No such session, or it is closed.
    #[error("no open session {0} is known")]
    UnknownSession(SessionId),
    /// No such bundle.
    #[error("no durable checkpoint {0} is known")]
    UnknownBundle(CheckpointId),
    /// The session has as many bundles as it may have.
    #[error("{0} has {BUNDLES_MAX} durable checkpoints, which is all that a session may have; delete some")]
    BundlesFull(SessionId),
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(String),
    /// The journal of this execution starts later.
    #[error("the events of {id} before number {first} are no longer kept")]
    Forgotten {
        /// The execution.
        id: PromiseId,
        /// First number that is still there.
        first: EventNumber,
    },
    /// An event came with another number than the next one.
    #[error("{id}: the next event has the number {expected}, not {given}")]
    Misnumbered {
        /// The execution.
        id: PromiseId,
        /// What the store expects.
        expected: EventNumber,
        /// What came.
        given: EventNumber,
    },
    /// An execution was to end with more events than are recorded.
    #[error("{id}: it cannot end with event {claimed}, since only {recorded} are recorded")]
    Incomplete {
        /// The execution.
        id: PromiseId,
        /// The last event, as its settlement says.
        claimed: EventNumber,
        /// The last event that there is.
        recorded: EventNumber,
    },
    /// The promise's state stands against it.
    #[error("{id}: {refused}")]
    Refused {
        /// The promise.
        id: PromiseId,
        /// The rule.
        refused: Refused,
    },
    /// One event is not what was written; the rest of the store is as good as before.
    #[error("event {number} of {id} cannot be read: {what}; those after it can")]
    Damaged {
        /// The execution.
        id: PromiseId,
        /// The event.
        number: EventNumber,
        /// What is wrong, and where.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store cannot do what it is there for. Nothing of the group that met it was recorded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// No room on its disk.
    #[error("store_full: there is no room on the disk of {store}; make some, and cob goes on by itself")]
    Full {
        /// Its folder.
        store: String,
    },
    /// Another program holds its lock.
    #[error("store_busy: another program holds the lock of the database in {store}")]
    Busy {
        /// Its folder.
        store: String,
    },
    /// Its bytes are not what was written.
    #[error(
        "store_corrupt: {path} is damaged ({what}); nothing was changed. \
         Move the folder away to begin a new one, or save what can be read with `sqlite3 {path} .recover`"
    )]
    Corrupt {
        /// The database.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The disk would not say that it has what was written. Whether it has, nobody knows, and asking again proves
    /// nothing: the process must end, and what the disk does hold is read at the next start.
    #[error("store_failed: the disk of {store} did not take what was written ({what})")]
    Unsynced {
        /// Its folder.
        store: String,
        /// The system's reason.
        what: String,
    },
    /// The system refused.
    #[error("store_failed: {store}: {what}")]
    Failed {
        /// Its folder.
        store: String,
        /// The system's reason.
        what: String,
    },
    /// Too much failed; it is only read from now on.
    #[error("store_failed: {store} is only read since {what}")]
    ReadOnly {
        /// Its folder.
        store: String,
        /// What happened.
        what: String,
    },
    /// The bridge was closed.
    #[error("the store is closed")]
    Closed,
}
