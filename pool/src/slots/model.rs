//! Properties of the machine in a [`World`] that does anything at random, and in one where nothing ever works.

use std::time::Duration;

use cob_protocol::limits::START_FAILURES_MAX;
use proptest::prelude::*;

use super::tests::CONFIG;
use super::world::{Asked, End, Outcome, Step, World};
use super::*;
use crate::breaker::Reason;

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        6 => Just(Outcome::Success),
        2 => Just(Outcome::Failure),
        1 => Just(Outcome::Worse),
    ];
    let end = prop_oneof![5 => Just(End::Died), 2 => Just(End::Bounced)];
    prop_oneof![
        12 => prop_oneof![0u64..2, 0u64..5].prop_map(Step::Lease),
        2 => (0usize..50).prop_map(Step::Cancel),
        20 => (0usize..50, outcome).prop_map(|(n, outcome)| Step::Answer(n, outcome)),
        6 => (0usize..50, end).prop_map(|(n, end)| Step::EndSession(n, end)),
        2 => (0usize..50).prop_map(Step::KillWarm),
        1 => (0usize..50).prop_map(Step::KillZygote),
        1 => (0u64..5, 0u64..40).prop_map(|(environment, bytes)| Step::Measure(environment, bytes)),
        2 => (0u64..6, 0usize..4).prop_map(|(environment, target)| Step::Configure(environment, target)),
        5 => (0u64..3_000).prop_map(Step::Pass),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    (0usize..3, 1usize..4, 1usize..5, 0usize..4, 1usize..5, 30u64..600).prop_map(
        |(warm_target, starting_max, forking_max, waiting_max, environments_max, budget_bytes)| Config {
            warm_target,
            starting_max,
            forking_max,
            waiting_max,
            environments_max,
            budget_bytes,
            slot_bytes: 10,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_world_does_everybody_is_answered_once_and_nothing_is_left(
        config in config(),
        steps in prop::collection::vec(step(), 1..300),
        last in prop_oneof![Just(Outcome::Success), Just(Outcome::Failure), Just(Outcome::Worse)],
        calm in any::<bool>(),
    ) {
        let mut world = World::new(config);
        steps.iter().for_each(|step| world.step(step));
        if calm {
            world.calm(last);
        }
        world.close();
        world.step(&Step::Lease(0));
        assert_eq!(world.requests.values().next_back().unwrap().0, Asked::Over, "a closed pool gives nothing");
    }
}

#[test]
fn a_broken_environment_costs_little_however_many_ask() {
    let environment = EnvironmentId(0);
    let mut slots = Slots::new(CONFIG);
    let mut failing: Vec<(Duration, Input)> = Vec::new();
    let (mut starts, mut prepares) = (0, 0);
    for request in 0..60_000 {
        let now = Duration::from_millis(10 * request);
        let mut actions =
            slots.apply(now, Input::Lease { request: RequestId(request), environment, cold: Cold::Accepted });
        while failing.first().is_some_and(|(at, _)| *at <= now) {
            actions.extend(slots.apply(now, failing.remove(0).1));
        }
        for action in actions {
            let (at, error) = (now + Duration::from_millis(40), Reason::from("no"));
            match action {
                Action::Start { slot, .. } => {
                    starts += 1;
                    failing.push((at, Input::Failed { slot, error }));
                }
                Action::Prepare { zygote, .. } => {
                    prepares += 1;
                    let again = Again::Later;
                    failing.push((at, Input::Unprepared { environment, zygote, reason: error, again }));
                }
                Action::Refuse { .. } | Action::WakeAt(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    // Ten minutes: 0.5 + 1 + … + 16 s, then one each 30 s.
    let tries = 6 + 600 / 30;
    assert!(starts <= START_FAILURES_MAX + 2 + tries, "{starts} starts");
    assert!(prepares <= 1 + tries, "{prepares} zygotes");
}
