//! Checkpoints as agents ask for them, and how the answers of a session reach them.

use cob_protocol::checkpoint::{CheckpointView, Policy, Restoration, Tier};
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::CheckpointId;
use serde_json::{Value, json};

use super::world::{FakeSession, World};
use crate::request::{Command, GoBack, Refusal, Take, Target};
use crate::server::Holding;

fn view(id: &str) -> CheckpointView {
    CheckpointView {
        checkpoint: id.parse().unwrap(),
        label: None,
        tier: Tier::Memory,
        automatic: false,
        execution: 2,
        count: 2,
        taken_at: 1,
        parent: None,
        private_bytes: Some(4096),
        bytes: None,
        new_bytes: None,
        findings: Vec::new(),
        missing: Vec::new(),
    }
}

fn restoration(id: &str) -> Restoration {
    Restoration {
        checkpoint: id.parse().unwrap(),
        tier: Tier::Memory,
        age_ms: 5,
        executions_since: 1,
        restored: Vec::new(),
        missing: Vec::new(),
        kept: Vec::new(),
        findings: Vec::new(),
        rebuild: Vec::new(),
    }
}

async fn command(session: &mut FakeSession) -> Command {
    session.inputs.commands.recv().await.unwrap()
}

#[tokio::test]
async fn what_is_asked_reaches_the_session_and_its_answer_the_agent() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    let asked = client
        .send("checkpoint", json!({ "session_id": "s1", "label": "clean", "durable": true, "force": true }))
        .await;
    let Command::Checkpoint(take, answer) = command(&mut session).await else { unreachable!() };
    assert_eq!(take, Take { label: Some("clean".to_owned()), durable: true, force: true });
    answer.send(Ok(view("s1.k4"))).unwrap();
    assert_eq!(client.reply(&asked).await["checkpoint"]["checkpoint"], "s1.k4");
    for (content, to) in [
        (json!({ "checkpoint": "s1.k4" }), Target::Checkpoint("s1.k4".parse().unwrap())),
        (json!({ "label": "clean" }), Target::Label("clean".to_owned())),
        (json!({ "undo": 2 }), Target::Undo(2)),
    ] {
        let mut content = content;
        content["session_id"] = json!("s1");
        content["now"] = json!(true);
        let asked = client.send("restore", content).await;
        let Command::Restore(back, answer) = command(&mut session).await else { unreachable!() };
        assert_eq!(back, GoBack { to, now: true, fresh: false, force: false });
        answer.send(Ok(restoration("s1.k4"))).unwrap();
        let reply = client.reply(&asked).await;
        assert_eq!(
            (&reply["restored"]["checkpoint"], &reply["state"]),
            (&json!("s1.k4"), &json!("starting"))
        );
    }
    let asked = client.send("checkpoint_delete", json!({ "checkpoint": "s1.k4" })).await;
    let Command::DropCheckpoint(id, answer) = command(&mut session).await else { unreachable!() };
    assert_eq!(id.to_string(), "s1.k4");
    answer.send(Err(Refusal::new(ErrorCode::UnknownCheckpoint, "it is gone"))).unwrap();
    assert_eq!(client.reply(&asked).await["code"], "unknown_checkpoint");
    let asked = client.send("hibernate", json!({ "session_id": "s1" })).await;
    let Command::Hibernate(false, answer) = command(&mut session).await else { unreachable!() };
    answer.send(Ok(view("s1.k5"))).unwrap();
    assert_eq!(client.reply(&asked).await["checkpoint"]["checkpoint"], "s1.k5");
    let import = json!({ "session_id": "s1", "path": "/tmp/x", "key": "00ff" });
    let asked = client.send("checkpoint_import", import).await;
    let Command::Import(path, key, answer) = command(&mut session).await else { unreachable!() };
    assert_eq!((path.to_str(), key.as_deref()), (Some("/tmp/x"), Some("00ff")));
    answer.send(Ok(view("s1.k6"))).unwrap();
    assert_eq!(client.reply(&asked).await["checkpoint"]["checkpoint"], "s1.k6");
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_any_session_hears_of_it() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    let long = "x".repeat(201);
    for (request, content, code) in [
        ("checkpoint", json!({ "session_id": "s1", "label": "" }), "bad_request"),
        ("checkpoint", json!({ "session_id": "s1", "label": long }), "bad_request"),
        ("checkpoint", json!({ "session_id": "s1", "label": "a\nb" }), "bad_request"),
        ("checkpoint", json!({ "session_id": "s9" }), "unknown_session"),
        ("checkpoint_list", json!({ "session_id": "s9" }), "unknown_session"),
        ("checkpoint_delete", json!({ "checkpoint": "s9.k1" }), "unknown_session"),
        ("checkpoint_delete", json!({ "checkpoint": "s1.e1" }), "bad_request"),
        ("restore", json!({ "session_id": "s1" }), "bad_request"),
        ("restore", json!({ "session_id": "s1", "undo": 0 }), "bad_request"),
        ("restore", json!({ "session_id": "s1", "undo": 1, "label": "a" }), "bad_request"),
        ("restore", json!({ "session_id": "s1", "checkpoint": "s9.k1" }), "unknown_session"),
        ("fork", json!({ "session_id": "s1", "checkpoint": "s2.k1" }), "bad_request"),
        ("checkpoint_export", json!({ "checkpoint": "s1.k1", "path": "x" }), "bad_request"),
        ("checkpoint_export", json!({ "checkpoint": "s1.k1", "path": "/x" }), "unknown_checkpoint"),
        ("checkpoint_import", json!({ "session_id": "s1", "path": "x" }), "bad_request"),
        ("checkpoint_import", json!({ "session_id": "s1", "path": "/x", "key": "no" }), "bad_request"),
        ("checkpoint_import", json!({ "session_id": "s1", "path": "/x", "key": "" }), "bad_request"),
    ] {
        assert_eq!(client.refused(request, content.clone()).await, code, "{request} {content}");
    }
    assert!(session.inputs.commands.try_recv().is_err());
}

