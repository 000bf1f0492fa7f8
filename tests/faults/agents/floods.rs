//! C: agents that ask too much, and control in the middle of a flood.

use cob_tests::agents::{Agent, Serve};
use cob_tests::process;
use serde_json::json;

use super::serves;

const FLOOD: &str = "print('on', flush=True)\nwhile True: print('x' * 70)";

#[tokio::test]
async fn c09_executions_that_nobody_reads_are_queued_up_to_the_limit_and_the_rest_is_busy() {
    flood_of_executions(2_000).await;
}

#[tokio::test]
#[ignore = "100,000 requests: minutes"]
async fn c09_a_hundred_thousand_executions_that_nobody_reads() {
    flood_of_executions(100_000).await;
}

async fn flood_of_executions(count: usize) {
    const QUEUED: usize = 256;
    let serve = Serve::start().await;
    let gate = serve.gate("gate");
    let mut agent = serve.agent("flood").await;
    let session = agent.open().await;
    let before = serve.resident_bytes();
    for number in 0..count {
        let code = if number == 0 { gate.python() } else { format!("n = {number}") };
        agent.send("execute_request", json!({ "session_id": session, "code": code })).await;
    }
    let is_reply = |got: &cob_tests::agents::Got| got.msg_type == "execute_reply";
    for _ in QUEUED..count {
        let reply = agent.take("a refusal", is_reply).await;
        assert_eq!(reply.content["code"], "busy", "{reply:?}");
        let pause = reply.content["retry_after_ms"].as_u64().unwrap();
        assert!((100..=1000).contains(&pause), "{reply:?}");
    }
    // What waits does not keep others from asking.
    agent.ok("ping", json!({})).await;
    gate.open().await;
    for _ in 0..QUEUED {
        let reply = agent.take("a reply", is_reply).await;
        assert_eq!(reply.content["status"], "ok", "{reply:?}");
    }
    let acks = agent.aside().iter().filter(|got| got.msg_type == "ack").count();
    assert_eq!((acks, agent.aside().len()), (QUEUED, QUEUED), "{:#?}", agent.aside());
    let growth = process::resident_bytes_peak(serve.server.pid()).saturating_sub(before);
    assert!(growth < 48 << 20, "the server grew by {growth} bytes");
    // There is room again.
    let (reply, _) = agent.run(&session, "after", "n").await;
    assert_eq!(reply["status"], "ok");
    drop(agent);
    serve.finish().await;
}

/// Control is answered, and the flood has not ended meanwhile.
async fn is_in_control(agent: &mut Agent, session: &str) {
    for (msg_type, content) in [
        ("ping", json!({})),
        ("session_info", json!({ "session_id": session })),
        ("server_info", json!({})),
        ("promise_get", json!({ "promise": format!("{session}.e1") })),
    ] {
        let reply = agent.ok(msg_type, content).await;
        match msg_type {
            "session_info" => assert_eq!(reply["session"]["state"], "busy", "{reply:#}"),
            "promise_get" => assert_eq!(reply["promise"]["state"], "started", "{reply:#}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn c10_control_is_answered_in_the_middle_of_a_flood_that_this_agent_reads() {
    let serve = Serve::start().await;
    let mut agent = serve.agent("one").await;
    let session = agent.open().await;
    let id = agent.execute(&session, "flood", FLOOD).await;
    agent.printed(&id, "on\n").await;
    for _ in 0..10 {
        is_in_control(&mut agent, &session).await;
        agent.events(&id);
        let event = agent.take("more of the flood", |got| got.is_event_of(&id)).await;
        assert_eq!(event.kind(), "stream");
    }
    agent.ok("interrupt", json!({ "session_id": session })).await;
    let reply = agent.reply(&id).await;
    assert_eq!(reply.content["ename"], "KeyboardInterrupt", "{reply:?}");
    let (reply, _) = agent.run(&session, "after", "1").await;
    assert_eq!(reply["status"], "ok");
    drop(agent);
    serve.finish().await;
}

#[tokio::test]
async fn c10_control_is_answered_while_a_flood_goes_to_somebody_who_reads_nothing() {
    let serve = Serve::start().await;
    let (mut deaf, mut agent) = (serve.agent("deaf").await, serve.agent("one").await);
    let session = deaf.open().await;
    let id = deaf.execute(&session, "flood", FLOOD).await;
    deaf.printed(&id, "on\n").await;
    for _ in 0..20 {
        is_in_control(&mut agent, &session).await;
    }
    agent.ok("interrupt", json!({ "session_id": session })).await;
    let promise = format!("{session}.e1");
    let settled = agent.ok("promise_wait", json!({ "promise": promise })).await;
    assert_eq!(settled["promise"]["value"]["ename"], "KeyboardInterrupt", "{settled:#}");
    serves(&serve).await;
    drop((agent, deaf));
    serve.finish().await;
}

#[tokio::test]
async fn c10_control_is_answered_on_a_connection_whose_requests_flood_the_server() {
    let serve = Serve::start().await;
    let gate = serve.gate("gate");
    let mut agent = serve.agent("one").await;
    let session = agent.open().await;
    let code = format!("print('on', flush=True)\n{}", gate.python());
    let first = agent.execute(&session, "first", &code).await;
    agent.printed(&first, "on\n").await;
    for round in 0..20 {
        for number in 0..50 {
            let code = format!("n = {round}, {number}");
            agent.send("execute_request", json!({ "session_id": session, "code": code })).await;
        }
        is_in_control(&mut agent, &session).await;
    }
    gate.open().await;
    assert_eq!(agent.reply(&first).await.content["status"], "ok");
    drop(agent);
    serve.finish().await;
}
