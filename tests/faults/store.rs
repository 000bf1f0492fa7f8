//! The store on a disk that fails: what was acknowledged is there, what was refused is not, and nothing in between.

use std::path::Path;
use std::sync::Arc;

use cob_bridge::{
    Group, MemoryStore, NewExecution, OpenError, Read, SqliteStore, Store, StoreError, StoreOptions, Write,
};
use cob_protocol::event::Event;
use cob_protocol::frame::StreamName;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{Durability, Key, SessionState, Settlement, State, Tally};
use cob_protocol::time::Timestamp;
use cob_tests::durable::memory_folder;
use cob_tests::seed::Seed;
use cob_tests::snapshot::Snapshot;
use cob_tests::vfs::{Call, Disk, Failure, Fault};

const SESSION: SessionId = SessionId(1);

/// Groups as a session makes them, one after the other: an execution begins, prints, ends.
struct Life {
    seed: Seed,
    groups: Vec<Group>,
    execution: u64,
    /// Number of the next event; 0: nothing runs.
    next_event: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        Self { seed: Seed::new(seed), groups: Vec::new(), execution: 0, next_event: 0 }
    }

    fn next(&mut self, durability: Durability) -> Group {
        let id = PromiseId::execution(SESSION, self.execution);
        let writes = match self.seed.below(4) {
            _ if self.groups.is_empty() => {
                vec![Write::OpenSession { session: SESSION, about: Json::object() }]
            }
            _ if self.next_event == 0 => {
                self.execution += 1;
                self.next_event = 1;
                let key = format!("key {}", self.execution);
                vec![Write::CreateExecution(NewExecution {
                    session: SESSION,
                    key: Some(Key { principal: "p".into(), key, body: [7; 32] }),
                    durability,
                    deadline: None,
                    request: Some(Json::object()),
                    start: Some(1),
                })]
            }
            0 => {
                let last_event = std::mem::take(&mut self.next_event) - 1;
                let value = serde_json::json!({ "status": "ok", "n": last_event }).into();
                let (state, session_state) = (State::Resolved, SessionState::Kept);
                let settlement =
                    Settlement { state, value, session_state, last_event, tally: Tally::default() };
                vec![Write::Settle { id, settlement }]
            }
            count => (0..count).map(|_| self.append(id)).collect(),
        };
        let now = Timestamp::from_micros(1_000_000 + self.groups.len() as i64);
        let group = Group { now, durability, writes };
        self.groups.push(group.clone());
        group
    }

    fn append(&mut self, id: PromiseId) -> Write {
        let number = self.next_event;
        self.next_event += 1;
        let text = "x".repeat(self.seed.below(5000));
        Write::Append { id, number, event: Arc::new(Event::Stream { name: StreamName::Stdout, text }) }
    }
}

fn options(disk: &Disk, folder: &Path) -> StoreOptions {
    let vfs = Some(disk.name().to_owned());
    StoreOptions { ballast_bytes: 0, vfs, busy_ms: 100, ..StoreOptions::new(folder) }
}

/// Commits until something fails, at most `count` groups; how many were acknowledged.
fn commit(
    store: &mut SqliteStore,
    life: &mut Life,
    count: usize,
    durability: impl Fn(usize) -> Durability,
) -> Result<(), StoreError> {
    for _ in 0..count {
        let group = life.next(durability(life.groups.len()));
        let outcomes = store.commit(std::slice::from_ref(&group))?;
        assert!(outcomes.iter().flatten().all(Result::is_ok), "{outcomes:?}");
    }
    Ok(())
}

/// What a store holds; the audit trail is for the store itself to check.
fn contents(store: &mut dyn Read) -> Snapshot {
    let mut snapshot = Snapshot::read(store).unwrap();
    snapshot.executions.iter_mut().for_each(|stored| stored.promise.audit = None);
    snapshot
}

/// After how many groups a store would hold what this one does; `None`: after no number of them.
fn reached(store: &mut SqliteStore, groups: &[Group]) -> Option<usize> {
    let found = contents(store);
    let totals = store.totals().unwrap();
    let mut oracle = MemoryStore::default();
    // Of several the last: a group can leave no trace in a snapshot. Figures first, which cost nothing.
    let is_same = |oracle: &mut MemoryStore| oracle.totals().unwrap() == totals && contents(oracle) == found;
    let mut reached = is_same(&mut oracle).then_some(0);
    for (number, group) in groups.iter().enumerate() {
        oracle.commit(std::slice::from_ref(group)).unwrap();
        if is_same(&mut oracle) {
            reached = Some(number + 1);
        }
    }
    reached
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Cut,
    Kill,
}

