//! Those who wait: for an end, for events, for a deadline. Nobody misses a wake, nobody looks at a clock.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use cob_protocol::promise::Durability::Process;
use cob_protocol::promise::Refused;

use super::faulty::Controls;
use super::*;
use crate::store::{BridgeError, StoreError};

/// Polls once.
pub(super) async fn is_pending(future: impl Future) -> bool {
    let mut future = pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

fn both() -> [Bridge; 2] {
    [Bridge::in_memory(clock()), Controls::new().bridge(clock())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_never_miss_the_end_however_it_falls_between_their_steps() {
    for bridge in both() {
        bridge.submit(Process, vec![open_session()]).await.unwrap();
        let mut waiters = Vec::new();
        for _ in 0..300 {
            let id = another(&bridge).await;
            for _ in 0..3 {
                let bridge = bridge.clone();
                waiters.push(tokio::spawn(async move { bridge.wait(id).await.unwrap().state }));
            }
            drop(bridge.submit(Process, vec![settle(id, 0)]));
        }
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), State::Resolved);
        }
    }
}

#[tokio::test]
async fn waiting_for_what_does_not_exist_is_an_error() {
    for bridge in both() {
        let id = begin(&bridge).await;
        let unknown = PromiseId::execution(SESSION, 9);
        assert_eq!(bridge.wait(unknown).await, Err(BridgeError::Unknown(unknown)));
        assert_eq!(bridge.follow(unknown, 1).next(1).await, Err(BridgeError::Unknown(unknown)));
        assert_eq!(bridge.promise(unknown).await.unwrap(), None);
        assert!(bridge.promise(id).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_get_every_event_once_in_order_whatever_their_credit() {
    for bridge in both() {
        let id = begin(&bridge).await;
        let count = 2000;
        let followers: Vec<_> = [(1, 1), (1, 7), (500, 1024), (1999, 3), (2001, 5)]
            .into_iter()
            .map(|(from, credit)| {
                let mut follower = bridge.follow(id, from);
                tokio::spawn(async move {
                    let mut numbers = Vec::new();
                    loop {
                        let events = follower.next(credit).await.unwrap();
                        assert!(events.len() <= credit);
                        if events.is_empty() {
                            assert!(follower.next(credit).await.unwrap().is_empty());
                            return (from, numbers);
                        }
                        numbers.extend(events.iter().map(|event| event.number));
                    }
                })
            })
            .collect();
        for number in 1..=count {
            let submitted = bridge.submit(Process, vec![event(id, number, "x")]);
            if number % 50 == 0 {
                submitted.await.unwrap();
            }
        }
        bridge.submit(Process, vec![settle(id, count)]).await.unwrap();
        for follower in followers {
            let (from, numbers) = follower.await.unwrap();
            assert_eq!(numbers, (from..=count).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_follower_that_is_dropped_halfway_keeps_its_place() {
    for bridge in both() {
        let id = begin(&bridge).await;
        let mut follower = bridge.follow(id, 1);
        for number in 1..=50 {
            // Pending at its first step or its second, and dropped there.
            let dropped = is_pending(follower.next(10)).await;
            assert!(dropped);
            bridge.submit(Process, vec![event(id, number, "x")]).await.unwrap();
            let events = follower.next(10).await.unwrap();
            assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), [number]);
        }
        assert_eq!(follower.next_number(), 51);
    }
}

#[tokio::test]
async fn a_slow_follower_of_a_forgotten_journal_is_told() {
    let bridge = Bridge::in_memory(clock());
    let id = begin(&bridge).await;
    let large = "x".repeat(1 << 20);
    for number in 1..=6 {
        bridge.submit(Process, vec![event(id, number, &large)]).await.unwrap();
    }
    let error = bridge.follow(id, 1).next(1).await.unwrap_err();
    let BridgeError::Forgotten { first, .. } = error else { unreachable!("{error}") };
    let events = bridge.follow(id, first).next(100).await.unwrap();
    assert_eq!(events.last().unwrap().number, 6);
}

#[tokio::test]
async fn a_deadline_rings_when_it_comes_and_never_before() {
    for bridge in both() {
        bridge.submit(Process, vec![open_session()]).await.unwrap();
        assert!(is_pending(bridge.due()).await);
        let deadline = SystemClock.now().after_ms(30);
        let waiting = tokio::spawn({
            let bridge = bridge.clone();
            async move {
                let id = bridge.due().await;
                (id, SystemClock.now())
            }
        });
        // One that is later does not come first.
        let later = SystemClock.now().after_ms(60_000);
        let outcomes = bridge.submit(Process, vec![execution(Some(later))]).await.unwrap();
        let later = created(&outcomes);
        let outcomes = bridge.submit(Process, vec![execution(Some(deadline))]).await.unwrap();
        let id = created(&outcomes);
        let (due, at) = waiting.await.unwrap();
        assert_eq!(due, id);
        assert!(at >= deadline, "{at} is before {deadline}");
        let outcomes = bridge.submit(Process, vec![expire(id)]).await.unwrap();
        let Ok(Written::Settled(promise)) = &outcomes[0] else { unreachable!("{outcomes:?}") };
        assert_eq!((promise.state, promise.settled_at), (State::RejectedTimedOut, promise.deadline));
        assert!(is_pending(bridge.due()).await, "{later} is not due");
    }
}

#[tokio::test]
async fn a_promise_whose_end_is_on_its_way_is_not_due() {
    let controls = Controls::new();
    let set = SetClock::at(SystemClock.now());
    let bridge = controls.bridge(set.clone());
    bridge.submit(Process, vec![open_session()]).await.unwrap();
    let deadline = set.now().after_ms(1000);
    let id = created(&bridge.submit(Process, vec![execution(Some(deadline))]).await.unwrap());
    set.set(deadline);
    assert_eq!(bridge.due().await, id);
    assert_eq!(bridge.due().await, id, "nobody attends to it");
    controls.hold();
    let submitted = bridge.submit(Process, vec![expire(id)]);
    assert!(is_pending(bridge.due()).await);
    controls.release();
    submitted.await.unwrap();
    assert!(is_pending(bridge.due()).await);
}

#[tokio::test]
async fn an_end_that_was_not_recorded_is_due_again_but_not_at_once() {
    let controls = Controls::new();
    let set = SetClock::at(SystemClock.now());
    let bridge = controls.bridge(set.clone());
    bridge.submit(Process, vec![open_session()]).await.unwrap();
    let deadline = set.now().after_ms(1000);
    let id = created(&bridge.submit(Process, vec![execution(Some(deadline))]).await.unwrap());
    set.set(deadline);
    let error = StoreError::Busy { store: "here".into() };
    controls.fail(faulty::Fault { after: 0, times: 1, error: error.clone(), helped_by_ballast: false });
    assert_eq!(bridge.submit(Process, vec![expire(id)]).await, Err(error));
    assert!(is_pending(bridge.due()).await);
    set.set(deadline.after_ms(1000));
    assert_eq!(bridge.due().await, id);
}

#[tokio::test]
async fn a_clock_that_steps_back_ends_nothing_early() {
    let controls = Controls::new();
    let start = SystemClock.now();
    let set = SetClock::at(start);
    let bridge = controls.bridge(set.clone());
    bridge.submit(Process, vec![open_session()]).await.unwrap();
    let deadline = start.after_ms(3_600_000);
    let id = created(&bridge.submit(Process, vec![execution(Some(deadline))]).await.unwrap());
    set.set(deadline);
    assert_eq!(bridge.due().await, id);
    set.set(start);
    let outcomes = bridge.submit(Process, vec![expire(id)]).await.unwrap();
    assert_eq!(outcomes, [Err(BridgeError::Refused { id, refused: Refused::NotDue })]);
    assert!(is_pending(bridge.due()).await);
    set.set(deadline);
    assert_eq!(bridge.due().await, id);
}

#[tokio::test]
async fn what_was_overdue_when_the_store_was_opened_is_due() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    bridge.submit(Process, vec![open_session()]).await.unwrap();
    let deadline = SystemClock.now().after_ms(-1000);
    let mut ids = Vec::new();
    for _ in 0..3000 {
        ids.push(bridge.submit(Process, vec![execution(Some(deadline))]));
    }
    let mut expected = Vec::new();
    for submitted in ids {
        expected.push(created(&submitted.await.unwrap()));
    }
    bridge.close().await;
    let second = Controls::new();
    std::mem::swap(&mut *second.store(), &mut *controls.store());
    let bridge = second.bridge(clock());
    assert_eq!(bridge.metrics().pending.executions, 3000);
    let mut found = Vec::new();
    for _ in 0..3000 {
        let id = bridge.due().await;
        drop(bridge.submit(Process, vec![expire(id)]));
        found.push(id);
    }
    found.sort();
    assert_eq!(found, expected);
    bridge.close().await;
    assert_eq!(bridge.metrics().pending.executions, 0);
}
