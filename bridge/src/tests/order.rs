//! Groups: their order, their atomicity, what one commit takes.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use cob_protocol::limits::{COMMIT_BYTES_MAX, COMMIT_WRITES_MAX, WRITER_QUEUE_BYTES_MAX};
use cob_protocol::promise::Durability::{None as Memory, Power, Process};

use super::faulty::Controls;
use super::*;
use crate::store::{BridgeError, StoreError};

#[tokio::test]
async fn groups_that_wait_are_committed_together_in_their_order() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    controls.hold();
    let first = bridge.submit(Process, vec![event(id, 1, "a")]);
    controls.is_held().await;
    let second = bridge.submit(Process, vec![event(id, 2, "b"), event(id, 3, "c")]);
    let third = bridge.submit_one_of_many(Power, vec![event(id, 4, "d")]);
    let fourth = bridge.submit(Memory, vec![settle(id, 4)]);
    controls.release();
    for submitted in [first, second, third, fourth] {
        assert!(submitted.await.unwrap().iter().all(Result::is_ok));
    }
    let commits = controls.commits();
    assert_eq!(commits[2..], [(vec![1], Process), (vec![2, 1, 1], Power)]);
}

#[tokio::test]
async fn a_commit_takes_whole_groups_up_to_its_bounds() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    controls.hold();
    let blocker = bridge.submit(Process, vec![]);
    controls.is_held().await;
    let mut number = 0;
    let mut events = |count: usize, text: &str| -> Vec<Write> {
        let events = (0..count).map(|_| {
            number += 1;
            event(id, number, text)
        });
        events.collect()
    };
    let large = "x".repeat(COMMIT_BYTES_MAX / 2 + 1);
    let groups = [
        events(COMMIT_WRITES_MAX - 1, ""),
        events(2, ""),
        events(COMMIT_WRITES_MAX + 1, ""),
        events(1, &large),
        events(1, &large),
        events(3, &large),
    ];
    let submitted = groups.map(|group| bridge.submit(Process, group));
    drop(blocker);
    controls.release();
    for submitted in submitted {
        assert!(submitted.await.unwrap().iter().all(Result::is_ok));
    }
    let sizes: Vec<_> = controls.commits().into_iter().skip(3).map(|(sizes, _)| sizes).collect();
    let max = COMMIT_WRITES_MAX;
    assert_eq!(sizes, [vec![max - 1], vec![2], vec![max + 1], vec![1], vec![1], vec![3]]);
}

