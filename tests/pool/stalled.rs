//! W05: a worker that is stopped for too long is killed and its end says so; one that goes on in time goes on. The
//! clock stands still unless everybody waits, and then jumps to whatever is next.

use cob_pool::{Exit, Pool, PoolConfig, Worker, WorkerEvent};
use cob_tests::process;
use rustix::process::Signal;
use tokio::time::{Duration, pause, resume, timeout};

use crate::{ALONE, counting, execute, lease};

/// Longer than a stopped worker is waited for, and shorter.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(4);

async fn is_judged(worker: &mut Worker) {
    pause();
    process::signal(worker.pid(), Signal::STOP);
    let WorkerEvent::Gone(exit) = worker.next().await else { unreachable!("it does nothing") };
    assert_eq!(exit, Exit::Stalled(Signal::STOP.as_raw()));
    assert_eq!(exit.to_string(), "was stopped by SIGSTOP for 5 s and killed");
    resume();
}

#[tokio::test]
async fn w05_a_child_that_is_stopped_is_killed_after_a_while() {
    let _alone = ALONE.lock().await;
    let session = counting(&[]);
    let mut worker = Worker::start(&session.program, session.hello.clone()).unwrap();
    worker.ready().await.unwrap();
    is_judged(&mut worker).await;
}

#[tokio::test]
async fn w05_a_forked_worker_that_is_stopped_is_killed_after_a_while() {
    let _alone = ALONE.lock().await;
    let pool = Pool::start(PoolConfig { spares: 1, ..PoolConfig::default() });
    // The first may have been started cold; of those that follow, one was forked.
    let mut leased = lease(&pool, &counting(&[])).await;
    while process::parent(leased.worker.pid()) == Some(std::process::id()) {
        leased = lease(&pool, &counting(&[])).await;
    }
    is_judged(&mut leased.worker).await;
    drop(leased);
    cob_tests::within("the end of the pool", pool.close()).await;
}

#[tokio::test]
async fn w05_a_worker_that_goes_on_in_time_is_not_judged() {
    let _alone = ALONE.lock().await;
    let pool = Pool::start(PoolConfig { spares: 0, ..PoolConfig::default() });
    let session = counting(&[]);
    let mut leased = lease(&pool, &session).await;
    while process::parent(leased.worker.pid()) == Some(std::process::id()) {
        leased = lease(&pool, &session).await;
    }
    for nth in 1..4 {
        pause();
        process::signal(leased.worker.pid(), Signal::STOP);
        timeout(SHORT, leased.worker.next()).await.unwrap_err();
        process::signal(leased.worker.pid(), Signal::CONT);
        resume();
        assert_eq!(execute(&mut leased.worker, nth, "cell".to_owned()).await, "1 cell\n");
        // Its zygote looks after its workers before it forks: when there is another one, it has told.
        drop(lease(&pool, &session).await);
        pause();
        timeout(LONG, leased.worker.next()).await.unwrap_err();
        resume();
    }
    drop(leased);
    cob_tests::within("the end of the pool", pool.close()).await;
}
