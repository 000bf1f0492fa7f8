//! Whatever becomes of the server, of its zygote or of a kernel, the others go on.

use cob_tests::client::TestClient;
use cob_tests::kernel::TestKernel;
use cob_tests::process;
use cob_tests::server::{ServerSetup, TestServer};
use rustix::process::Signal;

/// A kernel on a warm worker in which `kept` is set.
async fn warm_kernel(server: &TestServer) -> (TestKernel, TestClient) {
    let kernel = server.kernel().await;
    assert_eq!(kernel.worker_from(0).await.1, "Warm", "{:#?}", server.log());
    let mut client = kernel.client().await;
    client.run("kept = 1").await.ok();
    (kernel, client)
}

/// Its session is the same, and can be interrupted.
async fn goes_on(kernel: &TestKernel, client: &mut TestClient) {
    assert_eq!(client.run("kept").await.ok().result(), "1");
    let cell = client.execute("print('on', flush=True)\nwhile True: pass").await;
    client.printed(&cell, "on\n").await;
    client.interrupt().await;
    client.finish(&cell).await.failed("KeyboardInterrupt");
    assert_eq!(kernel.log().iter().filter(|line| line.contains("worker ready")).count(), 1);
}

/// A cell that prints until its worker is killed; all of that is kept, and how it ended is named with `what`.
async fn lost_with_its_output(kernel: &TestKernel, client: &mut TestClient, nth: usize, what: &str) {
    let code = "import os\nn = 0\nwhile True:\n    os.write(1, b'%d\\n' % n); n += 1";
    let cell = client.execute(code).await;
    client.printed(&cell, "\n1000\n").await;
    process::signal(kernel.worker(nth).await, Signal::KILL);
    let run = client.finish(&cell).await.lost(what);
    let stdout = run.stdout();
    let expected: String = (0..stdout.lines().count()).map(|number| format!("{number}\n")).collect();
    assert_eq!(stdout, expected);
    let kept = format!("{} bytes of its output are kept", stdout.len());
    assert!(run.evalue().contains(&kept), "{}", run.evalue());
    kernel.worker(nth + 1).await;
    assert_eq!(client.run("'kept' in globals()").await.ok().result(), "False");
}

#[tokio::test]
async fn w01_a_warm_worker_that_is_killed_keeps_its_output_and_is_replaced_by_a_warm_one() {
    let server = TestServer::start().await;
    let (kernel, mut client) = warm_kernel(&server).await;
    server.holds(2, 1).await;
    lost_with_its_output(&kernel, &mut client, 0, "was killed by signal 9 (SIGKILL)").await;
    assert_eq!(kernel.worker_from(1).await.1, "Warm");
}

