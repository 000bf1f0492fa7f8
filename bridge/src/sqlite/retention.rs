//! Forgetting: events of settled executions that are too old, or the oldest where there are too many. In bounded steps,
//! so that nobody waits long for a commit.
//!
//! A round goes through the executions that have events, oldest first, as long as there is a reason to; the files that
//! no event names, which a killed process may have left, are removed once after the start.

use std::collections::HashSet;

use cob_protocol::ids::SessionId;
use cob_protocol::limits::{
    FORGOTTEN_AT_ONCE_MAX, JOURNAL_AGE_S_MAX, RETENTION_SCAN_MAX, SESSION_JOURNAL_BYTES_MAX,
    STORE_BUNDLE_BYTES_MAX, STORE_JOURNAL_BYTES_MAX,
};
use cob_protocol::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Outcome;
use super::live::forgotten_checksum;
use super::rows::{EVENT_BITS, EVENT_MAX, event_key, event_number};
use super::writing::Transaction;
use super::{SqliteStore, bundles};
use crate::payloads::{PARTS, PayloadHash, Payloads};
use crate::store::StoreError;

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Seconds since the settlement after which events are forgotten; since the end of a session, its bundles.
    pub age_s: u64,
    /// Bytes of the events of one session.
    pub session_bytes: u64,
    /// Bytes of the events of the store.
    pub store_bytes: u64,
    /// Bytes of the bundles of the store. Those of sessions that are open are never forgotten.
    pub bundle_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            age_s: JOURNAL_AGE_S_MAX,
            session_bytes: SESSION_JOURNAL_BYTES_MAX,
            store_bytes: STORE_JOURNAL_BYTES_MAX,
            bundle_bytes: STORE_BUNDLE_BYTES_MAX,
        }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Events that were forgotten.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bundles of closed sessions that were given up.
    pub bundles: u64,
    /// Whether another step has something to do.
    pub is_more: bool,
}

/// How far the present round is.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The row of the last execution that was looked at.
    row: i64,
    /// How many of the parts of the payloads were swept.
    swept: usize,
}

/// The events of one execution that a step forgets.
struct Forgotten {
    row: i64,
    session: SessionId,
    events: i64,
    bytes: i64,
    last_key: i64,
    payloads: Vec<PayloadHash>,
}

pub(super) fn step(store: &mut SqliteStore, now: Timestamp, limits: &Limits) -> Result<Retained, StoreError> {
    let mut row = store.retention.row;
    let part = u8::try_from(store.retention.swept).ok();
    let (forgotten, unnamed, has_forgotten_bundle) = store.in_transaction(false, |transaction| {
        let has_forgotten_bundle =
            transaction.forget_bundle(bundles::cutoff(now, limits.age_s), limits.bundle_bytes)?;
        let forgotten = victim(transaction, now, limits, &mut row)?;
        let mut unnamed = match part {
            Some(part) => unnamed(transaction.connection, transaction.payloads, part)?,
            None => Vec::new(),
        };
        if let Some(forgotten) = &forgotten {
            unnamed.extend(forget(transaction, forgotten)?);
        }
        Ok((forgotten, unnamed, has_forgotten_bundle))
    })?;
    // Only now: a transaction that was rolled back would still name them.
    for hash in &unnamed {
        store.payloads.remove(hash);
    }
    store.retention = Round { row, swept: (store.retention.swept + 1).min(PARTS) };
    Ok(Retained {
        events: forgotten.as_ref().map_or(0, |forgotten| forgotten.events.cast_unsigned()),
        bytes: forgotten.as_ref().map_or(0, |forgotten| forgotten.bytes.cast_unsigned()),
        bundles: u64::from(has_forgotten_bundle),
        is_more: row != 0 || store.retention.swept < PARTS || has_forgotten_bundle,
    })
}

const NEXT: &str = "SELECT promises.id, session, state >= 2, settled_at, created_at FROM promises \
                    WHERE promises.id = (SELECT min(id) >> ?2 FROM events WHERE id > ?1)";

