//! Several clients of one kernel.

use cob_clients::zmtp::SocketType;
use cob_protocol::message::Channel;
use cob_tests::kernel::{GATE, Setup, TestKernel};
use cob_tests::raw::{Raw, signed};
use serde_json::{Value, json};

/// Waits at the gate, and says that it is about to.
fn at_gate(then: &str) -> String {
    format!("print('waiting', flush=True)\n{GATE}\n{then}")
}

#[tokio::test]
async fn an_error_aborts_what_its_own_client_has_queued_and_nobody_elses() {
    let (kernel, mut ours) = TestKernel::with_client().await;
    let mut theirs = kernel.client().await;
    let failing = ours.execute(&at_gate("1 / 0")).await;
    ours.printed(&failing, "waiting\n").await;
    let (aborted, kept) = (ours.execute("'ours'").await, theirs.execute("'theirs'").await);
    // Answered at once, and after what came before it was queued.
    ours.ask(Channel::Shell, "kernel_info_request").await.ok();
    theirs.ask(Channel::Shell, "kernel_info_request").await.ok();
    kernel.open_gate();
    ours.finish(&failing).await.failed("ZeroDivisionError");
    assert_eq!(ours.finish(&aborted).await.status(), "aborted");
    assert_eq!(theirs.finish(&kept).await.ok().result(), "'theirs'");
    assert_eq!(ours.run("'again'").await.ok().result(), "'again'");
}

#[tokio::test]
async fn an_error_aborts_nothing_if_the_client_says_so() {
    let (kernel, mut client) = TestKernel::with_client().await;
    let content = json!({ "code": at_gate("1 / 0"), "stop_on_error": false });
    let failing = client.send(Channel::Shell, "execute_request", content).await;
    client.printed(&failing, "waiting\n").await;
    let kept = client.execute("'kept'").await;
    client.ask(Channel::Shell, "kernel_info_request").await.ok();
    kernel.open_gate();
    client.finish(&failing).await.failed("ZeroDivisionError");
    assert_eq!(client.finish(&kept).await.ok().result(), "'kept'");
}

#[tokio::test]
async fn c05_a_late_subscriber_is_welcomed_first_and_then_sees_the_rest() {
    let (kernel, mut first) = TestKernel::with_client().await;
    let cell = first.execute(&at_gate("print('the rest')")).await;
    first.printed(&cell, "waiting\n").await;
    // Connecting checks that the welcome comes before everything else.
    let mut late = kernel.client().await;
    kernel.open_gate();
    late.printed(&cell, "the rest\n").await;
    assert_eq!(first.finish(&cell).await.ok().stdout(), "waiting\nthe rest\n");
    assert!(late.seen().iter().all(|seen| !seen.text("text").contains("waiting")));
}

#[tokio::test]
async fn c05_subscribers_that_join_in_a_flood_are_welcomed_first() {
    let kernel = TestKernel::start().await;
    let file = &kernel.file;
    let (started, flood) = tokio::sync::oneshot::channel();
    // A reader in a thread of its own: in this one it would leave no time for anything else.
    let reader = std::thread::spawn({
        let file = file.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut first = Raw::subscriber(&file).await;
                // The welcome's topic is that of the subscription, every other message's its type.
                assert_eq!(first.next_message().await.unwrap()[0], "");
                while first.next_message().await.unwrap()[0] != "stream" {}
                started.send(()).unwrap();
                while first.next_message().await.unwrap()[0] != "error" {}
            });
        }
    });
    let mut shell = Raw::ready(file, file.shell_port, SocketType::Dealer).await;
    let header = json!({ "msg_id": "flood", "msg_type": "execute_request" });
    shell.message(&signed(file, &header, &json!({ "code": "while True: print('x' * 70)" }))).await;
    flood.await.unwrap();
    for _ in 0..5 {
        let mut late = Raw::subscriber(file).await;
        assert_eq!(late.next_message().await.unwrap()[0], "");
        // Of a cell that prints more than is kept nothing more is broadcast; it must not have come to that yet.
        assert_eq!(late.next_message().await.unwrap()[0], "stream");
    }
    let mut control = Raw::ready(file, file.control_port, SocketType::Dealer).await;
    let header = json!({ "msg_id": "stop", "msg_type": "interrupt_request" });
    control.message(&signed(file, &header, &json!({}))).await;
    control.next_message().await.unwrap();
    let reply: Value = serde_json::from_slice(&shell.next_message().await.unwrap()[5]).unwrap();
    assert_eq!(reply["ename"], "KeyboardInterrupt");
    reader.join().unwrap();
}

#[tokio::test]
async fn a_question_goes_to_who_ran_the_code_and_the_first_answer_counts() {
    let (kernel, mut ours) = TestKernel::with_client().await;
    let mut theirs = kernel.client().await;
    let code = "[input('first? '), input('second? ')]";
    let cell = ours.send(Channel::Shell, "execute_request", json!({ "code": code })).await;
    let question = ours.until(|seen| seen.text("prompt") == "first? ").await;
    assert_eq!((question.parent.as_str(), question.msg_type.as_str()), (cell.as_str(), "input_request"));
    theirs.send(Channel::Stdin, "input_reply", json!({ "value": "another client may help" })).await;
    ours.until(|seen| seen.text("prompt") == "second? ").await;
    ours.send(Channel::Stdin, "input_reply", json!({ "value": "ours" })).await;
    assert_eq!(ours.finish(&cell).await.ok().result(), "['another client may help', 'ours']");
    theirs.ask(Channel::Control, "kernel_info_request").await.ok();
    assert!(theirs.seen().iter().all(|seen| seen.msg_type != "input_request"));
}

#[tokio::test]
async fn a_kernel_on_ports_is_the_same_kernel() {
    let kernel = Setup::new().tcp().start().await;
    let mut client = kernel.client().await;
    assert_eq!(client.run("print('text')\n6 * 7").await.ok().result(), "42");
    let ports = client.ask(Channel::Shell, "connect_request").await.ok();
    assert_eq!(ports.reply["iopub_port"], json!(kernel.file.iopub_port));
}
