//! W16, and what failing starts cost.

use std::time::Duration;

use cob_pool::{LeaseError, Pool, PoolConfig, Program};
use cob_tests::process;
use cob_tests::seed::Seed;
use cob_tests::within;
use rustix::process::Signal;

use crate::{ALONE, counting, execute, lease, request};

const ROUNDS: usize = 320;
/// More than are warm: some are forked, too.
const AT_A_TIME: usize = 32;
const SPARES: usize = 24;

/// Kills up to `count` of the warm workers, and waits until they have ended, without the pool having had a chance to
/// see it.
fn kill_some(seed: &mut Seed, marker: &str, zygote: Option<u32>, count: usize) {
    let mut warm = process::marked(marker);
    warm.retain(|pid| Some(*pid) != zygote);
    for _ in 0..count.min(warm.len()) {
        let pid = warm.swap_remove(seed.below(warm.len()));
        process::signal(pid, Signal::KILL);
        assert!(process::has_ended_within(pid, Duration::from_secs(10)));
    }
}

/// In each round some warm workers are dead before anybody knows; besides, some die as they are born or greeted, and
/// now and then the zygote is killed.
#[tokio::test]
async fn w16_warm_workers_that_die_at_random_are_never_noticed() {
    let _alone = ALONE.lock().await;
    let marker = format!("PYTHONCOBTESTMARK=w16-{}", std::process::id());
    let (name, value) = marker.split_once('=').unwrap();
    let session = counting(&[(name, value), ("PYTHONDIES_BORN", "331"), ("PYTHONDIES_GREETED", "89")]);
    let mut seed = Seed::new(16);
    let us = std::process::id();
    // The event loop opens what it needs for signals when it is needed first.
    let first = Pool::start(PoolConfig { spares: 0, ..PoolConfig::default() });
    drop(lease(&first, &session).await);
    within("the end of the pool", first.close()).await;
    drop(first);
    let before = process::descriptors(us);

    let pool = Pool::start(PoolConfig { spares: SPARES, ..PoolConfig::default() });
    for round in 0..ROUNDS {
        let mut tasks = tokio::task::JoinSet::new();
        for nth in 0..AT_A_TIME {
            let (pool, session) = (pool.clone(), session.clone());
            tasks.spawn(async move {
                let mut leased = lease(&pool, &session).await;
                // The first session of its process, and the only one.
                let printed = execute(&mut leased.worker, 1, format!("cell {nth}")).await;
                assert_eq!(printed, format!("1 cell {nth}\n"));
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        // Until all that is being forked has come.
        while pool.info().await.unwrap().environments.iter().any(|environment| environment.starting > 0) {}
        let zygote = process::marked(&marker).into_iter().find(|pid| process::parent(*pid) == Some(us));
        if round % 100 == 50 {
            process::signal(zygote.unwrap(), Signal::KILL);
        }
        // A pool whose warm workers all die is careful for a while, so that is rare.
        let count = if round % 100 == 99 { usize::MAX } else { seed.below(4) };
        kill_some(&mut seed, &marker, zygote, count);
    }
    let info = serde_json::to_value(pool.info().await).unwrap();
    let count = |name: &str| info["counters"][name].as_u64().unwrap();
    let leased = count("leased_warm") + count("leased_forked") + count("leased_cold");
    assert_eq!((leased - count("bounced"), count("refused")), ((ROUNDS * AT_A_TIME) as u64, 0), "{info:#}");
    assert!(count("warm_deaths") > 200 && count("bounced") > 50 && count("zygotes_prepared") > 3, "{info:#}");
    assert!(count("leased_warm") > 1000, "{info:#}");

    within("the end of the pool", pool.close()).await;
    drop(pool);
    for pid in process::marked(&marker) {
        process::ended(pid).await;
    }
    // Tasks that held some have yet to learn of it; and other tests may have had some open at the beginning.
    let closed = async {
        while process::descriptors(us).len() > before.len() {
            tokio::task::yield_now().await;
        }
    };
    within("the closing of descriptors", closed).await;
}

#[tokio::test]
async fn a_program_that_does_not_start_is_started_a_few_times_however_many_ask() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let tally = folder.path().join("starts");
    let script = format!("echo start >> {}; echo no such module: encodings >&2; exit 3", tally.display());
    let program = Program {
        path: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        image: None,
        environment: Vec::new(),
        directory: None,
    };
    let pool = Pool::start(PoolConfig::default());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (pool, request) = (pool.clone(), request(program.clone()));
        tasks.spawn(async move { pool.lease(&request).await.map(drop) });
    }
    while let Some(ended) = tasks.join_next().await {
        let error = ended.unwrap().unwrap_err();
        assert!(matches!(error, LeaseError::Broken { .. } | LeaseError::Failed { .. }), "{error:?}");
        assert!(error.to_string().contains("no such module: encodings"), "{error}");
    }
    let starts = std::fs::read_to_string(&tally).unwrap().lines().count();
    assert!((3..=20).contains(&starts), "{starts} starts for 100 sessions");
    pool.close().await;
}

#[tokio::test]
async fn a_lease_that_nobody_waits_for_any_more_costs_no_worker() {
    let _alone = ALONE.lock().await;
    let pool = Pool::start(PoolConfig { spares: 2, ..PoolConfig::default() });
    let session = counting(&[]);
    drop(lease(&pool, &session).await);
    for nth in 0..200 {
        let given_up = async {
            for _ in 0..nth % 20 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            leased = pool.lease(&session) => drop(leased.unwrap()),
            () = given_up => {}
        }
    }
    let mut leased = lease(&pool, &session).await;
    assert_eq!(execute(&mut leased.worker, 1, "cell".to_owned()).await, "1 cell\n");
    drop(leased);
    within("the end of the pool", pool.close()).await;
}

/// Forks that were under way were held until their zygote had ended, which waited for them to end.
#[tokio::test]
async fn a_pool_that_is_closed_while_it_forks_leaves_nothing() {
    let _alone = ALONE.lock().await;
    let marker = format!("PYTHONCOBTESTMARK=closed-{}", std::process::id());
    let session = counting(&[marker.split_once('=').unwrap()]);
    for nth in 0..20 {
        let pool = Pool::start(PoolConfig { spares: 16, ..PoolConfig::default() });
        while pool.info().await.unwrap().counters.zygotes_prepared == 0 {
            drop(lease(&pool, &session).await);
        }
        for _ in 0..nth {
            tokio::task::yield_now().await;
        }
        within("the end of the pool", pool.close()).await;
        drop(pool);
        for pid in process::marked(&marker) {
            process::ended(pid).await;
        }
    }
}
