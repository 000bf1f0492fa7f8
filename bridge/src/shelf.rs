//! A folder of stores: which there are, and which may go.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use cob_protocol::limits::{GRACE_S_MAX, KEPT_STORE_AGE_S_MAX, KEPT_STORES_MAX};

use crate::lock::StoreLock;
use crate::sqlite::SqliteReader;
use crate::store::{Read, SessionRecord};

/// A store in a folder of stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownStore {
    /// Its folder.
    pub folder: PathBuf,
    /// When it was last written to.
    pub written_at: SystemTime,
}

/// What is to be removed has this before its name; what was left there by one who died is removed by the next.
const GOING: &str = ".going-";

/// The stores in `folder`, those that were written last first; none, if there is no such folder.
///
/// # Errors
/// The system's, reading the folder.
pub fn known_stores(folder: &Path) -> io::Result<Vec<KnownStore>> {
    let mut known = Vec::new();
    for entry in entries(folder)? {
        if let Some(written_at) = written_at(&entry)
            && !is_going(&entry)
        {
            known.push(KnownStore { folder: entry, written_at });
        }
    }
    known.sort_by(|a, b| b.written_at.cmp(&a.written_at).then_with(|| a.folder.cmp(&b.folder)));
    Ok(known)
}

/// When a store was last written to. A store is what has a database; the log beside it is younger, while there is one.
fn written_at(store: &Path) -> Option<SystemTime> {
    // An empty log was made by somebody who only looked.
    let written = |name: &str| {
        let file = store.join(name).metadata().ok().filter(|file| file.len() > 0);
        file.and_then(|file| file.modified().ok())
    };
    let database = written("cob.db")?;
    Some(written("cob.db-wal").map_or(database, |log| log.max(database)))
}

/// Removes those stores in `folder` that nobody uses, and that are too old or too many. Of too many, only those whose
/// sessions have all ended in order; of those that are too old, also what a server left that was killed and that nobody
/// started again: unless a custodian is recorded, who may still hold its worker. Says how many went. What cannot be
/// removed now stays for the next time.
///
/// # Errors
/// The system's, reading the folder.
pub fn sweep_stores(folder: &Path, now: SystemTime) -> io::Result<usize> {
    sweep(folder, now, KEPT_STORES_MAX)
}

fn sweep(folder: &Path, now: SystemTime, kept_max: usize) -> io::Result<usize> {
    for left in entries(folder)?.iter().filter(|entry| is_going(entry)) {
        let _ = fs::remove_dir_all(left);
    }
    let age_max = Duration::from_secs(KEPT_STORE_AGE_S_MAX);
    let mut gone = 0;
    for (index, store) in known_stores(folder)?.iter().enumerate() {
        let is_old = now.duration_since(store.written_at).is_ok_and(|age| age > age_max);
        if (is_old || index >= kept_max) && remove(store, is_old) {
            gone += 1;
        }
    }
    Ok(gone)
}

/// Removes a store that nobody uses and nobody will go on with; says whether it did.
fn remove(store: &KnownStore, is_old: bool) -> bool {
    let KnownStore { folder: store, written_at: listed } = store;
    // Held until it is gone: nobody opens it meanwhile.
    let Ok(_lock) = StoreLock::take_at_once(&store.join("lock")) else { return false };
    // Somebody may have come back, and gone, since it was listed.
    if written_at(store) != Some(*listed) || !nobody_comes_back(store, is_old) {
        return false;
    }
    let Some((parent, name)) = store.parent().zip(store.file_name()) else { return false };
    let mut going = std::ffi::OsString::from(GOING);
    going.push(name);
    let going = parent.join(going);
    // In one step it is no store any more, whatever becomes of the rest.
    fs::rename(store, &going).is_ok() && fs::remove_dir_all(&going).is_ok()
}

/// Whether every session of it was closed, or is as good as that after so long: no worker goes on without a server for
/// longer than [`GRACE_S_MAX`]. What cannot be read may hold what somebody wants.
fn nobody_comes_back(store: &Path, is_old: bool) -> bool {
    let sessions = SqliteReader::open(store).ok().and_then(|mut reader| reader.sessions().ok());
    const { assert!(GRACE_S_MAX < KEPT_STORE_AGE_S_MAX) };
    let has_ended = |session: &SessionRecord| session.closed_at.is_some() || is_old;
    sessions.is_some_and(|sessions| sessions.iter().all(has_ended))
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| entry.map(|entry| entry.path())).collect(),
    }
}

fn is_going(entry: &Path) -> bool {
    entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with(GOING))
}

