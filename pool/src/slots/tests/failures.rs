//! What becomes of requests, workers and zygotes when something fails.

use cob_protocol::limits::{IMPORTS_MAX, RETRY_PAUSE_MS_MAX, RETRY_PAUSE_MS_MIN, START_FAILURES_MAX};

use super::*;
use crate::breaker::Reason;
use crate::metrics::BreakerInfo;

#[test]
fn when_a_fork_fails_its_request_is_started_cold_and_forking_rests() {
    let mut pool = Pool::new(CONFIG);
    pool.ready(NUMPY, 0, 50);
    let slot = fork(&pool.lease(NUMPY).1);
    let actions = pool.apply(Input::Failed { slot, error: "EAGAIN".into() });
    start(&actions);
    assert!(actions.contains(&Action::WakeAt(Duration::from_millis(RETRY_PAUSE_MS_MIN))));
    pool.pass(RETRY_PAUSE_MS_MIN);
    fork(&pool.lease(NUMPY).1);
}

#[test]
fn without_the_module_to_blame_a_zygote_is_prepared_at_once() {
    let mut pool = Pool::new(CONFIG);
    let environment = NUMPY;
    let zygote = prepare(&pool.lease(NUMPY).1);
    let blamed = Input::Unprepared { environment, zygote, reason: "grpc".into(), again: Again::AtOnce };
    let next = prepare(&pool.apply(blamed.clone()));
    assert_ne!(next, zygote);
    assert_eq!(pool.apply(blamed), [], "what is said of an earlier zygote changes nothing");
}

#[test]
fn blaming_modules_ends() {
    let mut pool = Pool::new(CONFIG);
    let environment = NUMPY;
    let mut zygote = prepare(&pool.lease(NUMPY).1);
    for _ in 0..IMPORTS_MAX {
        let reason = "it".into();
        let again = Again::AtOnce;
        zygote = prepare(&pool.apply(Input::Unprepared { environment, zygote, reason, again }));
    }
    pool.apply(Input::Unprepared { environment, zygote, reason: "it".into(), again: Again::AtOnce });
    assert!(matches!(pool.info(NUMPY).zygote, ZygoteInfo::Lost { .. }));
}

#[test]
fn a_zygote_that_died_is_prepared_again_after_pauses_that_grow_until_only_a_lease_does_it() {
    let mut pool = Pool::new(CONFIG);
    let environment = NUMPY;
    let mut zygote = prepare(&pool.apply(Input::Configure { environment, warm_target: 1 }));
    let mut pauses = Vec::new();
    loop {
        let actions = pool.apply(Input::ZygoteGone { environment, zygote, reason: "SIGKILL".into() });
        let Some(Action::WakeAt(at)) = actions.last() else { break };
        let pause = u64::try_from((*at - pool.now).as_millis()).unwrap();
        pauses.push(pause);
        zygote = prepare(&pool.pass(pause));
    }
    assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000]);
    assert_eq!(pool.pass(RETRY_PAUSE_MS_MAX), []);
    prepare(&pool.lease(NUMPY).1);
}

#[test]
fn one_lost_worker_is_not_seen_and_the_second_is_an_error() {
    let mut pool = Pool::new(CONFIG);
    pool.unfit(NUMPY);
    let slot = start(&pool.lease(NUMPY).1);
    let actions = pool.start_fails(slot);
    assert_eq!(refusal(&actions), None);
    let actions = pool.start_fails(start(&actions));
    assert_eq!(refusal(&actions), Some(&Refusal::Failed { error: "no such file".into() }));
}

#[test]
fn a_bounced_request_moves_once() {
    let mut pool = Pool::new(CONFIG);
    let slot = pool.warm(NUMPY);
    let (request, actions) = pool.lease(NUMPY);
    let next = fork(&actions);
    pool.apply(Input::Arrived { slot: next });
    let actions = pool.apply(Input::Bounced { slot, error: "SIGKILL".into() });
    assert_eq!(actions[0], give(request, next, Origin::Warm));
    let actions = pool.apply(Input::Bounced { slot: next, error: "SIGKILL".into() });
    assert_eq!(refusal(&actions), Some(&Refusal::Failed { error: "SIGKILL".into() }));
}

