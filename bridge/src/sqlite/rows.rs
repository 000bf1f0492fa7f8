//! Promises as rows, with their checksums.

use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{Durability, Key, Promise, SessionState, State, Tally};
use cob_protocol::time::Timestamp;
use rusqlite::Row;

use super::fault::{Fault, Outcome};
use crate::checksum::Checksum;

/// What [`promise`] reads, in its order.
pub(super) const PROMISE_COLUMNS: &str = "id, session, execution, call, state, durability, created_at, started_at, \
    deadline, settled_at, principal, key, body, last_event, written, dropped, session_state, value, audit, checksum";

/// Numbers of rows and of events have room up to here.
pub(super) const EVENT_BITS: u32 = 28;
/// The largest number of an event.
pub(super) const EVENT_MAX: u64 = (1 << EVENT_BITS) - 1;

/// The key of an event; 0 is the place before the first.
pub(super) fn event_key(promise: i64, number: u64) -> i64 {
    (promise << EVENT_BITS) | number.min(EVENT_MAX).cast_signed()
}

/// The number in an event's key.
pub(super) fn event_number(key: i64) -> u64 {
    key.cast_unsigned() & EVENT_MAX
}

/// The place of a name in the index: session, execution, and 0 or the call. A number that no integer of SQLite holds
/// is in no store.
pub(super) fn name(id: PromiseId) -> Option<(i64, i64, i64)> {
    let number = |number: u64| i64::try_from(number).ok();
    // Call 0 does not exist, and its place is that of the execution.
    let call = match id.call {
        Some(0) => return None,
        call => call.unwrap_or(0),
    };
    Some((number(id.session.0)?, number(id.execution)?, number(call)?))
}

pub(super) fn micros(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
}

/// A promise and the number of its row.
pub(super) fn promise(row: &Row<'_>) -> Outcome<(i64, Promise)> {
    let (number, promise, checksum) = read(row)?;
    let damaged = || Fault::Damaged(format!("row {number} of the promises"));
    let promise = promise.ok_or_else(damaged)?;
    if promise_checksum(number, &promise) != checksum {
        return Err(damaged());
    }
    Ok((number, promise))
}

fn read(row: &Row<'_>) -> rusqlite::Result<(i64, Option<Promise>, i64)> {
    let unsigned = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let call = unsigned(3)?;
    let id = PromiseId {
        session: SessionId(unsigned(1)?),
        execution: unsigned(2)?,
        call: (call != 0).then_some(call),
    };
    let key = match (row.get(10)?, row.get(11)?, row.get(12)?) {
        (Some(principal), Some(key), Some(body)) => Some(Key { principal, key, body }),
        _ => None,
    };
    let codes = (
        state(row.get(4)?),
        durability(row.get(5)?),
        row.get::<_, Option<i64>>(16)?.map(session_state),
        row.get::<_, Option<String>>(17)?.map(Json::parse),
    );
    let (number, checksum) = (row.get(0)?, row.get(19)?);
    let (Some(state), Some(durability), None | Some(Some(_)), None | Some(Ok(_))) = &codes else {
        return Ok((number, None, checksum));
    };
    let promise = Promise {
        id,
        state: *state,
        key,
        durability: *durability,
        created_at: Timestamp::from_micros(row.get(6)?),
        started_at: micros(row, 7)?,
        deadline: micros(row, 8)?,
        settled_at: micros(row, 9)?,
        last_event: unsigned(13)?,
        tally: Tally { written: unsigned(14)?, dropped: unsigned(15)? },
        session_state: codes.2.flatten(),
        value: codes.3.and_then(Result::ok),
        audit: row.get(18)?,
    };
    Ok((number, Some(promise), checksum))
}

pub(super) fn promise_checksum(row: i64, promise: &Promise) -> i64 {
    let int = |sum: Checksum, time: Timestamp| sum.int(time.micros());
    let Promise { id, key, tally, .. } = promise;
    let sum = Checksum::of(2)
        .int(row)
        .int(id.session.0.cast_signed())
        .int(id.execution.cast_signed())
        .int(id.call.unwrap_or(0).cast_signed())
        .int(state_code(promise.state))
        .int(durability_code(promise.durability))
        .int(promise.created_at.micros())
        .optional(promise.started_at, int)
        .optional(promise.deadline, int)
        .optional(promise.settled_at, int)
        .optional(key.as_ref(), |sum, key| {
            sum.bytes(key.principal.as_bytes()).bytes(key.key.as_bytes()).bytes(&key.body)
        })
        .int(promise.last_event.cast_signed())
        .int(tally.written.cast_signed())
        .int(tally.dropped.cast_signed())
        .optional(promise.session_state, |sum, state| sum.int(session_state_code(state)))
        .optional(promise.value.as_ref(), |sum, value| sum.bytes(value.as_str().as_bytes()));
    // Version 1 knew of no trail, and its checksums stay good.
    match &promise.audit {
        Some(audit) => sum.bytes(audit).finish(),
        None => sum.finish(),
    }
}

pub(super) fn state_code(state: State) -> i64 {
    State::ALL.iter().position(|other| *other == state).unwrap_or_default() as i64
}

fn state(code: i64) -> Option<State> {
    State::ALL.get(usize::try_from(code).ok()?).copied()
}

const DURABILITIES: [Durability; 3] = [Durability::None, Durability::Process, Durability::Power];

pub(super) fn durability_code(durability: Durability) -> i64 {
    DURABILITIES.iter().position(|other| *other == durability).unwrap_or_default() as i64
}

fn durability(code: i64) -> Option<Durability> {
    DURABILITIES.get(usize::try_from(code).ok()?).copied()
}

const SESSION_STATES: [SessionState; 3] = [SessionState::Kept, SessionState::Lost, SessionState::Restored];

pub(super) fn session_state_code(state: SessionState) -> i64 {
    SESSION_STATES.iter().position(|other| *other == state).unwrap_or_default() as i64
}

fn session_state(code: i64) -> Option<SessionState> {
    SESSION_STATES.get(usize::try_from(code).ok()?).copied()
}

/// The checksum of a row that has a number and a body, and perhaps a few more numbers.
pub(super) fn body_checksum(table: u64, numbers: &[i64], body: &[u8]) -> i64 {
    numbers.iter().fold(Checksum::of(table), |sum, number| sum.int(*number)).bytes(body).finish()
}

/// Tables whose rows are summed by [`body_checksum`].
pub(super) mod table {
    pub(in super::super) const SESSIONS: u64 = 3;
    pub(in super::super) const REQUESTS: u64 = 5;
    pub(in super::super) const OUTPUTS: u64 = 6;
    pub(in super::super) const EVENTS: u64 = 7;
    pub(in super::super) const FORGOTTEN: u64 = 8;
    pub(in super::super) const BUNDLES: u64 = 10;
    pub(in super::super) const MANIFESTS: u64 = 11;
}
