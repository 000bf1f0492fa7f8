//! A server that comes back to a store with a great many promises, many of them overdue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cob_bridge::{Bridge, Group, NewExecution, SqliteStore, Store, StoreOptions, Write};
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{Durability, SessionState, Settlement, State};
use cob_protocol::time::{Clock, SystemClock, Timestamp};
use cob_tests::durable::memory_folder;
use cob_tests::process;
use cob_tests::snapshot::Snapshot;

const SESSION: SessionId = SessionId(1);

/// Every tenth is overdue, each since another time.
fn deadline(number: u64, now: Timestamp) -> Option<Timestamp> {
    number.is_multiple_of(10).then(|| now.after_ms(-1 - i64::try_from(number).unwrap()))
}

fn fill(options: &StoreOptions, count: u64, now: Timestamp) {
    let mut store = SqliteStore::open(options).unwrap();
    let open = Write::OpenSession { session: SESSION, about: Json::object() };
    let executions = (1..=count).map(|number| {
        Write::CreateExecution(NewExecution {
            session: SESSION,
            key: None,
            durability: Durability::Process,
            deadline: deadline(number, now),
            request: Some(Json::object()),
            start: None,
        })
    });
    let writes: Vec<Write> = std::iter::once(open).chain(executions).collect();
    // Long ago, so that no deadline lies before the beginning.
    let then = now.after_ms(-3_600_000);
    for writes in writes.chunks(2000) {
        let group = Group { now: then, durability: Durability::Process, writes: writes.to_vec() };
        let outcomes = store.commit(&[group]).unwrap();
        assert!(outcomes.iter().flatten().all(Result::is_ok));
    }
}

async fn come_back(count: u64, patience: Duration) {
    let folder = memory_folder();
    let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::new(folder.path()) };
    let now = SystemClock.now();
    fill(&options, count, now);
    let resident = process::resident_bytes(std::process::id());
    let begin = Instant::now();
    let bridge = Bridge::open(&options, Arc::new(SystemClock)).unwrap();
    assert!(begin.elapsed() < patience, "{:?}", begin.elapsed());
    let grown = process::resident_bytes(std::process::id()).saturating_sub(resident);
    assert!(grown < (8 << 20) + count * 512, "{grown} bytes more");
    for _ in 0..count / 10 {
        let id = bridge.due().await;
        let settlement = Settlement::silent(State::RejectedTimedOut, Json::object(), SessionState::Kept);
        let outcomes =
            bridge.submit(Durability::Process, vec![Write::Expire { id, settlement }]).await.unwrap();
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }
    drop(bridge);
    // The writer lets go of the store when it has written all.
    let snapshot = Snapshot::of(folder.path());
    for stored in &snapshot.executions {
        let promise = &stored.promise;
        let expected = deadline(promise.id.execution, now);
        assert_eq!(promise.settled_at, expected, "{}", promise.id);
        assert_eq!(promise.state == State::RejectedTimedOut, expected.is_some());
    }
    assert_eq!(snapshot.executions.last().unwrap().promise.id, PromiseId::execution(SESSION, count));
    assert_eq!(snapshot.damage, Vec::<String>::new());
}

#[tokio::test]
async fn s11_a_store_with_many_pending_promises_is_ready_soon_and_the_overdue_ones_end_once() {
    come_back(5000, Duration::from_secs(2)).await;
}

/// `cargo test -p cob-tests --test faults -- --ignored s11_long`, half a minute; with `--release` within the budget.
#[tokio::test]
#[ignore = "the long recipe"]
async fn s11_long_a_store_with_a_hundred_thousand_pending_promises_is_ready_soon() {
    let seconds = if cfg!(debug_assertions) { 10 } else { 2 };
    come_back(99_999, Duration::from_secs(seconds)).await;
}
