//! Sessions without a language: their workers never come up, which no session has to wait for.

use std::path::PathBuf;

use cob_pool::Workers;
use cob_protocol::checkpoint::{Mode, Policy};
use cob_protocol::content::agent::Environment;
use cob_protocol::permissions::Permissions;
use cob_protocol::time::SystemClock;
use serde_json::json;

use super::*;
use crate::request::Command;

#[derive(Debug)]
struct Nothing;

impl Languages for Nothing {
    fn find(&self, language: &str, _: &Environment) -> Result<PathBuf, Refusal> {
        match language {
            "python" | "javascript" => Ok("/bin/sleep".into()),
            other => Err(Refusal::new(ErrorCode::BadRequest, format!("no {other}; there is: python"))),
        }
    }

    fn program(&self, spec: &SessionSpec, own: &OwnFolder) -> Program {
        // It says nothing for as long as a test takes.
        Program {
            path: spec.program.clone(),
            arguments: vec!["60".into()],
            image: None,
            environment: Vec::new(),
            directory: Some(own.work()),
        }
    }
}

fn sessions(bridge: &Bridge, folder: &std::path::Path, sessions_max: usize) -> Sessions {
    let settings = Settings { sessions_max, ..Settings::new(Workers::Cold, folder.to_owned()) };
    Sessions::new(bridge.clone(), Arc::default(), Arc::new(Nothing), settings)
}

fn bridge() -> Bridge {
    Bridge::in_memory(Arc::new(SystemClock))
}

fn asked(content: serde_json::Value) -> SessionOpen {
    serde_json::from_value(content).unwrap()
}

#[tokio::test]
async fn a_key_opens_one_session_also_when_many_ask_at_once() {
    let (folder, bridge) = (tempfile::tempdir().unwrap(), bridge());
    let server = sessions(&bridge, folder.path(), 10);
    let open = |owner: &'static str, content| server.open(owner, asked(content));
    let keyed = || open("ann", json!({ "idempotency_key": "k" }));
    let (one, two, three) = tokio::join!(keyed(), keyed(), open("bob", json!({ "idempotency_key": "k" })));
    assert_eq!(one, two);
    assert_ne!(one, three);
    assert_eq!(server.directory().len(), 2);
    assert_eq!(keyed().await, one);
    let other = open("ann", json!({ "idempotency_key": "k", "name": "another" })).await;
    assert_eq!(other.unwrap_err().code, ErrorCode::KeyReused);
    // It is recorded, and has a folder of its own.
    let records = bridge.sessions().await.unwrap();
    let record = records.iter().find(|record| Ok(record.session) == one).unwrap();
    let spec = SessionSpec::of(record).unwrap();
    assert_eq!(spec.owner, "ann");
    assert!(spec.directory.starts_with(folder.path()) && spec.directory.is_dir());
    server.close(std::time::Duration::ZERO).await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "folders of closed sessions are left");
    assert_eq!(open("ann", json!({})).await.unwrap_err().code, ErrorCode::ShuttingDown);
    assert!(bridge.sessions().await.unwrap().iter().all(|record| record.closed_at.is_some()));
    // The key names what it named.
    assert_eq!(keyed().await, one);
}

