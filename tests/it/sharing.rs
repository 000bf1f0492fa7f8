//! Several clients of one kernel.

use cob_protocol::message::Channel;
use cob_tests::kernel::{GATE, Setup, TestKernel};
use serde_json::json;

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
    let (kernel, mut first) = TestKernel::with_client().await;
    let cell = first.execute("print('on', flush=True)\nwhile True: print('x' * 70)").await;
    first.printed(&cell, "on\n").await;
    for _ in 0..3 {
        let mut late = tokio::select! {
            late = kernel.client() => late,
            () = async { loop { first.next().await; } } => unreachable!("it goes on for ever"),
        };
        late.until(|seen| seen.parent == cell).await;
    }
    first.interrupt().await;
    first.finish(&cell).await.failed("KeyboardInterrupt");
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
