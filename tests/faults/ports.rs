//! P: strangers and nonsense on the five ports of a running kernel. Everything is closed or dropped, nothing runs,
//! and the next client is served.

use bytes::Bytes;
use cob_clients::zmtp::SocketType;
use cob_clients::zmtp::codec::Encoded;
use cob_clients::zmtp::command::Ready;
use cob_clients::zmtp::greeting::{Greeting, Mechanism};
use cob_protocol::wire::DELIMITER;
use cob_tests::kernel::{Setup, TestKernel};
use cob_tests::raw::{Raw, ports, signed, signed_parts};
use cob_tests::seed::Seed;
use serde_json::{Value, json};

async fn serves(kernel: &TestKernel) {
    let mut client = kernel.client().await;
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    assert_eq!(client.connection().beat(b"beat").await.unwrap(), [&b"beat"[..]]);
}

fn kernel_info(kernel: &TestKernel, id: &str) -> Vec<Bytes> {
    let header = json!({ "msg_id": id, "msg_type": "kernel_info_request" });
    signed(&kernel.file, &header, &json!({}))
}

fn parent(message: &[Bytes]) -> String {
    let parent: Value = serde_json::from_slice(&message[3]).unwrap();
    parent["msg_id"].as_str().unwrap_or_default().to_owned()
}

/// Sends `nonsense` on shell and control: it gets no reply, and what comes after it does.
async fn is_dropped(kernel: &TestKernel, nonsense: &[Vec<Bytes>]) {
    for (name, port, kind) in ports(&kernel.file).into_iter().take(2) {
        let mut raw = Raw::ready(&kernel.file, port, kind).await;
        for parts in nonsense {
            raw.message(parts).await;
        }
        let id = format!("after the nonsense on {name}");
        raw.message(&kernel_info(kernel, &id)).await;
        assert_eq!(parent(&raw.next_message().await.unwrap()), id);
    }
}

#[tokio::test]
async fn p02_lengths_beyond_all_bounds_close_the_connection_on_every_port() {
    let kernel = Setup::new().tcp().start().await;
    for (_, port, kind) in ports(&kernel.file) {
        for length in [1_u64 << 32, 1 << 40, 1 << 63, u64::MAX, (32 << 20) + 1] {
            for flags in [2, 3, 6] {
                let frame = [&[flags][..], &length.to_be_bytes(), b"a few bytes"].concat();
                let mut early = Raw::greeted(&kernel.file, port).await;
                early.send(&frame).await;
                early.closed().await;
                let mut late = Raw::ready(&kernel.file, port, kind).await;
                late.send(&frame).await;
                late.closed().await;
            }
        }
    }
    serves(&kernel).await;
}

#[tokio::test]
async fn p03_endless_parts_close_the_connection_on_every_port() {
    let kernel = Setup::new().tcp().start().await;
    for (_, port, kind) in ports(&kernel.file) {
        for part in [vec![1, 0], [vec![1, 255], vec![0; 255]].concat()] {
            let mut raw = Raw::ready(&kernel.file, port, kind).await;
            for _ in 0..100 {
                raw.send(&part).await;
            }
            raw.closed().await;
        }
    }
    serves(&kernel).await;
}

#[tokio::test]
async fn p04_every_prefix_of_a_conversation_is_survived_and_has_no_effect() {
    let kernel = TestKernel::start().await;
    let header = json!({ "msg_id": "a", "msg_type": "execute_request", "session": "s" });
    let request = signed(&kernel.file, &header, &json!({ "code": "open('effect', 'w')" }));
    let conversation = [
        Greeting::encode(Mechanism::Null).to_vec(),
        Encoded::command(&Ready::encode(SocketType::Dealer, b"prefix")).to_vec(),
        Encoded::message(&request).to_vec(),
    ]
    .concat();
    for end in 0..conversation.len() {
        let mut raw = Raw::silent(&kernel.file, kernel.file.shell_port).await;
        raw.send(&conversation[..end]).await;
        raw.hang_up().await;
    }
    serves(&kernel).await;
    assert!(!kernel.folder().join("cwd/effect").exists());
}

