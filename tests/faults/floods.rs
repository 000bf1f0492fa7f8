//! C: clients that read too little, ask too much, or ask in the middle of a flood.

use cob_clients::zmtp::SocketType;
use cob_protocol::message::Channel;
use cob_tests::kernel::{GATE, TestKernel};
use cob_tests::process;
use cob_tests::raw::{Raw, signed};
use serde_json::{Value, json};

const FLOOD: &str = "print('on', flush=True)\nwhile True: print('x' * 70)";

#[tokio::test]
async fn c09_ten_thousand_requests_that_nobody_reads_are_all_answered_in_the_end() {
    const COUNT: usize = 10_000;
    let kernel = TestKernel::start().await;
    let mut raw = Raw::ready(&kernel.file, kernel.file.shell_port, SocketType::Dealer).await;
    let before = process::resident_bytes(kernel.pid());
    for number in 0..COUNT {
        if number == COUNT / 3 {
            // Until now everything waits behind the gate.
            kernel.open_gate();
        }
        let header = json!({ "msg_id": number.to_string(), "msg_type": "execute_request", "session": "s" });
        let content = json!({ "code": if number == 0 { GATE } else { "pass" }, "silent": number > 0 });
        raw.message(&signed(&kernel.file, &header, &content)).await;
    }
    for number in 0..COUNT {
        let reply = raw.next_message().await.unwrap();
        let parent: Value = serde_json::from_slice(&reply[3]).unwrap();
        let content: Value = serde_json::from_slice(&reply[5]).unwrap();
        assert_eq!((&parent["msg_id"], &content["status"]), (&json!(number.to_string()), &json!("ok")));
    }
    let growth = process::resident_bytes_peak(kernel.pid()).saturating_sub(before);
    assert!(growth < 128 << 20, "the kernel grew by {growth} bytes");
}

#[tokio::test]
async fn c10_control_is_answered_in_the_middle_of_a_flood() {
    let (_kernel, mut client) = TestKernel::with_client().await;
    let cell = client.execute(FLOOD).await;
    client.printed(&cell, "on\n").await;
    for _ in 0..10 {
        // Its reply overtakes the flood; its idle, which the flood stands before, is not waited for.
        let id = client.send(Channel::Control, "kernel_info_request", json!({})).await;
        client.until(|seen| seen.parent == id && seen.msg_type == "kernel_info_reply").await;
        // The flood goes on: the answer did not come because it had reached its limit.
        while client.next().await.msg_type != "stream" {}
    }
    client.send(Channel::Control, "interrupt_request", json!({})).await;
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
    let cell = first.execute(&format!("print('on', flush=True)\n{GATE}\nkept = 'done'")).await;
    first.printed(&cell, "on\n").await;
    drop(first);
    kernel.open_gate();
    assert_eq!(second.run("kept").await.ok().result(), "'done'");
}
