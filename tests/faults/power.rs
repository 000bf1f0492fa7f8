//! The power goes: what was acknowledged as safe is there afterwards. First the instrument by itself, over plain
//! SQLite; then the store.

use std::ops::Range;
use std::path::Path;

use cob_tests::durable::memory_folder;
use cob_tests::seed::Seed;
use cob_tests::vfs::{Call, Disk, Failure, Fault};
use rusqlite::{Connection, OpenFlags};

fn connect(disk: &Disk, path: &Path, synchronous: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), disk.name())?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    // So few that checkpoints happen all the time.
    connection.pragma_update(None, "wal_autocheckpoint", 8)?;
    Ok(connection)
}

/// Commits numbered rows until something fails; gives back the number of the last one that was acknowledged.
fn commit_rows(connection: &Connection, seed: &mut Seed, acknowledged: &mut i64) -> rusqlite::Result<()> {
    connection.execute_batch("create table if not exists rows (number integer primary key, bytes blob)")?;
    for number in *acknowledged + 1..*acknowledged + 30 {
        connection.execute("insert into rows values (?1, ?2)", (number, vec![0x55; seed.below(6000)]))?;
        *acknowledged = number;
    }
    Ok(())
}

/// How many rows there are, from 1 without a gap; `None` when the database is damaged.
fn rows(connection: &Connection) -> Option<i64> {
    let check: String = connection.query_row("pragma integrity_check", [], |row| row.get(0)).ok()?;
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get(0)).unwrap_or(0);
    let (rows, last) = (count("select count(*) from rows"), count("select max(number) from rows"));
    (check == "ok" && rows == last).then_some(rows)
}

/// What became of acknowledged commits when the power went again and again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Toll {
    cuts: usize,
    lost: usize,
    damaged: usize,
}

/// Four threads, each with databases of its own.
fn toll(synchronous: &str, lives: u64, kill: bool) -> Toll {
    let quarter = |nth| lives / 4 * nth..lives / 4 * (nth + 1);
    std::thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|nth| scope.spawn(move || toll_of(quarter(nth), synchronous, kill)));
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(Toll::default(), |sum, toll| Toll {
            cuts: sum.cuts + toll.cuts,
            lost: sum.lost + toll.lost,
            damaged: sum.damaged + toll.damaged,
        })
    })
}

fn toll_of(lives: Range<u64>, synchronous: &str, kill: bool) -> Toll {
    let disk = Disk::new();
    let mut toll = Toll::default();
    let mut life = lives.start;
    while life < lives.end {
        let folder = memory_folder();
        let path = folder.path().join("rows.db");
        let mut acknowledged = 0;
        // Several lives of one database, so that recovery too is cut.
        for _ in 0..4 {
            life += 1;
            let mut seed = Seed::new(life);
            disk.lose_power_at(1 + seed.number() % 180);
            let connection = connect(&disk, &path, synchronous);
            if let Ok(connection) = &connection {
                // It may fail anywhere, or come to its end.
                let _ = commit_rows(connection, &mut seed, &mut acknowledged);
            }
            if kill {
                disk.kill()
            } else {
                disk.cut(life)
            }
            drop(connection);
            disk.power_on();
            toll.cuts += 1;
            let connection = connect(&disk, &path, "full");
            let found = connection.as_ref().ok().and_then(|connection| {
                connection
                    .execute_batch("create table if not exists rows (number integer primary key, bytes blob)")
                    .ok()?;
                rows(connection)
            });
            match found {
                None => {
                    toll.damaged += 1;
                    break;
                }
                Some(found) => {
                    toll.lost += usize::from(found < acknowledged);
                    acknowledged = found;
                }
            }
        }
        disk.kill();
        disk.power_on();
    }
    toll
}

#[test]
fn d11_a_synchronised_commit_survives_a_thousand_power_cuts() {
    let toll = toll("full", 1000, false);
    assert_eq!(toll, Toll { cuts: toll.cuts, lost: 0, damaged: 0 });
}

#[test]
fn d11_the_instrument_sees_commits_that_were_not_synchronised_and_order_that_was_not_kept() {
    let normal = toll("normal", 200, false);
    assert!(normal.lost > 20 && normal.damaged == 0, "{normal:?}");
    let off = toll("off", 200, false);
    assert!(off.lost > 20 && off.damaged > 0, "{off:?}");
}

#[test]
fn d11_the_death_of_a_process_loses_nothing_however_little_was_synchronised() {
    for synchronous in ["off", "normal", "full"] {
        let toll = toll(synchronous, 100, true);
        assert_eq!(toll, Toll { cuts: toll.cuts, lost: 0, damaged: 0 }, "{synchronous}");
    }
}

#[test]
fn d02_a_commit_on_a_disk_that_fails_at_any_call_is_there_or_refused() {
    for failure in [Failure::Eio, Failure::Enospc, Failure::Short] {
        for call in [Call::Write, Call::Sync, Call::Read] {
            for nth in 1.. {
                let disk = Disk::new();
                let folder = memory_folder();
                let path = folder.path().join("rows.db");
                disk.fail(Fault { call, nth, failure, lasting: false });
                let mut acknowledged = 0;
                let outcome = connect(&disk, &path, "full").and_then(|connection| {
                    connection.execute_batch("create table rows (number integer primary key, bytes blob)")?;
                    for number in 1..4 {
                        connection.execute("insert into rows values (?1, zeroblob(9000))", [number])?;
                        acknowledged = number;
                    }
                    Ok(())
                });
                let is_met = disk.count(call) >= nth;
                disk.fail(None);
                let connection = connect(&disk, &path, "full").unwrap();
                connection
                    .execute_batch("create table if not exists rows (number integer primary key, bytes blob)")
                    .unwrap();
                let found = rows(&connection).unwrap();
                // What was refused may be there: the sync failed, but what it should have covered was written.
                assert!(
                    (acknowledged..=acknowledged + 1).contains(&found),
                    "{call:?} {nth} {failure:?}: {found} of {acknowledged}"
                );
                drop(connection);
                if !is_met {
                    outcome.unwrap();
                    break;
                }
            }
        }
    }
}
