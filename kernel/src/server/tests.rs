//! What the hub promises, over a real socket. Nobody sleeps: whatever is waited for is a message.

mod checkpoints;
mod reconnects;
mod world;

use std::collections::HashSet;

use cob_protocol::content::{ErrorReply, ExecuteOptions};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::ErrorText;
use cob_protocol::json::Json;
use cob_protocol::limits::{PEER_REQUESTS_MAX, PEER_SUBSCRIPTIONS_MAX, SESSION_OPEN_MAX};
use cob_protocol::message::{Channel, Outgoing};
use cob_protocol::promise::SessionState;
use serde_json::json;
use world::World;

use super::metrics::tests::parse;
use crate::request::{ChannelState, Command};

#[tokio::test]
async fn whatever_is_wrong_is_said_and_harms_nobody() {
    let world = World::new().await;
    let mut client = world.stranger(None).await;
    assert_eq!(client.refused("ping", json!({})).await, "not_greeted");
    let other = client.ask("hello_request", json!({ "versions": [7] })).await;
    assert_eq!(other["code"], "unsupported_version");
    assert!(other["evalue"].as_str().unwrap().contains("[1]"), "{other}");
    assert_eq!(client.refused("session_list", json!({})).await, "not_greeted");
    client.hello("local").await;
    let unknown = client.send("shutdown_request", json!({})).await;
    assert_eq!(client.reply(&unknown).await["code"], "bad_request");
    let field = client.ask("session_open", json!({ "enviroment": {} })).await;
    assert!(field["evalue"].as_str().unwrap().contains("enviroment"), "{field}");
    let garbage = client.send_garbage("execute_request").await;
    assert_eq!(client.reply(&garbage).await["code"], "bad_request");
    for (request, content, code) in [
        ("execute_request", json!({ "session_id": "s9", "code": "1" }), "unknown_session"),
        ("execute_request", json!({ "session_id": "nine", "code": "1" }), "bad_request"),
        ("complete_request", json!({ "session_id": "s9", "code": "1" }), "unknown_session"),
        ("complete_request", json!({ "code": "1" }), "bad_request"),
        ("promise_get", json!({ "promise": "s9.e1" }), "unknown_promise"),
        ("promise_get", json!({}), "bad_request"),
        ("promise_wait", json!({ "promise": "s9.e1" }), "unknown_promise"),
        ("subscribe", json!({ "promise": "s9.e1", "credit": 1 }), "unknown_promise"),
        ("subscribe", json!({ "session_id": "s9", "credit": 1 }), "unknown_session"),
        ("subscribe", json!({ "promise": "s9.e1.c1", "credit": 1 }), "bad_request"),
        ("unsubscribe", json!({ "subscription": "none" }), "unknown_subscription"),
        ("session_detach", json!({ "attachment": 3 }), "bad_request"),
        ("cancel", json!({ "promise": "s9.e1" }), "unknown_promise"),
        ("answer", json!({ "promise": "s9.e1.c1", "value": null }), "unknown_promise"),
    ] {
        assert_eq!(client.refused(request, content).await, code, "{request}");
    }
    assert_eq!(client.ask("ping", json!({})).await["status"], "ok");
}

#[tokio::test]
async fn what_belongs_to_another_principal_is_not_touched() {
    let world = World::new().await;
    let mut session = world.session(1, "ann").await;
    let mut bob = world.client("bob").await;
    for (request, content) in [
        ("execute_request", json!({ "session_id": "s1", "code": "1" })),
        ("interrupt", json!({ "session_id": "s1" })),
        ("session_close", json!({ "session_id": "s1" })),
        ("session_info", json!({ "session_id": "s1" })),
        ("kernel_info_request", json!({ "session_id": "s1" })),
        ("promise_get", json!({ "promise": "s1.e1" })),
        ("promise_list", json!({ "session_id": "s1" })),
        ("subscribe", json!({ "session_id": "s1", "credit": 1 })),
        ("cancel", json!({ "promise": "s1.e1" })),
        ("answer", json!({ "promise": "s1.e1.c1", "eof": true })),
        ("channel_data", json!({ "session_id": "s1", "channel": "c", "data": 1 })),
        ("server_handover", json!({})),
    ] {
        assert_eq!(bob.refused(request, content).await, "forbidden", "{request}");
    }
    assert_eq!(bob.ask("session_list", json!({})).await["sessions"], json!([]));
    assert_eq!(bob.ask("promise_list", json!({})).await["promises"], json!([]));
    assert!(session.inputs.commands.try_recv().is_err() && session.inputs.shell.try_recv().is_err());
    let mut operator = world.client("local").await;
    assert_eq!(operator.ask("session_list", json!({})).await["sessions"][0]["principal"], "ann");
    operator.ask("interrupt", json!({ "session_id": "s1" })).await;
    assert!(matches!(session.inputs.commands.recv().await, Some(Command::Interrupt)));
}

