//! Whether what is stored is what was written.

use cob_protocol::limits::CHECKED_WHOLE_BYTES_MAX;
use cob_protocol::promise::Kind;
use rusqlite::Connection;

use super::bundles;
use super::fault::{Fault, Outcome};
use super::reading::Look;
use super::standing::{Session, Sessions};
use crate::chunks::Chunks;
use crate::rules::kind;
use crate::store::{BridgeError, Filter};

/// What every promise rests on. Events are the bulk, and each has its checksum.
const TABLES: [&str; 5] = ["sessions", "standings", "outputs", "promises", "bundles"];

/// What is looked at before a store is used: all of a small one; of a large one the tables of promises, whose indexes
/// decide whether a key has run before.
pub(super) fn at_start(look: Look<'_>) -> Outcome<()> {
    let connection = look.connection;
    let bytes: i64 = connection.query_row(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
        [],
        |row| row.get(0),
    )?;
    if bytes.cast_unsigned() <= CHECKED_WHOLE_BYTES_MAX {
        integrity(connection, "PRAGMA integrity_check(1)")?;
        return count(connection);
    }
    TABLES.iter().try_for_each(|table| integrity(connection, &format!("PRAGMA integrity_check({table})")))
}

/// Everything.
pub(super) fn whole(look: Look<'_>, chunks: &Chunks) -> Outcome<()> {
    let connection = look.connection;
    integrity(connection, "PRAGMA integrity_check(1)")?;
    count(connection)?;
    for session in look.sessions()? {
        look.unsettled(session.session)?;
    }
    look.history(usize::MAX)?;
    bundles::check(connection, chunks)?;
    let mut page = Filter { count_max: 256, ..Filter::default() };
    loop {
        let promises = look.promises(&page)?;
        let Some(last) = promises.last() else { return Ok(()) };
        page.after = Some(last.id);
        for promise in promises.iter().filter(|promise| kind(promise.id) == Kind::Execution) {
            journal(look, promise.id)?;
        }
    }
}

fn journal(look: Look<'_>, id: cob_protocol::ids::PromiseId) -> Outcome<()> {
    let mut from = 1;
    loop {
        match look.events(id, from, 256, 1 << 20) {
            Ok(events) => match events.last() {
                Some(last) => from = last.number + 1,
                None => return Ok(()),
            },
            Err(Fault::Refused(BridgeError::Forgotten { first, .. })) => from = first,
            Err(Fault::Refused(error)) => return Err(Fault::Damaged(error.to_string())),
            Err(fault) => return Err(fault),
        }
    }
}

fn integrity(connection: &Connection, pragma: &str) -> Outcome<()> {
    let found: String = connection.query_row(pragma, [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(Fault::Damaged(found)) }
}

/// Rows that vanished without a trace in the tree are missed here.
fn count(connection: &Connection) -> Outcome<()> {
    // One state of all of it: its server may be writing.
    let _state = connection.unchecked_transaction()?;
    let sessions = Sessions::all(connection)?;
    let sql = "SELECT (SELECT count(*) FROM promises), (SELECT coalesce(max(id), 0) FROM promises), \
               (SELECT count(*) FROM promises WHERE call = 0), (SELECT count(*) FROM events), \
               (SELECT coalesce(sum(bytes), 0) FROM events), (SELECT count(*) FROM history)";
    let [promises, last, executions, events, event_bytes, cells] = connection.query_row(sql, [], |row| {
        Ok::<[i64; 6], _>([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?])
    })?;
    let sum = |of: fn(&Session) -> i64| sessions.iter().map(of).sum::<i64>();
    let counted = [
        sum(|session| session.record.executions.cast_signed()),
        sum(|session| session.kept.events),
        sum(|session| session.kept.event_bytes),
        sum(|session| session.kept.cells),
    ];
    if promises == last && [executions, events, event_bytes, cells] == counted {
        return Ok(());
    }
    Err(Fault::Damaged("it has other numbers of rows than were counted".to_owned()))
}
