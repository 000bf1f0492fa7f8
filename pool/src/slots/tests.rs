//! The policy in examples.

mod failures;

use std::time::Duration;

use super::info::Description;
use super::*;
use crate::metrics::{EnvironmentInfo, Histogram, ZygoteInfo};

const NUMPY: EnvironmentId = EnvironmentId(1);
const POLARS: EnvironmentId = EnvironmentId(2);
pub(super) const CONFIG: Config = Config {
    warm_target: 1,
    starting_max: 2,
    forking_max: 4,
    waiting_max: 2,
    environments_max: 3,
    budget_bytes: 200,
    slot_bytes: 10,
};

/// A pool, its time, and the number of the last request.
struct Pool {
    slots: Slots,
    now: Duration,
    requests: u64,
}

impl Pool {
    fn new(config: Config) -> Self {
        Self { slots: Slots::new(config), now: Duration::ZERO, requests: 0 }
    }

    fn apply(&mut self, input: Input) -> Vec<Action> {
        self.slots.apply(self.now, input)
    }

    fn lease(&mut self, environment: EnvironmentId) -> (RequestId, Vec<Action>) {
        self.requests += 1;
        let request = RequestId(self.requests);
        (request, self.apply(Input::Lease { request, environment, cold: Cold::Accepted }))
    }

    fn pass(&mut self, ms: u64) -> Vec<Action> {
        self.now += Duration::from_millis(ms);
        self.apply(Input::Due)
    }

    /// Lets a zygote become ready by configuration, and says what follows.
    fn ready(&mut self, environment: EnvironmentId, warm_target: usize, bytes: u64) -> Vec<Action> {
        let zygote = prepare(&self.apply(Input::Configure { environment, warm_target: 1 }));
        self.apply(Input::Configure { environment, warm_target });
        self.apply(Input::Prepared { environment, zygote, bytes })
    }

    /// An environment with its zygote and one warm worker.
    fn warm(&mut self, environment: EnvironmentId) -> SlotId {
        let slot = fork(&self.ready(environment, 1, 50));
        assert_eq!(self.apply(Input::Arrived { slot }), []);
        slot
    }

    fn unfit(&mut self, environment: EnvironmentId) {
        let zygote = prepare(&self.apply(Input::Configure { environment, warm_target: 1 }));
        let reason = "it has threads".into();
        self.apply(Input::Unprepared { environment, zygote, reason, again: Again::Never });
    }

    fn start_fails(&mut self, slot: SlotId) -> Vec<Action> {
        self.apply(Input::Failed { slot, error: "no such file".into() })
    }

    fn info(&self, environment: EnvironmentId) -> EnvironmentInfo {
        let describe = |id: EnvironmentId| Description { name: id.0.to_string(), ..Description::default() };
        let info = self.slots.info(self.now, describe, &Histogram::default(), 0, ());
        info.environments.into_iter().find(|it| it.name == environment.0.to_string()).unwrap()
    }
}

#[track_caller]
fn prepare(actions: &[Action]) -> ZygoteId {
    let zygote = |action: &Action| match action {
        Action::Prepare { zygote, .. } => Some(*zygote),
        _ => None,
    };
    actions.iter().find_map(zygote).unwrap_or_else(|| panic!("no Prepare in {actions:?}"))
}

fn begun(actions: &[Action]) -> Vec<SlotId> {
    let slot = |action: &Action| match action {
        Action::Fork { slot, .. } | Action::Start { slot, .. } => Some(*slot),
        _ => None,
    };
    actions.iter().filter_map(slot).collect()
}

#[track_caller]
fn fork(actions: &[Action]) -> SlotId {
    assert!(actions.iter().any(|action| matches!(action, Action::Fork { .. })), "no Fork in {actions:?}");
    begun(actions)[0]
}

#[track_caller]
fn start(actions: &[Action]) -> SlotId {
    assert!(actions.iter().any(|action| matches!(action, Action::Start { .. })), "no Start in {actions:?}");
    begun(actions)[0]
}

fn refusal(actions: &[Action]) -> Option<&Refusal> {
    actions.iter().find_map(|action| match action {
        Action::Refuse { why, .. } => Some(why),
        _ => None,
    })
}

fn give(request: RequestId, slot: SlotId, origin: Origin) -> Action {
    Action::Give { request, slot, origin }
}