#[tokio::test]
async fn a_reply_comes_after_its_events_if_the_credit_sufficed_and_a_retry_joins() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    let content = json!({ "session_id": "s1", "code": "1", "credit": 9, "idempotency_key": "k" });
    let asked = client.send("execute_request", content.clone()).await;
    let (_, id) = session.accept().await;
    let ack = client.next("ack").await;
    assert_eq!(ack.content, json!({ "promise": id, "durability": "none", "joined": false }));
    for number in 1..=2 {
        session.print(id, number).await;
        let event = client.next("event").await.content;
        assert_eq!((&event["subscription"], &event["number"]), (&json!(asked), &json!(number)));
        assert_eq!((&event["kind"], &event["content"]), (&json!("data"), &json!(number)));
    }
    session.settle(id, 2).await;
    let reply = client.next("execute_reply").await;
    assert_eq!((&reply.content["status"], &reply.parent), (&json!("ok"), &asked));
    assert_eq!(reply.metadata["cob"]["last_event"], 2);
    client.send("execute_request", content).await;
    session.accept().await;
    assert_eq!(client.next("ack").await.content["joined"], true);
    client.next("event").await;
    client.next("event").await;
    let again = client.next("execute_reply").await;
    assert_eq!((again.content, again.metadata), (reply.content, reply.metadata));
    let found = client.ask("promise_get", json!({ "session_id": "s1", "idempotency_key": "k" })).await;
    assert_eq!(found["promise"]["promise"], json!(id));
}

#[tokio::test]
async fn without_credit_the_reply_does_not_wait_and_the_events_follow_when_there_is_some() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    let asked = client.send("execute_request", json!({ "session_id": "s1", "code": "1", "credit": 1 })).await;
    let (_, id) = session.accept().await;
    client.next("ack").await;
    for number in 1..=3 {
        session.print(id, number).await;
    }
    assert_eq!(client.next("event").await.content["number"], 1);
    session.settle(id, 3).await;
    client.next("execute_reply").await;
    client.send("credit", json!({ "subscription": asked, "credit": 1 })).await;
    assert_eq!(client.next("event").await.content["number"], 2);
    // No more than was granted: the next message is the answer to this.
    assert_eq!(client.ask("ping", json!({})).await["status"], "ok");
    client.send("credit", json!({ "subscription": asked, "credit": 1 })).await;
    assert_eq!(client.next("event").await.content["number"], 3);
    let end = client.next("subscription_end").await.content;
    assert_eq!((&end["reason"], &end["promise"]["state"]), (&json!("settled"), &json!("resolved")));
}

#[tokio::test]
async fn a_session_that_is_full_says_so_and_has_room_again_when_something_was_delivered() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    let content = json!({ "session_id": "s1", "code": "1" });
    for _ in 0..SESSION_OPEN_MAX {
        client.send("execute_request", content.clone()).await;
    }
    let busy = client.ask("execute_request", content.clone()).await;
    assert_eq!(busy["code"], "busy");
    assert!((100..=1000).contains(&busy["retry_after_ms"].as_u64().unwrap()), "{busy}");
    // A full session holds up nothing else.
    assert_eq!(client.ask("interrupt", json!({ "session_id": "s1" })).await["status"], "ok");
    assert!(matches!(session.inputs.commands.recv().await, Some(Command::Interrupt)));
    let (_, id) = session.accept().await;
    client.next("ack").await;
    session.settle(id, 0).await;
    client.next("execute_reply").await;
    session.handle.has_place().await;
    client.send("execute_request", content).await;
    // 255 and the new one: the refused one never came.
    for _ in 0..SESSION_OPEN_MAX {
        session.accept().await;
        client.next("ack").await;
    }
    assert!(session.inputs.shell.try_recv().is_err());
}

