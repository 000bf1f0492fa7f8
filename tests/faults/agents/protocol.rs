//! P: nonsense, forgeries and repetitions at the agent endpoint.

use bytes::Bytes;
use cob_clients::zmtp::SocketType;
use cob_clients::zmtp::codec::Encoded;
use cob_clients::zmtp::command::Ready;
use cob_clients::zmtp::greeting::{Greeting, Mechanism};
use cob_protocol::signing::Signer;
use cob_protocol::wire::DELIMITER;
use cob_tests::agents::{Agent, PLENTY, Serve, text};
use cob_tests::raw::Raw;
use cob_tests::seed::Seed;
use serde_json::json;

use super::serves;

#[tokio::test]
async fn p04_a_conversation_that_ends_anywhere_has_no_partial_effect() {
    let serve = Serve::start().await;
    let mut agent = serve.agent("witness").await;
    let session = agent.open().await;
    let (hello, _) = agent.parts("hello_request", &json!({ "versions": [1] }));
    let content = json!({
        "session_id": session, "code": serve.effects.python("a"), "idempotency_key": "a", "credit": PLENTY,
    });
    let (execute, _) = agent.parts("execute_request", &content);
    let ready = Ready::encode(SocketType::Dealer, b"");
    let whole = [
        Greeting::encode(Mechanism::Null).to_vec(),
        Encoded::command(&ready).to_vec(),
        Encoded::message(&hello).to_vec(),
        Encoded::message(&execute).to_vec(),
    ]
    .concat();
    let endpoint = serve.place().endpoint;
    for end in 0..whole.len() {
        let mut raw = Raw::at(&endpoint).await;
        raw.send(&whole[..end]).await;
        raw.hang_up().await;
    }
    assert_eq!(serve.effects.of("a"), 0);
    agent
        .refused("promise_get", json!({ "session_id": session, "idempotency_key": "a" }), "unknown_promise")
        .await;
    let reply = agent.ok("execute_request", content).await;
    assert_eq!((reply["execution_count"].as_u64(), serve.effects.of("a")), (Some(1), 1));
    drop(agent);
    serve.end_unchecked().await;
}

/// Sends `nonsense` on a connection that was welcomed: none of it is answered, and what comes after it is.
async fn is_dropped(agent: &mut Agent, nonsense: &[Vec<Bytes>]) {
    for parts in nonsense {
        assert!(agent.message(parts).await, "the connection was closed");
    }
    agent.settle().await;
    assert!(agent.aside().is_empty(), "{:#?}", agent.aside());
}

#[tokio::test]
async fn p06_messages_that_are_none_are_dropped_and_the_connection_stays() {
    let serve = Serve::with_port().await;
    for place in [serve.place(), serve.port()] {
        let mut agent = serve.agent_at(&place, "odd").await;
        let (good, _) = agent.parts("session_open", &json!({ "language": "python" }));
        let delimiter = Bytes::from_static(DELIMITER);
        let mut nonsense: Vec<Vec<Bytes>> = (1..good.len()).map(|end| good[..end].to_vec()).collect();
        nonsense.push(good[1..].to_vec());
        nonsense.push([&good[1..], &good[..1]].concat());
        nonsense.push([&good[..1], &good[..]].concat());
        nonsense.push(vec![delimiter.clone(); 6]);
        nonsense.push(vec![Bytes::new(); 60]);
        nonsense.push([vec![Bytes::from_static(b"id"); 50], good[..3].to_vec()].concat());
        let mut seed = Seed::new(6);
        for _ in 0..200 {
            let parts = (0..=seed.below(12)).map(|_| Bytes::from(seed.bytes(60))).collect();
            nonsense.push(parts);
        }
        // Headers and contents that are no JSON, or not text, but signed well.
        for header in ["", "5", "{", "[]", "{\"msg_id\": 5}", "\u{0}"] {
            let signer = Signer::new("hmac-sha256", place.key.as_bytes()).unwrap();
            let parts = [header, "{}", "{}", "{}"].map(|part| Bytes::from(part.to_owned()));
            let [a, b, c, d] = &parts;
            let signature = Bytes::from(signer.sign(&[a, b, c, d]));
            nonsense.push([delimiter.clone(), signature].into_iter().chain(parts).collect());
        }
        is_dropped(&mut agent, &nonsense).await;
    }
    serves(&serve).await;
    let mut agent = serve.agent("witness").await;
    let sessions = agent.ok("session_list", json!({})).await;
    assert_eq!(sessions["sessions"], json!([]));
    drop(agent);
    serve.finish().await;
}