#[cfg(test)]
mod tests {
    use cob_protocol::ids::SessionId;
    use cob_protocol::json::Json;
    use cob_protocol::promise::Durability;
    use cob_protocol::time::{Clock, SystemClock};

    use super::*;
    use crate::sqlite::{SqliteStore, StoreOptions};
    use crate::store::{Custody, Group, Store, Write};

    /// What became of the session of a store.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Left {
        Closed,
        Open,
        InCustody,
    }

    use Left::*;

    /// A store with a session; written so many days ago.
    fn store(shelf: &Path, name: &str, left: Left, days: u64) -> SqliteStore {
        let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::new(shelf.join(name)) };
        let mut store = SqliteStore::open(&options).unwrap();
        let session = SessionId(1);
        let mut writes = vec![Write::OpenSession { session, about: Json::object() }];
        match left {
            Closed => writes.push(Write::CloseSession { session }),
            Open => {}
            InCustody => {
                let custody = Some(Custody { socket: "/s".into(), secret: "x".into() });
                writes.push(Write::Custody { session, custody });
            }
        }
        let group = Group { now: SystemClock.now(), durability: Durability::Process, writes };
        store.commit(&[group]).unwrap();
        drop(store);
        let store = SqliteStore::open(&options).unwrap();
        let time = now() - Duration::from_secs(days * 86_400);
        for name in ["cob.db", "cob.db-wal"] {
            if let Ok(file) = fs::OpenOptions::new().write(true).open(options.folder.join(name)) {
                file.set_modified(time).unwrap();
            }
        }
        store
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn names(shelf: &Path) -> Vec<String> {
        let known = known_stores(shelf).unwrap();
        known.iter().map(|store| store.folder.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_ended_long_ago_goes_and_nothing_else() {
        let shelf = tempfile::tempdir().unwrap();
        let shelf = shelf.path();
        drop(store(shelf, "old", Closed, 31));
        drop(store(shelf, "held", InCustody, 28));
        fs::write(shelf.join("old").join("cob.db-wal"), "").unwrap();
        let used = store(shelf, "old-and-used", Closed, 32);
        drop(store(shelf, "young", Closed, 29));
        fs::create_dir(shelf.join("no-store")).unwrap();
        fs::create_dir(shelf.join(".going-half")).unwrap();
        assert_eq!(names(shelf), ["held", "young", "old", "old-and-used"]);
        assert_eq!(sweep_stores(shelf, now()).unwrap(), 1);
        assert_eq!(names(shelf), ["held", "young", "old-and-used"]);
        assert!(!shelf.join(".going-half").exists() && shelf.join("no-store").exists());
        drop(used);
        assert_eq!(sweep_stores(shelf, now()).unwrap(), 1);
    }

    #[test]
    fn what_was_killed_long_ago_and_never_started_again_goes_since_no_worker_waits_so_long() {
        let shelf = tempfile::tempdir().unwrap();
        let shelf = shelf.path();
        drop(store(shelf, "young", Open, 29));
        drop(store(shelf, "old", Open, 31));
        drop(store(shelf, "old-and-held", InCustody, 31));
        let used = store(shelf, "used", Open, 32);
        assert_eq!(sweep_stores(shelf, now()).unwrap(), 2);
        assert_eq!(names(shelf), ["young", "used"]);
        drop(used);
    }

    #[test]
    fn what_was_written_since_it_was_listed_is_not_old() {
        let shelf = tempfile::tempdir().unwrap();
        let shelf = shelf.path();
        drop(store(shelf, "killed", Open, 31));
        let listed = known_stores(shelf).unwrap();
        drop(store(shelf, "killed-again", Open, 0));
        for store in &listed {
            // Somebody came back, and was killed again.
            fs::copy(shelf.join("killed-again/cob.db"), store.folder.join("cob.db")).unwrap();
            let file = fs::File::options().write(true).open(store.folder.join("cob.db")).unwrap();
            file.set_modified(now()).unwrap();
            assert!(!remove(store, true));
        }
        assert_eq!(listed.len(), 1);
    }

    #[test]
    fn of_too_many_the_oldest_go() {
        let shelf = tempfile::tempdir().unwrap();
        let shelf = shelf.path();
        for (name, left, days) in [("a", Closed, 4), ("b", Open, 3), ("c", Closed, 2), ("d", Closed, 1)] {
            drop(store(shelf, name, left, days));
        }
        assert_eq!(sweep(shelf, now(), 2).unwrap(), 1);
        assert_eq!(names(shelf), ["d", "c", "b"]);
        assert_eq!(sweep_stores(&shelf.join("none"), now()).unwrap(), 0);
    }
}
