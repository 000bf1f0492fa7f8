//! The store on disk against the plain one, against damage, full disks and wrong owners.

mod audit;
mod differential;
mod log;
mod opening;
mod retention;
pub(crate) mod space;
mod syncing;
mod versions;

use std::collections::BTreeMap;
use std::path::Path;

use cob_protocol::event::Event;
use cob_protocol::frame::StreamName;
use cob_protocol::promise::{Key, SessionState, Settlement, State};

use super::*;
use crate::memory::MemoryStore;
use crate::store::{Created, NewExecution, Write, Written};

pub(super) const SESSION: SessionId = SessionId(1);

/// Everything that can be read, the audit hashes aside.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    sessions: Vec<SessionRecord>,
    promises: Vec<Promise>,
    requests: Vec<Option<Json>>,
    sources: Vec<Option<Entry>>,
    events: BTreeMap<PromiseId, Vec<Recorded>>,
    unsettled: Vec<Vec<Unsettled>>,
    next_due: Option<(PromiseId, Timestamp)>,
    totals: Totals,
    history: Vec<(SessionId, Entry)>,
    bundles: Vec<(CheckpointView, SignedManifest)>,
}

impl Snapshot {
    /// # Errors
    /// The first of the store.
    pub(super) fn of(store: &mut impl Read) -> Result<Self, BridgeError> {
        let sessions = store.sessions()?;
        let mut promises = store.promises(&Filter::default())?;
        let mut events = BTreeMap::new();
        for id in promises.iter().map(|promise| promise.id).filter(|id| id.call.is_none()) {
            events.insert(id, journal(store, id)?);
        }
        let requests = promises.iter().map(|promise| store.request(promise.id)).collect::<Result<_, _>>()?;
        let sources = promises.iter().map(|promise| store.source_of(promise.id)).collect::<Result<_, _>>()?;
        let mut unsettled = Vec::new();
        for session in &sessions {
            assert_eq!(store.session(session.session)?.as_ref(), Some(session));
            let mut found = store.unsettled(session.session)?;
            found.iter_mut().for_each(|unsettled| unsettled.promise.audit = None);
            unsettled.push(found);
        }
        for promise in &mut promises {
            let found = store.promise(promise.id)?;
            assert_eq!(found.as_ref(), Some(&*promise));
            if let Some(key) = &promise.key {
                assert_eq!(store.find(promise.id.session, &key.principal, &key.key)?, found);
            }
            promise.audit = None;
        }
        let (next_due, totals, history) = (store.next_due()?, store.totals()?, store.history(usize::MAX)?);
        for session in &sessions {
            let of_it = history.iter().filter(|(of, _)| *of == session.session);
            let of_it: Vec<Entry> = of_it.map(|(_, entry)| entry.clone()).collect();
            assert_eq!(store.history_of(session.session, usize::MAX)?, of_it);
            assert_eq!(store.history_of(session.session, 2)?, of_it[of_it.len().saturating_sub(2)..]);
        }
        let mut bundles = Vec::new();
        for view in store.bundles(None)? {
            let signed = store.bundle(view.checkpoint)?.expect("what is listed");
            bundles.push((view, signed));
        }
        for session in &sessions {
            let of_it = bundles.iter().filter(|(view, _)| view.checkpoint.session == session.session);
            let of_it: Vec<CheckpointView> = of_it.map(|(view, _)| view.clone()).collect();
            assert_eq!(store.bundles(Some(session.session))?, of_it);
        }
        Ok(Self {
            sessions,
            promises,
            requests,
            sources,
            events,
            unsettled,
            next_due,
            totals,
            history,
            bundles,
        })
    }
}

fn journal(store: &mut impl Read, id: PromiseId) -> Result<Vec<Recorded>, BridgeError> {
    let mut events: Vec<Recorded> = Vec::new();
    let mut from = 1;
    loop {
        match store.events(id, from, 3, 5_000) {
            Err(BridgeError::Forgotten { first, .. }) => {
                assert!(events.is_empty() && first > from);
                from = first;
            }
            Ok(found) if found.is_empty() => return Ok(events),
            Ok(found) => {
                from += found.len() as u64;
                events.extend(found);
            }
            Err(error) => return Err(error),
        }
    }
}

