//! Promises that this process works on, so that an event needs no look into the database.

use std::collections::HashMap;

use cob_protocol::event::EventNumber;
use cob_protocol::ids::PromiseId;
use cob_protocol::promise::Promise;
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::{Fault, Outcome};
use super::rows::{EVENT_MAX, PROMISE_COLUMNS, body_checksum, event_key, event_number, name, promise, table};
use crate::store::BridgeError;

/// A promise as the database has it, or will have it after this commit.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) row: i64,
    pub(super) promise: Promise,
    pub(super) next_event: EventNumber,
}

/// See the module. Settled ones are let go of after the commit, so it is bounded as pending promises are.
#[derive(Debug, Default)]
pub(super) struct LivePromises {
    known: HashMap<PromiseId, Live>,
    settled: Vec<PromiseId>,
}

impl LivePromises {
    /// The promise.
    pub(super) fn get(&mut self, connection: &Connection, id: PromiseId) -> Outcome<&mut Live> {
        if !self.known.contains_key(&id)
            && let Some((row, promise)) = by_name(connection, id)?
        {
            let next_event = next_event(connection, row)?;
            self.insert(Live { row, promise, next_event });
        }
        self.known.get_mut(&id).ok_or(Fault::Refused(BridgeError::Unknown(id)))
    }

    pub(super) fn insert(&mut self, live: Live) {
        let id = live.promise.id;
        if live.promise.state.is_settled() {
            self.settled.push(id);
        }
        self.known.insert(id, live);
    }

    /// It is settled: this was the last anybody heard of it, most likely.
    pub(super) fn settled(&mut self, id: PromiseId) {
        self.settled.push(id);
    }

    pub(super) fn let_go(&mut self) {
        for id in self.settled.drain(..) {
            self.known.remove(&id);
        }
    }
}

/// The promise with this name, and its row.
pub(super) fn by_name(connection: &Connection, id: PromiseId) -> Outcome<Option<(i64, Promise)>> {
    let Some(name) = name(id) else { return Ok(None) };
    one(connection, "session = ?1 AND execution = ?2 AND call = ?3", name)
}

/// The promise that matches, and its row.
pub(super) fn one(
    connection: &Connection,
    condition: &str,
    values: impl rusqlite::Params,
) -> Outcome<Option<(i64, Promise)>> {
    let sql = ["SELECT ", PROMISE_COLUMNS, " FROM promises WHERE ", condition].concat();
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_row(values, |row| Ok(promise(row))).optional()?.transpose()
}

/// How many of the first events are forgotten.
pub(super) fn forgotten(connection: &Connection, row: i64) -> Outcome<u64> {
    let mut statement = connection.prepare_cached("SELECT events, checksum FROM forgotten WHERE id = ?1")?;
    let found = statement
        .query_row([row], |found| Ok((found.get::<_, i64>(0)?, found.get::<_, i64>(1)?)))
        .optional()?;
    match found {
        None => Ok(0),
        Some((events, checksum)) if checksum == forgotten_checksum(row, events) => Ok(events.cast_unsigned()),
        Some(_) => Err(Fault::Damaged(format!("row {row} of what is forgotten"))),
    }
}

pub(super) fn forgotten_checksum(row: i64, events: i64) -> i64 {
    body_checksum(table::FORGOTTEN, &[row, events], &[])
}

/// The number that the next event of an execution will have.
pub(super) fn next_event(connection: &Connection, row: i64) -> Outcome<EventNumber> {
    let sql = "SELECT max(id) FROM events WHERE id BETWEEN ?1 AND ?2";
    let bounds = params![event_key(row, 0), event_key(row, EVENT_MAX)];
    let last: Option<i64> = connection.prepare_cached(sql)?.query_row(bounds, |found| found.get(0))?;
    match last {
        Some(key) => Ok(event_number(key) + 1),
        None => Ok(forgotten(connection, row)? + 1),
    }
}