/// The next execution some of whose events are to be forgotten; `row` moves to where the search goes on, 0 at the end
/// of a round.
fn victim(
    transaction: &mut Transaction<'_>,
    now: Timestamp,
    limits: &Limits,
    row: &mut i64,
) -> Outcome<Option<Forgotten>> {
    let connection = transaction.connection;
    let cutoff = bundles::cutoff(now, limits.age_s);
    let total = "SELECT coalesce(sum(event_bytes), 0) FROM standings";
    let total: i64 = connection.prepare_cached(total)?.query_row([], |row| row.get(0))?;
    let is_full = total.cast_unsigned() > limits.store_bytes;
    let full_sessions = full_sessions(connection, limits)?;
    let has_reason = is_full || !full_sessions.is_empty();
    for _ in 0..RETENTION_SCAN_MAX {
        let mut statement = connection.prepare_cached(NEXT)?;
        let after = event_key(*row, EVENT_MAX);
        let next = statement.query_row(params![after, EVENT_BITS], |found| {
            let session = SessionId(found.get::<_, i64>(1)?.cast_unsigned());
            let (is_settled, settled_at): (bool, Option<i64>) = (found.get(2)?, found.get(3)?);
            Ok((found.get::<_, i64>(0)?, session, is_settled, settled_at, found.get::<_, i64>(4)?))
        });
        let Some((found, session, is_settled, settled_at, created_at)) = next.optional()? else {
            *row = 0;
            return Ok(None);
        };
        if !has_reason && created_at > cutoff {
            // All others are younger.
            *row = 0;
            return Ok(None);
        }
        let is_old = settled_at.is_some_and(|settled_at| settled_at <= cutoff);
        if is_settled && (is_old || is_full || full_sessions.contains(&session)) {
            // What is left of it is next.
            *row = found - 1;
            return gather(connection, found, session).map(Some);
        }
        *row = found;
    }
    Ok(None)
}

fn full_sessions(connection: &Connection, limits: &Limits) -> Outcome<HashSet<SessionId>> {
    let sql = "SELECT session FROM sessions JOIN standings USING (id) WHERE event_bytes > ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let bytes = i64::try_from(limits.session_bytes).unwrap_or(i64::MAX);
    let rows = statement.query_map([bytes], |row| Ok(SessionId(row.get::<_, i64>(0)?.cast_unsigned())))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The first events of an execution.
fn gather(connection: &Connection, row: i64, session: SessionId) -> Outcome<Forgotten> {
    let sql = "SELECT id, bytes, is_payload, iif(is_payload, body, NULL) FROM events \
               WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3";
    let bounds = params![event_key(row, 0), event_key(row, EVENT_MAX), FORGOTTEN_AT_ONCE_MAX as i64];
    let mut forgotten = Forgotten { row, session, events: 0, bytes: 0, last_key: 0, payloads: Vec::new() };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(bounds)?;
    while let Some(event) = rows.next()? {
        forgotten.events += 1;
        forgotten.last_key = event.get(0)?;
        forgotten.bytes += event.get::<_, i64>(1)?;
        if event.get::<_, bool>(2)? {
            forgotten.payloads.push(event.get(3)?);
        }
    }
    Ok(forgotten)
}

/// Removes the events; the files that no event names any more.
fn forget(transaction: &mut Transaction<'_>, forgotten: &Forgotten) -> Outcome<Vec<PayloadHash>> {
    let connection = transaction.connection;
    let Forgotten { row, session, events, bytes, last_key, payloads } = forgotten;
    let delete = "DELETE FROM events WHERE id BETWEEN ?1 AND ?2";
    connection.prepare_cached(delete)?.execute([event_key(*row, 0), *last_key])?;
    let first = event_number(*last_key).cast_signed();
    let note = "INSERT INTO forgotten (id, events, checksum) VALUES (?1, ?2, ?3) \
                ON CONFLICT (id) DO UPDATE SET events = ?2, checksum = ?3";
    let checksum = forgotten_checksum(*row, first);
    connection.prepare_cached(note)?.execute([*row, first, checksum])?;
    if let Some(session) = transaction.remembered.sessions.get(connection, *session)? {
        let kept = session.change_kept();
        kept.events -= events;
        kept.event_bytes -= bytes;
    }
    let mut unnamed = Vec::new();
    for hash in payloads {
        let less = "UPDATE payloads SET uses = uses - 1 WHERE hash = ?1 RETURNING uses";
        let uses = connection.prepare_cached(less)?.query_row([hash.as_slice()], |row| row.get::<_, i64>(0));
        if uses.optional()?.is_some_and(|uses| uses <= 0) {
            let none = "DELETE FROM payloads WHERE hash = ?1";
            connection.prepare_cached(none)?.execute([hash.as_slice()])?;
            unnamed.push(*hash);
        }
    }
    Ok(unnamed)
}

/// Files in one part of the payloads that no event names.
fn unnamed(connection: &Connection, payloads: &Payloads, part: u8) -> Outcome<Vec<PayloadHash>> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM payloads WHERE hash = ?1")?;
    let mut unnamed = Vec::new();
    for hash in payloads.part(part) {
        if !statement.exists([hash.as_slice()])? {
            unnamed.push(hash);
        }
    }
    Ok(unnamed)
}