#[tokio::test]
async fn submissions_complete_in_the_order_they_were_made() {
    let bridge = Controls::new().bridge(clock());
    let id = begin(&bridge).await;
    let mut submitted: Vec<_> =
        (1..=2000).map(|number| bridge.submit(Process, vec![event(id, number, "x")])).collect();
    let mut done = 0;
    poll_fn(|context| {
        // From the last to the first: what is complete must be a beginning of the whole.
        let ready: Vec<bool> = (done..submitted.len())
            .rev()
            .map(|index| Pin::new(&mut submitted[index]).poll(context).is_ready())
            .collect();
        let complete = ready.iter().filter(|ready| **ready).count();
        // Later ones were looked at first, so whatever is complete behind one that is not has been in time.
        assert!(ready.iter().rev().take_while(|ready| **ready).count() >= complete);
        done += complete;
        if done == submitted.len() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn an_answer_is_given_once_and_needs_nobody_to_take_it() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    controls.hold();
    let mut looked_at = bridge.submit(Process, vec![event(id, 1, "a")]);
    controls.is_held().await;
    drop(bridge.submit(Process, vec![event(id, 2, "b")]));
    let mut polled = bridge.submit(Process, vec![event(id, 3, "c")]);
    assert!(looked_at.try_take().is_none());
    assert!(poll_fn(|context| Poll::Ready(Pin::new(&mut polled).poll(context))).await.is_pending());
    drop(polled);
    let last = bridge.submit(Process, vec![event(id, 4, "d")]);
    controls.release();
    assert_eq!(last.await.unwrap(), [Ok(Written::Done)]);
    assert_eq!(looked_at.try_take(), Some(Ok(vec![Ok(Written::Done)])));
    assert_eq!(looked_at.try_take(), None);
    assert_eq!(bridge.events(id, 1, 10, 1000).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_refused_write_leaves_the_others_of_its_group_alone() {
    for bridge in [Bridge::in_memory(clock()), Controls::new().bridge(clock())] {
        let id = begin(&bridge).await;
        let writes = vec![event(id, 1, "a"), event(id, 3, "c"), event(id, 2, "b")];
        let outcomes = bridge.submit(Process, writes).await.unwrap();
        let misnumbered = BridgeError::Misnumbered { id, expected: 2, given: 3 };
        assert_eq!(outcomes, [Ok(Written::Done), Err(misnumbered), Ok(Written::Done)]);
        let metrics = bridge.metrics();
        assert_eq!((metrics.commits.groups, metrics.pending.executions), (3, 1));
    }
}

#[tokio::test]
async fn who_submits_more_than_there_is_room_for_is_told_and_woken() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    bridge.room().await;
    controls.hold();
    let large = "x".repeat(WRITER_QUEUE_BYTES_MAX);
    let submitted = bridge.submit(Process, vec![event(id, 1, &large)]);
    controls.is_held().await;
    assert!(!bridge.has_room());
    assert!(bridge.metrics().queue.bytes > WRITER_QUEUE_BYTES_MAX);
    let waiting = tokio::spawn({
        let bridge = bridge.clone();
        async move {
            // Dropped halfway, and asked again.
            tokio::select! { biased; () = bridge.room() => {} () = std::future::ready(()) => {} }
            bridge.room().await;
        }
    });
    controls.release();
    submitted.await.unwrap();
    waiting.await.unwrap();
    assert!(bridge.has_room());
    assert_eq!(bridge.metrics().queue, crate::QueueMetrics { groups: 0, bytes: 0 });
}

#[tokio::test]
async fn what_was_submitted_before_the_last_handle_went_is_recorded() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    let submitted = bridge.submit(Process, vec![event(id, 1, "a")]);
    drop(bridge);
    submitted.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_submit_at_once_each_get_their_own_answer() {
    for bridge in [Bridge::in_memory(clock()), Controls::new().bridge(clock())] {
        bridge.submit(Process, vec![open_session()]).await.unwrap();
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let bridge = bridge.clone();
                tokio::spawn(async move {
                    let mut ids = Vec::new();
                    for round in 0..20 {
                        let id = another(&bridge).await;
                        let writes = vec![event(id, 1, "a"), settle(id, 1)];
                        let submitted = bridge.submit(Process, writes);
                        if round % 3 == 0 {
                            drop(submitted);
                        } else {
                            let outcomes = submitted.await.unwrap();
                            assert!(
                                matches!(&outcomes[1], Ok(Written::Settled(promise)) if promise.id == id)
                            );
                        }
                        ids.push(id);
                    }
                    ids
                })
            })
            .collect();
        let mut ids = Vec::new();
        for task in tasks {
            ids.extend(task.await.unwrap());
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 1000);
        bridge.submit(Memory, vec![]).await.unwrap();
        let metrics = bridge.metrics();
        assert_eq!((metrics.pending.executions, metrics.pending.calls), (0, 0));
        bridge.close().await;
        let closed = bridge.submit(Process, vec![execution(None)]).await;
        assert_eq!(closed, Err(StoreError::Closed));
    }
}

#[tokio::test]
async fn a_small_group_that_finds_the_writer_asleep_is_recorded_at_once_and_in_order() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    let mut number = 0;
    // Sooner or later the thread has gone to sleep, and the pause after the last commit is over.
    let early = controls.claimed();
    while controls.claimed() == early {
        number += 1;
        let mut submitted = bridge.submit(Process, vec![event(id, number, "x")]);
        let was_there = submitted.try_take();
        assert!(was_there.is_some() || controls.claimed() == early);
        if was_there.is_none() {
            submitted.await.unwrap();
        }
    }
    // What must reach the disk, or is large, never is.
    let before = controls.claimed();
    bridge.submit(Power, vec![event(id, number + 1, "x")]).await.unwrap();
    let large = "x".repeat(1 << 15);
    bridge.submit(Process, vec![event(id, number + 2, &large)]).await.unwrap();
    assert_eq!(controls.claimed(), before);
    let events = bridge.events(id, 1, 1000, usize::MAX).await.unwrap();
    assert!(events.iter().zip(1..).all(|(event, number)| event.number == number));
}
