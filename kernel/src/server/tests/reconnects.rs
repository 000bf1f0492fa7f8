//! Connections that end, come back, and use a name twice.

use serde_json::json;

use super::world::World;
use crate::request::Command;

#[tokio::test]
async fn a_name_is_free_again_when_its_subscription_has_ended() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    let name = client.send("subscribe", json!({ "session_id": "s1", "credit": 0 })).await;
    client.next("subscribe_reply").await;
    client.next("session_status").await;
    let execute = json!({ "session_id": "s1", "code": "1" });
    client.send_again(&name, "execute_request", execute.clone()).await;
    // Before there is a promise: what is refused is not run.
    assert_eq!(client.next("execute_reply").await.content["code"], "bad_request");
    assert!(session.inputs.shell.try_recv().is_err());
    client.send("unsubscribe", json!({ "subscription": name })).await;
    client.next("unsubscribe_reply").await;
    client.next("subscription_end").await;
    client.send_again(&name, "execute_request", execute).await;
    session.accept().await;
    client.next("ack").await;
}

#[tokio::test]
async fn tools_are_given_up_when_who_came_back_leaves_for_good() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut first = world.stranger(Some("x")).await;
    first.hello("local").await;
    first.send("tool_register", json!({ "session_id": "s1", "tools": [{ "name": "f" }] })).await;
    assert!(matches!(session.inputs.commands.recv().await, Some(Command::RegisterTools(..))));
    // It takes the place of the first, which has not said that it goes.
    let mut again = world.stranger(Some("x")).await;
    again.hello("local").await;
    drop((first, again));
    let heard = session.inputs.commands.recv().await;
    assert!(matches!(heard, Some(Command::UnregisterTools(_, None, _))), "{heard:?}");
}

#[tokio::test]
async fn whoever_joined_and_has_gone_takes_no_place() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut stays = world.client("local").await;
    let content = json!({ "session_id": "s1", "code": "1", "idempotency_key": "k" });
    stays.send("execute_request", content.clone()).await;
    let (_, id) = session.accept().await;
    stays.next("ack").await;
    let mut joins = world.client("local").await;
    joins.send("execute_request", content).await;
    session.accept().await;
    assert_eq!(joins.next("ack").await.content["joined"], true);
    assert_eq!(session.handle.open_executions(), 2);
    drop(joins);
    session.handle.has_only(1).await;
    session.settle(id, 0).await;
    stays.next("execute_reply").await;
}
