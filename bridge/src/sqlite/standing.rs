//! Sessions: what they are, and where they stand.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;

use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::audit::Head;
use super::fault::{Fault, Outcome};
use super::rows::{body_checksum, micros, table};
use crate::checksum::Checksum;
use crate::store::{Custody, Progress, SessionRecord};

/// A session that this process has touched.
#[derive(Debug)]
pub(super) struct Session {
    row: i64,
    pub(super) record: SessionRecord,
    pub(super) kept: Kept,
    /// Whether its row in the database is older than this.
    pub(super) is_changed: bool,
}

/// How much there is of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) events: i64,
    pub(super) event_bytes: i64,
    pub(super) cells: i64,
    pub(super) cell_bytes: i64,
    /// The last row of the audit trail that is about it.
    pub(super) audit: Head,
}

impl Session {
    /// To be changed.
    pub(super) fn change(&mut self) -> &mut SessionRecord {
        self.is_changed = true;
        &mut self.record
    }

    /// To be changed.
    pub(super) fn change_kept(&mut self) -> &mut Kept {
        self.is_changed = true;
        &mut self.kept
    }
}

/// Sessions that this process has touched and that are not closed.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    known: HashMap<SessionId, Session>,
    /// Those that this transaction has asked for: it costs nothing that there are others.
    asked_for: Vec<SessionId>,
}

const READ: &str = "SELECT id, session, about, created_at, sessions.checksum, closed_at, socket, secret, frames, stdout, \
                    stderr, count, executions, events, event_bytes, cells, cell_bytes, audit, audit_hash, checkpoints, standings.checksum \
                    FROM sessions JOIN standings USING (id)";
const INSERT: &str =
    "INSERT INTO sessions (id, session, about, created_at, checksum) VALUES (?1, ?2, ?3, ?4, ?5)";
const WRITE: &str = "INSERT INTO standings (id, closed_at, socket, secret, frames, stdout, stderr, count, executions, \
                     events, event_bytes, cells, cell_bytes, audit, audit_hash, checkpoints, checksum) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17) \
                     ON CONFLICT (id) DO UPDATE SET closed_at = ?2, socket = ?3, secret = ?4, frames = ?5, \
                     stdout = ?6, stderr = ?7, count = ?8, executions = ?9, events = ?10, event_bytes = ?11, \
                     cells = ?12, cell_bytes = ?13, audit = ?14, audit_hash = ?15, \
                     checkpoints = ?16, checksum = ?17";

impl Sessions {
    /// The session, if there ever was one with this number.
    pub(super) fn get(
        &mut self,
        connection: &Connection,
        session: SessionId,
    ) -> Outcome<Option<&mut Session>> {
        if self.asked_for.last() != Some(&session) {
            self.asked_for.push(session);
        }
        match self.known.entry(session) {
            MapEntry::Occupied(known) => Ok(Some(known.into_mut())),
            MapEntry::Vacant(place) => Ok(Self::one(connection, session)?.map(|found| place.insert(found))),
        }
    }

    /// The session as the database has it.
    pub(super) fn one(connection: &Connection, session: SessionId) -> Outcome<Option<Session>> {
        let mut statement = connection.prepare_cached(&sql(" WHERE session = ?1"))?;
        let number = session.0.cast_signed();
        statement.query_row([number], |row| Ok(read(row))).optional()?.transpose()
    }

    /// Writes a new session down.
    pub(super) fn open(
        &mut self,
        connection: &Connection,
        session: SessionId,
        about: &Json,
        now: Timestamp,
    ) -> Outcome<()> {
        let next = "SELECT coalesce(max(id), 0) + 1 FROM sessions";
        let row: i64 = connection.prepare_cached(next)?.query_row([], |row| row.get(0))?;
        let record = SessionRecord::new(session, about.clone(), now);
        let number = session.0.cast_signed();
        let checksum = session_checksum(row, &record);
        connection.prepare_cached(INSERT)?.execute(params![
            row,
            number,
            about.as_str(),
            now.micros(),
            checksum
        ])?;
        let session_state = Session { row, record, kept: Kept::default(), is_changed: true };
        self.known.insert(session, session_state);
        self.asked_for.push(session);
        Ok(())
    }

    /// Writes down whatever changed.
    pub(super) fn flush(&mut self, connection: &Connection) -> Outcome<()> {
        for number in self.asked_for.drain(..) {
            let MapEntry::Occupied(mut known) = self.known.entry(number) else { continue };
            let session = known.get_mut();
            if std::mem::take(&mut session.is_changed) {
                session.write(connection)?;
            }
            if session.record.closed_at.is_some() {
                // Most likely nobody asks for it again.
                known.remove();
            }
        }
        Ok(())
    }

