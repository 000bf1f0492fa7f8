//! Looking into the database, for a server and for everybody else alike.

use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::event::EventNumber;
use cob_protocol::ids::{CheckpointId, PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{Kind, Promise};
use cob_protocol::time::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::fault::{Fault, Outcome};
use super::live::{by_name, next_event, one};
use super::rows::{PROMISE_COLUMNS, body_checksum, name, promise, table};
use super::standing::Sessions;
use super::{bundles, events, history};
use crate::history::Entry;
use crate::payloads::Payloads;
use crate::rules::{kind, must_be_execution};
use crate::store::{
    BridgeError, Filter, OutputState, Recorded, SessionRecord, SignedManifest, Totals, Unsettled,
};

/// A connection to look through.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) connection: &'a Connection,
    pub(super) payloads: &'a Payloads,
}

impl Look<'_> {
    /// Several looks at one commit.
    pub(super) fn at_once<T>(self, look: impl FnOnce(&Connection) -> Outcome<T>) -> Outcome<T> {
        self.connection.prepare_cached("BEGIN")?.execute([])?;
        let result = look(self.connection);
        // Nothing was written, so nothing can be lost here.
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        result
    }

    pub(super) fn promise(self, id: PromiseId) -> Outcome<Option<Promise>> {
        Ok(by_name(self.connection, id)?.map(|(_, promise)| promise))
    }

    pub(super) fn find(self, session: SessionId, principal: &str, key: &str) -> Outcome<Option<Promise>> {
        let scope = (session.0.cast_signed(), principal, key);
        let found = one(self.connection, "session = ?1 AND principal = ?2 AND key = ?3", scope)?;
        Ok(found.map(|(_, promise)| promise))
    }

    pub(super) fn request(self, id: PromiseId) -> Outcome<Option<Json>> {
        let Some(name) = name(id) else { return Ok(None) };
        let sql = "SELECT id, request, request_checksum FROM promises \
                   WHERE session = ?1 AND execution = ?2 AND call = ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row(name, |row| Ok(request(row, 1))).optional()?.transpose()?.flatten())
    }

    pub(super) fn promises(self, filter: &Filter) -> Outcome<Vec<Promise>> {
        let Some((sql, values)) = query(filter) else { return Ok(Vec::new()) };
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut promises = Vec::new();
        while let Some(row) = rows.next()? {
            promises.push(promise(row)?.1);
        }
        Ok(promises)
    }

    pub(super) fn events(
        self,
        id: PromiseId,
        from: EventNumber,
        count_max: usize,
        bytes_max: usize,
    ) -> Outcome<Vec<Recorded>> {
        must_be_execution(id)?;
        let look = || {
            self.at_once(|connection| {
                let Some(name) = name(id) else { return Err(BridgeError::Unknown(id).into()) };
                let row = "SELECT id FROM promises WHERE session = ?1 AND execution = ?2 AND call = ?3";
                let row = connection.prepare_cached(row)?.query_row(name, |row| row.get(0)).optional()?;
                let row = row.ok_or(BridgeError::Unknown(id))?;
                events::read(connection, self.payloads, (id, row), from, count_max, bytes_max)
            })
        };
        match look() {
            // Its file may have been forgotten since this look at the database began: the next look says so.
            Err(Fault::Refused(BridgeError::Damaged { .. })) => look(),
            result => result,
        }
    }

    pub(super) fn sessions(self) -> Outcome<Vec<SessionRecord>> {
        Ok(Sessions::all(self.connection)?.into_iter().map(|session| session.record).collect())
    }

    pub(super) fn session(self, session: SessionId) -> Outcome<Option<SessionRecord>> {
        Ok(Sessions::one(self.connection, session)?.map(|session| session.record))
    }

    pub(super) fn unsettled(self, session: SessionId) -> Outcome<Vec<Unsettled>> {
        self.at_once(|connection| {
            let rest =
                ", request, request_checksum FROM promises WHERE session = ?1 AND state < 2 ORDER BY id";
            let mut statement = connection.prepare_cached(&["SELECT ", PROMISE_COLUMNS, rest].concat())?;
            let mut rows = statement.query([session.0.cast_signed()])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let request = request(row, PROMISE_COLUMNS.split(',').count())?;
                let (row, promise) = promise(row)?;
                // A call prints nothing.
                let (next_event, output) = match kind(promise.id) {
                    Kind::Execution => (next_event(connection, row)?, output(connection, row)?),
                    Kind::Call => (1, OutputState::default()),
                };
                found.push(Unsettled { promise, request, next_event, output });
            }
            Ok(found)
        })
    }

    pub(super) fn next_due(self) -> Outcome<Option<(PromiseId, Timestamp)>> {
        let sql = "SELECT deadline, session, execution, call FROM promises \
                   WHERE state < 2 AND deadline IS NOT NULL \
                   ORDER BY deadline, session, execution, call LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let due = |row: &Row<'_>| {
            let unsigned = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let call = unsigned(3)?;
            let id = PromiseId {
                session: SessionId(unsigned(1)?),
                execution: unsigned(2)?,
                call: (call != 0).then_some(call),
            };
            Ok((id, Timestamp::from_micros(row.get(0)?)))
        };
        Ok(statement.query_row([], due).optional()?)
    }

    pub(super) fn totals(self) -> Outcome<Totals> {
        self.at_once(|connection| {
            let sql = "SELECT count(*) FILTER (WHERE call = 0), count(*) FILTER (WHERE call > 0), min(created_at) \
                       FROM promises WHERE state < 2";
            let kept = "SELECT coalesce(sum(events), 0), coalesce(sum(event_bytes), 0), \
                        (SELECT coalesce(max(id), 0) FROM promises) FROM standings";
            let unsigned = |row: &Row<'_>, column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let totals = connection.prepare_cached(sql)?.query_row([], |row| {
                let (executions, calls) = (unsigned(row, 0)?, unsigned(row, 1)?);
                Ok(Totals { executions, calls, oldest_micros: row.get(2)?, ..Totals::default() })
            })?;
            Ok(connection.prepare_cached(kept)?.query_row([], |row| {
                let (events, event_bytes) = (unsigned(row, 0)?, unsigned(row, 1)?);
                // None is ever removed.
                Ok(Totals { events, event_bytes, promises: unsigned(row, 2)?, ..totals })
            })?)
        })
    }

    pub(super) fn history(self, count_max: usize) -> Outcome<Vec<(SessionId, Entry)>> {
        history::last(self.connection, None, count_max)
    }

    pub(super) fn history_of(self, session: SessionId, count_max: usize) -> Outcome<Vec<Entry>> {
        let entries = history::last(self.connection, Some(session), count_max)?;
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    pub(super) fn source_of(self, id: PromiseId) -> Outcome<Option<Entry>> {
        history::of_execution(self.connection, id)
    }

    pub(super) fn bundles(self, session: Option<SessionId>) -> Outcome<Vec<CheckpointView>> {
        bundles::list(self.connection, session)
    }

    pub(super) fn bundle(self, checkpoint: CheckpointId) -> Outcome<Option<SignedManifest>> {
        self.at_once(|connection| bundles::one(connection, checkpoint))
    }
}