/// A folder that no disk is waited for in, where there is such: for tests of many stores that are not about the disk.
pub(super) fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(super) fn options(folder: &Path) -> StoreOptions {
    StoreOptions { ballast_bytes: 0, busy_ms: 50, ..StoreOptions::new(folder) }
}

#[track_caller]
pub(super) fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(&options(folder)).unwrap()
}

pub(super) fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

pub(super) fn group(writes: Vec<Write>) -> Group {
    Group { now: at(1_000_000), durability: Durability::Process, writes }
}

#[track_caller]
pub(super) fn write(store: &mut impl Store, write: Write) -> Written {
    store.commit(&[group(vec![write])]).unwrap().remove(0).remove(0).unwrap()
}

pub(super) fn open_session() -> Write {
    Write::OpenSession { session: SESSION, about: Json::object() }
}

pub(super) fn request(key: &str) -> Write {
    let key = Key { principal: "p".into(), key: key.into(), body: [7; 32] };
    Write::CreateExecution(NewExecution {
        session: SESSION,
        key: Some(key),
        durability: Durability::Process,
        deadline: None,
        request: Some(Json::parse("{\"code\":\"1+1\"}").unwrap()),
        start: Some(1),
    })
}

#[track_caller]
pub(super) fn create(store: &mut impl Store, key: &str) -> PromiseId {
    match write(store, request(key)) {
        Written::Created(Created::New(id)) => id,
        other => panic!("{other:?}"),
    }
}

pub(super) fn text(text: &str) -> Arc<Event> {
    Arc::new(Event::Stream { name: StreamName::Stdout, text: text.into() })
}

pub(super) fn append(id: PromiseId, number: u64, content: &str) -> Write {
    Write::Append { id, number, event: text(content) }
}

pub(super) fn settle(id: PromiseId) -> Write {
    let settlement = Settlement::silent(State::Resolved, Json::object(), SessionState::Kept);
    Write::Settle { id, settlement }
}

/// A store with a little of everything, closed.
pub(super) fn furnished(folder: &Path) -> Snapshot {
    let mut store = open(folder);
    write(&mut store, open_session());
    write(&mut store, Write::NumberCheckpoints { session: SESSION, up_to: 64 });
    for n in 0..40 {
        let id = create(&mut store, &format!("k{n}"));
        let call = Write::CreateCall { id: id.with_call(1), request: Json::object(), deadline: Some(at(n)) };
        let output = OutputState { tail: vec![(StreamName::Stdout, "end".into())], ..OutputState::default() };
        let writes = vec![
            call,
            append(id, 1, &"some text that was printed\n".repeat(n as usize)),
            append(id, 2, if n == 3 { &PAYLOAD } else { "x" }),
            Write::Output { id, output },
            Write::HistoryInput {
                session: SESSION,
                execution: id.execution,
                line: n as u32,
                source: format!("{n}+1"),
            },
        ];
        store.commit(&[group(writes)]).unwrap();
        if n % 3 > 0 {
            store.commit(&[group(vec![settle(id.with_call(1)), settle(id)])]).unwrap();
        }
    }
    Snapshot::of(&mut store).unwrap()
}

/// Larger than what stays in a row.
static PAYLOAD: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| "p".repeat(100_000));

use std::sync::Arc;

use crate::store::OutputState;

#[test]
fn both_stores_say_the_same_of_the_same_story() {
    let folder = tempfile::tempdir().unwrap();
    let expected = furnished(folder.path());
    assert_eq!(Snapshot::of(&mut SqliteReader::open(folder.path()).unwrap()).unwrap(), expected);
    let mut store = open(folder.path());
    assert_eq!(Snapshot::of(&mut store).unwrap(), expected);
    SqliteReader::open(folder.path()).unwrap().verify().unwrap();
    store.maintain().unwrap();
}

#[test]
fn nobody_else_can_read_what_is_stored() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("deep/store");
    furnished(&place);
    let mut store = SqliteStore::open(&StoreOptions { ballast_bytes: 4096, ..options(&place) }).unwrap();
    write(&mut store, request("another"));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place), 0o700);
    let mut found = 0;
    let mut folders = vec![place];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
            found += 1;
            folders.extend(path.is_dir().then_some(path));
        }
    }
    assert!(found >= 8, "{found}: database, log, its index, lock, ballast, payloads, part, file");
}

