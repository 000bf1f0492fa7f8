//! The log of the store when others write to it, and when the disk refuses.

use std::ffi::c_int;
use std::time::Duration;

use super::*;
use crate::sqlite::log_writes::tests::{ROOM, SYNC_FAILS};

/// Another program that writes to the database of a store, as nobody should.
fn stranger(folder: &Path) -> Connection {
    let connection = Connection::open(folder.join("cob.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection
}

#[test]
fn what_a_large_transaction_wrote_before_it_was_undone_never_comes_out_later() {
    let folder = in_memory();
    let mut store = open(folder.path());
    write(&mut store, open_session());
    let id = create(&mut store, "k");
    store.connection.execute_batch("PRAGMA cache_size = 4").unwrap();
    let undone = "BEGIN IMMEDIATE; CREATE TABLE t (x); \
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12) \
        INSERT INTO t SELECT hex(zeroblob(1900)) FROM n; ROLLBACK";
    store.connection.execute_batch(undone).unwrap();
    let stranger = stranger(folder.path());
    let change = "CREATE TABLE u (x); \
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) \
        INSERT INTO u SELECT hex(randomblob(1900)) FROM n";
    stranger.execute_batch(change).unwrap();
    // The first thing that the store does to the log is a look.
    store.connection.execute_batch("PRAGMA shrink_memory").unwrap();
    assert_eq!(store.events(id, 1, 9, 9999).unwrap(), []);
    write(&mut store, append(id, 1, "a"));
    let whole: String = stranger.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    drop((stranger, store));
    let connection = Connection::open(folder.path().join("cob.db")).unwrap();
    let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    let count: i64 = connection.query_row("SELECT count(DISTINCT x) FROM u", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 40);
}

#[test]
fn a_commit_that_could_not_wait_for_the_disk_after_all_is_not_tried_again() {
    let folder = in_memory();
    let mut store = open(folder.path());
    write(&mut store, open_session());
    let id = create(&mut store, "k");
    // The next commit begins the log anew, and waits until its head is on the disk.
    stranger(folder.path()).query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    assert!((1..WAL_BYTES_MAX).contains(&store.wal_bytes()));
    SYNC_FAILS.set(true);
    let outcome = store.commit_now(&group(vec![append(id, 1, "a")]), 50);
    SYNC_FAILS.set(false);
    assert!(matches!(outcome, Err(StoreError::Unsynced { .. })), "{outcome:?}");
}

/// Everything that can be read, and that the database is sound.
fn sound(folder: &Path) -> Snapshot {
    let snapshot = Snapshot::of(&mut SqliteReader::open(folder).unwrap()).unwrap();
    SqliteReader::open(folder).unwrap().verify().unwrap();
    snapshot
}

#[test]
fn a_commit_whose_write_ends_anywhere_is_refused_whole_and_the_next_is_recorded() {
    let commit = |store: &mut SqliteStore, number: u64| {
        let id = PromiseId::execution(SESSION, 1);
        let writes = vec![append(id, number, &"y".repeat(9_000)), append(id, number + 1, "z")];
        store.commit(&[group(writes)])
    };
    let mut seen = Vec::new();
    for code in [rusqlite::ffi::SQLITE_FULL, rusqlite::ffi::SQLITE_IOERR_WRITE] {
        for is_log_new in [false, true] {
            // In the head of the log or of a frame, between two frames, within a page, and behind the last.
            for room in [0, 20, 32, 40, 4_120, 4_152, 4_200, 12_400, 18_000, 1 << 20] {
                let folder = in_memory();
                let mut store = open(folder.path());
                write(&mut store, open_session());
                create(&mut store, "k");
                // What comes next lies over this.
                commit(&mut store, 1).unwrap();
                if is_log_new {
                    assert!(store.checkpoint().unwrap());
                }
                let before = sound(folder.path());
                ROOM.set(Some((room, code)));
                let outcome = commit(&mut store, 3);
                ROOM.set(None);
                seen.push(outcome.is_ok());
                match outcome {
                    Ok(_) => assert_ne!(sound(folder.path()), before),
                    Err(error) => {
                        assert_eq!(
                            matches!(error, StoreError::Full { .. }),
                            code == rusqlite::ffi::SQLITE_FULL
                        );
                        assert_eq!(sound(folder.path()), before);
                        // As a server finds it that comes after one that was killed just now.
                        let copy = in_memory();
                        for name in ["cob.db", "cob.db-wal"] {
                            fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
                        }
                        let mut found = open(copy.path());
                        assert_eq!(Snapshot::of(&mut found).unwrap(), before);
                        commit(&mut found, 3).unwrap();
                        commit(&mut store, 3).unwrap();
                        assert_eq!(Snapshot::of(&mut found).unwrap(), sound(folder.path()));
                    }
                }
            }
        }
    }
    assert!(seen.contains(&true) && seen.contains(&false));
}

#[test]
fn whatever_is_refused_in_whatever_order_what_was_recorded_is_there() {
    let (folder, mut oracle) = (in_memory(), MemoryStore::oracle(usize::MAX));
    let mut store = open(folder.path());
    let mut seed = 7_u64;
    let mut random = |end: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % end
    };
    for both in [open_session(), request("k")] {
        write(&mut oracle, both.clone());
        write(&mut store, both);
    }
    let (mut next, mut refused) = (1, 0);
    for step in 0..600 {
        let id = PromiseId::execution(SESSION, 1);
        let count = 1 + random(3);
        let writes =
            (next..next + count).map(|number| append(id, number, &"x".repeat(random(20_000) as usize)));
        let groups = [group(writes.collect())];
        if random(3) == 0 {
            ROOM.set(Some((random(60_000) as c_int, rusqlite::ffi::SQLITE_FULL)));
        }
        let is_now = random(2) == 0;
        let is_recorded = match is_now {
            true => store.commit_now(&groups[0], 50).unwrap().is_some(),
            false => store.commit(&groups).is_ok(),
        };
        refused += usize::from(ROOM.replace(None).is_some() && !is_recorded);
        if is_recorded {
            oracle.commit(&groups).unwrap();
            next += count;
        }
        match random(40) {
            0 => assert!(store.checkpoint().is_ok()),
            1 => {
                drop(store);
                store = open(folder.path());
            }
            _ => {}
        }
        if step % 60 == 59 {
            assert_eq!(sound(folder.path()), Snapshot::of(&mut oracle).unwrap());
        }
    }
    assert!(refused > 50, "{refused}");
}