#[test]
fn a_broken_environment_is_refused_at_once_and_tried_by_one_after_the_pause() {
    let mut pool = Pool::new(CONFIG);
    pool.unfit(NUMPY);
    let mut actions = pool.lease(NUMPY).1;
    for _ in 0..START_FAILURES_MAX {
        let next = match begun(&actions).first() {
            Some(slot) => *slot,
            None => start(&pool.lease(NUMPY).1),
        };
        actions = pool.start_fails(next);
    }
    let error = Reason::from("no such file");
    let retry_after = Duration::from_millis(RETRY_PAUSE_MS_MIN);
    assert_eq!(refusal(&pool.lease(NUMPY).1), Some(&Refusal::Broken { error: error.clone(), retry_after }));

    pool.pass(RETRY_PAUSE_MS_MIN);
    let trial = start(&pool.lease(NUMPY).1);
    assert_eq!(pool.info(NUMPY).breaker, BreakerInfo::HalfOpen { last_error: error.to_string() });
    assert_eq!(pool.lease(NUMPY).1, [], "others wait for the verdict");
    assert!(matches!(refusal(&pool.start_fails(trial)), Some(Refusal::Broken { .. })), "and share it");

    pool.pass(2 * RETRY_PAUSE_MS_MIN);
    let (request, actions) = pool.lease(NUMPY);
    pool.lease(NUMPY);
    let slot = start(&actions);
    let actions = pool.apply(Input::Arrived { slot });
    assert_eq!(actions[0], give(request, slot, Origin::Cold));
    start(&actions[1..]);
}

#[test]
fn warm_workers_that_keep_dying_are_not_forked_without_end() {
    let mut pool = Pool::new(CONFIG);
    let mut slot = pool.warm(NUMPY);
    for _ in 1..START_FAILURES_MAX {
        slot = fork(&pool.apply(Input::Died { slot }));
        pool.apply(Input::Arrived { slot });
    }
    let wake = Action::WakeAt(Duration::from_millis(RETRY_PAUSE_MS_MIN));
    assert_eq!(pool.apply(Input::Died { slot }), [wake]);
    let (_, actions) = pool.lease(NUMPY);
    assert_eq!(begun(&actions).len(), 1, "only for the request: {actions:?}");
    assert_eq!(begun(&pool.pass(RETRY_PAUSE_MS_MIN)).len(), 1, "and for warmth after the pause");
}

#[test]
fn who_lost_a_worker_stands_in_front() {
    let mut pool = Pool::new(Config { warm_target: 0, ..CONFIG });
    pool.unfit(NUMPY);
    pool.apply(Input::Configure { environment: NUMPY, warm_target: 0 });
    let (first, actions) = pool.lease(NUMPY);
    let lost = start(&actions);
    pool.apply(Input::Arrived { slot: lost });
    let slot = start(&pool.lease(NUMPY).1);
    pool.apply(Input::Bounced { slot: lost, error: "SIGKILL".into() });
    assert_eq!(pool.apply(Input::Arrived { slot }), [give(first, slot, Origin::Cold)]);
}

#[test]
fn failed_forks_of_an_earlier_zygote_do_not_count_against_the_next() {
    let mut pool = Pool::new(CONFIG);
    let environment = NUMPY;
    let zygote = prepare(&pool.apply(Input::Configure { environment, warm_target: 1 }));
    let old = fork(&pool.apply(Input::Prepared { environment, zygote, bytes: 50 }));
    pool.apply(Input::ZygoteGone { environment, zygote, reason: "SIGKILL".into() });
    let zygote = prepare(&pool.pass(RETRY_PAUSE_MS_MIN));
    pool.apply(Input::Prepared { environment, zygote, bytes: 50 });
    fork(&pool.apply(Input::Failed { slot: old, error: "its zygote died".into() }));
}

#[test]
fn a_zygote_that_has_forked_is_forgiven_its_death() {
    let mut pool = Pool::new(CONFIG);
    let environment = NUMPY;
    let mut zygote = prepare(&pool.apply(Input::Configure { environment, warm_target: 1 }));
    for _ in 0..9 {
        let slot = fork(&pool.apply(Input::Prepared { environment, zygote, bytes: 50 }));
        pool.apply(Input::Arrived { slot });
        pool.apply(Input::ZygoteGone { environment, zygote, reason: "SIGKILL".into() });
        zygote = prepare(&pool.pass(RETRY_PAUSE_MS_MIN));
        pool.apply(Input::Died { slot });
        pool.lease(NUMPY);
    }
}

#[test]
fn deaths_of_warm_workers_between_leases_from_them_are_chance() {
    let mut pool = Pool::new(CONFIG);
    let mut slot = pool.warm(NUMPY);
    for _ in 0..9 {
        slot = fork(&pool.apply(Input::Died { slot }));
        pool.apply(Input::Arrived { slot });
        slot = fork(&pool.lease(NUMPY).1);
        pool.apply(Input::Arrived { slot });
    }
}

#[test]
fn a_timer_that_comes_early_is_asked_for_again() {
    let mut pool = Pool::new(CONFIG);
    let environment = NUMPY;
    let zygote = prepare(&pool.apply(Input::Configure { environment, warm_target: 1 }));
    let wake = pool.apply(Input::ZygoteGone { environment, zygote, reason: "SIGKILL".into() });
    assert_eq!(pool.pass(RETRY_PAUSE_MS_MIN - 1), wake);
    prepare(&pool.pass(1));
}
