//! The layer by itself.

use std::cell::Cell;
use std::ffi::c_int;

use rusqlite::{Connection, OpenFlags};

use super::{NO_SPILL, register};

thread_local! {
    /// The log of whatever this thread has open cannot be synchronised.
    pub(in crate::sqlite) static SYNC_FAILS: Cell<bool> = const { Cell::new(false) };
    /// How often this thread has written to logs.
    static WRITES: Cell<u32> = const { Cell::new(0) };
    /// Bytes that this thread may still write to logs, and how the system refuses the rest.
    pub(in crate::sqlite) static ROOM: Cell<Option<(c_int, c_int)>> = const { Cell::new(None) };
}

/// How much of a write there is room for, and the refusal, if there is not room for all of it.
pub(super) fn refusal(count: c_int) -> Option<(c_int, c_int)> {
    WRITES.set(WRITES.get() + 1);
    let (room, code) = ROOM.get()?;
    ROOM.set(Some((room - count.min(room), code)));
    (count > room).then_some((room, code))
}

#[test]
fn commits_rollbacks_and_spills_in_any_order_leave_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let open = || Connection::open_with_flags_and_vfs(&path, flags, register().unwrap()).unwrap();
    let mut writer = open();
    // So small that pages are written to the log before the commit, and again after they changed.
    let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = 4; \
                    PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)";
    writer.execute_batch(settings).unwrap();
    let reader = Connection::open(&path).unwrap();
    let mut seed = 1_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let count = "SELECT count(*), coalesce(sum(length(text)), 0) FROM t";
    let of = |connection: &Connection| -> (i64, i64) {
        connection.query_row(count, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    for step in 0..80 {
        let before = of(&reader);
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..=random(if step % 5 == 0 { 300 } else { 5 }) {
            let (id, size) = (random(2000) as i64, random(3000) as i64);
            let change = "INSERT OR REPLACE INTO t VALUES (?1, hex(zeroblob(?2)))";
            writer.execute(change, (id, size)).unwrap();
            if random(10) == 0 {
                writer.execute_batch("SAVEPOINT s; DELETE FROM t WHERE id % 7 = 0; ROLLBACK TO s").unwrap();
            }
        }
        let (inside, is_kept) = (of(&writer), random(3) > 0);
        assert_eq!(of(&reader), before, "what is not committed is not seen");
        writer.execute_batch(if is_kept { "COMMIT" } else { "ROLLBACK" }).unwrap();
        assert_eq!(of(&reader), if is_kept { inside } else { before });
        match random(20) {
            0 => writer.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap(),
            1 => writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap(),
            2 => {
                writer = open();
                writer
                    .execute_batch(
                        "PRAGMA synchronous = NORMAL; PRAGMA cache_size = 4; PRAGMA wal_autocheckpoint = 0",
                    )
                    .unwrap();
            }
            _ => {}
        }
        if step % 20 == 0 {
            let whole: String = reader.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(whole, "ok");
        }
    }
}

#[test]
fn a_commit_is_one_write_and_a_long_one_few() {
    let folder = tempfile::tempdir().unwrap();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let path = folder.path().join("db");
    let connection = Connection::open_with_flags_and_vfs(path, flags, register().unwrap()).unwrap();
    let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE t (x)";
    connection.execute_batch(&format!("{NO_SPILL}; {settings}")).unwrap();
    let writes_of = |bytes: i64| {
        let before = WRITES.get();
        connection.execute("INSERT INTO t VALUES (zeroblob(?1))", [bytes]).unwrap();
        WRITES.get() - before
    };
    assert_eq!(writes_of(10), 1);
    assert_eq!(writes_of(40_000), 1);
    // Of half a megabyte.
    assert_eq!(writes_of(1 << 19), 9);
}
