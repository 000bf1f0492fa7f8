//! The history of inputs as rows; bounded like the one in memory.

use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::limits::{HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::{Fault, Outcome};
use super::rows::name;
use super::writing::Remembered;
use crate::checksum::Checksum;
use crate::history::Entry;

const INSERT: &str = "INSERT INTO history (id, session, execution, line, source, output, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const NEXT: &str = "SELECT coalesce(max(id), 0) + 1 FROM history";
const FIND: &str = "SELECT id, execution, source, coalesce(octet_length(output), 0) FROM history \
                    WHERE session = ?1 AND line = ?2 ORDER BY id DESC LIMIT 1";
const ANSWER: &str = "UPDATE history SET output = ?2, checksum = ?3 WHERE id = ?1";
const OLDEST: &str = "DELETE FROM history WHERE id = (SELECT min(id) FROM history) \
                      RETURNING session, octet_length(source) + coalesce(octet_length(output), 0)";
const COLUMNS: &str = "id, session, execution, line, source, output, checksum";

pub(super) fn input(
    connection: &Connection,
    remembered: &mut Remembered,
    (session, execution): (SessionId, u64),
    line: u32,
    source: &str,
) -> Outcome<()> {
    let id: i64 = connection.prepare_cached(NEXT)?.query_row([], |row| row.get(0))?;
    let of = (session, execution);
    let checksum = checksum(id, of, line, source, None);
    let (session_number, execution) = (session.0.cast_signed(), execution.cast_signed());
    let output = None::<&str>;
    let values = params![id, session_number, execution, line, source, output, checksum];
    connection.prepare_cached(INSERT)?.execute(values)?;
    count(connection, remembered, session, Cells { cells: 1, bytes: source.len() as i64 })?;
    forget_oldest(connection, remembered)
}

/// The result of the last cell with this line, if it is still there.
pub(super) fn output(
    connection: &Connection,
    remembered: &mut Remembered,
    session: SessionId,
    line: u32,
    text: &str,
) -> Outcome<()> {
    let found = connection
        .prepare_cached(FIND)?
        .query_row(params![session.0.cast_signed(), line], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?, row.get::<_, i64>(3)?))
        })
        .optional()?;
    let Some((id, execution, source, before)) = found else { return Ok(()) };
    let checksum = checksum(id, (session, execution.cast_unsigned()), line, &source, Some(text));
    connection.prepare_cached(ANSWER)?.execute(params![id, text, checksum])?;
    count(connection, remembered, session, Cells { cells: 0, bytes: text.len() as i64 - before })?;
    forget_oldest(connection, remembered)
}

/// Counts of cells and of their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cells {
    cells: i64,
    bytes: i64,
}

impl Cells {
    pub(super) fn read(connection: &Connection) -> Outcome<Self> {
        let sql = "SELECT coalesce(sum(cells), 0), coalesce(sum(cell_bytes), 0) FROM standings";
        let cells = |row: &Row<'_>| Ok(Self { cells: row.get(0)?, bytes: row.get(1)? });
        Ok(connection.prepare_cached(sql)?.query_row([], cells)?)
    }
}

/// Counts so many more, in the session and in all.
fn count(
    connection: &Connection,
    remembered: &mut Remembered,
    session: SessionId,
    more: Cells,
) -> Outcome<()> {
    remembered.cells.cells += more.cells;
    remembered.cells.bytes += more.bytes;
    if let Some(session) = remembered.sessions.get(connection, session)? {
        let kept = session.change_kept();
        kept.cells += more.cells;
        kept.cell_bytes += more.bytes;
    }
    Ok(())
}

fn forget_oldest(connection: &Connection, remembered: &mut Remembered) -> Outcome<()> {
    while remembered.cells.cells > HISTORY_ENTRIES_MAX as i64
        || (remembered.cells.bytes > HISTORY_BYTES_MAX as i64 && remembered.cells.cells > 1)
    {
        let forgotten = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let forgotten = connection.prepare_cached(OLDEST)?.query_row([], forgotten).optional()?;
        let Some((session, bytes)) = forgotten else {
            return Err(Fault::Damaged("the history has fewer cells than were counted".to_owned()));
        };
        let session = SessionId(session.cast_unsigned());
        count(connection, remembered, session, Cells { cells: -1, bytes: -bytes })?;
    }
    Ok(())
}

/// The last cells, of one session or of all, oldest first.
pub(super) fn last(
    connection: &Connection,
    session: Option<SessionId>,
    count_max: usize,
) -> Outcome<Vec<(SessionId, Entry)>> {
    let count_max = i64::try_from(count_max).unwrap_or(i64::MAX);
    let mut entries = match session {
        None => read(connection, "ORDER BY id DESC LIMIT ?1", [count_max])?,
        Some(session) => {
            let rest = "WHERE session = ?1 ORDER BY id DESC LIMIT ?2";
            read(connection, rest, [session.0.cast_signed(), count_max])?
        }
    };
    entries.reverse();
    Ok(entries)
}

/// The cell of an execution, if there is one and it is still there.
pub(super) fn of_execution(connection: &Connection, id: PromiseId) -> Outcome<Option<Entry>> {
    let Some((session, execution, 0)) = name(id) else { return Ok(None) };
    let rest = "WHERE session = ?1 AND execution = ?2 AND execution > 0 ORDER BY id DESC LIMIT 1";
    Ok(read(connection, rest, [session, execution])?.pop().map(|(_, entry)| entry))
}

fn read(
    connection: &Connection,
    rest: &str,
    values: impl rusqlite::Params,
) -> Outcome<Vec<(SessionId, Entry)>> {
    let mut statement = connection.prepare_cached(&["SELECT ", COLUMNS, " FROM history ", rest].concat())?;
    let mut rows = statement.query(values)?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let unsigned = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let of = (SessionId(unsigned(1)?), unsigned(2)?);
        let entry = Entry { line: row.get(3)?, source: row.get(4)?, output: row.get(5)? };
        let output = entry.output.as_deref();
        if checksum(row.get(0)?, of, entry.line, &entry.source, output) != row.get::<_, i64>(6)? {
            return Err(Fault::Damaged(format!("line {} of the history of {}", entry.line, of.0)));
        }
        entries.push((of.0, entry));
    }
    Ok(entries)
}

pub(super) fn checksum(
    id: i64,
    (session, execution): (SessionId, u64),
    line: u32,
    source: &str,
    output: Option<&str>,
) -> i64 {
    let sum = Checksum::of(9)
        .int(id)
        .int(session.0.cast_signed())
        .int(i64::from(line))
        .bytes(source.as_bytes())
        .optional(output, |sum, text| sum.bytes(text.as_bytes()));
    // Version 2 knew of no execution, and its checksums stay good.
    let sum = if execution > 0 { sum.int(execution.cast_signed()) } else { sum };
    sum.finish()
}