#[tokio::test]
async fn checkpoints_of_another_principal_are_his_own_and_files_the_operators() {
    let world = World::new().await;
    let mut anns = world.session(1, "ann").await;
    let mut bobs = world.session(2, "bob").await;
    let mut bob = world.client("bob").await;
    for (request, content) in [
        ("checkpoint", json!({ "session_id": "s1" })),
        ("checkpoint_list", json!({ "session_id": "s1" })),
        ("checkpoint_delete", json!({ "checkpoint": "s1.k1" })),
        ("restore", json!({ "session_id": "s1", "undo": 1 })),
        // What is in it would be his.
        ("restore", json!({ "session_id": "s2", "checkpoint": "s1.k1" })),
        ("fork", json!({ "session_id": "s1" })),
        ("hibernate", json!({ "session_id": "s1" })),
        ("checkpoint_export", json!({ "checkpoint": "s2.k1", "path": "/tmp/x" })),
        ("checkpoint_import", json!({ "session_id": "s2", "path": "/tmp/x" })),
    ] {
        assert_eq!(bob.refused(request, content).await, "forbidden", "{request}");
    }
    assert!(anns.inputs.commands.try_recv().is_err() && bobs.inputs.commands.try_recv().is_err());
    world.directory.remove(anns.handle.session());
    for (request, content) in [
        ("checkpoint_list", json!({ "session_id": "s1" })),
        ("checkpoint_delete", json!({ "checkpoint": "s1.k1" })),
        ("restore", json!({ "session_id": "s2", "checkpoint": "s1.k1" })),
    ] {
        assert_eq!(bob.refused(request, content).await, "forbidden", "{request}");
    }
    let mut ann = world.client("ann").await;
    let listed = ann.ask("checkpoint_list", json!({ "session_id": "s1" })).await;
    assert_eq!((&listed["checkpoints"], &listed["policy"]["mode"]), (&json!([]), &json!("manual")));
    assert_eq!(
        ann.refused("checkpoint_delete", json!({ "checkpoint": "s1.k1" })).await,
        "unknown_checkpoint"
    );
    assert_eq!(ann.refused("checkpoint", json!({ "session_id": "s1" })).await, "session_closed");
}

#[tokio::test]
async fn a_list_says_what_the_session_does_and_why_it_did_not() {
    let world = World::new().await;
    let mut session = world.session(1, "local").await;
    let mut client = world.client("local").await;
    let asked = client.send("checkpoint_list", json!({ "session_id": "s1" })).await;
    let Command::Look(looked) = command(&mut session).await else { unreachable!() };
    let mut snapshot = crate::server::relief::tests::snapshot(cob_protocol::checkpoint::Mode::Auto, 0);
    snapshot.checkpoint_skipped = Some("a thread runs".to_owned());
    looked.send(snapshot).unwrap();
    let Command::Checkpoints(answer) = command(&mut session).await else { unreachable!() };
    answer.send(Ok(vec![view("s1.k1"), view("s1.k2")])).unwrap();
    let listed = client.reply(&asked).await;
    assert_eq!(listed["checkpoints"][1]["checkpoint"], "s1.k2");
    assert_eq!((&listed["policy"]["mode"], &listed["skipped"]), (&json!("auto"), &json!("a thread runs")));
    assert_eq!(listed["policy"]["keep"], Policy::default().keep);
}

#[tokio::test]
async fn what_sessions_hold_and_do_is_shown_and_followers_hear_of_a_restore() {
    let world = World::new().await;
    let session = world.session(1, "local").await;
    let outlet = &session.handle.outlet;
    let wakes_at: CheckpointId = "s1.k9".parse().unwrap();
    outlet.took(true);
    outlet.took(false);
    // Whoever follows from now on has not seen this one.
    outlet.restored(&restoration("s1.k1"));
    let mut client = world.client("local").await;
    let name = client.send("subscribe", json!({ "session_id": "s1", "credit": 1 })).await;
    client.next("subscribe_reply").await;
    client.next("session_status").await;
    outlet.restored(&restoration("s1.k4"));
    let told = client.next("session_restored").await.content;
    assert_eq!((&told["subscription"], &told["session_id"]), (&json!(name), &json!("s1")));
    assert_eq!(told["restored"]["checkpoint"], "s1.k4");
    outlet.holds(Holding { checkpoints: 3, bytes: 4096, wakes_at: Some(wakes_at) });
    outlet.hibernated();
    let listed = client.ask("session_list", json!({})).await["sessions"][0].clone();
    let of = |name: &str| listed[name].clone();
    assert_eq!(
        [of("checkpoints"), of("checkpoint_bytes"), of("wakes_at")],
        [json!(3), json!(4096), json!("s1.k9")]
    );
    let info: Value = client.ask("server_info", json!({})).await["checkpoints"].clone();
    for (name, value) in [
        ("in_memory", 3),
        ("in_memory_bytes", 4096),
        ("hibernating_sessions", 1),
        ("taken", 1),
        ("taken_automatically", 1),
        ("restored", 2),
        ("hibernated", 1),
    ] {
        assert_eq!(info[name], value, "{name}: {info}");
    }
    let page = client.ask("metrics", json!({})).await;
    let found = crate::server::metrics::tests::parse(page["text"].as_str().unwrap());
    assert_eq!(found.get("cob_checkpoints_in_memory"), Some(&3.0));
    assert_eq!(found.get("cob_checkpoints_restored_total"), Some(&2.0));
}