#[test]
fn the_first_lease_starts_cold_and_prepares_a_zygote_for_the_next() {
    let mut pool = Pool::new(CONFIG);
    let (first, actions) = pool.lease(NUMPY);
    let (zygote, slot) = (prepare(&actions), start(&actions));
    let (_, actions) = pool.lease(NUMPY);
    assert_eq!(begun(&actions).len(), 1, "one start for each, but no second zygote: {actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Prepare { .. })));
    assert_eq!(pool.apply(Input::Arrived { slot }), [give(first, slot, Origin::Cold)]);
    let actions = pool.apply(Input::Prepared { environment: NUMPY, zygote, bytes: 50 });
    assert_eq!(
        begun(&actions).len(),
        1,
        "who still waits gets a fork; the cold start will be warm: {actions:?}"
    );
}

#[test]
fn a_warm_worker_is_given_at_once_and_replaced() {
    let mut pool = Pool::new(CONFIG);
    let slot = pool.warm(NUMPY);
    let (request, actions) = pool.lease(NUMPY);
    assert_eq!(actions[0], give(request, slot, Origin::Warm));
    fork(&actions[1..]);
}

#[test]
fn without_a_warm_worker_one_is_forked_for_the_request() {
    let mut pool = Pool::new(CONFIG);
    pool.ready(NUMPY, 0, 50);
    let (request, actions) = pool.lease(NUMPY);
    let slot = fork(&actions);
    assert_eq!(pool.apply(Input::Arrived { slot }), [give(request, slot, Origin::Forked)]);
}

#[test]
fn an_unfit_environment_starts_cold_and_says_why() {
    let mut pool = Pool::new(CONFIG);
    pool.unfit(NUMPY);
    start(&pool.lease(NUMPY).1);
    assert_eq!(pool.info(NUMPY).zygote, ZygoteInfo::Unfit { reason: "it has threads".to_owned() });
}

#[test]
fn a_zygote_too_big_for_the_budget_is_unfit_and_drives_nobody_out() {
    let mut pool = Pool::new(CONFIG);
    pool.warm(NUMPY);
    let (_, actions) = pool.lease(POLARS);
    let (environment, zygote) = (POLARS, prepare(&actions));
    let actions = pool.apply(Input::Prepared { environment, zygote, bytes: CONFIG.budget_bytes + 1 });
    assert_eq!(actions, [Action::Retire { environment, zygote }]);
    assert!(matches!(pool.info(POLARS).zygote, ZygoteInfo::Unfit { .. }));
    assert!(matches!(pool.info(NUMPY).zygote, ZygoteInfo::Ready { .. }));
}

#[test]
fn beyond_the_bounds_requests_wait_in_order_and_then_are_refused() {
    let mut pool = Pool::new(CONFIG);
    pool.unfit(NUMPY);
    let leases: Vec<_> = (0..5).map(|_| pool.lease(NUMPY)).collect();
    let counts: Vec<_> = leases.iter().map(|(_, actions)| begun(actions).len()).collect();
    assert_eq!(counts, [1, 1, 0, 0, 0]);
    assert_eq!(refusal(&leases[4].1), Some(&Refusal::Full));
    let second = begun(&leases[1].1)[0];
    let actions = pool.apply(Input::Arrived { slot: second });
    assert_eq!(actions[0], give(leases[0].0, second, Origin::Cold), "the oldest request gets it");
    start(&actions[1..]);
}

#[test]
fn the_least_recently_leased_makes_room() {
    let mut pool = Pool::new(CONFIG);
    pool.warm(NUMPY);
    pool.warm(POLARS);
    pool.lease(NUMPY);
    let (_, actions) = pool.lease(EnvironmentId(3));
    let zygote = prepare(&actions);
    let actions = pool.apply(Input::Prepared { environment: EnvironmentId(3), zygote, bytes: 100 });
    let retired = |action: &Action| matches!(action, Action::Retire { environment: POLARS, .. });
    assert!(actions.iter().any(retired), "{actions:?}");
    assert!(matches!(pool.info(NUMPY).zygote, ZygoteInfo::Ready { .. }));
}

#[test]
fn warm_workers_make_room_before_zygotes_and_are_not_replaced_at_the_cost_of_others() {
    let mut pool = Pool::new(CONFIG);
    let old = pool.warm(NUMPY);
    let actions = pool.ready(POLARS, 1, 135);
    fork(&actions);
    assert_eq!(actions.last(), Some(&Action::Discard { slot: old }), "50 + 10 + 135 + 10 is too much");
    assert_eq!(pool.apply(Input::Died { slot: old }), []);
    assert!(matches!(pool.info(NUMPY).zygote, ZygoteInfo::Ready { .. }));
}

#[test]
fn alone_over_the_budget_an_environment_gives_up_warm_workers_but_not_its_zygote() {
    let mut pool = Pool::new(CONFIG);
    let slot = pool.warm(NUMPY);
    let actions = pool.apply(Input::Measured { environment: NUMPY, bytes: 160 });
    assert_eq!(actions, [Action::Discard { slot }]);
    assert!(matches!(pool.info(NUMPY).zygote, ZygoteInfo::Ready { .. }));
}

#[test]
fn too_many_environments_are_forgotten_in_the_order_of_their_last_lease() {
    let mut pool = Pool::new(CONFIG);
    for n in 0..3 {
        pool.apply(Input::Configure { environment: EnvironmentId(n), warm_target: 1 });
    }
    let slot = start(&pool.lease(EnvironmentId(0)).1);
    pool.apply(Input::Arrived { slot });
    let forgotten = |n| Action::Forget { environment: EnvironmentId(n) };
    assert!(pool.lease(EnvironmentId(3)).1.contains(&forgotten(1)));
    assert!(pool.lease(EnvironmentId(4)).1.contains(&forgotten(2)));
    let actions = pool.lease(EnvironmentId(5)).1;
    assert!(!actions.contains(&forgotten(0)), "a leased worker lives on");
    assert_eq!(pool.apply(Input::Died { slot }), [forgotten(0)]);
}

#[test]
fn the_worker_of_an_asker_that_went_away_is_discarded_or_stays_warm() {
    let mut pool = Pool::new(CONFIG);
    let slot = pool.warm(NUMPY);
    let (request, actions) = pool.lease(NUMPY);
    let next = fork(&actions);
    assert_eq!(pool.apply(Input::Cancel { request }), [Action::Discard { slot }], "it was given already");
    pool.apply(Input::Arrived { slot: next });
    assert_eq!(pool.info(NUMPY).warm, 1);
    let (_, actions) = pool.lease(NUMPY);
    let warming = fork(&actions);
    let (request, actions) = pool.lease(NUMPY);
    fork(&actions);
    assert_eq!(pool.apply(Input::Cancel { request }), []);
    assert_eq!(pool.apply(Input::Arrived { slot: warming }), []);
    let surplus = fork(&actions);
    assert_eq!(pool.apply(Input::Arrived { slot: surplus }), [Action::Discard { slot: surplus }]);
}

#[test]
fn a_worker_that_saw_a_session_is_never_given_again() {
    let mut pool = Pool::new(Config { warm_target: 0, ..CONFIG });
    pool.ready(NUMPY, 0, 50);
    let slot = fork(&pool.lease(NUMPY).1);
    pool.apply(Input::Arrived { slot });
    assert_eq!(pool.apply(Input::Died { slot }), []);
    assert_ne!(fork(&pool.lease(NUMPY).1), slot);
}

#[test]
fn closing_refuses_all_and_ends_what_nobody_uses() {
    let mut pool = Pool::new(CONFIG);
    let leased = pool.warm(NUMPY);
    pool.lease(NUMPY);
    let (waiting, _) = pool.lease(NUMPY);
    let actions = pool.apply(Input::Close);
    assert!(actions.contains(&Action::Refuse { request: waiting, why: Refusal::Closing }));
    assert!(actions.iter().any(|action| matches!(action, Action::Retire { .. })));
    assert_eq!(pool.slots.bytes(), 0);
    assert_eq!(refusal(&pool.lease(NUMPY).1), Some(&Refusal::Closing));
    assert!(!pool.slots.is_over(), "{leased:?} lives on");
}

#[test]
fn counters_tell_hits_from_misses() {
    let mut pool = Pool::new(CONFIG);
    pool.warm(NUMPY);
    pool.lease(NUMPY);
    pool.lease(NUMPY);
    let info = pool.slots.info(pool.now, |_| Description::default(), &Histogram::default(), 7, "none");
    assert_eq!((info.counters.leased_warm, info.counters.warmed, info.counters.reaped), (1, 1, 7));
    assert_eq!((info.warm_efficiency, info.limits), (Some(1.0), "none"));
}

#[test]
fn fewer_warm_workers_can_be_asked_for() {
    let mut pool = Pool::new(CONFIG);
    let slot = pool.warm(NUMPY);
    let actions = pool.apply(Input::Configure { environment: NUMPY, warm_target: 0 });
    assert_eq!(actions, [Action::Discard { slot }]);
}

#[test]
fn a_cold_start_that_nobody_waits_for_is_warm_only_where_there_is_room() {
    let mut pool = Pool::new(CONFIG);
    pool.unfit(NUMPY);
    let (request, actions) = pool.lease(NUMPY);
    let slot = start(&actions);
    pool.apply(Input::Cancel { request });
    pool.ready(POLARS, 0, CONFIG.budget_bytes);
    assert_eq!(pool.apply(Input::Arrived { slot }), [Action::Discard { slot }]);
    assert_eq!(
        pool.slots.info(pool.now, |_| Description::default(), &Histogram::default(), 0, ()).counters.warmed,
        0
    );
}
