//! Events as rows.

use std::sync::Arc;

use cob_protocol::event::{Event, EventNumber};
use cob_protocol::ids::PromiseId;
use cob_protocol::limits::PAYLOAD_INLINE_BYTES_MAX;
use cob_protocol::time::Timestamp;
use rusqlite::{Connection, Row, params};

use super::fault::{Fault, Outcome};
use super::live::forgotten;
use super::rows::{EVENT_MAX, body_checksum, event_key, event_number, table};
use crate::payloads::{PayloadHash, Payloads};
use crate::store::{BridgeError, Recorded};

/// What may stand around the text of an event: a stream event of the largest size stays in its row.
const ENVELOPE_BYTES: usize = 256;

const INSERT: &str =
    "INSERT INTO events (id, at, bytes, is_payload, body, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const USE: &str =
    "INSERT INTO payloads (hash, uses) VALUES (?1, 1) ON CONFLICT (hash) DO UPDATE SET uses = uses + 1";

/// Writes an event of the promise in `row`.
pub(super) fn write(
    connection: &Connection,
    payloads: &Payloads,
    row: i64,
    recorded: &Recorded,
    is_power: bool,
) -> Outcome<()> {
    let body = rmp_serde::to_vec_named(&*recorded.event)
        .map_err(|error| Fault::Damaged(format!("an event that cannot be encoded: {error}")))?;
    if body.len() <= PAYLOAD_INLINE_BYTES_MAX + ENVELOPE_BYTES {
        return insert(connection, row, recorded, false, &body);
    }
    let hash = payloads.write(&body, is_power)?;
    connection.prepare_cached(USE)?.execute([hash.as_slice()])?;
    insert(connection, row, recorded, true, &hash)
}

fn insert(
    connection: &Connection,
    row: i64,
    recorded: &Recorded,
    is_payload: bool,
    body: &[u8],
) -> Outcome<()> {
    let key = event_key(row, recorded.number);
    let (at, bytes) = (recorded.at.micros(), recorded.event.bytes() as i64);
    let checksum = checksum(key, at, bytes, is_payload, body);
    connection.prepare_cached(INSERT)?.execute(params![key, at, bytes, is_payload, body, checksum])?;
    Ok(())
}

fn checksum(key: i64, at: i64, bytes: i64, is_payload: bool, body: &[u8]) -> i64 {
    body_checksum(table::EVENTS, &[key, at, bytes, i64::from(is_payload)], body)
}

const READ: &str =
    "SELECT id, at, bytes, is_payload, body, checksum FROM events WHERE id BETWEEN ?1 AND ?2 ORDER BY id";

/// Events of the execution `id` in `row`; see [`crate::store::Read::events`].
pub(super) fn read(
    connection: &Connection,
    payloads: &Payloads,
    (id, row): (PromiseId, i64),
    from: EventNumber,
    count_max: usize,
    bytes_max: usize,
) -> Outcome<Vec<Recorded>> {
    let from = from.max(1);
    let first = forgotten(connection, row)? + 1;
    if from < first {
        return Err(BridgeError::Forgotten { id, first }.into());
    }
    if from > EVENT_MAX {
        return Ok(Vec::new());
    }
    let mut events = Vec::new();
    let mut bytes = 0;
    let mut statement = connection.prepare_cached(READ)?;
    let mut rows = statement.query([event_key(row, from), event_key(row, EVENT_MAX)])?;
    for expected in from.. {
        let Some(row) = rows.next()? else { break };
        bytes += row.get::<_, i64>(2)?.cast_unsigned() as usize;
        if !events.is_empty() && (events.len() >= count_max || bytes > bytes_max) {
            break;
        }
        match event(row, payloads, expected)? {
            Ok(event) => events.push(event),
            // What stands before it is good.
            Err(_) if !events.is_empty() => break,
            Err(what) => return Err(BridgeError::Damaged { id, number: expected, what }.into()),
        }
    }
    Ok(events)
}

fn event(row: &Row<'_>, payloads: &Payloads, expected: EventNumber) -> Outcome<Result<Recorded, String>> {
    let (key, at, bytes): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    if event_number(key) != expected {
        return Ok(Err("its row is missing".to_owned()));
    }
    let is_payload = row.get(3)?;
    let Ok(body) = row.get_ref(4)?.as_blob() else { return Ok(Err("its body is none".to_owned())) };
    if checksum(key, at, bytes, is_payload, body) != row.get::<_, i64>(5)? {
        return Ok(Err("its row is not what was written".to_owned()));
    }
    let event = if is_payload { from_file(payloads, body) } else { decode(body) };
    Ok(event.map(|event| Recorded {
        number: expected,
        at: Timestamp::from_micros(at),
        event: Arc::new(event),
    }))
}

fn from_file(payloads: &Payloads, hash: &[u8]) -> Result<Event, String> {
    let hash: PayloadHash = hash.try_into().map_err(|_| "the name of its file is none".to_owned())?;
    decode(&payloads.read(&hash).map_err(String::from)?)
}

fn decode(body: &[u8]) -> Result<Event, String> {
    rmp_serde::from_slice(body).map_err(|error| error.to_string())
}
