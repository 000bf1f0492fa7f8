//! The versions of the schema and the way from each to the next.
//!
//! A step that was released is never changed; the next one is added below it.

use rusqlite::Connection;

/// What makes a SQLite database one of cob's: "cob1" in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x636f_6231;

/// Step `n` leads from version `n` to version `n + 1`; version 0 is an empty database.
const STEPS: [&str; 4] = [
    include_str!("steps/1.sql"),
    include_str!("steps/2.sql"),
    include_str!("steps/3.sql"),
    include_str!("steps/4.sql"),
];

/// The version that this program reads and writes.
pub(super) const VERSION: i32 = STEPS.len() as i32;

/// Brings a database of an older version to version `to`, in the transaction that is open.
pub(super) fn migrate(connection: &Connection, from: i32, to: i32) -> rusqlite::Result<()> {
    let (from_step, to_step) = (from.max(0) as usize, to.max(0) as usize);
    for step in STEPS.iter().take(to_step).skip(from_step) {
        connection.execute_batch(step)?;
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", to)
}

/// Every object of a schema with the text that made it.
pub(super) fn objects(connection: &Connection) -> rusqlite::Result<Vec<(String, String, Option<String>)>> {
    let mut statement =
        connection.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

/// What [`objects`] finds in a sound database of `version`.
pub(super) fn expected(version: i32) -> rusqlite::Result<Vec<(String, String, Option<String>)>> {
    let connection = Connection::open_in_memory()?;
    migrate(&connection, 0, version)?;
    objects(&connection)
}