    /// Every session as the database has it.
    pub(super) fn all(connection: &Connection) -> Outcome<Vec<Session>> {
        let mut statement = connection.prepare_cached(&sql(" ORDER BY id"))?;
        let mut rows = statement.query([])?;
        let mut sessions = Vec::new();
        while let Some(row) = rows.next()? {
            sessions.push(read(row)?);
        }
        Ok(sessions)
    }
}

fn sql(tail: &str) -> String {
    [READ, tail].concat()
}

impl Session {
    fn write(&self, connection: &Connection) -> Outcome<()> {
        let SessionRecord { closed_at, custody, progress, count, executions, .. } = &self.record;
        connection.prepare_cached(WRITE)?.execute(params![
            self.row,
            closed_at.map(Timestamp::micros),
            custody.as_ref().map(|custody| custody.socket.as_str()),
            custody.as_ref().map(|custody| custody.secret.as_str()),
            progress.frames.cast_signed(),
            progress.stdout.cast_signed(),
            progress.stderr.cast_signed(),
            count,
            executions.cast_signed(),
            self.kept.events,
            self.kept.event_bytes,
            self.kept.cells,
            self.kept.cell_bytes,
            self.kept.audit.seq,
            (self.kept.audit.seq > 0).then_some(self.kept.audit.hash.as_slice()),
            self.record.checkpoints.cast_signed(),
            self.checksum()
        ])?;
        Ok(())
    }

    pub(super) fn checksum(&self) -> i64 {
        let SessionRecord { closed_at, custody, progress, count, executions, .. } = &self.record;
        let Kept { events, event_bytes, cells, cell_bytes, audit } = &self.kept;
        let sum = Checksum::of(4)
            .int(self.row)
            .optional(*closed_at, |sum, time| sum.int(time.micros()))
            .optional(custody.as_ref(), |sum, custody| {
                sum.bytes(custody.socket.as_bytes()).bytes(custody.secret.as_bytes())
            })
            .int(progress.frames.cast_signed())
            .int(progress.stdout.cast_signed())
            .int(progress.stderr.cast_signed())
            .int(i64::from(*count))
            .int(executions.cast_signed())
            .int(*events)
            .int(*event_bytes)
            .int(*cells)
            .int(*cell_bytes);
        // Version 1 knew of no trail, and its checksums stay good.
        let sum = if audit.seq > 0 { sum.int(audit.seq).bytes(&audit.hash) } else { sum };
        // Nor did version 3 know of checkpoints.
        let checkpoints = self.record.checkpoints;
        let sum = if checkpoints > 0 { sum.int(checkpoints.cast_signed()) } else { sum };
        sum.finish()
    }
}

fn session_checksum(row: i64, record: &SessionRecord) -> i64 {
    let numbers = [row, record.session.0.cast_signed(), record.created_at.micros()];
    body_checksum(table::SESSIONS, &numbers, record.about.as_str().as_bytes())
}

fn read(row: &Row<'_>) -> Outcome<Session> {
    let unsigned = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let session = SessionId(unsigned(1)?);
    let damaged = || Fault::Damaged(format!("the record of session {session}"));
    let custody = match (row.get(6)?, row.get(7)?) {
        (Some(socket), Some(secret)) => Some(Custody { socket, secret }),
        _ => None,
    };
    let record = SessionRecord {
        session,
        about: Json::parse(row.get::<_, String>(2)?).map_err(|_| damaged())?,
        created_at: Timestamp::from_micros(row.get(3)?),
        closed_at: micros(row, 5)?,
        custody,
        progress: Progress { frames: unsigned(8)?, stdout: unsigned(9)?, stderr: unsigned(10)? },
        count: row.get(11)?,
        executions: unsigned(12)?,
        checkpoints: unsigned(19)?,
    };
    let kept = Kept {
        events: row.get(13)?,
        event_bytes: row.get(14)?,
        cells: row.get(15)?,
        cell_bytes: row.get(16)?,
        audit: Head { seq: row.get(17)?, hash: row.get::<_, Option<[u8; 32]>>(18)?.unwrap_or_default() },
    };
    let session = Session { row: row.get(0)?, record, kept, is_changed: false };
    let checksums: (i64, i64) = (row.get(4)?, row.get(20)?);
    if checksums != (session_checksum(session.row, &session.record), session.checksum()) {
        return Err(damaged());
    }
    Ok(session)
}
