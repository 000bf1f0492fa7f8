//! C: agents that vanish, return, and read too little.

use cob_tests::agents::{Agent, Got, PLENTY, Serve, are_whole, text};
use cob_tests::raw::Raw;
use serde_json::json;

use super::{asked, serves};

/// Waits for the end of an execution: the reply, byte for byte, and its events.
async fn whole(agent: &mut Agent, id: &str) -> (String, Vec<Got>) {
    let reply = agent.reply(id).await;
    let events = agent.events(id);
    are_whole(&events);
    (reply.text, events)
}

#[tokio::test]
async fn c03_an_agent_that_vanishes_returns_with_its_key_while_its_code_runs_and_after_its_end() {
    let serve = Serve::start().await;
    let gate = serve.gate("gate");
    let (effect, wait) = (serve.effects.python("a"), gate.python());
    let code = format!("{effect}\nprint('a 1', flush=True)\n{wait}\nprint('a 2')");
    let asked = asked("a", 8);
    let mut first = serve.recorded("one").await;
    let session = first.open().await;
    let id = first.execute_as(&session, "a", &code, asked.clone()).await;
    first.printed(&id, "a 1\n").await;
    drop(first);

    let mut second = serve.recorded("one").await;
    let id = second.execute_as(&session, "a", &code, asked.clone()).await;
    let ack = second.take("ack", |got| got.msg_type == "ack").await;
    assert_eq!(ack.content["joined"], true, "{ack:?}");
    second.printed(&id, "a 1\n").await;
    gate.open().await;
    let (reply, events) = whole(&mut second, &id).await;
    assert_eq!(text(&events), "a 1\na 2\n");

    let mut third = serve.recorded("another").await;
    let id = third.execute_as(&session, "a", &code, asked).await;
    let (again, all) = whole(&mut third, &id).await;
    assert_eq!((again, text(&all)), (reply, "a 1\na 2\n".to_owned()));
    // Any part of it can be read again.
    for from in 1..=all.len() {
        let content = json!({ "promise": ack.content["promise"], "from": from, "credit": PLENTY });
        let id = third.send("subscribe", content).await;
        third
            .take("its end", |got| got.msg_type == "subscription_end" && got.content["subscription"] == *id)
            .await;
        let numbers: Vec<u64> = third.events(&id).iter().map(Got::number).collect();
        assert_eq!(numbers, (from as u64..=all.len() as u64).collect::<Vec<_>>());
    }
    drop((second, third));
    serve.finish().await;
}

/// Reads a subscription until it ends or its connection does; whether it has ended.
async fn read_on(agent: &mut Agent, id: &str, text: &mut String, next: &mut u64) -> bool {
    loop {
        let end = |got: &Got| got.msg_type == "subscription_end" && got.content["subscription"] == *id;
        let Some(got) = agent.try_take("an event", |got| got.is_event_of(id) || end(got)).await else {
            return false;
        };
        if end(&got) {
            return got.content["reason"] == "settled";
        }
        assert_eq!(got.number(), *next, "{got:?}");
        *next += 1;
        text.push_str(got.stream());
    }
}

#[tokio::test]
async fn c04_an_agent_that_does_not_read_is_waited_for_by_nobody_and_misses_nothing() {
    const LINES: usize = 400;
    let serve = Serve::start().await;
    let gate = serve.gate("gate");
    let mut reader = serve.recorded("reader").await;
    let session = reader.open().await;
    let line = "'a' + 'x' * 65534";
    let code =
        format!("{}\n{}\nfor n in range({LINES}): print({line})", serve.effects.python("a"), gate.python());
    let id = reader.execute_as(&session, "a", &code, asked("a", LINES << 16)).await;
    let ack = reader.take("ack", |got| got.msg_type == "ack").await;
    let promise = ack.content["promise"].clone();
    let mut deaf = serve.agent("deaf").await;
    let slow = deaf.send("subscribe", json!({ "promise": promise, "credit": PLENTY })).await;
    deaf.reply(&slow).await;
    let before = serve.resident_bytes();

    gate.open().await;
    let (_, events) = whole(&mut reader, &id).await;
    assert_eq!(text(&events).len(), LINES << 16);
    let growth = serve.resident_bytes().saturating_sub(before);
    assert!(growth < 64 << 20, "the server grew by {growth} bytes");

    let (mut read, mut next) = (String::new(), 1);
    if !read_on(&mut deaf, &slow, &mut read, &mut next).await {
        // It was cut off; it comes back for the rest.
        deaf = serve.agent("deaf").await;
        let content = json!({ "promise": promise, "from": next, "credit": PLENTY });
        let again = deaf.send("subscribe", content).await;
        assert!(read_on(&mut deaf, &again, &mut read, &mut next).await);
    }
    assert_eq!(read, text(&events));
    drop((reader, deaf));
    serve.finish().await;
}

#[tokio::test]
async fn c07_connections_that_never_finish_their_handshake_keep_nobody_out() {
    let serve = Serve::with_port().await;
    serves(&serve).await;
    let before = serve.resident_bytes();
    let mut strangers = Vec::new();
    for place in [serve.place(), serve.port()] {
        for number in 0..120 {
            let mut stranger = Raw::at(&place.endpoint).await;
            // Some say nothing, some the beginning of a greeting.
            stranger.send(&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3][..number % 12]).await;
            strangers.push(stranger);
        }
    }
    for place in [serve.place(), serve.port()] {
        let mut agent = serve.agent_at(&place, "good").await;
        agent.ok("ping", json!({})).await;
    }
    serves(&serve).await;
    let growth = serve.resident_bytes().saturating_sub(before);
    assert!(growth < 16 << 20, "the server grew by {growth} bytes");
    drop(strangers);
    serve.finish().await;
}
