//! Who is refused, and in which words; what damage is noticed.

use std::os::unix::fs::{PermissionsExt, chown};

use rusqlite::config::DbConfig;
use rustix::process::geteuid;
use rustix::thread::{set_thread_gid, set_thread_uid};

use super::*;

#[track_caller]
fn refused(folder: &Path) -> OpenError {
    let before = fs::read(folder.join("cob.db")).ok();
    let error = SqliteStore::open(&options(folder)).unwrap_err();
    assert!(fs::read(folder.join("cob.db")).ok() == before, "it was changed: {error}");
    error
}

#[test]
fn s10_a_second_server_is_refused_and_told_who_the_first_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    let error = refused(folder.path());
    assert!(matches!(error, OpenError::Locked { pid, .. } if pid == Some(std::process::id())), "{error}");
    let pid = format!("process {}", std::process::id());
    assert!(error.to_string().starts_with("store_locked") && error.to_string().contains(&pid), "{error}");
    write(&mut store, open_session());
    drop(store);
    open(folder.path());
}

#[test]
fn what_is_no_store_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("cob.db");
    for content in ["", "SQLite", "Dear diary, ".repeat(1000).as_str()] {
        fs::write(&database, content).unwrap();
        let error = refused(folder.path());
        assert!(matches!(error, OpenError::Foreign { .. }), "{content}: {error}");
        assert!(error.to_string().contains("cob.db is no store of cob"), "{error}");
        assert!(matches!(SqliteReader::open(folder.path()), Err(OpenError::Foreign { .. })));
    }
    fs::remove_file(&database).unwrap();
    Connection::open(&database).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    assert!(matches!(SqliteStore::open(&options(folder.path())), Err(OpenError::Foreign { .. })));
    let error = SqliteStore::open(&options(&database)).unwrap_err();
    assert!(error.to_string().contains("no folder"), "{error}");
}

#[test]
fn a_store_that_is_gone_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let error = SqliteReader::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    furnished(folder.path());
    fs::remove_file(folder.path().join("cob.db")).unwrap();
    let error = refused(folder.path());
    assert!(error.to_string().contains("it is missing, and payloads beside it is not"), "{error}");
}

#[test]
fn making_a_store_may_be_cut_short_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    for left in ["unfinished.db", "unfinished.db-wal", "unfinished.db-journal"] {
        fs::write(folder.path().join(left), "half").unwrap();
    }
    write(&mut open(folder.path()), open_session());
    assert!(!folder.path().join("unfinished.db").exists());
}

/// Does something as somebody without any rights but those of `folder`'s owner; only root can become that.
fn as_nobody<T: Send>(folder: &Path, work: impl FnOnce() -> T + Send) -> T {
    const NOBODY: u32 = 65534;
    if !geteuid().is_root() {
        return work();
    }
    for path in [folder.to_owned(), folder.join("cob.db"), folder.join("lock")] {
        let _ = chown(path, Some(NOBODY), Some(NOBODY));
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Only of this thread, which ends with the test.
            set_thread_gid(rustix::fs::Gid::from_raw(NOBODY)).unwrap();
            set_thread_uid(rustix::fs::Uid::from_raw(NOBODY)).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn missing_permissions_are_named() {
    let folder = tempfile::tempdir().unwrap();
    furnished(folder.path());
    let change = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let database = folder.path().join("cob.db");
    let place = folder.path();
    for (path, mode) in [(place, 0o500), (place, 0o000), (&database, 0o400), (&database, 0o000)] {
        change(path, mode);
        let error = as_nobody(place, || SqliteStore::open(&options(place)).unwrap_err());
        assert!(matches!(error, OpenError::Denied { .. }), "{} {mode:o}: {error}", path.display());
        let text = error.to_string();
        assert!(text.contains(place.to_str().unwrap()) && text.contains("chmod u+rwX"), "{text}");
        change(path, 0o700);
    }
}

#[test]
fn what_belongs_to_somebody_else_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    furnished(folder.path());
    chown(folder.path().join("cob.db"), Some(12345), None).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, OpenError::Owner { owner: 12345, ours: 0, .. }), "{error}");
    assert!(error.to_string().contains("belongs to user 12345"), "{error}");
    chown(folder.path(), Some(54321), None).unwrap();
    assert!(matches!(refused(folder.path()), OpenError::Owner { owner: 54321, .. }));
}

