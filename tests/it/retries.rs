//! A request that comes twice under one id runs once, whoever asks, however often.

use bytes::Bytes;
use cob_clients::zmtp::SocketType;
use cob_protocol::wire::DELIMITER;
use cob_tests::kernel::{GATE, TestKernel};
use cob_tests::raw::{Raw, signed};
use serde_json::{Value, json};

/// The same request at another time: its text differs, and so does its signature.
fn request(kernel: &TestKernel, id: &str, attempt: u32, code: &str) -> Vec<Bytes> {
    let header = json!({
        "msg_id": id, "msg_type": "execute_request", "session": "one", "username": "u",
        "date": format!("2030-01-01T00:00:{attempt:02}Z"), "version": "5.5",
    });
    signed(&kernel.file, &header, &json!({ "code": code, "allow_stdin": false }))
}

async fn shell(kernel: &TestKernel) -> Raw {
    Raw::ready(&kernel.file, kernel.file.shell_port, SocketType::Dealer).await
}

/// Content of the next reply.
async fn reply(raw: &mut Raw) -> Bytes {
    let parts = raw.next_message().await.expect("a reply");
    assert_eq!(parts[0], DELIMITER);
    parts[5].clone()
}

fn read(content: &Bytes) -> Value {
    serde_json::from_slice(content).unwrap()
}

const ONE_EFFECT: &str = "open('effects', 'a').write('x')\nundefined";

fn effects(kernel: &TestKernel) -> usize {
    std::fs::read(kernel.folder().join("cwd/effects")).map_or(0, |effects| effects.len())
}

#[tokio::test]
async fn a_retry_gets_the_stored_reply_and_runs_nothing() {
    let kernel = TestKernel::start().await;
    let mut raw = shell(&kernel).await;
    raw.message(&request(&kernel, "a", 1, ONE_EFFECT)).await;
    let first = reply(&mut raw).await;
    assert_eq!(read(&first)["ename"], "NameError");
    for attempt in 2..5 {
        raw.message(&request(&kernel, "a", attempt, ONE_EFFECT)).await;
        assert_eq!(reply(&mut raw).await, first);
    }
    let mut other = shell(&kernel).await;
    other.message(&request(&kernel, "a", 5, ONE_EFFECT)).await;
    assert_eq!(reply(&mut other).await, first);
    assert_eq!(effects(&kernel), 1);
}

#[tokio::test]
async fn p09_the_same_id_with_other_code_is_refused_and_the_first_is_untouched() {
    let kernel = TestKernel::start().await;
    let mut raw = shell(&kernel).await;
    raw.message(&request(&kernel, "a", 1, ONE_EFFECT)).await;
    let first = reply(&mut raw).await;
    raw.message(&request(&kernel, "a", 2, "open('effects', 'a').write('y')")).await;
    let refused = read(&reply(&mut raw).await);
    assert_eq!((&refused["status"], &refused["code"]), (&json!("error"), &json!("key_reused")));
    raw.message(&request(&kernel, "a", 3, ONE_EFFECT)).await;
    assert_eq!(reply(&mut raw).await, first);
    assert_eq!(effects(&kernel), 1);
}

#[tokio::test]
async fn p10_fifty_at_once_over_five_connections_have_one_effect_and_one_answer() {
    let kernel = TestKernel::start().await;
    let gate = format!("open('effects', 'a').write('x')\n{GATE}\n'done'");
    let mut peers = Vec::new();
    for peer in 0..5 {
        let mut raw = shell(&kernel).await;
        for attempt in 0..10 {
            raw.message(&request(&kernel, "a", peer * 10 + attempt, &gate)).await;
        }
        // Answered at once, and after what came before it was taken in.
        let header = json!({ "msg_id": format!("after {peer}"), "msg_type": "kernel_info_request" });
        raw.message(&signed(&kernel.file, &header, &json!({}))).await;
        assert_eq!(read(&reply(&mut raw).await)["implementation"], "cob");
        peers.push(raw);
    }
    kernel.open_gate();
    let mut replies = Vec::new();
    for raw in &mut peers {
        for _ in 0..10 {
            replies.push(reply(raw).await);
        }
    }
    assert_eq!(read(&replies[0])["status"], "ok");
    assert!(replies.iter().all(|reply| *reply == replies[0]));
    assert_eq!(effects(&kernel), 1);
}

#[tokio::test]
async fn ids_of_different_clients_never_meet() {
    let kernel = TestKernel::start().await;
    let mut raw = shell(&kernel).await;
    for session in ["one", "two"] {
        let header = json!({ "msg_id": "a", "msg_type": "execute_request", "session": session });
        let content = json!({ "code": "open('effects', 'a').write('x')" });
        raw.message(&signed(&kernel.file, &header, &content)).await;
        assert_eq!(read(&reply(&mut raw).await)["status"], "ok");
    }
    assert_eq!(effects(&kernel), 2);
}
