//! What every store does alike: how a promise begins, when a key joins, what a time is. Pure.

use cob_protocol::event::EventNumber;
use cob_protocol::ids::PromiseId;
use cob_protocol::promise::{Durability, Kind, Operation, Promise, Refused, State, Tally};
use cob_protocol::time::Timestamp;

use crate::store::{BridgeError, Created, NewExecution};

/// The time as it is recorded: in whole microseconds.
pub(crate) fn whole_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.micros())
}

pub(crate) fn kind(id: PromiseId) -> Kind {
    if id.call.is_some() { Kind::Call } else { Kind::Execution }
}

pub(crate) fn pending(id: PromiseId, durability: Durability, now: Timestamp) -> Promise {
    Promise {
        id,
        state: State::Pending,
        key: None,
        durability,
        created_at: now,
        started_at: None,
        deadline: None,
        settled_at: None,
        last_event: 0,
        tally: Tally::default(),
        value: None,
        session_state: None,
        audit: None,
    }
}

/// What a request gets whose key is `known` already.
pub(crate) fn join(known: Promise, new: &NewExecution) -> Result<Created, BridgeError> {
    match (&known.key, &new.key) {
        (Some(key), Some(given)) if key.body != given.body => Err(BridgeError::KeyReused {
            key: given.key.clone(),
            id: known.id,
            known: hex::encode(key.body),
            given: hex::encode(given.body),
        }),
        _ => Ok(Created::Joined(Box::new(known))),
    }
}

/// Refuses what comes too late for a promise in this state.
pub(crate) fn must_be_open(id: PromiseId, state: State) -> Result<(), BridgeError> {
    if state.is_settled() {
        return Err(BridgeError::Refused { id, refused: Refused::AlreadySettled(state) });
    }
    Ok(())
}

/// Refuses the end of an execution before its output: an event that it claims is missing, since its commit failed.
pub(crate) fn must_be_complete(
    promise: &Promise,
    operation: &Operation,
    next_event: EventNumber,
) -> Result<(), BridgeError> {
    let (Operation::Settle(end) | Operation::Expire(end)) = operation else { return Ok(()) };
    if promise.state.is_settled() || end.last_event < next_event {
        return Ok(());
    }
    Err(BridgeError::Incomplete { id: promise.id, claimed: end.last_event, recorded: next_event - 1 })
}

/// The execution that a call may belong to: calls are numbered from 1.
pub(crate) fn execution_of(call: PromiseId) -> Result<PromiseId, BridgeError> {
    match call.call {
        Some(1..) => Ok(PromiseId { call: None, ..call }),
        _ => Err(BridgeError::Unknown(call)),
    }
}

/// Only executions are started and print.
pub(crate) fn must_be_execution(id: PromiseId) -> Result<(), BridgeError> {
    match kind(id) {
        Kind::Execution => Ok(()),
        Kind::Call => Err(BridgeError::Unknown(id)),
    }
}
