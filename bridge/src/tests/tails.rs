//! Readers who keep up and readers who do not: whatever falls between commit, push and look, each gets every event
//! once, in order, and the end.

use cob_protocol::limits::{FOLLOWER_TAIL_BYTES_MAX, FOLLOWER_TAIL_EVENTS_MAX};
use cob_protocol::promise::Durability::Process;

use super::faulty::Controls;
use super::waiting::is_pending;
use super::*;
use crate::store::{BridgeError, Group, Store, StoreError};
use crate::{Follower, StoreOptions};

/// In memory; over the writer's thread; on disk.
pub(super) fn every_kind(folder: &std::path::Path) -> [Bridge; 3] {
    let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::new(folder) };
    [Bridge::in_memory(clock()), Controls::new().bridge(clock()), Bridge::open(&options, clock()).unwrap()]
}

pub(super) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A bridge over memory whose reads are counted, so that a test sees that there were none.
fn counted() -> (Bridge, Controls) {
    let controls = Controls::new();
    (controls.bridge(clock()), controls)
}

/// Numbers from a simple sequence: what a reader does next.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Reads to the end with whatever credit and whatever pauses; now and then gives up a look halfway, or waits for the
/// end for a moment.
async fn read(mut follower: Follower, seed: u64, pace: u64) -> (Vec<EventNumber>, EventNumber) {
    let mut dice = Dice(seed);
    let mut numbers = Vec::new();
    loop {
        for _ in 0..dice.below(1 + pace) {
            tokio::task::yield_now().await;
        }
        if dice.below(8) == 0 {
            let credit = dice.below(4) as usize;
            tokio::select! {
                biased;
                events = follower.next(credit) => {
                    let events = events.unwrap();
                    assert!(events.len() <= credit.max(1));
                    numbers.extend(events.iter().map(|event| event.number));
                }
                () = std::future::ready(()) => {}
            }
            tokio::select! {
                biased;
                settled = follower.wait_settled() => assert!(settled.unwrap().state.is_settled()),
                () = std::future::ready(()) => {}
            }
        }
        let credit = 1 + dice.below(40) as usize;
        let events = follower.next(credit).await.unwrap();
        assert!(events.len() <= credit);
        if events.is_empty() {
            return (numbers, follower.settled().unwrap().last_event);
        }
        numbers.extend(events.iter().map(|event| event.number));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_doubled_or_reordered_however_readers_and_commits_meet() {
    let folder = folder();
    for bridge in every_kind(folder.path()) {
        bridge.submit(Process, vec![open_session()]).await.unwrap();
        for round in 0..12u64 {
            let id = another(&bridge).await;
            // Some overflow by number, some by weight, and some never.
            let count = [3, 40, 200, 700][(round % 4) as usize];
            let text = if round % 3 == 0 { "x".repeat(FOLLOWER_TAIL_BYTES_MAX / 16) } else { "x".into() };
            let count = if text.len() > 1 { count / 10 + 1 } else { count };
            let mut readers = vec![tokio::spawn(read(bridge.follow_new(id), round, 0))];
            for reader in 0..6 {
                readers.push(tokio::spawn(read(bridge.follow(id, 1), round * 7 + reader, reader * 3)));
            }
            let mut last = 0;
            let mut dice = Dice(round);
            while last < count {
                let together = 1 + dice.below(5).min(count - last - 1);
                let writes = (1..=together).map(|n| event(id, last + n, &text)).collect();
                last += together;
                let submitted = bridge.submit(Process, writes);
                if dice.below(3) == 0 {
                    submitted.await.unwrap();
                }
                if dice.below(20) == 0 {
                    readers.push(tokio::spawn(read(bridge.follow(id, 1), last, 1)));
                }
            }
            bridge.submit(Process, vec![settle(id, last)]).await.unwrap();
            readers.push(tokio::spawn(read(bridge.follow(id, 1), 1, 1)));
            for reader in readers {
                let (numbers, settled_at) = reader.await.unwrap();
                assert_eq!(numbers, (1..=last).collect::<Vec<_>>());
                assert_eq!(settled_at, last);
            }
        }
        bridge.close().await;
    }
}

#[tokio::test]
async fn one_who_keeps_up_needs_no_look_into_the_store() {
    let (bridge, controls) = counted();
    let id = begin(&bridge).await;
    let mut follower = bridge.follow_new(id);
    let mut other = bridge.follow_new(id);
    for number in 1..=200 {
        assert!(is_pending(follower.next(9)).await);
        bridge.submit(Process, vec![event(id, number, "x")]).await.unwrap();
        let events = follower.next(9).await.unwrap();
        assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), [number]);
    }
    assert!(is_pending(other.wait_settled()).await);
    let outcomes = bridge.submit(Process, vec![event(id, 201, "x"), settle(id, 201)]).await.unwrap();
    assert_eq!(other.wait_settled().await.unwrap().last_event, 201);
    assert_eq!(follower.next(9).await.unwrap().len(), 1);
    assert!(follower.settled().is_none(), "the end comes after what was before it");
    assert!(follower.next(9).await.unwrap().is_empty());
    let Ok(Written::Settled(promise)) = &outcomes[1] else { unreachable!("{outcomes:?}") };
    assert_eq!(follower.settled(), Some(&**promise));
    assert_eq!(controls.reads(), 0);
    // The other one was left behind, has the journal for it, and the same end.
    let mut numbers = Vec::new();
    loop {
        let events = other.next(50).await.unwrap();
        if events.is_empty() {
            break;
        }
        numbers.extend(events.iter().map(|event| event.number));
    }
    assert_eq!(numbers, (1..=201).collect::<Vec<_>>());
    assert!(controls.reads() > 0);
}