#[test]
fn another_program_in_the_database_is_waited_for_and_then_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    write(&mut store, open_session());
    let other = Connection::open(folder.path().join("cob.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let busy = store.commit(&[group(vec![request("k")])]).unwrap_err();
    assert!(matches!(busy, StoreError::Busy { .. }), "{busy}");
    other.execute_batch("ROLLBACK").unwrap();
    create(&mut store, "k");
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

#[test]
fn d06_flipped_bytes_are_refused_or_harmless() {
    let folder = in_memory();
    let expected = furnished(folder.path());
    let database = folder.path().join("cob.db");
    let original = fs::read(&database).unwrap();
    let mut random = Random(6);
    let (mut refused_at_start, mut refused_later, mut harmless) = (0, 0, 0);
    for n in 0..300 {
        let mut bytes = original.clone();
        // Every tenth in the header or the schema.
        let at = random.below(if n % 10 == 0 { 4096 } else { bytes.len() });
        bytes[at] ^= 1 << random.below(8);
        fs::write(&database, &bytes).unwrap();
        for left in ["cob.db-wal", "cob.db-shm"] {
            let _ = fs::remove_file(folder.path().join(left));
        }
        match SqliteStore::open(&options(folder.path())) {
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("cob.db"), "byte {at}: {text}");
                refused_at_start += 1;
            }
            Ok(mut store) => match Snapshot::of(&mut store) {
                Err(_) => refused_later += 1,
                Ok(found) => {
                    assert_eq!(found, expected, "byte {at}");
                    harmless += 1;
                }
            },
        }
    }
    assert!(
        refused_at_start > 10 && refused_later > 20 && harmless > 20,
        "{refused_at_start} {refused_later} {harmless}"
    );
}

#[test]
fn d07_a_log_that_was_cut_shows_the_last_whole_commit() {
    const FRAME: usize = 24 + 4096;
    let folder = in_memory();
    let mut store = open(folder.path());
    write(&mut store, open_session());
    let id = create(&mut store, "k");
    let wal = |name: &str| folder.path().join(name);
    let mut states = Vec::new();
    for number in 1..=3 {
        write(&mut store, append(id, number, "some text"));
        states.push((
            fs::metadata(wal("cob.db-wal")).unwrap().len() as usize,
            Snapshot::of(&mut store).unwrap(),
        ));
    }
    let (database, log) = (fs::read(wal("cob.db")).unwrap(), fs::read(wal("cob.db-wal")).unwrap());
    drop(store);
    let end = states[2].0;
    assert_eq!(log.len(), end);
    assert!(states[1].0 <= end - 2 * FRAME, "the last commit has two frames or more");
    let cut = in_memory();
    fs::write(cut.path().join("cob.db"), &database).unwrap();
    let mut found = 0;
    for length in end - 2 * FRAME..=end {
        // Nothing was moved into the database, so it is the same every time.
        fs::write(cut.path().join("cob.db-wal"), &log[..length]).unwrap();
        let _ = fs::remove_file(cut.path().join("cob.db-shm"));
        let connection = Connection::open(cut.path().join("cob.db")).unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        let payloads = Payloads::new(cut.path().join("payloads"));
        let look = Look { connection: &connection, payloads: &payloads };
        let events = look.events(id, 1, 9, 999).map_err(|fault| format!("{fault:?}")).unwrap();
        assert_eq!(events.len(), if length == end { 3 } else { 2 }, "cut at {length}");
        found += events.len();
        if length % 512 == 0 || length == end {
            drop(connection);
            let state = Snapshot::of(&mut open(cut.path())).unwrap();
            assert_eq!(state, states[if length == end { 2 } else { 1 }].1, "cut at {length}");
            fs::write(cut.path().join("cob.db"), &database).unwrap();
        }
    }
    assert_eq!(found, 2 * FRAME * 2 + 3);
}