/// Acknowledged groups that were lost, over many lives of stores. Panics when a store is damaged, or holds what no
/// number of groups makes.
fn lost(seeds: std::ops::Range<u64>, end: End, durability: fn(usize) -> Durability) -> usize {
    let disk = Disk::new();
    let mut lost = 0;
    for seed in seeds {
        let folder = memory_folder();
        let options = options(&disk, folder.path());
        // Made in peace: what is cut is what a server does.
        drop(SqliteStore::open(&options).unwrap());
        let mut life = Life::new(seed);
        let mut store = SqliteStore::open(&options).unwrap();
        disk.lose_power_at(1 + Seed::new(seed).number() % 60);
        // The last one may have been refused; it may be there none the less.
        let is_refused = commit(&mut store, &mut life, 40, durability).is_err();
        if seed.is_multiple_of(3) && !is_refused {
            // It fails where power goes.
            let _ = store.maintain();
        }
        let acknowledged = life.groups.len() - usize::from(is_refused);
        match end {
            End::Cut => disk.cut(seed),
            End::Kill => disk.kill(),
        }
        drop(store);
        disk.power_on();
        let mut store = SqliteStore::open(&options).unwrap_or_else(|error| unreachable!("{seed}: {error}"));
        let reached = reached(&mut store, &life.groups);
        let reached = reached.unwrap_or_else(|| unreachable!("{seed}: {:?}", contents(&mut store)));
        // What had to be safe: everything up to the last group of that kind.
        let safe = life.groups.get(..acknowledged).unwrap_or_default();
        let is_safe = |group: &Group| end == End::Kill || group.durability == Durability::Power;
        let needed = safe.iter().rposition(is_safe).map_or(0, |last| last + 1);
        assert!(reached >= needed, "{seed}: {reached} of {needed}");
        lost += acknowledged.saturating_sub(reached);
        drop(store);
        disk.kill();
        disk.power_on();
    }
    lost
}