#[tokio::test]
async fn the_place_of_one_who_has_gone_is_free_when_its_execution_is_settled() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    client.send("execute_request", json!({ "session_id": "s1", "code": "1" })).await;
    let (_, id) = session.accept().await;
    client.next("ack").await;
    client.send("tool_register", json!({ "session_id": "s1", "tools": [{ "name": "f" }] })).await;
    assert!(matches!(session.inputs.commands.recv().await, Some(Command::RegisterTools(..))));
    drop(client);
    // That is how the session hears of it.
    assert!(matches!(session.inputs.commands.recv().await, Some(Command::UnregisterTools(_, None, _))));
    assert_eq!(session.handle.open_executions(), 1);
    session.settle(id, 0).await;
    session.handle.is_free().await;
}

#[tokio::test]
async fn an_end_that_cannot_be_recorded_ends_those_who_wait() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    let asked = client.send("execute_request", json!({ "session_id": "s1", "code": "1" })).await;
    let (_, id) = session.accept().await;
    client.next("ack").await;
    let waiting = client.send("promise_wait", json!({ "promise": id })).await;
    // What came before this was read before this.
    client.ask("ping", json!({})).await;
    let reply = Json::from(json!({ "status": "error", "code": "store_full" }));
    session.handle.outlet.unrecorded(id, &reply);
    let mut got = [client.recv().await, client.recv().await];
    got.sort_by_key(|got| got.parent != asked);
    assert_eq!((got[0].kind.as_str(), got[1].kind.as_str()), ("execute_reply", "promise_wait_reply"));
    assert!(got[1].parent == waiting && got.iter().all(|got| got.content["code"] == "store_full"), "{got:?}");
}

#[tokio::test]
async fn nobody_gets_what_was_meant_for_another_by_taking_his_identity() {
    let world = World::new().await;
    let mut session = world.session(1, "ann").await;
    let mut ann = world.stranger(Some("x")).await;
    ann.hello("ann").await;
    ann.send("execute_request", json!({ "session_id": "s1", "code": "1" })).await;
    let (request, _) = session.accept().await;
    ann.next("ack").await;
    let call = || Outgoing::new("call", request.parent(), Json::from(json!({ "promise": "s1.e1.c1" })));
    let address = &request.client.address;
    session.handle.outlet.reply(Channel::Stdin, address, call());
    ann.next("call").await;
    let mut bob = world.stranger(Some("x")).await;
    bob.hello("bob").await;
    session.handle.outlet.reply(Channel::Stdin, address, call());
    assert_eq!(bob.ask("ping", json!({})).await["status"], "ok");
    let mut again = world.stranger(Some("x")).await;
    again.hello("ann").await;
    session.handle.outlet.reply(Channel::Stdin, address, call());
    again.next("call").await;
}

#[tokio::test]
async fn whoever_waits_for_a_session_is_told_that_it_has_ended() {
    let world = World::new().await;
    let session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    let complete = json!({ "session_id": "s1", "code": "a", "cursor_pos": 1 });
    let asked = client.send("complete_request", complete).await;
    let execution = client.send("execute_request", json!({ "session_id": "s1", "code": "1" })).await;
    client.ask("ping", json!({})).await;
    world.directory.remove(session.handle.session());
    let mut got = [client.recv().await, client.recv().await];
    got.sort_by_key(|got| got.parent != asked);
    assert_eq!((got[0].kind.as_str(), got[1].kind.as_str()), ("complete_reply", "execute_reply"));
    assert!(got[1].parent == execution && got.iter().all(|got| got.content["code"] == "session_closed"));
    session.handle.is_free().await;
    let later = json!({ "session_id": "s1", "code": "1" });
    assert_eq!(client.refused("execute_request", later).await, "session_closed");
}

