//! Daemons: what code leaves behind so that nobody finds it ends with its session all the same.

use cob_tests::cgroups;
use cob_tests::client::TestClient;
use cob_tests::kernel::{Setup, TestKernel};
use cob_tests::process;
use cob_tests::server::{ServerSetup, TestServer};
use rustix::process::Signal;

/// Starts a daemon that left its parents, session, output and descriptors, and prints its id. It keeps its environment
/// unless `exec` is one that drops it.
fn daemon(exec: &str) -> String {
    format!(
        "\
import os, signal
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(n, signal.SIG_IGN)
        os.write(w, b'%d' % os.getpid())
        os.closerange(0, 200)
        {exec}
        while True: signal.pause()
    os._exit(0)
os.close(w)
print(os.read(r, 20).decode(), flush=True)"
    )
}

/// Nothing but the cgroup betrays it.
const VANISHES: &str = "os.execve('/bin/sleep', ['sleep', '1000000'], {})";
/// Its environment does as well. (That of a copy of a warm worker is the zygote's: the system shows what a program was
/// started with.)
const MARKED: &str = "os.execv('/bin/sleep', ['sleep', '1000000'])";

/// Has the session make such a daemon.
async fn left_behind(client: &mut TestClient, exec: &str) -> u32 {
    let stdout = client.run(&daemon(exec)).await.ok().stdout();
    let pid = stdout.trim().parse().unwrap();
    assert!(!process::has_ended_within(pid, std::time::Duration::ZERO));
    pid
}

/// A kernel on a warm worker with a daemon, and what else is in its group.
async fn warm_with_daemon(server: &TestServer, exec: &str) -> (TestKernel, u32) {
    let kernel = Setup::new().server(server).start().await;
    assert_eq!(kernel.worker_from(0).await.1, "Warm");
    let mut client = kernel.client().await;
    let daemon = left_behind(&mut client, exec).await;
    (kernel, daemon)
}

/// Whether the workers of this process are in cgroups.
fn has_groups(owner: u32) -> bool {
    let has = !cgroups::of(owner).is_empty();
    if !has {
        cgroups::skipped("no cgroups: a daemon that gave up everything is not found");
    }
    has
}

#[tokio::test]
async fn a_daemon_of_a_cold_session_with_limits_ends_with_it() {
    let mut kernel = Setup::new().limits("memory=256M").start().await;
    let mut client = kernel.client().await;
    let mut daemons = vec![left_behind(&mut client, "pass").await];
    if has_groups(kernel.pid()) {
        daemons.push(left_behind(&mut client, VANISHES).await);
    }
    kernel.signal(Signal::TERM);
    assert_eq!(kernel.end().await.code(), Some(0));
    for daemon in daemons {
        process::ended(daemon).await;
    }
    assert_eq!(cgroups::left(kernel.pid(), false), Vec::<String>::new());
}

#[tokio::test]
async fn a_daemon_of_a_cold_worker_that_is_lost_ends_with_it_and_not_only_with_the_session() {
    let kernel = Setup::new().limits("processes=32").start().await;
    let mut client = kernel.client().await;
    let daemon = left_behind(&mut client, "pass").await;
    client.run("os._exit(3)").await.lost("exited with status 3");
    process::ended(daemon).await;
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
}

#[tokio::test]
async fn a_daemon_of_a_warm_worker_ends_with_its_session() {
    let server = TestServer::start().await;
    let exec = if has_groups(server.pid()) { VANISHES } else { MARKED };
    for how in ["shutdown", "lost", "killed"] {
        let (mut kernel, daemon) = warm_with_daemon(&server, exec).await;
        match how {
            "shutdown" => kernel.signal(Signal::TERM),
            "killed" => kernel.signal(Signal::KILL),
            _ => {
                let mut client = kernel.client().await;
                client.run("import os; os._exit(3)").await.lost("exited with status 3");
                process::ended(daemon).await;
                assert_eq!(client.run("1 + 1").await.ok().result(), "2");
                kernel.signal(Signal::TERM);
            }
        }
        kernel.end().await;
        process::ended(daemon).await;
        server.settled().await;
        // One for each of those that wait.
        assert!(cgroups::members(server.pid()).len() <= 2);
    }
    let pid = server.pid();
    drop(server);
    assert_eq!(cgroups::left(pid, false), Vec::<String>::new());
}

/// The server knows what a daemon is known by, whether or not the host has cgroups.
#[tokio::test]
async fn what_a_session_leaves_behind_is_counted() {
    let server = TestServer::start().await;
    let (kernel, daemon) = warm_with_daemon(&server, MARKED).await;
    drop(kernel);
    process::ended(daemon).await;
    server.settled().await;
    assert_eq!(server.info()["counters"]["reaped"], 1, "{:#}", server.info());
}

/// A server that dies leaves the groups of its workers. The next one ends those whose owner is gone, in whatever
/// folder it works, and nobody else.
#[tokio::test]
async fn what_a_dead_server_left_is_swept_and_what_it_lent_is_not() {
    for (signal, is_elsewhere) in [(Signal::KILL, false), (Signal::KILL, true), (Signal::TERM, false)] {
        let mut server = TestServer::start().await;
        let dead = server.pid();
        if !has_groups(dead) {
            return;
        }
        let (gone, orphan) = warm_with_daemon(&server, VANISHES).await;
        server.holds(2, 1).await;
        let (stays, kept) = warm_with_daemon(&server, VANISHES).await;
        server.holds(2, 2).await;
        let mut client = stays.client().await;
        client.run("kept = 1").await.ok();

        server.signal(signal);
        server.end().await;
        assert_eq!(client.run("kept").await.ok().result(), "1");
        // Nobody is there to clear up after this one.
        let worker = gone.worker(0).await;
        drop(gone);
        process::ended(worker).await;

        if is_elsewhere {
            drop(ServerSetup::new().start().await);
        } else {
            server.start_again().await;
        }
        process::ended(orphan).await;
        assert_eq!(client.run("kept").await.ok().result(), "1");
        assert!(!process::has_ended_within(kept, std::time::Duration::ZERO));

        drop((client, stays));
        if is_elsewhere {
            server.start_again().await;
        }
        let pid = server.pid();
        drop(server);
        // What that one left had an owner until now.
        drop(ServerSetup::new().start().await);
        process::ended(kept).await;
        assert_eq!(cgroups::left(dead, false), Vec::<String>::new());
        assert_eq!(cgroups::left(pid, false), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_cold_kernel_that_is_killed_leaves_its_daemons_to_the_next_server() {
    let mut kernel = Setup::new().limits("processes=32").start().await;
    let mut client = kernel.client().await;
    if !has_groups(kernel.pid()) {
        return;
    }
    let daemon = left_behind(&mut client, VANISHES).await;
    let worker = kernel.worker(0).await;
    kernel.signal(Signal::KILL);
    kernel.end().await;
    process::ended(worker).await;
    let _server = ServerSetup::new().start().await;
    process::ended(daemon).await;
    assert_eq!(cgroups::left(kernel.pid(), false), Vec::<String>::new());
}