#[tokio::test]
async fn what_cannot_be_opened_leaves_nothing_behind() {
    let (folder, bridge) = (tempfile::tempdir().unwrap(), bridge());
    let server = sessions(&bridge, folder.path(), 1);
    let refused = |content| async {
        let refusal = server.open("ann", asked(content)).await.unwrap_err();
        (refusal.code, refusal.why)
    };
    let (code, why) = refused(json!({ "language": "cobol", "idempotency_key": "k" })).await;
    assert!(code == ErrorCode::BadRequest && why.contains("python"), "{why}");
    let (code, _) = refused(json!({ "environment": { "cwd": "/no/such/folder" } })).await;
    assert_eq!(code, ErrorCode::BadRequest);
    assert!(bridge.sessions().await.unwrap().is_empty());
    // The key is free, and so is the place.
    server.open("ann", asked(json!({ "idempotency_key": "k" }))).await.unwrap();
    let (code, _) = refused(json!({})).await;
    assert_eq!(code, ErrorCode::Busy);
    server.close(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn a_server_takes_up_what_the_last_one_left_open() {
    let (folder, bridge) = (tempfile::tempdir().unwrap(), bridge());
    let spec = |number: u64| {
        let open = asked(json!({ "idempotency_key": number.to_string() }));
        let spec = SessionSpec::asked(open, "ann").unwrap();
        SessionSpec { program: "/bin/sleep".into(), ..spec }
    };
    let mut writes: Vec<_> = (1..=1000)
        .map(|number| Write::OpenSession { session: SessionId(number), about: spec(number).about() })
        .collect();
    writes.push(Write::CloseSession { session: SessionId(7) });
    bridge.submit(Durability::None, writes).await.unwrap();
    let server = sessions(&bridge, folder.path(), 1000);
    assert_eq!(server.recover().await.unwrap(), 999);
    assert_eq!(server.directory().len(), 999);
    assert!(server.directory().get(SessionId(7)).is_none());
    // Keys name what they named, open or closed; numbers are not used twice.
    let open = |number: u64| server.open("ann", asked(json!({ "idempotency_key": number.to_string() })));
    assert_eq!(open(500).await, Ok(SessionId(500)));
    assert_eq!(open(7).await, Ok(SessionId(7)));
    assert_eq!(server.open("ann", asked(json!({}))).await, Ok(SessionId(1001)));
    server.close(std::time::Duration::ZERO).await;
    assert!(server.directory().is_empty());
}

#[tokio::test]
async fn a_policy_is_what_was_asked_for_over_what_the_server_says() {
    let (folder, bridge) = (tempfile::tempdir().unwrap(), bridge());
    let defaults = crate::server::Defaults {
        checkpoints: Policy { keep: 3, ..Policy::default() },
        ..crate::server::Defaults::default()
    };
    let settings = Settings { defaults, ..Settings::new(Workers::Cold, folder.path().to_owned()) };
    let server = Sessions::new(bridge.clone(), Arc::default(), Arc::new(Nothing), settings);
    let policy = async |content| {
        let session = server.open("ann", asked(content)).await?;
        let record = bridge.session(session).await.unwrap().unwrap();
        Ok::<_, Refusal>(SessionSpec::of(&record).unwrap().checkpoints)
    };
    assert_eq!(policy(json!({})).await, Ok(Policy { keep: 3, ..Policy::default() }));
    let auto = policy(json!({ "checkpoints": "auto" })).await;
    assert_eq!(auto, Ok(Policy { keep: 3, mode: Mode::Auto, ..Policy::default() }));
    let refused = policy(json!({ "checkpoints": { "kep": 2 } })).await.unwrap_err();
    assert!(refused.code == ErrorCode::BadRequest && refused.why.contains("kep"), "{}", refused.why);
    server.close(std::time::Duration::ZERO).await;
}

/// A session whose loop is the test.
fn scripted(server: &Sessions, number: u64) -> crate::request::Inputs {
    let (senders, inputs) = lanes();
    let outlet = server.directory().outlet(SessionId(number));
    let spec = SessionSpec::asked(asked(json!({ "name": "parent" })), "ann").unwrap();
    let now = server.bridge().now();
    server.used(SessionId(number));
    server.directory().insert(Handle::new(senders, outlet, "ann".to_owned(), None, now, spec.about()));
    inputs
}

fn fork(content: serde_json::Value) -> cob_protocol::content::agent::ForkRequest {
    serde_json::from_value(content).unwrap()
}

#[tokio::test]
async fn when_the_parent_refuses_there_are_no_branches_and_the_key_is_free() {
    let (folder, bridge) = (tempfile::tempdir().unwrap(), bridge());
    let server = sessions(&bridge, folder.path(), 4);
    let mut parent = scripted(&server, 1);
    for _ in 0..2 {
        let wish = fork(json!({ "session_id": "s1", "count": 3, "idempotency_key": "k", "force": true }));
        let refuse = async {
            let Some(Command::Branch(None, true, asked)) = parent.commands.recv().await else {
                unreachable!()
            };
            asked.send(Err(Refusal::new(ErrorCode::CheckpointRefused, "a thread runs"))).unwrap();
        };
        let (refused, ()) = tokio::join!(server.branch("bob", wish), refuse);
        assert_eq!(refused.unwrap_err().code, ErrorCode::CheckpointRefused);
    }
    let refused = async |content| server.branch("bob", fork(content)).await.unwrap_err().code;
    assert_eq!(refused(json!({ "session_id": "s1", "count": 4 })).await, ErrorCode::Busy);
    assert_eq!(refused(json!({ "session_id": "s1", "count": 0 })).await, ErrorCode::BadRequest);
    assert_eq!(refused(json!({ "session_id": "s1", "count": 257 })).await, ErrorCode::BadRequest);
    assert_eq!(refused(json!({ "session_id": "s9" })).await, ErrorCode::SessionClosed);
    assert!(parent.commands.try_recv().is_err() && server.directory().len() == 1);
    assert!(bridge.sessions().await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn many_who_ask_with_one_key_are_one_fork_and_a_server_that_ends_waits_for_none() {
    let (folder, bridge) = (tempfile::tempdir().unwrap(), bridge());
    let server = sessions(&bridge, folder.path(), 10);
    let mut parent = scripted(&server, 1);
    let wish = || fork(json!({ "session_id": "s1", "count": 2, "idempotency_key": "k" }));
    let other = fork(json!({ "session_id": "s1", "count": 3, "idempotency_key": "k" }));
    let end = async {
        // The code of the parent runs for ever.
        let asked = parent.commands.recv().await;
        assert!(matches!(asked, Some(Command::Branch(None, false, _))));
        assert_eq!(server.branch("ann", other).await.unwrap_err().code, ErrorCode::KeyReused);
        server.stop_opening();
        server.all_open().await;
        asked
    };
    let (one, two, asked) = tokio::join!(server.branch("ann", wish()), server.branch("ann", wish()), end);
    assert_eq!(one.unwrap_err().code, ErrorCode::ShuttingDown);
    assert_eq!(two.unwrap_err().code, ErrorCode::ShuttingDown);
    drop(asked);
    assert!(parent.commands.try_recv().is_err());
}

#[tokio::test]
async fn a_key_names_all_branches_also_under_the_next_server() {
    let (folder, bridge) = (tempfile::tempdir().unwrap(), bridge());
    let parent = SessionSpec::asked(asked(json!({})), "ann").unwrap();
    let wish = || fork(json!({ "session_id": "s1", "count": 2, "idempotency_key": "k" }));
    let checkpoint = "s1.k4".parse().unwrap();
    let branches = parent.forked(&wish(), "ann").unwrap().into_iter().map(|spec| SessionSpec {
        program: "/bin/sleep".into(),
        forked_from: Some(checkpoint),
        ..spec
    });
    let writes = branches
        .zip(2..)
        .map(|(spec, number)| Write::OpenSession { session: SessionId(number), about: spec.about() })
        .chain([Write::CloseSession { session: SessionId(3) }]);
    bridge.submit(Durability::None, writes.collect()).await.unwrap();
    let server = sessions(&bridge, folder.path(), 10);
    assert_eq!(server.recover().await.unwrap(), 1);
    let known = server.branch("ann", wish()).await.unwrap();
    assert_eq!((known.sessions, known.checkpoint), (vec![SessionId(2), SessionId(3)], Some(checkpoint)));
    server.close(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn what_is_permitted_unless_a_session_says_otherwise_is_recorded_with_it() {
    let (folder, bridge) = (tempfile::tempdir().unwrap(), bridge());
    let usual = Permissions { read: vec![".".into()], write: Vec::new() };
    let defaults =
        crate::server::Defaults { permissions: usual.clone(), ..crate::server::Defaults::default() };
    let settings = Settings { defaults, ..Settings::new(Workers::Cold, folder.path().to_owned()) };
    let server = Sessions::new(bridge.clone(), Arc::default(), Arc::new(Nothing), settings);
    let permitted = async |content| {
        let session = server.open("ann", asked(content)).await.unwrap();
        let record = bridge.session(session).await.unwrap().unwrap();
        SessionSpec::of(&record).unwrap().environment.permissions
    };
    assert_eq!(permitted(json!({ "language": "javascript" })).await, Some(usual));
    let none = json!({ "language": "javascript", "environment": { "permissions": {} } });
    assert_eq!(permitted(none).await, Some(Permissions::default()));
    assert_eq!(permitted(json!({})).await, None);
}
