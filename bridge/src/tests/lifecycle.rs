//! The end: of everything pending, and of the bridge.

use cob_protocol::promise::Durability::Process;

use super::faulty::Controls;
use super::*;
use crate::store::{BridgeError, OutputState, StoreError};

fn shut_down() -> Settlement {
    Settlement::silent(State::RejectedCanceled, Json::object(), SessionState::Lost)
}

#[tokio::test]
async fn cancelling_everything_ends_it_with_its_output_and_only_once() {
    for bridge in [Bridge::in_memory(clock()), Controls::new().bridge(clock())] {
        let id = begin(&bridge).await;
        let tail = vec![(StreamName::Stderr, "the end".to_owned())];
        let output = OutputState { written: 1000, dropped: 0, head: 1, tail, ..OutputState::default() };
        let writes = vec![event(id, 1, "a"), Write::Output { id, output }, call(id, 1)];
        bridge.submit(Process, writes).await.unwrap();
        // Submitted, and perhaps not recorded yet.
        let waiting = bridge.submit(Process, vec![execution(None)]);
        let mut follower = bridge.follow(id, 1);
        let (ended, waited) = tokio::join!(bridge.cancel_all(SESSION, shut_down()), bridge.wait(id));
        assert_eq!(ended, Ok(3));
        let waiting = bridge.promise(created(&waiting.await.unwrap())).await.unwrap().unwrap();
        assert_eq!((waiting.state, waiting.last_event), (State::RejectedCanceled, 1));
        let promise = waited.unwrap();
        assert_eq!((promise.state, promise.last_event), (State::RejectedCanceled, 4));
        assert_eq!((promise.tally.written, promise.tally.dropped), (1000, 992));
        let events = follower.next(100).await.unwrap();
        let kinds: Vec<_> = events.iter().map(|recorded| recorded.event.kind()).collect();
        assert_eq!(kinds, ["stream", "truncated", "stream", "done"]);
        assert_eq!(*events[3].event, Event::Done { last: 3 });
        assert!(follower.next(100).await.unwrap().is_empty());
        assert_eq!(bridge.cancel_all(SESSION, shut_down()).await, Ok(0));
        assert_eq!(bridge.metrics().pending.executions, 0);
    }
}

#[tokio::test]
async fn a_character_whose_rest_never_came_is_shown_as_one_that_is_none() {
    let tail = vec![(StreamName::Stdout, "end".to_owned())];
    let incomplete = [vec![0xc3], vec![0xf0, 0x9f]];
    let plain = OutputState { written: 5, head: 5, incomplete, ..OutputState::default() };
    let held = OutputState { written: 9, head: 5, dropped: 1, tail, ..plain.clone() };
    let dropped = OutputState { written: 9, dropped: 4, ..plain.clone() };
    let shown = "Stdout \u{fffd}, Stderr \u{fffd}";
    for (output, expected, tally) in [
        (plain, shown.to_owned(), (11, 0)),
        (held, format!("Stdout end, {shown}"), (15, 1)),
        // The budget is used up: it is counted with the rest.
        (dropped, String::new(), (15, 10)),
    ] {
        let bridge = Bridge::in_memory(clock());
        let id = begin(&bridge).await;
        bridge.submit(Process, vec![Write::Output { id, output }]).await.unwrap();
        assert_eq!(bridge.cancel_all(SESSION, shut_down()).await, Ok(1));
        let events = bridge.events(id, 1, 100, 10_000).await.unwrap();
        let text = events.iter().filter_map(|recorded| match &*recorded.event {
            Event::Stream { name, text } => Some(format!("{name:?} {text}")),
            _ => None,
        });
        assert_eq!(text.collect::<Vec<_>>().join(", "), expected);
        let promise = bridge.promise(id).await.unwrap().unwrap();
        assert_eq!((promise.tally.written, promise.tally.dropped), tally);
        assert_eq!(promise.last_event, events.len() as u64);
    }
}

#[tokio::test]
async fn closing_twice_at_once_and_again_is_closing() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    let submitted = bridge.submit(Process, vec![event(id, 1, "a")]);
    let waiting = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.wait(id).await }
    });
    tokio::join!(bridge.close(), bridge.close());
    bridge.close().await;
    assert!(controls.is_closed());
    submitted.await.unwrap();
    assert_eq!(controls.store_events(id), 1);
    let closed = Err(BridgeError::Store(StoreError::Closed));
    assert_eq!(waiting.await.unwrap(), closed);
    assert_eq!(bridge.promise(id).await.map(drop), closed.map(drop));
    assert_eq!(bridge.submit(Process, vec![]).await, Err(StoreError::Closed));
    assert_eq!(bridge.cancel_all(SESSION, shut_down()).await, Err(BridgeError::Store(StoreError::Closed)));
    assert!(bridge.has_room());
}

#[tokio::test]
async fn a_close_that_is_given_up_is_finished_by_the_next() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    controls.hold();
    let submitted = bridge.submit(Process, vec![event(id, 1, "a")]);
    controls.is_held().await;
    tokio::select! { biased; () = bridge.close() => unreachable!(), () = std::future::ready(()) => {} }
    controls.release();
    bridge.close().await;
    submitted.await.unwrap();
    assert!(controls.is_closed());
}

#[tokio::test]
async fn figures_tell_what_is_pending_and_for_how_long() {
    let set = SetClock::at(SystemClock.now());
    let bridge = Bridge::in_memory(set.clone());
    let id = begin(&bridge).await;
    set.set(set.now().after_ms(2000));
    bridge.submit(Process, vec![call(id, 1), call(id, 2)]).await.unwrap();
    set.set(set.now().after_ms(500));
    let metrics = serde_json::to_value(bridge.metrics()).unwrap();
    let pending = serde_json::json!({
        "executions": 1, "calls": 2, "high_water": 3, "oldest_execution_ms": 2500, "oldest_call_ms": 500,
    });
    assert_eq!(metrics["pending"], pending);
    assert_eq!(metrics["health"], "good");
    bridge.submit(Process, vec![settle(id.with_call(1), 0), settle(id.with_call(2), 0)]).await.unwrap();
    let pending = bridge.metrics().pending;
    assert_eq!((pending.calls, pending.high_water, pending.oldest_call_ms), (0, 3, None));
}
