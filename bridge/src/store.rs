//! What a store must be able to do: synchronous, each call one transaction.

use std::sync::Arc;

use cob_protocol::event::{Event, EventNumber};
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::promise::{Key, Operation, Promise, Refused};
use cob_protocol::time::Timestamp;
use thiserror::Error;

/// What became of a request for a promise.
#[derive(Clone, Debug)]
pub enum Created {
    /// Recorded; whoever asked shall see to it that it is settled.
    New(PromiseId),
    /// The key named this one: wait for it, or give its value.
    Joined(Promise),
}

/// Why the bridge refuses.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// The key was used for a request with another body.
    #[error("key_reused: `{key}` already names another request ({id})")]
    KeyReused {
        /// The key.
        key: String,
        /// What it names.
        id: PromiseId,
    },
    /// Too many promises are pending.
    #[error("busy: {0} promises are pending")]
    Full(usize),
    /// No such promise, or it is forgotten.
    #[error("no promise {0} is known")]
    Unknown(PromiseId),
    /// The journal of this execution starts later.
    #[error("the events of {id} before number {first} are no longer kept")]
    Forgotten {
        /// The execution.
        id: PromiseId,
        /// First number that is still there.
        first: EventNumber,
    },
    /// The promise's state stands against it.
    #[error("{id}: {refused}")]
    Refused {
        /// The promise.
        id: PromiseId,
        /// The rule.
        refused: Refused,
    },
}

/// A place where promises and events are recorded. Time is an argument.
pub trait Store: Send {
    /// See [`crate::Bridge::create_execution`].
    ///
    /// # Errors
    /// As there.
    fn create_execution(
        &mut self,
        session: SessionId,
        key: Option<Key>,
        now: Timestamp,
    ) -> Result<Created, BridgeError>;

    /// See [`crate::Bridge::create_call`].
    ///
    /// # Errors
    /// As there.
    fn create_call(&mut self, execution: PromiseId, now: Timestamp) -> Result<PromiseId, BridgeError>;

    /// Applies `operation`; returns the promise as it stands afterwards.
    ///
    /// # Errors
    /// [`BridgeError::Unknown`] or [`BridgeError::Refused`].
    fn apply(&mut self, id: PromiseId, operation: Operation, now: Timestamp) -> Result<Promise, BridgeError>;

    /// The promise, if it is known.
    fn get(&self, id: PromiseId) -> Option<Promise>;

    /// See [`crate::Bridge::append`].
    ///
    /// # Errors
    /// As there.
    fn append(&mut self, id: PromiseId, event: Arc<Event>) -> Result<EventNumber, BridgeError>;

    /// See [`crate::Bridge::read_from`].
    ///
    /// # Errors
    /// As there.
    fn read_from(
        &self,
        id: PromiseId,
        from: EventNumber,
        count_max: usize,
    ) -> Result<Vec<(EventNumber, Arc<Event>)>, BridgeError>;

    /// Promises that are not settled.
    fn pending(&self) -> usize;
}