#[tokio::test]
async fn p06_parts_that_are_no_message_are_dropped_and_counted() {
    let kernel = TestKernel::start().await;
    let good = kernel_info(&kernel, "good");
    let delimiter = Bytes::from_static(DELIMITER);
    let mut nonsense: Vec<Vec<Bytes>> = (1..good.len()).map(|end| good[..end].to_vec()).collect();
    nonsense.push(good[1..].to_vec());
    nonsense.push(good[1..].iter().chain(&good[..1]).cloned().collect());
    nonsense.push([&good[..1], &good[..]].concat());
    nonsense.push(vec![delimiter.clone(); 8]);
    nonsense.push(vec![Bytes::new()]);
    nonsense.push(vec![Bytes::from_static(b"identity"); 60]);
    nonsense.push([vec![Bytes::from_static(b"identity"); 58], good[..5].to_vec()].concat());
    is_dropped(&kernel, &nonsense).await;
    assert!(kernel.log_line("message dropped", 0).await.is_some());
    serves(&kernel).await;
}

#[tokio::test]
async fn p06_signed_nonsense_is_dropped_or_refused() {
    let kernel = TestKernel::start().await;
    let part = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let deep = "[".repeat(100_000);
    let long = format!("{{\"msg_id\":\"{}\",\"msg_type\":\"kernel_info_request\"}}", "x".repeat(1_000_000));
    let nonsense: Vec<_> = ["", "{", "[]", "null", "{}", "{\"msg_type\": 5, \"msg_id\": []}", &deep, &long]
        .into_iter()
        .map(|header| signed_parts(&kernel.file, [part(header), part("{}"), part("{}"), part("{}")]))
        .collect();
    is_dropped(&kernel, &nonsense).await;
    serves(&kernel).await;
}

#[tokio::test]
async fn p07_a_message_with_a_wrong_signature_gets_no_reply_and_runs_nothing() {
    let kernel = TestKernel::start().await;
    let header = json!({ "msg_id": "forged", "msg_type": "execute_request", "session": "s" });
    let good = signed(&kernel.file, &header, &json!({ "code": "open('effect', 'w')" }));
    let with = |signature: Vec<u8>| {
        let mut parts = good.clone();
        parts[1] = signature.into();
        parts
    };
    let mut swapped = good.clone();
    swapped.swap(3, 5);
    let mut changed = good.clone();
    changed[5] = Bytes::from_static(b"{\"code\": \"open('effect', 'w') \"}");
    let forged = [
        with(Vec::new()),
        with(vec![b'0'; 64]),
        with(vec![0xff; 64]),
        with(good[1].to_ascii_uppercase()),
        with(good[1][..32].to_vec()),
        with([&good[1][..], b"0"].concat()),
        with(good[1][..40].to_vec()),
        swapped,
        changed,
    ];
    is_dropped(&kernel, &forged).await;
    serves(&kernel).await;
    assert!(!kernel.folder().join("cwd/effect").exists());
}

#[tokio::test]
async fn p08_a_replayed_message_is_dropped_on_its_own_and_on_other_connections() {
    let kernel = TestKernel::start().await;
    let header = json!({ "msg_id": "once", "msg_type": "execute_request", "session": "s" });
    let message = signed(&kernel.file, &header, &json!({ "code": "open('effects', 'a').write('x')" }));
    let mut raw = Raw::ready(&kernel.file, kernel.file.shell_port, SocketType::Dealer).await;
    for _ in 0..3 {
        raw.message(&message).await;
    }
    assert_eq!(parent(&raw.next_message().await.unwrap()), "once");
    is_dropped(&kernel, std::slice::from_ref(&message)).await;
    raw.message(&kernel_info(&kernel, "after")).await;
    assert_eq!(parent(&raw.next_message().await.unwrap()), "after");
    assert_eq!(std::fs::read(kernel.folder().join("cwd/effects")).unwrap(), b"x");
}

#[tokio::test]
async fn random_bytes_and_other_protocols_are_closed_on_every_port() {
    let kernel = Setup::new().tcp().start().await;
    let mut seed = Seed::new(3);
    for (_, port, _) in ports(&kernel.file) {
        let mut says =
            vec![b"GET / HTTP/1.1\r\n\r\n".to_vec(), b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), Vec::new()];
        says.extend((0..10).map(|_| seed.bytes(20_000)));
        for bytes in says {
            let mut raw = Raw::silent(&kernel.file, port).await;
            raw.send(&bytes).await;
            raw.hang_up().await;
        }
    }
    serves(&kernel).await;
}