#[tokio::test]
async fn the_end_of_a_warm_worker_is_named_though_the_kernel_is_not_its_parent() {
    let server = TestServer::start().await;
    let (_kernel, mut client) = warm_kernel(&server).await;
    for (code, what) in [
        ("import os; os._exit(3)", "exited with status 3 before finishing"),
        ("import os; os._exit(0)", "exited with status 0 before finishing"),
        ("import ctypes; ctypes.string_at(0)", "signal 11 (SIGSEGV)"),
        ("import os; os.abort()", "signal 6 (SIGABRT)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "signal 15 (SIGTERM)"),
    ] {
        client.run(code).await.lost(what);
        assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    }
}

#[tokio::test]
async fn w01_a_worker_whose_zygote_was_killed_keeps_its_output_and_is_replaced() {
    let server = TestServer::start().await;
    let (kernel, mut client) = warm_kernel(&server).await;
    let zygote = server.zygote();
    process::signal(zygote, Signal::KILL);
    process::ended(zygote).await;
    goes_on(&kernel, &mut client).await;
    // Who could have said by what signal is gone, unless the system remembers it.
    lost_with_its_output(&kernel, &mut client, 0, "").await;
}

#[tokio::test]
async fn w01_a_worker_whose_server_was_killed_keeps_its_output_and_is_replaced() {
    let mut server = TestServer::start().await;
    let (kernel, mut client) = warm_kernel(&server).await;
    server.signal(Signal::KILL);
    server.end().await;
    goes_on(&kernel, &mut client).await;
    lost_with_its_output(&kernel, &mut client, 0, "").await;
    assert_eq!(kernel.worker_from(1).await.1, "Cold");
}

#[tokio::test]
async fn kernels_outlive_the_server_however_it_ends_and_another_one_takes_its_place() {
    for (signal, leaves_socket) in [(Signal::KILL, true), (Signal::TERM, false), (Signal::INT, false)] {
        let mut server = TestServer::start().await;
        let (one, mut of_one) = warm_kernel(&server).await;
        server.holds(2, 1).await;
        let (other, mut of_other) = warm_kernel(&server).await;
        server.holds(2, 2).await;
        let used = [one.worker(0).await, other.worker(0).await];
        let mut idle = process::children(server.zygote());
        idle.retain(|pid| !used.contains(pid));
        assert_eq!(idle.len(), 2);

        server.signal(signal);
        assert_eq!(server.end().await.code(), (!leaves_socket).then_some(0));
        for pid in idle {
            process::ended(pid).await;
        }
        assert_eq!(server.runtime().join("pool").exists(), leaves_socket);
        goes_on(&one, &mut of_one).await;
        goes_on(&other, &mut of_other).await;
        let cold = server.kernel().await;
        assert_eq!(cold.worker_from(0).await.1, "Cold");

        server.start_again().await;
        let (_third, _client) = warm_kernel(&server).await;
        goes_on(&one, &mut of_one).await;
        // A session that got its worker from the one gets its next from the other.
        server.holds(2, 1).await;
        process::signal(used[0], Signal::KILL);
        assert_eq!(one.worker_from(1).await.1, "Warm");
    }
}

#[tokio::test]
async fn a_kernel_that_is_killed_takes_its_warm_worker_and_the_children_of_that_along() {
    const CODE: &str = "\
import os, subprocess, time
child = subprocess.Popen(['sleep', '1000000'])
fork = os.fork()
if fork == 0:
    while True: time.sleep(1000)
print(child.pid, fork, flush=True)";
    let server = TestServer::start().await;
    let descriptors = server.descriptors();
    for busy in ["pass", "while True: pass", "sum(iter(int, 1))"] {
        let (mut kernel, mut client) = warm_kernel(&server).await;
        server.holds(2, 1).await;
        let children = client.run(CODE).await.ok().stdout();
        let cell = client.execute(&format!("print('on', flush=True)\n{busy}")).await;
        client.printed(&cell, "on\n").await;
        kernel.signal(Signal::KILL);
        kernel.end().await;
        process::ended(kernel.worker(0).await).await;
        for child in children.split_whitespace() {
            process::ended(child.parse().unwrap()).await;
        }
        server.settled().await;
        server.is_as_before(&descriptors);
    }
    assert_eq!(server.info()["environments"][0]["leased"], 0);
}

#[tokio::test]
async fn a_zygote_that_is_killed_is_replaced_and_leases_go_on() {
    let server = TestServer::start().await;
    let (kernel, mut client) = warm_kernel(&server).await;
    server.holds(2, 1).await;
    let zygote = server.zygote();
    process::signal(zygote, Signal::KILL);
    server.log_line("zygote lost", 0).await.unwrap();
    // What was warm is as good as before.
    let (_second, _its_client) = warm_kernel(&server).await;
    server.log_line("zygote ready", 1).await.unwrap();
    server.holds(2, 2).await;
    assert_ne!(server.zygote(), zygote);
    let info = server.info();
    assert_eq!(info["environments"][0]["zygote"]["state"], "ready", "{info:#}");
    assert_eq!(info["counters"]["zygotes_prepared"], 2, "{info:#}");
    let (_third, _its_client) = warm_kernel(&server).await;
    goes_on(&kernel, &mut client).await;
}

#[tokio::test]
async fn a_zygote_that_dies_between_leases_never_costs_a_kernel_its_start() {
    let server = ServerSetup::new().spares(1).start().await;
    for nth in 0..3 {
        let zygote = server.zygote();
        let warm = process::children(zygote);
        assert_eq!(warm.len(), 1);
        process::signal(zygote, Signal::KILL);
        process::signal(warm[0], Signal::KILL);
        let kernel = server.kernel().await;
        let mut client = kernel.client().await;
        assert_eq!(client.run("1 + 1").await.ok().result(), "2");
        server.log_line("zygote ready", nth + 1).await.unwrap();
        drop((client, kernel));
        server.settled().await;
    }
}
