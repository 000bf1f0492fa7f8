//! Sessions without a language: their workers never come up, which no session has to wait for.

use cob_protocol::time::SystemClock;
use serde_json::json;

use super::*;

#[derive(Debug)]
struct Nothing;

impl Languages for Nothing {
    fn find(&self, language: &str, _: &Environment) -> Result<PathBuf, Refusal> {
        match language {
            "python" => Ok("/bin/sleep".into()),
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