#[tokio::test]
async fn a_whole_session_is_followed_with_credit_for_events_only() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    let name = client.send("subscribe", json!({ "session_id": "s1", "credit": 1 })).await;
    client.next("subscribe_reply").await;
    assert_eq!(client.next("session_status").await.content["state"], "starting");
    let mut other = world.client("local").await;
    other.send("execute_request", json!({ "session_id": "s1", "code": "one" })).await;
    let (_, id) = session.accept().await;
    session.start(id, 4).await;
    let began = client.next("execution_began").await.content;
    assert_eq!((&began["promise"], &began["execution_count"]), (&json!(id), &json!(4)));
    assert_eq!((&began["code"], &began["principal"]), (&json!("one"), &json!("local")));
    for number in 1..=2 {
        session.print(id, number).await;
    }
    session.settle(id, 2).await;
    assert_eq!(client.next("event").await.content["number"], 1);
    client.send("credit", json!({ "subscription": name, "credit": 1 })).await;
    assert_eq!(client.next("event").await.content["number"], 2);
    assert_eq!(client.next("execution_ended").await.content["promise"]["state"], "resolved");
    client.send("unsubscribe", json!({ "subscription": name })).await;
    client.next("unsubscribe_reply").await;
    assert_eq!(client.next("subscription_end").await.content["reason"], "unsubscribed");
}

#[tokio::test]
async fn the_sender_of_a_channel_hears_how_far_it_may_go() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    // Whose events are the items does not matter here.
    client.send("execute_request", json!({ "session_id": "s1", "code": "1" })).await;
    let (_, from_code) = session.accept().await;
    client.next("ack").await;
    let content = json!({ "session_id": "s1", "channel": "c", "from": 2, "credit": 1 });
    let name = client.send("channel_open", content).await;
    let Some(Command::OpenChannel(channel, asked)) = session.inputs.commands.recv().await else {
        unreachable!()
    };
    assert_eq!(channel, "c");
    asked.send(Ok(ChannelState { from_code, next: 7, is_closed: false })).unwrap();
    let opened = client.reply(&name).await;
    assert_eq!((&opened["next"], &opened["subscription"]), (&json!(7), &json!(name)));
    let mut granted = async || match session.inputs.commands.recv().await {
        Some(Command::ChannelGranted(_, up_to)) => up_to,
        other => unreachable!("{other:?}"),
    };
    assert_eq!(granted().await, 2);
    client.send("credit", json!({ "subscription": name, "credit": 3 })).await;
    assert_eq!(granted().await, 5);
    for number in 1..=3 {
        session.print(from_code, number).await;
    }
    for number in 2..=3 {
        let item = client.next("channel_data").await.content;
        assert_eq!((&item["number"], &item["data"]), (&json!(number), &json!(number)));
    }
    session.settle(from_code, 3).await;
    let mut got = [client.recv().await, client.recv().await].map(|got| got.kind);
    got.sort();
    assert_eq!(got, ["execute_reply", "subscription_end"]);
}

#[tokio::test]
async fn what_agents_ask_is_traced_by_their_context_only_if_it_is_one() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (given, expected) in [(good, Some(good)), ("00-0af7", None), (&good.replace('0', "x"), None)] {
        let metadata = Json::from(json!({ "traceparent": given }));
        client.send_with("execute_request", json!({ "session_id": "s1", "code": "1" }), metadata).await;
        let (request, _) = session.accept().await;
        let options = ExecuteOptions::read(&request.message.metadata).unwrap();
        assert_eq!(options.traceparent.as_deref(), expected);
        client.next("ack").await;
    }
}

#[tokio::test]
async fn subscriptions_of_one_peer_are_bounded() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    client.send("execute_request", json!({ "session_id": "s1", "code": "1" })).await;
    let (_, id) = session.accept().await;
    client.next("ack").await;
    let content = json!({ "promise": id, "credit": 0 });
    for _ in 0..PEER_SUBSCRIPTIONS_MAX {
        client.send("subscribe", content.clone()).await;
    }
    let one_more = client.send("subscribe", content.clone()).await;
    let mut busy = 0;
    for _ in 0..=PEER_SUBSCRIPTIONS_MAX {
        let got = client.next("subscribe_reply").await;
        let is_refused = got.content["code"] == "busy";
        assert_eq!(is_refused, got.parent == one_more, "{got:?}");
        busy += usize::from(is_refused);
    }
    assert_eq!(busy, 1);
}

