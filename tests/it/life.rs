//! How a kernel ends, and what signals do to it.

use std::process::Stdio;

use cob_protocol::message::Channel;
use cob_tests::kernel::{Setup, TestKernel};
use cob_tests::process;
use rustix::process::Signal;
use serde_json::json;

const LOOP: &str = "print('on', flush=True)\nwhile True: pass";

#[tokio::test]
async fn sigterm_ends_an_idle_kernel_and_its_worker() {
    let mut kernel = TestKernel::start().await;
    let worker = kernel.worker(0).await;
    kernel.signal(Signal::TERM);
    assert_eq!(kernel.end().await.code(), Some(0));
    process::ended(worker).await;
}

#[tokio::test]
async fn sigterm_ends_a_kernel_whose_code_runs() {
    let (mut kernel, mut client) = TestKernel::with_client().await;
    let worker = kernel.worker(0).await;
    let cell = client.execute(LOOP).await;
    client.printed(&cell, "on\n").await;
    kernel.signal(Signal::TERM);
    assert_eq!(kernel.end().await.code(), Some(0));
    process::ended(worker).await;
}

#[tokio::test]
async fn sigint_interrupts_the_cell_that_runs_and_nothing_else() {
    let (mut kernel, mut client) = TestKernel::with_client().await;
    client.run("kept = 1").await.ok();
    let cell = client.execute(LOOP).await;
    client.printed(&cell, "on\n").await;
    kernel.signal(Signal::INT);
    client.finish(&cell).await.failed("KeyboardInterrupt");

    kernel.signal(Signal::INT);
    for _ in 0..5 {
        // By then it has been seen: nothing runs, nothing happens.
        client.ask(Channel::Control, "kernel_info_request").await.ok();
    }
    assert_eq!(client.run("kept").await.ok().result(), "1");
    assert_eq!(kernel.log().iter().filter(|line| line.contains("worker ready")).count(), 1);
}

#[tokio::test]
async fn a_kernel_that_is_killed_leaves_no_worker_behind() {
    let (mut kernel, mut client) = TestKernel::with_client().await;
    let worker = kernel.worker(0).await;
    let cell = client.execute(LOOP).await;
    client.printed(&cell, "on\n").await;
    kernel.signal(Signal::KILL);
    kernel.end().await;
    process::ended(worker).await;
}

#[tokio::test]
async fn a_kernel_that_is_killed_leaves_no_worker_that_ignores_signals_behind() {
    let (mut kernel, mut client) = TestKernel::with_client().await;
    let worker = kernel.worker(0).await;
    let deaf = "import signal\nfor n in range(1, 32):\n    if n not in (9, 19):\n        signal.signal(n, signal.SIG_IGN)\nprint('on', flush=True)\nwhile True: pass";
    let cell = client.execute(deaf).await;
    client.printed(&cell, "on\n").await;
    kernel.signal(Signal::KILL);
    kernel.end().await;
    process::ended(worker).await;
}

#[tokio::test]
async fn a_front_end_that_dies_takes_its_kernel_along() {
    let mut front_end = std::process::Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let mut kernel = Setup::new().env("JPY_PARENT_PID", front_end.id().to_string()).start().await;
    let worker = kernel.worker(0).await;
    drop(front_end.stdin.take());
    front_end.wait().unwrap();
    assert_eq!(kernel.end().await.code(), Some(0));
    process::ended(worker).await;
}

#[tokio::test]
async fn a_shutdown_request_is_answered_and_then_everything_ends() {
    let (mut kernel, mut client) = TestKernel::with_client().await;
    let queued = client.execute("import atexit\natexit.register(open('ended', 'w').close)").await;
    client.finish(&queued).await.ok();
    let id = client.send(Channel::Control, "shutdown_request", json!({ "restart": false })).await;
    let answer = client.finish(&id).await.ok();
    assert_eq!(answer.reply["restart"], json!(false));
    assert_eq!(kernel.end().await.code(), Some(0));
    assert!(kernel.folder().join("cwd/ended").exists(), "exit hooks did not run");
}

#[tokio::test]
async fn what_waits_when_the_kernel_ends_is_answered() {
    let (mut kernel, mut client) = TestKernel::with_client().await;
    let running = client.execute(LOOP).await;
    client.printed(&running, "on\n").await;
    let waiting = client.execute("1").await;
    client.ask(Channel::Shell, "kernel_info_request").await.ok();
    client.send(Channel::Control, "shutdown_request", json!({})).await;
    let waiting = client.finish(&waiting).await;
    assert_eq!(waiting.code(), "shutting_down");
    client.finish(&running).await.failed("KeyboardInterrupt");
    assert_eq!(kernel.end().await.code(), Some(0));
}

#[tokio::test]
async fn the_heartbeat_echoes_while_code_runs() {
    let (_kernel, mut client) = TestKernel::with_client().await;
    let cell = client.execute(LOOP).await;
    client.printed(&cell, "on\n").await;
    for _ in 0..3 {
        assert_eq!(client.connection().beat(b"any bytes").await.unwrap(), [&b"any bytes"[..]]);
    }
    client.interrupt().await;
    client.finish(&cell).await.failed("KeyboardInterrupt");
}
