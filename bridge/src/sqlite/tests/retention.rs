//! What is forgotten, and what never is.

use super::*;

fn retain(store: &mut SqliteStore, now: i64, limits: &Limits) -> u64 {
    let mut events = 0;
    for _ in 0..100_000 {
        let retained = store.retain(at(now), limits).unwrap();
        events += retained.events;
        if !retained.is_more {
            return events;
        }
    }
    panic!("retention does not end");
}

fn executions(store: &mut SqliteStore, count: u64, events: u64) -> Vec<PromiseId> {
    (0..count)
        .map(|n| {
            let id = create(store, &format!("r{n}"));
            let writes = (1..=events).map(|number| append(id, number, "0123456789")).collect();
            store.commit(&[group(writes)]).unwrap();
            id
        })
        .collect()
}

const WEIGHT: u64 = 74;

#[test]
fn the_oldest_settled_executions_make_room_and_running_ones_keep_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    write(&mut store, open_session());
    let ids = executions(&mut store, 10, 10);
    for id in &ids[1..] {
        write(&mut store, settle(*id));
    }
    let limits = Limits { store_bytes: 55 * WEIGHT, ..Limits::default() };
    assert_eq!(retain(&mut store, 2_000_000, &limits), 50, "whole executions go");
    let totals = store.totals().unwrap();
    assert_eq!((totals.events, totals.event_bytes, totals.promises), (50, 50 * WEIGHT, 10));
    for (n, id) in ids.iter().enumerate() {
        let expected = !(1..=5).contains(&n);
        assert_eq!(store.events(*id, 1, 1, 1).is_ok(), expected, "{id}");
        assert!(store.promise(*id).unwrap().is_some());
    }
    let forgotten = store.events(ids[1], 1, 1, 1).unwrap_err();
    assert_eq!(forgotten, BridgeError::Forgotten { id: ids[1], first: 11 });
    // Late output goes on where it was, also for the next server.
    drop(store);
    let mut store = open(folder.path());
    write(&mut store, append(ids[1], 11, "late"));
    assert_eq!(store.events(ids[1], 11, 9, 9).unwrap().len(), 1);
    assert_eq!(retain(&mut store, 2_000_000, &Limits { session_bytes: 0, ..Limits::default() }), 41);
    assert_eq!(store.events(ids[0], 1, 99, 9999).unwrap().len(), 10, "it runs");
    SqliteReader::open(folder.path()).unwrap().verify().unwrap();
}

#[test]
fn age_counts_from_the_settlement() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    write(&mut store, open_session());
    let ids = executions(&mut store, 3, 2);
    write(&mut store, settle(ids[0]));
    let later = Group { now: at(9_000_000), ..group(vec![settle(ids[1])]) };
    store.commit(&[later]).unwrap();
    let limits = Limits { age_s: 5, ..Limits::default() };
    assert_eq!(retain(&mut store, 5_999_999, &limits), 0);
    assert_eq!(retain(&mut store, 6_000_000, &limits), 2);
    assert_eq!(retain(&mut store, 13_999_999, &limits), 0);
    assert_eq!(retain(&mut store, 14_000_000, &limits), 2);
    assert_eq!(retain(&mut store, i64::MAX / 2, &limits), 0, "the third runs");
}

#[test]
fn a_step_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    write(&mut store, open_session());
    let id = executions(&mut store, 1, 3000)[0];
    write(&mut store, settle(id));
    let limits = Limits { store_bytes: 0, ..Limits::default() };
    let step = store.retain(at(0), &limits).unwrap();
    assert_eq!((step.events, step.is_more), (1024, true));
    assert_eq!(store.events(id, 1, 1, 1).unwrap_err(), BridgeError::Forgotten { id, first: 1025 });
    assert_eq!(store.events(id, 1025, 1, 1).unwrap().len(), 1);
    assert_eq!(retain(&mut store, 0, &limits), 3000 - 1024);
}

#[test]
fn files_go_with_the_last_event_that_names_them_and_strays_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    write(&mut store, open_session());
    let (first, second) = (create(&mut store, "a"), create(&mut store, "b"));
    for id in [first, second] {
        write(&mut store, append(id, 1, &PAYLOAD));
    }
    let files = |store: &SqliteStore| (0..=255).flat_map(|part| store.payloads.part(part)).count();
    assert_eq!(files(&store), 1, "the same content is kept once");
    let limits = Limits { store_bytes: 0, ..Limits::default() };
    write(&mut store, settle(first));
    retain(&mut store, 0, &limits);
    assert_eq!((files(&store), store.events(second, 1, 1, 1).unwrap().len()), (1, 1));
    write(&mut store, settle(second));
    retain(&mut store, 0, &limits);
    assert_eq!(files(&store), 0);
    // Left by a process that died before its commit.
    store.payloads.write(b"stray", false).unwrap();
    let third = create(&mut store, "c");
    write(&mut store, append(third, 1, &PAYLOAD));
    drop(store);
    let mut store = open(folder.path());
    assert_eq!(files(&store), 2);
    retain(&mut store, 0, &limits);
    assert_eq!((files(&store), store.events(third, 1, 1, 1).unwrap().len()), (1, 1));
}