#[test]
fn a_reader_sees_whole_commits_while_the_server_writes() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    write(&mut store, open_session());
    let id = create(&mut store, "k");
    let mut reader = SqliteReader::open(folder.path()).unwrap();
    let place = folder.path().to_owned();
    let writer = std::thread::spawn(move || {
        for number in (1..400).step_by(2) {
            store.commit(&[group(vec![append(id, number, "a"), append(id, number + 1, "b")])]).unwrap();
            store.maintain().unwrap();
        }
        drop(store);
    });
    let mut last = 0;
    while last < 400 {
        let seen = reader.events(id, 1, usize::MAX, usize::MAX).unwrap().len();
        assert!(seen % 2 == 0 && seen >= last);
        last = seen;
        std::thread::yield_now();
    }
    writer.join().unwrap();
    open(&place);
}

#[test]
fn a_store_is_found_whole_while_its_server_writes() {
    let folder = in_memory();
    let mut store = open(folder.path());
    write(&mut store, open_session());
    let id = create(&mut store, "k");
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (1..).take_while(|_| !is_done.load(std::sync::atomic::Ordering::Relaxed)) {
                write(&mut store, append(id, number, "a"));
            }
        });
        let mut reader = SqliteReader::open(folder.path()).unwrap();
        let found: Vec<_> = (0..40).map(|_| reader.verify()).collect();
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(found.iter().all(Result::is_ok), "{found:?}");
    });
}

#[test]
fn the_log_stays_short_whether_the_writer_rests_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    write(&mut store, open_session());
    let id = create(&mut store, "k");
    let mut number = 0;
    let mut print = |store: &mut SqliteStore, rests: bool| {
        let content = "l".repeat(60_000);
        for _ in 0..40 {
            let writes = (0..16).map(|_| {
                number += 1;
                append(id, number, &content)
            });
            store.commit(&[group(writes.collect())]).unwrap();
            if rests {
                store.maintain().unwrap();
                assert!(store.wal_bytes() <= 3 * WAL_BYTES_IDLE_MAX, "{}", store.wal_bytes());
            }
            assert!(store.wal_bytes() <= WAL_BYTES_MAX + (2 << 20), "{}", store.wal_bytes());
        }
    };
    print(&mut store, true);
    print(&mut store, false);
    print(&mut store, false);
    print(&mut store, false);
}

#[test]
fn opening_a_reader_lets_go_of_no_lock() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    write(&mut store, open_session());
    let file = folder.path().join("cob.db").metadata().unwrap();
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let file = format!(" {} {major:02x}:{minor:02x}:{} ", std::process::id(), file.ino());
    let locks =
        || fs::read_to_string("/proc/locks").unwrap().lines().filter(|line| line.contains(&file)).count();
    // While other locks come and go, one look may leave it out; one that is gone never comes back.
    let is_held = || (0..100).any(|_| locks() > 0);
    assert!(is_held(), "the store's");
    drop(SqliteReader::open(folder.path()).unwrap());
    SqliteStore::open(&options(folder.path())).unwrap_err();
    assert!(is_held());
}

#[test]
fn a_changed_payload_is_an_error_of_its_event_alone() {
    let folder = tempfile::tempdir().unwrap();
    furnished(folder.path());
    let mut store = open(folder.path());
    let id = PromiseId::execution(SESSION, 4);
    assert_eq!(store.events(id, 1, 9, usize::MAX).unwrap().len(), 2);
    let hash = (0..=255).flat_map(|part| store.payloads.part(part)).next().unwrap();
    let path = store.payloads.path(&hash);
    let mut bytes = fs::read(&path).unwrap();
    bytes[500] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(store.events(id, 1, 9, usize::MAX).unwrap().len(), 1);
    let error = store.events(id, 2, 9, usize::MAX).unwrap_err();
    assert!(matches!(error, BridgeError::Damaged { number: 2, .. }), "{error}");
    fs::remove_file(&path).unwrap();
    let error = store.events(id, 2, 9, usize::MAX).unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("payloads/"), "{error}");
    write(&mut store, request("still"));
    let error = SqliteReader::open(folder.path()).unwrap().verify().unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}