#[tokio::test]
async fn requests_of_one_peer_are_bounded_and_each_has_one_reply() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    client.send("execute_request", json!({ "session_id": "s1", "code": "1" })).await;
    let (_, id) = session.accept().await;
    client.next("ack").await;
    let content = json!({ "promise": id });
    // The execution is one of them.
    for _ in 1..PEER_REQUESTS_MAX {
        client.send("promise_wait", content.clone()).await;
    }
    let busy = client.refused("promise_wait", content).await;
    assert_eq!(busy, "busy");
    session.settle(id, 0).await;
    let mut answered = HashSet::new();
    for _ in 0..PEER_REQUESTS_MAX {
        let got = client.recv().await;
        assert!(got.content["status"] == "ok" && answered.insert(got.parent), "{}", got.content);
    }
    assert_eq!(client.ask("ping", json!({})).await["status"], "ok");
}

#[tokio::test]
async fn what_a_session_answers_reaches_the_one_who_asked() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let (mut one, mut two) = (world.client("local").await, world.client("local").await);
    let content = json!({ "session_id": "s1", "code": "a", "cursor_pos": 1 });
    let asked = one.send("complete_request", content.clone()).await;
    let also = two.send("complete_request", content).await;
    for _ in 0..2 {
        let request = session.inputs.shell.recv().await.unwrap();
        let code =
            if request.message.header.msg_id == asked { ErrorCode::Busy } else { ErrorCode::BadRequest };
        let error = ErrorText::coded(code, "why");
        let reply = Json::of(&ErrorReply::coded(&error, code, SessionState::Kept)).unwrap();
        // The call of a tool that names a request of another client is the reply of none.
        let call = Outgoing::new("call", request.parent(), Json::object());
        session.handle.outlet.reply(Channel::Shell, &request.client.address, call);
        let reply = Outgoing::new("complete_reply", request.parent(), reply);
        session.handle.outlet.reply(Channel::Shell, &request.client.address, reply.clone());
        // A session that replies twice is heard once.
        session.handle.outlet.reply(Channel::Shell, &request.client.address, reply);
    }
    one.next("call").await;
    two.next("call").await;
    let busy = one.reply(&asked).await;
    assert!(busy["code"] == "busy" && busy["retry_after_ms"].is_u64(), "{busy}");
    let bad = two.reply(&also).await;
    assert!(bad["code"] == "bad_request" && bad.get("retry_after_ms").is_none(), "{bad}");
    for mut client in [one, two] {
        assert_eq!(client.ask("ping", json!({})).await["status"], "ok");
    }
}

#[tokio::test]
async fn figures_count_what_was_asked_before() {
    let world = World::new().await;
    let _session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    for _ in 0..3 {
        client.ask("ping", json!({})).await;
    }
    client.refused("promise_get", json!({ "promise": "s1.e1" })).await;
    let page = client.ask("metrics", json!({})).await;
    let found = parse(page["text"].as_str().unwrap());
    let of = |series: &str| found.get(series).copied();
    assert_eq!(of("cob_requests_total{type=\"ping\"}"), Some(3.0));
    assert_eq!(of("cob_replies_total{type=\"promise_get\",outcome=\"unknown_promise\"}"), Some(1.0));
    assert_eq!(of("cob_sessions{state=\"starting\"}"), Some(1.0));
    assert_eq!((of("cob_pool_ready"), of("cob_endpoint_peers")), (Some(2.0), Some(1.0)));
    assert_eq!(of("cob_interceptor_quarantined{name=\"metrics\"}"), Some(0.0));
    let info = client.ask("server_info", json!({})).await;
    assert_eq!(info["sessions"], json!({ "open": 1, "open_executions": 0, "by_state": { "starting": 1 } }));
    assert_eq!(info["pool"]["environments"][0]["name"], "/home/ann/python");
    let others = world.client("bob").await.ask("server_info", json!({})).await;
    assert_eq!(others["pool"], json!({ "ready": 2 }));
    assert_eq!(info["interceptors"]["log"]["is_quarantined"], false);
}
