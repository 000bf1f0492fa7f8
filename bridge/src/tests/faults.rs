//! What happens when the store fails.

use std::sync::atomic::{AtomicUsize, Ordering};

use cob_protocol::limits::{
    BALLAST_BYTES, NEED_BYTES_MAX, SERVER_BALLAST_BYTES, STORE_FAILURES_MAX, STORE_FREE_BYTES_MIN,
};
use cob_protocol::promise::Durability::Process;

use super::faulty::{Controls, Fault};
use super::*;
use crate::Health;
use crate::store::{BridgeError, StoreError};

fn full() -> StoreError {
    StoreError::Full { store: "here".into() }
}

fn busy() -> StoreError {
    StoreError::Busy { store: "here".into() }
}

fn failed() -> StoreError {
    StoreError::Failed { store: "here".into(), what: "EIO".into() }
}

fn corrupt() -> StoreError {
    StoreError::Corrupt { path: "here".into(), what: "a page".into() }
}

fn for_ever(error: StoreError) -> Fault {
    Fault { after: 0, times: usize::MAX, error, helped_by_ballast: false }
}

#[tokio::test]
async fn a_full_disk_refuses_beginnings_and_settles_what_runs_with_the_ballast() {
    full_disk(1).await;
}

#[tokio::test]
async fn a_larger_ballast_helps_longer() {
    full_disk(SERVER_BALLAST_BYTES / BALLAST_BYTES).await;
}

/// With so many times the usual ballast.
async fn full_disk(times: u64) {
    let controls = Controls::new();
    controls.set_ballast(times * BALLAST_BYTES);
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    controls.set_free(STORE_FREE_BYTES_MIN);
    controls.fail(Fault { helped_by_ballast: true, ..for_ever(full()) });
    controls.hold();
    let blocker = bridge.submit(Process, vec![event(id, 1, "a")]);
    controls.is_held().await;
    let new = bridge.submit(Process, vec![execution(None)]);
    let more = bridge.submit(Process, vec![event(id, 2, "b")]);
    controls.release();
    assert!(blocker.await.is_ok());
    assert_eq!(new.await, Err(full()));
    assert_eq!(more.await, Ok(vec![Ok(Written::Done)]));
    assert!(!controls.has_ballast());
    assert_eq!(bridge.health(), Health::Full(full()));
    // What is left of the ballast is for the ends.
    if times > 1 {
        let half = "x".repeat(NEED_BYTES_MAX * times as usize / 2);
        let outcomes = bridge.submit(Process, vec![event(id, 3, &half)]).await.unwrap();
        assert_eq!(outcomes, [Ok(Written::Done)]);
    }
    let large = "x".repeat(NEED_BYTES_MAX * times as usize);
    assert_eq!(bridge.submit(Process, vec![event(id, 3, &large)]).await, Err(full()));
    let attempts = controls.attempts();
    assert_eq!(bridge.submit(Process, vec![execution(None)]).await, Err(full()));
    assert_eq!(controls.attempts(), attempts, "it is refused before it touches the disk");
    assert!(bridge.submit(Process, vec![settle(id, 2)]).await.unwrap()[0].is_ok());
    // Room comes back: the ballast first, then new work.
    controls.heal();
    controls.set_free(2 * STORE_FREE_BYTES_MIN + times * BALLAST_BYTES - 1);
    assert_eq!(bridge.submit(Process, vec![execution(None)]).await, Err(full()));
    controls.set_free(2 * STORE_FREE_BYTES_MIN + times * BALLAST_BYTES);
    another(&bridge).await;
    assert!(controls.has_ballast());
    assert_eq!(bridge.health(), Health::Good);
    assert!(bridge.metrics().commits.refused >= 2);
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_nothing_new_and_keeps_its_ballast() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    controls.set_free(STORE_FREE_BYTES_MIN - 1);
    assert_eq!(bridge.submit(Process, vec![execution(None)]).await, Err(full()));
    assert_eq!(bridge.health(), Health::Full(full()));
    assert!(bridge.submit(Process, vec![event(id, 1, "a"), settle(id, 1)]).await.is_ok());
    assert!(controls.has_ballast());
    // A little more room is not enough, or it would go to and fro.
    controls.set_free(STORE_FREE_BYTES_MIN);
    assert_eq!(bridge.submit(Process, vec![execution(None)]).await, Err(full()));
    controls.set_free(2 * STORE_FREE_BYTES_MIN);
    another(&bridge).await;
    assert_eq!(bridge.health(), Health::Good);
}

