//! C: clients that read too little, ask too much, or ask in the middle of a flood.

use cob_protocol::message::Channel;
use cob_tests::client::TestClient;
use cob_tests::kernel::TestKernel;
use cob_tests::process;
use serde_json::json;

const FLOOD: &str = "print('on', flush=True)\nwhile True: print('x' * 70)";

#[tokio::test]
async fn c09_ten_thousand_requests_that_nobody_reads_are_all_answered_in_the_end() {
    const COUNT: usize = 10_000;
    let kernel = TestKernel::start().await;
    let mut client = TestClient::silent(&kernel.file).await;
    let before = process::resident_bytes(kernel.pid());
    let mut ids = Vec::new();
    let gate = "import os\nos.mkfifo('gate')\nopen('gate').read()";
    ids.push(client.execute(gate).await);
    for number in 1..COUNT {
        if number == COUNT / 3 {
            // What came until now waits behind the gate; it is there once its making has been announced.
            client.until(|seen| seen.msg_type == "execute_input").await;
            open_gate(&kernel);
        }
        let content = json!({ "code": "pass", "silent": true });
        ids.push(client.send(Channel::Shell, "execute_request", content).await);
    }
    let growth = process::resident_bytes_peak(kernel.pid()).saturating_sub(before);
    assert!(growth < 128 << 20, "the kernel grew by {growth} bytes");
    for id in ids {
        let reply = client.next_on(Channel::Shell).await;
        assert_eq!((reply.parent.as_str(), reply.text("status")), (id.as_str(), "ok"));
    }
}

/// Lets the cell that reads the FIFO go on, once it has made it.
fn open_gate(kernel: &TestKernel) {
    let gate = kernel.folder().join("cwd/gate");
    while !gate.exists() {
        std::thread::yield_now();
    }
    std::fs::write(gate, "").unwrap();
}

#[tokio::test]
async fn c10_control_is_answered_in_the_middle_of_a_flood() {
    let (_kernel, mut client) = TestKernel::with_client().await;
    let cell = client.execute(FLOOD).await;
    client.printed(&cell, "on\n").await;
    for _ in 0..20 {
        client.ask(Channel::Control, "kernel_info_request").await.ok();
    }
    client.interrupt().await;
    client.finish(&cell).await.failed("KeyboardInterrupt");
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
}

#[tokio::test]
async fn c10_control_is_answered_while_the_only_subscriber_reads_nothing() {
    let (_kernel, mut client) = TestKernel::with_client().await;
    let cell = client.execute(FLOOD).await;
    client.printed(&cell, "on\n").await;
    for _ in 0..20 {
        client.send(Channel::Control, "kernel_info_request", json!({})).await;
        assert_eq!(client.next_on(Channel::Control).await.msg_type, "kernel_info_reply");
    }
    client.send(Channel::Control, "interrupt_request", json!({})).await;
    assert_eq!(client.next_on(Channel::Control).await.msg_type, "interrupt_reply");
    let reply = client.next_on(Channel::Shell).await.clone();
    assert_eq!((reply.parent.as_str(), reply.text("ename")), (cell.as_str(), "KeyboardInterrupt"));
}

#[tokio::test]
async fn c03_a_client_that_vanishes_takes_nothing_along() {
    let (kernel, mut first) = TestKernel::with_client().await;
    let mut second = kernel.client().await;
    let cell = first
        .execute("import os\nos.mkfifo('gate')\nprint('on', flush=True)\nopen('gate').read()\nkept = 'done'")
        .await;
    first.printed(&cell, "on\n").await;
    drop(first);
    open_gate(&kernel);
    assert_eq!(second.run("kept").await.ok().result(), "'done'");
}
