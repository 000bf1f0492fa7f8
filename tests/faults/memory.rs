//! R01: memory. At its limit the session ends, and says so; nobody else notices.

use cob_tests::cgroups;
use cob_tests::client::{Run, TestClient};
use cob_tests::kernel::{Setup, TestKernel};
use cob_tests::process;
use cob_tests::server::TestServer;

const MIB: u64 = 1 << 20;

/// Many small objects.
const SLOWLY: &str = "kept = [bytes(1000) for _ in range(1 << 30)]";
/// Pages that count for no limit of a process, touched all at once.
const AT_ONCE: &str = "\
import mmap
room = mmap.mmap(-1, 256 << 20)
for at in range(0, 256 << 20, 4096): room[at] = 1";
/// In room that was given before it is used.
const RESERVED: &str = "\
room = bytearray(100 << 20)
for at in range(0, len(room), 4096): room[at] = 1";

async fn limited(limits: &str) -> (TestKernel, TestClient) {
    let kernel = Setup::new().limits(limits).start().await;
    let client = kernel.client().await;
    (kernel, client)
}

#[track_caller]
fn memory_limit(run: Run, limit: &str) -> Run {
    let run = run.failed("MemoryLimit");
    assert_eq!((run.code(), run.session_state()), ("memory_limit", "lost"), "{:#}", run.reply);
    let said = format!("the worker was killed at the memory limit of its session, {limit}");
    assert!(run.evalue().starts_with(&said), "{}", run.evalue());
    run
}

/// Bombs of every kind in a session with room for 64 MiB, and another session beside it.
async fn bombs_end_the_session_and_nothing_else(kernel: TestKernel, mut neighbour: TestClient) {
    let mut client = kernel.client().await;
    if !cgroups::holds(&mut client, "memory").await {
        return without_a_group(&mut client).await;
    }
    neighbour.run("kept = 1").await.ok();
    client.run("1").await.ok();
    let before = process::resident_bytes(kernel.pid());
    for (nth, code) in [SLOWLY, AT_ONCE, RESERVED].into_iter().enumerate() {
        let code = format!("print('text')\n{code}");
        let run = memory_limit(client.run(&code).await, "64 MiB");
        assert_eq!(run.stdout(), "text\n");
        // Another worker, with the same limit.
        process::ended(kernel.worker(nth).await).await;
        assert_eq!(client.run("'kept' in globals()").await.ok().result(), "False");
        assert!(cgroups::holds(&mut client, "memory").await);
    }
    let growth = process::resident_bytes_peak(kernel.pid()).saturating_sub(before);
    assert!(growth <= 16 * MIB, "the kernel grew by {growth} bytes");
    assert_eq!(neighbour.run("kept").await.ok().result(), "1");
}

/// What one process can be denied without a cgroup is an error of the code.
async fn without_a_group(client: &mut TestClient) {
    let by = cgroups::means(client).await.remove("memory").unwrap_or_default();
    assert!(by.starts_with("rlimit, for each process alone"), "{by}");
    client.run("before = 1").await.ok();
    client.run(SLOWLY).await.failed("MemoryError");
    assert_eq!(client.run("before").await.ok().result(), "1");
}

#[tokio::test]
async fn r01_memory_bombs_end_a_cold_session_and_nothing_else() {
    let (_other, neighbour) = TestKernel::with_client().await;
    let kernel = Setup::new().limits("memory=64M").start().await;
    bombs_end_the_session_and_nothing_else(kernel, neighbour).await;
}

#[tokio::test]
async fn r01_memory_bombs_end_a_warm_session_and_nothing_else() {
    let server = TestServer::start().await;
    let other = server.kernel().await;
    let neighbour = other.client().await;
    server.holds(2, 1).await;
    let kernel = Setup::new().server(&server).limits("memory=64M").start().await;
    assert_eq!(kernel.worker_from(0).await.1, "Warm");
    bombs_end_the_session_and_nothing_else(kernel, neighbour).await;
}

#[tokio::test]
async fn r01_an_allocation_that_is_too_large_is_an_error_of_the_code() {
    let (_kernel, mut client) = limited("memory=64M").await;
    client.run("kept = 1").await.ok();
    for code in ["bytearray(1 << 40)", "bytearray(2 << 30)", "[0] * (1 << 40)"] {
        client.run(code).await.failed("MemoryError");
    }
    assert_eq!(client.run("kept").await.ok().result(), "1");
}

/// Where the system kills one of them, the code sees how it ended; where it kills all, the session is lost.
#[tokio::test]
async fn r01_the_memory_of_children_counts_too() {
    const CHILD: &str = "\
import subprocess, sys
code = 'kept = [bytes(1000) for _ in range(1 << 30)]'
print(subprocess.run([sys.executable, '-c', code], stderr=subprocess.DEVNULL).returncode)";
    const MANY: &str = "\
import os, signal, sys
for _ in range(12):
    if os.fork() == 0:
        room = bytes([1]) * (8 << 20)
        signal.pause()
print(os.waitstatus_to_exitcode(os.wait()[1]))";
    let (kernel, mut client) = limited("memory=64M,processes=32").await;
    if !cgroups::holds(&mut client, "memory").await {
        return;
    }
    // One that is too large, and some that are too large together.
    for code in [CHILD, MANY] {
        let run = client.run(code).await;
        match run.status() {
            "ok" => assert_eq!(run.stdout(), "-9\n"),
            _ => drop(memory_limit(run, "64 MiB")),
        }
        assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    }
    let members = cgroups::members(kernel.pid());
    drop((client, kernel));
    for pid in members {
        process::ended(pid).await;
    }
}