/// In four threads.
fn lost_of(seeds: u64, end: End, durability: fn(usize) -> Durability) -> usize {
    std::thread::scope(|scope| {
        let range = |nth| seeds / 4 * nth..seeds / 4 * (nth + 1);
        let threads = [0, 1, 2, 3].map(|nth| scope.spawn(move || lost(range(nth), end, durability)));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn d11_what_was_acknowledged_with_power_survives_power_cuts() {
    assert_eq!(lost_of(240, End::Cut, |_| Durability::Power), 0);
    // Also what lies before it without having been synchronised by itself.
    lost_of(80, End::Cut, |number| if number % 5 == 4 { Durability::Power } else { Durability::Process });
}

#[test]
fn d11_what_was_acknowledged_with_process_is_lost_by_power_cuts_only() {
    assert_eq!(lost_of(80, End::Kill, |_| Durability::Process), 0);
    assert!(lost_of(80, End::Cut, |_| Durability::Process) > 20);
}

/// `cargo test -p cob-tests --test faults -- --ignored d11_ d04_`, about two minutes.
#[test]
#[ignore = "the long recipe"]
fn d11_long_what_was_acknowledged_with_power_survives_thousands_of_power_cuts() {
    assert_eq!(lost_of(4000, End::Cut, |_| Durability::Power), 0);
    lost_of(2000, End::Cut, |number| if number % 5 == 4 { Durability::Power } else { Durability::Process });
    assert_eq!(lost_of(2000, End::Kill, |_| Durability::Process), 0);
}

#[test]
fn d04_a_commit_on_a_disk_that_fails_at_any_call_is_there_or_refused_with_a_code() {
    // The first calls one by one, then ever fewer of them.
    fail_at_each(|nth| nth + 1 + nth / 4);
}

#[test]
#[ignore = "the long recipe"]
fn d04_long_a_commit_on_a_disk_that_fails_at_any_call_is_there_or_refused_with_a_code() {
    fail_at_each(|nth| nth + 1);
}

fn fail_at_each(next: fn(u64) -> u64) {
    let mut tried = 0;
    for failure in [Failure::Eio, Failure::Enospc, Failure::Short] {
        for (call, lasting) in
            [(Call::Write, false), (Call::Sync, false), (Call::Read, false), (Call::Write, true)]
        {
            let mut nth = 0;
            loop {
                nth = next(nth);
                let disk = Disk::new();
                let folder = memory_folder();
                let options = options(&disk, folder.path());
                let mut life = Life::new(3);
                let mut store = SqliteStore::open(&options).unwrap();
                disk.fail(Fault { call, nth, failure, lasting });
                let outcome = commit(&mut store, &mut life, 6, |_| Durability::Power);
                let is_met = disk.count(call) >= nth;
                let acknowledged = life.groups.len() - usize::from(outcome.is_err());
                tried += 1;
                disk.fail(None);
                match (&outcome, call, failure) {
                    (Ok(()), ..) | (Err(StoreError::Full { .. }), _, Failure::Enospc | Failure::Short) => {}
                    (Err(StoreError::Unsynced { .. }), Call::Sync, Failure::Eio) => {}
                    (
                        Err(StoreError::Failed { .. } | StoreError::Corrupt { .. }),
                        Call::Write | Call::Read,
                        Failure::Eio,
                    ) => {}
                    (Err(error), ..) => unreachable!("{call:?} {failure:?} {nth}: {error:?}"),
                }
                // The same store goes on, unless nothing can be believed any more.
                if outcome.is_err() && !matches!(outcome, Err(StoreError::Unsynced { .. })) {
                    let refused = life.groups.pop().unwrap();
                    let again = store.commit(std::slice::from_ref(&refused));
                    assert!(again.is_ok(), "{call:?} {failure:?} {nth}: {again:?}");
                    life.groups.push(refused);
                    assert_eq!(reached(&mut store, &life.groups), Some(life.groups.len()));
                }
                drop(store);
                let mut store = SqliteStore::open(&options).unwrap();
                let reached = reached(&mut store, &life.groups).expect("a state that there was");
                assert!(reached >= acknowledged, "{call:?} {failure:?} {nth}");
                if !is_met {
                    outcome.unwrap();
                    break;
                }
            }
        }
    }
    assert!(tried > 40, "only {tried} faults were met");
}

#[test]
fn d06_a_store_that_was_damaged_anywhere_is_refused_or_holds_what_it_held() {
    let folder = memory_folder();
    let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::new(folder.path()) };
    let mut life = Life::new(1);
    let mut store = SqliteStore::open(&options).unwrap();
    commit(&mut store, &mut life, 60, |_| Durability::Process).unwrap();
    let expected = contents(&mut store);
    drop(store);
    let database = folder.path().join("cob.db");
    let sound = std::fs::read(&database).unwrap();
    let mut seed = Seed::new(6);
    let (mut refused, mut same) = (0, 0);
    for round in 0..300 {
        let mut damaged = sound.clone();
        // The header and the schema as often as all the rest.
        let place = if round % 2 == 0 { seed.below(4096) } else { seed.below(sound.len()) };
        damaged[place] ^= 1 << seed.below(8);
        std::fs::write(&database, &damaged).unwrap();
        match SqliteStore::open(&options) {
            Err(OpenError::Store(error @ StoreError::Corrupt { .. })) => {
                let text = error.to_string();
                assert!(
                    text.contains("store_corrupt") && text.contains("cob.db") && text.contains(".recover")
                );
                assert_eq!(std::fs::read(&database).unwrap(), damaged, "changed though refused");
                refused += 1;
            }
            // What says what it is may be what was hit.
            Err(OpenError::Foreign { .. } | OpenError::Newer { .. }) => refused += 1,
            Err(error) => unreachable!("byte {place}: {error}"),
            Ok(mut store) => match Snapshot::read(&mut store) {
                Ok(mut found) => {
                    found.executions.iter_mut().for_each(|stored| stored.promise.audit = None);
                    assert!(found == expected, "byte {place} changed what is read, and nobody noticed");
                    same += 1;
                }
                Err(error) => {
                    let text = error.to_string();
                    let is_named = text.contains("store_corrupt") || text.contains("is not what was written");
                    assert!(is_named, "byte {place}: {text}");
                    refused += 1;
                }
            },
        }
        for left in ["cob.db-wal", "cob.db-shm"] {
            let _ = std::fs::remove_file(folder.path().join(left));
        }
    }
    assert!(refused > 50 && same > 10, "{refused} refused, {same} the same");
}

#[test]
fn d07_a_log_that_was_cut_anywhere_gives_the_last_committed_state() {
    let folder = memory_folder();
    let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::new(folder.path()) };
    let mut life = Life::new(2);
    let mut store = SqliteStore::open(&options).unwrap();
    commit(&mut store, &mut life, 12, |_| Durability::Process).unwrap();
    let frames = |bytes: usize| (bytes - 32) / (4096 + 24);
    let log = std::fs::read(folder.path().join("cob.db-wal")).unwrap();
    let database = std::fs::read(folder.path().join("cob.db")).unwrap();
    assert!(frames(log.len()) > 4);
    // Every byte at the edges of the last two frames, and a sample between.
    let from = log.len() - 2 * (4096 + 24);
    let places = (from..=log.len())
        .filter(|place| (place - from).is_multiple_of(97) || (place - from) % (4096 + 24) < 26);
    let mut seen = std::collections::BTreeSet::new();
    for place in places {
        let copy = memory_folder();
        std::fs::write(copy.path().join("cob.db"), &database).unwrap();
        std::fs::write(copy.path().join("cob.db-wal"), &log[..place]).unwrap();
        let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::new(copy.path()) };
        let mut store =
            SqliteStore::open(&options).unwrap_or_else(|error| unreachable!("cut at {place}: {error}"));
        let reached = reached(&mut store, &life.groups).unwrap_or_else(|| unreachable!("cut at {place}"));
        seen.insert(reached);
        assert_eq!(reached == life.groups.len(), place == log.len(), "cut at {place}");
    }
    assert!(seen.len() > 1, "{seen:?}");
    drop(store);
}