#[tokio::test]
async fn p07_messages_that_are_signed_otherwise_are_dropped_without_a_reply() {
    let serve = Serve::with_port().await;
    let place = serve.port();
    let mut agent = serve.agent_at(&place, "forger").await;
    let session = agent.open().await;
    let content = json!({ "session_id": session, "code": serve.effects.python("forged") });
    let mut forged = Vec::new();
    for forge in 0..8 {
        let (mut parts, _) = agent.parts("execute_request", &content);
        let good = parts[1].clone();
        let upper = good.to_ascii_uppercase();
        parts[1] = match forge {
            0 => Bytes::new(),
            // It may happen that there is no letter in it.
            1 if upper != good => upper.into(),
            2 => good.slice(..63),
            3 => good.slice(..40),
            4 => Bytes::from([&good[..], b"0"].concat()),
            5 => {
                let signer = Signer::new("hmac-sha256", b"another key").unwrap();
                signer.sign(&[&parts[2], &parts[3], &parts[4], &parts[5]]).into()
            }
            6 => {
                let signer = Signer::new("hmac-sha256", place.key.as_bytes()).unwrap();
                signer.sign(&[&parts[5], &parts[4], &parts[3], &parts[2]]).into()
            }
            _ => Bytes::from(vec![b'0'; 64]),
        };
        forged.push(parts);
    }
    // Signed well, and changed afterwards.
    let (mut parts, _) = agent.parts("ping", &json!({}));
    parts[5] = content.to_string().into();
    forged.push(parts);
    is_dropped(&mut agent, &forged).await;
    // Somebody without the key is not even told so.
    let stranger = cob_tests::agents::Place { key: "guess".to_owned(), ..place };
    let mut stranger = Agent::connect(&stranger, "stranger").await;
    stranger.send("hello_request", json!({ "versions": [1] })).await;
    agent.settle().await;
    assert_eq!(serve.effects.of("forged"), 0);
    drop((agent, stranger));
    serves(&serve).await;
    serve.finish().await;
}

#[tokio::test]
async fn p08_a_message_that_is_sent_again_byte_for_byte_runs_nothing_twice() {
    let mut serve = Serve::with_port().await;
    let mut agent = serve.agent_at(&serve.port(), "one").await;
    let session = agent.open().await;
    let content = json!({ "session_id": session, "code": serve.effects.python("a") });
    let (parts, id) = agent.parts("execute_request", &content);
    agent.message(&parts).await;
    let reply = agent.reply(&id).await;
    assert_eq!(reply.content["status"], "ok");
    agent.take("ack", |got| got.msg_type == "ack").await;
    for _ in 0..5 {
        is_dropped(&mut agent, std::slice::from_ref(&parts)).await;
    }
    // On another connection of somebody who listened.
    let mut thief = serve.agent_at(&serve.port(), "thief").await;
    is_dropped(&mut thief, std::slice::from_ref(&parts)).await;
    drop((agent, thief));
    serve.kill().await;
    serve.start_again().await;
    let mut thief = serve.agent_at(&serve.port(), "thief").await;
    thief.message(&parts).await;
    thief.settle().await;
    assert_eq!(serve.effects.of("a"), 1);
    drop(thief);
    serve.end_unchecked().await;
}

#[tokio::test]
async fn p09_a_key_that_is_used_for_something_else_is_refused_and_the_first_stays_as_it_is() {
    let serve = Serve::start().await;
    let mut agent = serve.recorded("one").await;
    let session = agent.open().await;
    let code = serve.effects.python("a");
    let (first, _) = agent.run(&session, "a", &code).await;
    assert_eq!(first["status"], "ok");
    let other = json!({ "session_id": session, "code": format!("{code}; 1"), "idempotency_key": "a" });
    let refused = agent.refused("execute_request", other, "key_reused").await;
    assert!(!refused["evalue"].as_str().unwrap().is_empty());
    let (again, _) = agent.run(&session, "a", &code).await;
    assert_eq!((again, serve.effects.of("a")), (first, 1));
    // In another session it is another key.
    let elsewhere = agent.open().await;
    let content = json!({ "session_id": elsewhere, "code": "2", "idempotency_key": "a" });
    agent.ok("execute_request", content).await;
    drop(agent);
    serve.end_unchecked().await;
}

#[tokio::test]
async fn p10_fifty_requests_with_one_key_over_five_connections_are_one_execution() {
    let serve = Serve::start().await;
    let gate = serve.gate("gate");
    let code = format!("{}\nprint('a 1')\n{}", serve.effects.python("a"), gate.python());
    let mut agents = Vec::new();
    for _ in 0..5 {
        agents.push(serve.recorded("one").await);
    }
    let session = agents[0].open().await;
    let mut ids = Vec::new();
    for number in 0..50 {
        let asked = super::asked("a", 4);
        ids.push(agents[number % 5].execute_as(&session, "a", &code, asked).await);
    }
    gate.open().await;
    let mut replies = std::collections::BTreeSet::new();
    let mut joined = 0;
    for (number, id) in ids.iter().enumerate() {
        let agent = &mut agents[number % 5];
        let reply = agent.reply(id).await;
        assert_eq!(reply.content["status"], "ok", "{reply:?}");
        replies.insert(reply.text);
        let ack = agent.take("ack", |got| got.msg_type == "ack" && got.parent == *id).await;
        assert_eq!(ack.content["promise"], format!("{session}.e1"));
        joined += usize::from(ack.content["joined"] == true);
        assert_eq!(text(&agent.events(id)), "a 1\n");
    }
    assert_eq!((replies.len(), joined, serve.effects.of("a")), (1, 49, 1), "{replies:#?}");
    drop(agents);
    serve.finish().await;
}
