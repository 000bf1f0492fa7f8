//! Durable checkpoints of sessions of a server: what a server finds that was killed, sleep, and the way to another one.

use cob_tests::agents::{Agent, Serve, text};
use cob_tests::server::ServerSetup;
use serde_json::{Value, json};

async fn printed(agent: &mut Agent, session: &str, key: &str, code: &str) -> String {
    let (reply, events) = agent.run(session, key, code).await;
    assert_eq!(reply["status"], "ok", "{code}: {reply:#}");
    text(&events)
}

/// Takes a durable checkpoint; its name.
async fn taken(agent: &mut Agent, session: &str, label: &str) -> String {
    let content = json!({ "session_id": session, "label": label, "durable": true });
    let view = agent.ok("checkpoint", content).await["checkpoint"].clone();
    assert!(["both", "durable"].contains(&view["tier"].as_str().unwrap()), "{view:#}");
    view["checkpoint"].as_str().unwrap().to_owned()
}

/// A session with values that are one another's.
const MAKE: &str = "shared = [1, 2]\na = {'s': shared}\nb = {'s': shared}\ndef double(x): return 2 * x";
const LOOK: &str = "a['s'].append(3); print(b['s'], double(21))";

#[tokio::test]
async fn what_was_kept_is_there_when_server_and_worker_were_killed() {
    // Without a grace the workers go with the server.
    let setup = ServerSetup::new().argument("--store").argument("../store").argument("--grace").argument("0");
    let mut serve = Serve::start_as(setup.env("PYTHONNOUSERSITE", "1")).await;
    let mut agent = serve.agent("a").await;
    let session = agent.open().await;
    printed(&mut agent, &session, "make", MAKE).await;
    let id = taken(&mut agent, &session, "kept").await;
    printed(&mut agent, &session, "change", "shared.clear()").await;
    drop(agent);
    serve.kill().await;
    serve.start_again().await;
    let mut agent = serve.agent("b").await;
    let info = agent.ok("session_info", json!({ "session_id": session })).await["session"].clone();
    assert_eq!((&info["state"], &info["wakes_at"]), (&json!("dormant"), &json!(id)), "{info:#}");
    let asked = agent.execute(&session, "look", LOOK).await;
    let reply = agent.reply(&asked).await;
    assert_eq!(text(&agent.events(&asked)), "[1, 2, 3] 42\n", "{:#}", reply.content);
    let told = [&reply.content["restored"], &reply.metadata["cob"]["restored"]];
    assert!(told.iter().any(|restored| restored["checkpoint"] == id.as_str()), "{reply:?}");
    drop(agent);
    serve.end_unchecked().await;
}

#[tokio::test]
async fn a_session_sleeps_in_the_store_and_the_next_request_wakes_it() {
    let serve = Serve::start().await;
    let mut agent = serve.agent("a").await;
    let session = agent.open().await;
    printed(&mut agent, &session, "make", MAKE).await;
    let slept = agent.ok("hibernate", json!({ "session_id": session })).await["checkpoint"].clone();
    let info = agent.ok("session_info", json!({ "session_id": session })).await["session"].clone();
    assert_eq!((&info["state"], &info["wakes_at"]), (&json!("dormant"), &slept["checkpoint"]), "{info:#}");
    assert!(info["worker"].is_null(), "{info:#}");
    assert_eq!(printed(&mut agent, &session, "look", LOOK).await, "[1, 2, 3] 42\n");
    // What cannot be saved is not given up.
    printed(&mut agent, &session, "open", "file = open('/dev/null')").await;
    let refused = agent.ask("hibernate", json!({ "session_id": session })).await;
    assert!(
        refused["code"] == "checkpoint_refused" && refused["evalue"].as_str().unwrap().contains("file"),
        "{refused}"
    );
    assert_eq!(printed(&mut agent, &session, "still", "print(file.closed)").await, "False\n");
    drop(agent);
    serve.end_unchecked().await;
}

#[tokio::test]
async fn a_bundle_goes_from_one_server_to_another_that_trusts_it() {
    let one = Serve::start().await;
    let mut agent = one.agent("a").await;
    let session = agent.open().await;
    printed(&mut agent, &session, "make", MAKE).await;
    let id = taken(&mut agent, &session, "gift").await;
    let file = one.server.folder().join("gift.cob");
    let exported = agent.ok("checkpoint_export", json!({ "checkpoint": id, "path": file })).await;
    assert_eq!(exported["bytes"].as_u64(), Some(std::fs::metadata(&file).unwrap().len()));
    // Nothing that is there is written over.
    let again = agent.ask("checkpoint_export", json!({ "checkpoint": id, "path": file })).await;
    assert_eq!(again["status"], "error", "{again}");
    let two = Serve::start().await;
    let mut other = two.agent("b").await;
    let session = other.open().await;
    let import = |key: Value| json!({ "session_id": session, "path": file, "key": key });
    other.refused("checkpoint_import", import(Value::Null), "untrusted_bundle").await;
    other.refused("checkpoint_import", import(json!("00".repeat(32))), "untrusted_bundle").await;
    let key_file = one.store().join("bundle.key");
    let imported = two.server.output(&[
        "checkpoint",
        "import",
        &session,
        file.to_str().unwrap(),
        "--key-file",
        key_file.to_str().unwrap(),
        "--json",
    ]);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let imported: Value = serde_json::from_slice(&imported.stdout).unwrap();
    let id = imported["checkpoint"]["checkpoint"].as_str().unwrap();
    assert!(id.starts_with(&session), "{imported}");
    printed(&mut other, &session, "own", "mine = 1").await;
    let back = other.ok("restore", json!({ "session_id": session, "checkpoint": id })).await;
    assert_eq!(back["restored"]["tier"], "durable");
    let kept = back["restored"]["kept"].as_array().unwrap();
    assert!(kept.contains(&json!("mine")), "{back:#}");
    assert_eq!(printed(&mut other, &session, "look", LOOK).await, "[1, 2, 3] 42\n");
    drop((agent, other));
    one.end_unchecked().await;
    two.end_unchecked().await;
}

#[tokio::test]
async fn durable_checkpoints_are_listed_and_exported_from_a_store_that_nobody_uses() {
    let mut serve = Serve::start().await;
    let mut agent = serve.agent("a").await;
    let session = agent.open().await;
    printed(&mut agent, &session, "make", MAKE).await;
    let id = taken(&mut agent, &session, "left").await;
    agent.ok("session_close", json!({ "session_id": session })).await;
    let listed = agent.ok("checkpoint_list", json!({ "session_id": session })).await;
    assert_eq!(listed["checkpoints"][0]["checkpoint"], json!(id), "{listed:#}");
    drop(agent);
    serve.end().await;
    let store = serve.store();
    let store = store.to_str().unwrap();
    let listed = serve.server.output(&["checkpoint", "list", &session, "--store", store]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(&id) && listed.contains("left") && listed.contains("durable"), "{listed}");
    let file = serve.server.folder().join("left.cob");
    let exported =
        serve.server.output(&["checkpoint", "export", &id, file.to_str().unwrap(), "--store", store]);
    assert!(exported.status.success() && file.exists(), "{}", String::from_utf8_lossy(&exported.stderr));
}
