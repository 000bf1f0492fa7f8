//! R02: processes and threads. At the limit there are no more of them, and at the end none.

use cob_tests::cgroups;
use cob_tests::client::TestClient;
use cob_tests::kernel::{Setup, TestKernel};
use cob_tests::process;
use cob_tests::server::TestServer;

/// Makes processes until there are no more, and leaves them.
const PROCESSES: &str = "\
import os, signal
made = []
try:
    while True:
        child = os.fork()
        if child == 0:
            os.setsid()
            signal.pause()
        made.append(child)
finally:
    print(len(made))";

const THREADS: &str = "\
import threading
stop = threading.Event()
try:
    while True: threading.Thread(target=stop.wait, daemon=True).start()
finally:
    print(threading.active_count())";

/// Each copy goes on making copies.
const EVERYWHERE: &str = "\
import os
print('on', flush=True)
while True:
    try: os.fork()
    except BlockingIOError: pass";

/// A session that may have 64 tasks, if a cgroup says so.
async fn limited() -> Option<(TestKernel, TestClient)> {
    let kernel =
        Setup::new().limits("processes=64").argument("--interrupt-grace").argument("0.3").start().await;
    let mut client = kernel.client().await;
    if !cgroups::holds(&mut client, "processes").await {
        return None;
    }
    assert_eq!(cgroups::values(kernel.pid(), "pids.max"), ["64"]);
    Some((kernel, client))
}

/// Ends the session; everybody who was in its group is gone then.
async fn ends_with_all(mut kernel: TestKernel) {
    let members = cgroups::members(kernel.pid());
    assert!(!members.is_empty() && members.len() <= 64, "{members:?}");
    kernel.signal(rustix::process::Signal::TERM);
    assert_eq!(kernel.end().await.code(), Some(0));
    for pid in members {
        process::ended(pid).await;
    }
    assert_eq!(cgroups::of(kernel.pid()), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn r02_processes_that_stay_are_an_error_of_the_code_and_end_with_the_session() {
    let Some((kernel, mut client)) = limited().await else { return };
    let mut neighbour = kernel.client().await;
    let run = client.run(PROCESSES).await.failed("BlockingIOError");
    let made: usize = run.stdout().trim().parse().unwrap();
    assert!((32..64).contains(&made), "{made}");
    assert_eq!(neighbour.run("1 + 1").await.ok().result(), "2");
    assert!(cgroups::members(kernel.pid()).len() > 32);
    ends_with_all(kernel).await;
}

#[tokio::test]
async fn r02_threads_count_as_well() {
    let Some((kernel, mut client)) = limited().await else { return };
    let run = client.run(THREADS).await.failed("RuntimeError");
    let threads: usize = run.stdout().trim().parse().unwrap();
    assert!((32..=64).contains(&threads), "{threads}");
    client.run("stop.set()").await.ok();
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    ends_with_all(kernel).await;
}

#[tokio::test]
async fn r02_a_fork_bomb_is_ended_and_nobody_of_it_is_left() {
    let Some((kernel, mut client)) = limited().await else { return };
    let (_other, mut neighbour) = TestKernel::with_client().await;
    let cell = client.execute(EVERYWHERE).await;
    client.printed(&cell, "on\n").await;
    assert_eq!(neighbour.run("1 + 1").await.ok().result(), "2");
    client.interrupt().await;
    let bomb = cgroups::members(kernel.pid());
    // The signal may hit the worker between two attempts, or be lost in the except clause; then it is killed.
    let run = client.finish(&cell).await;
    assert!(["KeyboardInterrupt", "InterruptedByForce"].contains(&run.ename()), "{:#}", run.reply);
    if run.session_state() == "lost" {
        for pid in bomb {
            process::ended(pid).await;
        }
    }
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    ends_with_all(kernel).await;
}

/// Copies of a worker that return into it are no workers: what they would say is not heard as its words.
#[tokio::test]
async fn r02_copies_of_the_worker_that_fail_do_not_speak_for_it() {
    let Some((kernel, mut client)) = limited().await else { return };
    let cell = client.execute("import os\nwhile True: os.fork()").await;
    // What the copies print may come after the end of the cell.
    let reply = client.until(|seen| seen.parent == cell && seen.msg_type == "execute_reply").await;
    assert!(["BlockingIOError", "WorkerLost"].contains(&reply.text("ename")), "{:#}", reply.content);
    // It may even come after the end of the next.
    let next = client.execute("1 + 1").await;
    let result = client.until(|seen| seen.parent == next && seen.msg_type == "execute_result").await;
    assert_eq!(result.content["data"]["text/plain"], "2");
    let reply = client.until(|seen| seen.parent == next && seen.msg_type == "execute_reply").await;
    assert_eq!(reply.text("status"), "ok");
    ends_with_all(kernel).await;
}

/// The server's groups hold the workers that it lent.
#[tokio::test]
async fn r02_a_warm_worker_makes_no_more_processes_than_it_may() {
    let server = TestServer::start().await;
    let kernel = Setup::new().server(&server).limits("processes=64").start().await;
    assert_eq!(kernel.worker_from(0).await.1, "Warm");
    let mut client = kernel.client().await;
    if !cgroups::holds(&mut client, "processes").await {
        return;
    }
    let other = server.kernel().await;
    let mut neighbour = other.client().await;
    client.run(PROCESSES).await.failed("BlockingIOError");
    assert_eq!(neighbour.run("1 + 1").await.ok().result(), "2");
    let members = cgroups::members(server.pid());
    assert!(members.len() > 32);
    drop((client, kernel));
    server.holds(2, 1).await;
    // Those that wait, and the neighbour's.
    assert_eq!(cgroups::members(server.pid()).len(), 3);
}