#[tokio::test]
async fn what_is_pushed_is_what_the_store_has() {
    let folder = folder();
    for bridge in every_kind(folder.path()) {
        let id = begin(&bridge).await;
        let mut follower = bridge.follow_new(id);
        bridge.submit(Process, vec![event(id, 1, "a"), event(id, 2, "b"), settle(id, 2)]).await.unwrap();
        assert_eq!(follower.next(9).await, bridge.events(id, 1, 9, usize::MAX).await);
        assert!(follower.next(9).await.unwrap().is_empty());
        assert_eq!(follower.settled(), bridge.promise(id).await.unwrap().as_ref());
        // Late output comes to one who asks again.
        bridge.submit(Process, vec![event(id, 3, "late")]).await.unwrap();
        assert_eq!(follower.next(9).await.unwrap()[0].number, 3);
        assert!(follower.next(9).await.unwrap().is_empty());
        bridge.close().await;
    }
}

#[tokio::test]
async fn one_who_waits_reads_once_and_hears_of_the_end() {
    let (bridge, controls) = counted();
    let id = begin(&bridge).await;
    let mut wait = Box::pin(bridge.wait(id));
    while controls.reads() == 0 {
        assert!(is_pending(&mut wait).await);
        tokio::task::yield_now().await;
    }
    for number in 1..=FOLLOWER_TAIL_EVENTS_MAX as u64 * 2 {
        bridge.submit(Process, vec![event(id, number, "x")]).await.unwrap();
    }
    bridge.submit(Process, vec![settle(id, 3)]).await.unwrap();
    assert_eq!(wait.await.unwrap().state, State::Resolved);
    assert_eq!(controls.reads(), 1);
}

#[tokio::test]
async fn one_who_is_live_is_told_that_nothing_more_will_come() {
    let folder = folder();
    for bridge in every_kind(folder.path()) {
        let id = begin(&bridge).await;
        let mut follower = bridge.follow_new(id);
        let mut waiting = bridge.follow_new(id);
        bridge.submit(Process, vec![event(id, 1, "a")]).await.unwrap();
        bridge.close().await;
        let closed = Err(BridgeError::Store(StoreError::Closed));
        assert_eq!(waiting.wait_settled().await.map(drop), closed);
        assert_eq!(follower.next(1).await.unwrap().len(), 1, "what was recorded is given before");
        assert_eq!(follower.next(1).await.map(drop), closed);
    }
}

#[tokio::test]
async fn going_back_or_ahead_reads_the_store() {
    let bridge = Bridge::in_memory(clock());
    let id = begin(&bridge).await;
    let mut follower = bridge.follow_new(id);
    for number in 1..=5 {
        bridge.submit(Process, vec![event(id, number, "x")]).await.unwrap();
    }
    assert_eq!(follower.next(9).await.unwrap().len(), 5);
    follower.skip_to(2);
    let events = follower.next(9).await.unwrap();
    assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), [2, 3, 4, 5]);
    // Also one who has all of it from the store.
    let mut other = bridge.follow(id, 1);
    assert_eq!(other.next(9).await.unwrap().len(), 5);
    assert!(is_pending(other.next(9)).await);
    other.skip_to(5);
    assert_eq!(other.next(9).await.unwrap()[0].number, 5);
    follower.skip_to(8);
    assert!(is_pending(follower.next(9)).await);
    for number in 6..=8 {
        bridge.submit(Process, vec![event(id, number, "x")]).await.unwrap();
    }
    assert_eq!(follower.next(9).await.unwrap()[0].number, 8);
}

#[tokio::test]
async fn what_is_recorded_with_the_end_is_not_lost_when_a_look_falls_in_between() {
    // The end is in the store, and not pushed yet: right before the promise is read; with and without events before.
    for before in [0, 1] {
        let (bridge, controls) = counted();
        let id = begin(&bridge).await;
        for number in 1..=before {
            bridge.submit(Process, vec![event(id, number, "x")]).await.unwrap();
        }
        let mut follower = bridge.follow(id, 1);
        controls.before_promise(move |store| {
            let writes = vec![event(id, before + 1, "x"), settle(id, before + 1)];
            let group = Group { now: SystemClock.now(), durability: Process, writes };
            store.commit(&[group]).unwrap();
        });
        let mut numbers = Vec::new();
        loop {
            let events = follower.next(9).await.unwrap();
            if events.is_empty() {
                break;
            }
            numbers.extend(events.iter().map(|event| event.number));
        }
        assert_eq!(numbers, (1..=before + 1).collect::<Vec<_>>());
        assert_eq!(follower.settled().unwrap().last_event, before + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_who_record_at_a_time_are_each_read_along_in_order() {
    // Some commits are made by the thread of the store, and some by those who submit.
    let folder = folder();
    for bridge in every_kind(folder.path()) {
        bridge.submit(Process, vec![open_session()]).await.unwrap();
        let tasks: Vec<_> = (0..12u64)
            .map(|task| {
                let bridge = bridge.clone();
                tokio::spawn(async move {
                    let mut dice = Dice(task);
                    for _ in 0..25 {
                        let id = another(&bridge).await;
                        let reader = tokio::spawn(read(bridge.follow_new(id), dice.below(1000), 1));
                        let waiting = bridge.clone();
                        let waiting = tokio::spawn(async move { waiting.wait(id).await });
                        let count = dice.below(90);
                        for number in 1..=count {
                            let submitted = bridge.submit(Process, vec![event(id, number, "x")]);
                            if dice.below(9) == 0 {
                                submitted.await.unwrap();
                            }
                        }
                        drop(bridge.submit(Process, vec![settle(id, count)]));
                        assert_eq!(waiting.await.unwrap().unwrap().last_event, count);
                        assert_eq!(reader.await.unwrap(), ((1..=count).collect(), count));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        bridge.close().await;
    }
}