/// The statement for a filter; none, when nothing can match.
fn query(filter: &Filter) -> Option<(String, Vec<Value>)> {
    let mut conditions = Vec::new();
    let mut values = Vec::new();
    if let Some(session) = filter.session {
        conditions.push("session = ?");
        values.push(Value::Integer(i64::try_from(session.0).ok()?));
    }
    if let Some(after) = filter.after {
        conditions.push("(session, execution, call) > (?, ?, ?)");
        let place = [after.session.0, after.execution, after.call.unwrap_or(0)];
        // Nothing that is stored is beyond the last number that can be.
        values.extend(place.map(|number| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))));
    }
    conditions.extend(filter.kind.map(|kind| if kind == Kind::Execution { "call = 0" } else { "call > 0" }));
    conditions
        .extend(filter.is_settled.map(|is_settled| if is_settled { "state >= 2" } else { "state < 2" }));
    let mut sql = ["SELECT ", PROMISE_COLUMNS, " FROM promises"].concat();
    if !conditions.is_empty() {
        sql = [&sql, " WHERE ", &conditions.join(" AND ")].concat();
    }
    sql.push_str(" ORDER BY session, execution, call");
    if filter.count_max > 0 {
        sql.push_str(" LIMIT ?");
        values.push(Value::Integer(i64::try_from(filter.count_max).unwrap_or(i64::MAX)));
    }
    Some((sql, values))
}

/// The request in this column and its checksum in the next; the first one is the number of the row.
fn request(row: &Row<'_>, column: usize) -> Outcome<Option<Json>> {
    let (number, checksum) = (row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(column + 1)?);
    let text = row.get::<_, Option<String>>(column)?;
    let damaged = || Fault::Damaged(format!("the request in row {number} of the promises"));
    if text.as_ref().map(|text| body_checksum(table::REQUESTS, &[number], text.as_bytes())) != checksum {
        return Err(damaged());
    }
    text.map(Json::parse).transpose().map_err(|_| damaged())
}

fn output(connection: &Connection, row: i64) -> Outcome<OutputState> {
    let mut statement = connection.prepare_cached("SELECT state, checksum FROM outputs WHERE id = ?1")?;
    let found = statement.query_row([row], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?)));
    let Some((state, checksum)) = found.optional()? else { return Ok(OutputState::default()) };
    let damaged = || Fault::Damaged(format!("row {row} of the outputs"));
    if body_checksum(table::OUTPUTS, &[row], &state) != checksum {
        return Err(damaged());
    }
    rmp_serde::from_slice(&state).map_err(|_| damaged())
}
