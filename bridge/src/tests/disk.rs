//! The handle over a store on disk.

use cob_protocol::promise::Durability::{Power, Process};

use super::*;
use crate::store::{BridgeError, Filter, StoreError};
use crate::{OpenError, SqliteReader, StoreOptions};

fn options(folder: &tempfile::TempDir) -> StoreOptions {
    StoreOptions { ballast_bytes: 1 << 20, ..StoreOptions::new(folder.path().join("store")) }
}

#[tokio::test]
async fn what_was_recorded_is_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let bridge = Bridge::open(&options, clock()).unwrap();
    let id = begin(&bridge).await;
    for number in 1..=100 {
        drop(bridge.submit(Process, vec![event(id, number, "x")]));
    }
    bridge.submit(Power, vec![settle(id, 100)]).await.unwrap();
    let open = another(&bridge).await;
    assert!(matches!(Bridge::open(&options, clock()), Err(OpenError::Locked { .. })));
    bridge.close().await;
    let bridge = Bridge::open(&options, clock()).unwrap();
    assert_eq!(bridge.metrics().pending.executions, 1);
    assert_eq!(bridge.wait(id).await.unwrap().last_event, 100);
    let mut follower = bridge.follow(id, 1);
    let mut count = 0;
    loop {
        let events = follower.next(30).await.unwrap();
        if events.is_empty() {
            break;
        }
        count += events.len();
    }
    assert_eq!(count, 100);
    let pending = Filter { is_settled: Some(false), ..Filter::default() };
    assert_eq!(bridge.promises(&pending).await.unwrap()[0].id, open);
    bridge.close().await;
    assert_eq!(bridge.promise(id).await, Err(BridgeError::Store(StoreError::Closed)));
}

#[tokio::test]
async fn whoever_reads_along_from_outside_sees_what_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let bridge = Bridge::open(&options, clock()).unwrap();
    let id = begin(&bridge).await;
    let mut reader = SqliteReader::open(&options.folder).unwrap();
    for number in 1..=200 {
        bridge.submit(Process, vec![event(id, number, "x")]).await.unwrap();
        let seen = crate::Read::events(&mut reader, id, number, 10, 1000).unwrap();
        assert_eq!(seen.len(), 1);
    }
    bridge.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_and_many_readers_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let bridge = Bridge::open(&options(&folder), clock()).unwrap();
    let tasks: Vec<_> = (1..=8)
        .map(|number| {
            let bridge = bridge.clone();
            tokio::spawn(async move {
                let session = SessionId(number);
                let open = Write::OpenSession { session, about: Json::object() };
                bridge.submit(Process, vec![open]).await.unwrap();
                for execution in 1..=10 {
                    let new = NewExecution {
                        session,
                        key: None,
                        durability: Process,
                        deadline: None,
                        request: None,
                        start: Some(execution),
                    };
                    let outcomes = bridge.submit(Process, vec![Write::CreateExecution(new)]).await.unwrap();
                    let id = created(&outcomes);
                    let mut follower = bridge.follow(id, 1);
                    let reading = tokio::spawn(async move {
                        let mut count = 0;
                        loop {
                            match follower.next(3).await.unwrap().len() {
                                0 => return count,
                                more => count += more,
                            }
                        }
                    });
                    for event_number in 1..=20 {
                        drop(bridge.submit(Process, vec![event(id, event_number, "x")]));
                    }
                    drop(bridge.submit(Process, vec![settle(id, 20)]));
                    assert_eq!(bridge.wait(id).await.unwrap().last_event, 20);
                    assert_eq!(reading.await.unwrap(), 20);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let totals = bridge.totals().await.unwrap();
    assert_eq!((totals.promises, totals.events, totals.executions), (80, 1600, 0));
    bridge.close().await;
}

#[tokio::test]
async fn a_lock_of_another_program_is_waited_for_by_the_writer_alone() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { busy_ms: 100, ..options(&folder) };
    let bridge = Bridge::open(&options, clock()).unwrap();
    let id = begin(&bridge).await;
    let other = rusqlite::Connection::open(options.folder.join("cob.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = std::time::Instant::now();
    let submitted = bridge.submit(Process, vec![event(id, 1, "a")]);
    assert!(before.elapsed().as_millis() < 50, "submitting waited");
    assert!(matches!(submitted.await, Err(StoreError::Busy { .. })));
    let waiting = bridge.submit(Process, vec![event(id, 1, "a")]);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(waiting.await, Ok(vec![Ok(Written::Done)]));
    assert_eq!(bridge.health(), crate::Health::Good);
    bridge.close().await;
}