#[tokio::test]
async fn whoever_asks_for_the_health_of_a_full_store_has_the_disk_looked_at() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    begin(&bridge).await;
    controls.set_free(0);
    assert_eq!(bridge.submit(Process, vec![execution(None)]).await, Err(full()));
    controls.set_free(u64::MAX);
    assert_eq!(bridge.health(), Health::Full(full()));
    // The look was asked for before the writer is told to end, so it happens before.
    bridge.submit(Process, vec![]).await.unwrap();
    assert_eq!(bridge.health(), Health::Good);
}

#[tokio::test]
async fn a_full_disk_that_even_the_ballast_does_not_help_fails_one_by_one() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    controls.hold();
    let blocker = bridge.submit(Process, vec![]);
    controls.is_held().await;
    // The batch fails, and once more with the ballast; then the first group alone; then there is room.
    controls.fail(Fault { after: 1, times: 3, error: full(), helped_by_ballast: false });
    let first = bridge.submit(Process, vec![event(id, 1, "a")]);
    let second = bridge.submit(Process, vec![settle(id, 0)]);
    controls.set_free(0);
    controls.release();
    blocker.await.unwrap();
    assert_eq!(first.await, Err(full()));
    assert!(second.await.unwrap()[0].is_ok());
}

#[tokio::test]
async fn a_busy_store_fails_the_groups_and_nothing_else() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    let times = STORE_FAILURES_MAX as usize + 2;
    controls.fail(Fault { times, ..for_ever(busy()) });
    for _ in 0..times {
        assert_eq!(bridge.submit(Process, vec![event(id, 1, "a")]).await, Err(busy()));
    }
    assert_eq!(bridge.health(), Health::Good);
    assert!(bridge.submit(Process, vec![event(id, 1, "a")]).await.unwrap()[0].is_ok());
}

#[tokio::test]
async fn failures_in_a_row_make_the_store_read_only_and_reads_go_on() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    let id = begin(&bridge).await;
    let settled = another(&bridge).await;
    bridge.submit(Process, vec![settle(settled, 0)]).await.unwrap();
    // One that succeeds in between begins the count again.
    let fault = Fault { times: STORE_FAILURES_MAX as usize - 1, ..for_ever(failed()) };
    for _ in 0..2 {
        controls.fail(fault.clone());
        for _ in 0..fault.times {
            assert_eq!(bridge.submit(Process, vec![]).await, Err(failed()));
        }
        bridge.submit(Process, vec![]).await.unwrap();
    }
    let waiting = tokio::spawn({
        let bridge = bridge.clone();
        async move { (bridge.wait(id).await, bridge.follow(id, 1).next(1).await) }
    });
    controls.fail(for_ever(failed()));
    for _ in 0..STORE_FAILURES_MAX {
        assert_eq!(bridge.submit(Process, vec![]).await, Err(failed()));
    }
    let Health::ReadOnly(reason) = bridge.health() else { unreachable!("{:?}", bridge.health()) };
    controls.heal();
    assert_eq!(bridge.submit(Process, vec![settle(id, 0)]).await, Err(reason.clone()));
    let never = BridgeError::Store(reason);
    assert_eq!(waiting.await.unwrap(), (Err(never.clone()), Err(never)));
    assert_eq!(bridge.wait(settled).await.unwrap().state, State::Resolved);
    bridge.close().await;
    assert!(controls.is_closed());
}

#[tokio::test]
async fn damage_makes_the_store_read_only_at_once() {
    let controls = Controls::new();
    let bridge = controls.bridge(clock());
    begin(&bridge).await;
    controls.fail(Fault { times: 1, ..for_ever(corrupt()) });
    assert_eq!(bridge.submit(Process, vec![execution(None)]).await, Err(corrupt()));
    assert_eq!(bridge.health(), Health::ReadOnly(corrupt()));
    assert_eq!(bridge.submit(Process, vec![execution(None)]).await, Err(corrupt()));
}

#[tokio::test]
async fn a_disk_that_lost_what_it_had_taken_ends_the_process() {
    static ABORTS: AtomicUsize = AtomicUsize::new(0);
    let controls = Controls::new();
    let bridge = controls.bridge_that(clock(), |why| {
        assert!(why.contains("EIO"), "{why}");
        ABORTS.fetch_add(1, Ordering::SeqCst);
    });
    begin(&bridge).await;
    let error = StoreError::Unsynced { store: "here".into(), what: "EIO".into() };
    controls.fail(Fault { times: 1, ..for_ever(error.clone()) });
    assert_eq!(bridge.submit(Process, vec![execution(None)]).await, Err(error.clone()));
    assert_eq!(ABORTS.load(Ordering::SeqCst), 1);
    // Were it not ended, nothing would be written any more.
    let attempts = controls.attempts();
    assert_eq!(bridge.submit(Process, vec![execution(None)]).await, Err(error));
    assert_eq!(controls.attempts(), attempts);
}

#[tokio::test]
async fn a_panic_of_the_writer_ends_the_process() {
    static ABORTED: tokio::sync::Notify = tokio::sync::Notify::const_new();
    for durability in [Process, Durability::Power] {
        let controls = Controls::new();
        let bridge = controls.bridge_that(clock(), |why| {
            assert_eq!(why, "the writer of the store panicked");
            ABORTED.notify_one();
        });
        begin(&bridge).await;
        controls.panic();
        // It is on the thread or on this one; were the process not ended, it would wait for ever.
        let submitting = tokio::spawn(async move { bridge.submit(durability, vec![open_session()]).await });
        ABORTED.notified().await;
        submitting.abort();
    }
}

#[tokio::test]
async fn a_panic_of_one_whom_a_commit_wakes_ends_the_process_too() {
    use std::task::{Context, Wake, Waker};
    struct Rude;
    impl Wake for Rude {
        fn wake(self: Arc<Self>) {
            unreachable!("as it was asked to");
        }
    }
    static ABORTS: AtomicUsize = AtomicUsize::new(0);
    let controls = Controls::new();
    let bridge = controls.bridge_that(clock(), |_| {
        ABORTS.fetch_add(1, Ordering::SeqCst);
    });
    let id = begin(&bridge).await;
    let claimed = controls.claimed();
    let listener = bridge.wakes().listen(id, crate::tail::Tail::default());
    let mut rung = std::pin::pin!(listener.rung());
    let waker = Waker::from(Arc::new(Rude));
    assert!(rung.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // On this thread: the writer is asleep by the time that somebody may claim the store.
    let end = || bridge.submit(Process, vec![settle(id, 0)]);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(end));
    if controls.claimed() > claimed {
        assert!(outcome.is_err());
        assert_eq!(ABORTS.load(Ordering::SeqCst), 1);
    }
}

/// One session's life, with retries as a client would make them. Says how many submissions failed.
async fn life(bridge: &Bridge) -> usize {
    let mut failures = 0;
    let mut acknowledged: Vec<(PromiseId, EventNumber, bool)> = Vec::new();
    let opened = bridge.submit(Process, vec![open_session()]).await;
    failures += usize::from(opened.is_err());
    for _ in 0..4 {
        let id = match bridge.submit(Process, vec![execution(None)]).await {
            Ok(outcomes) if outcomes[0].is_ok() => created(&outcomes),
            Ok(_) => continue,
            Err(_) => {
                failures += 1;
                continue;
            }
        };
        let mut next = 1;
        for _ in 0..3 {
            match bridge.submit(Process, vec![event(id, next, "x")]).await {
                Ok(outcomes) => {
                    outcomes[0].as_ref().unwrap();
                    next += 1;
                }
                Err(_) => failures += 1,
            }
        }
        let settled = bridge.submit(Process, vec![settle(id, next - 1)]).await;
        failures += usize::from(settled.is_err());
        acknowledged.push((id, next - 1, settled.is_ok()));
    }
    // Nothing acknowledged is missing, nothing refused is there.
    for (id, last, is_settled) in acknowledged {
        let events = bridge.events(id, 1, 100, 1000).await.unwrap();
        assert_eq!(events.len() as u64, last);
        assert_eq!(bridge.promise(id).await.unwrap().unwrap().state.is_settled(), is_settled);
    }
    failures
}

#[tokio::test]
async fn whichever_commit_fails_what_was_acknowledged_is_there_and_nothing_else() {
    for error in [full(), busy(), failed(), corrupt()] {
        for times in [1, usize::MAX] {
            let mut after = 0;
            loop {
                let controls = Controls::new();
                let bridge = controls.bridge(clock());
                controls.fail(Fault { after, times, error: error.clone(), helped_by_ballast: false });
                let failures = life(&bridge).await;
                let was_met = controls.attempts() > after;
                assert!(was_met || failures == 0);
                bridge.close().await;
                assert!(controls.is_closed());
                if !was_met {
                    break;
                }
                after += 1;
            }
            assert!(after >= 20, "{error}: only {after} commits");
        }
    }
}
