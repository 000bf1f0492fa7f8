//! X09: what the code of a session in JavaScript can reach, on a real server.

use cob_tests::agents::{Agent, Serve};
use serde_json::{Value, json};

/// What the last expression of a cell came to, which must be a string; or its error.
async fn result(agent: &mut Agent, session: &str, key: &str, code: &str) -> String {
    let (reply, events) = agent.run(session, key, code).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().trim_matches('"').to_owned();
    if reply["status"] == "error" {
        return format!("{}: {}", text(&reply["ename"]), text(&reply["evalue"]));
    }
    assert_eq!(reply["status"], "ok", "{code}: {reply}");
    let shown = events.iter().find(|got| got.kind() == "result");
    shown.map(|got| text(&got.content["content"]["data"]["text/plain"])).unwrap_or_default()
}

async fn open(agent: &mut Agent, environment: Value) -> String {
    let content = json!({ "language": "javascript", "environment": environment });
    agent.ok("session_open", content).await["session_id"].as_str().unwrap().to_owned()
}

const READS: &str = "(await import('./lib.ts')).answer + (await cob.readTextFile('note.txt'))";

#[tokio::test]
async fn x09_a_session_reaches_what_it_was_permitted_also_after_a_restart_and_in_a_branch() {
    let serve = Serve::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("lib.ts"), "export const answer: number = 42;").unwrap();
    std::fs::write(folder.path().join("note.txt"), "!").unwrap();
    let mut agent = serve.agent("a").await;
    let environment = json!({ "cwd": folder.path(), "permissions": { "read": ["."] } });
    let session = open(&mut agent, environment).await;
    assert_eq!(result(&mut agent, &session, "first", READS).await, "42!");
    let write = "await cob.writeTextFile('note.txt', '').catch((error) => error.name)";
    assert_eq!(result(&mut agent, &session, "write", write).await, "PermissionDenied");
    let branches = agent.ok("fork", json!({ "session_id": session, "count": 1 })).await["sessions"].clone();
    let branch = branches[0].as_str().or(branches[0]["session_id"].as_str()).unwrap().to_owned();
    let reads = format!("await cob.readTextFile('{}/note.txt')", folder.path().display());
    assert_eq!(result(&mut agent, &branch, "branch", &reads).await, "!");
    assert_eq!(
        result(&mut agent, &branch, "branch-write", &write.replace("note", "other")).await,
        "PermissionDenied"
    );
    agent.ok("restart", json!({ "session_id": session })).await;
    assert_eq!(result(&mut agent, &session, "restarted", READS).await, "42!");
    // Another session of the same server has nothing of that.
    let poor = open(&mut agent, json!({ "cwd": folder.path() })).await;
    let denied = result(&mut agent, &poor, "poor", READS).await;
    assert!(denied.contains("is not allowed in this session"), "{denied}");
    drop(agent);
    serve.finish().await;
}

#[tokio::test]
async fn x09_what_is_no_permission_is_refused_before_there_is_a_session() {
    let serve = Serve::start().await;
    let mut agent = serve.agent("a").await;
    for (language, permissions, part) in [
        ("javascript", json!({ "net": ["example.org"] }), "net"),
        ("javascript", json!({ "read": [""] }), "cannot be the path"),
        ("python", json!({ "read": ["."] }), "JavaScript"),
    ] {
        let content = json!({ "language": language, "environment": { "permissions": permissions } });
        let reply = agent.refused("session_open", content, "bad_request").await;
        assert!(reply.to_string().contains(part), "{reply:#}");
    }
    drop(agent);
    serve.finish().await;
}

#[tokio::test]
async fn x09_tricks_reach_nothing_and_code_without_end_is_interrupted() {
    let serve = Serve::start().await;
    let mut agent = serve.agent("a").await;
    let session = open(&mut agent, json!({})).await;
    for (number, trick) in [
        "await import('file:///etc/passwd')",
        "await import('https://example.org/x.js')",
        "await import('ext:core/mod.js')",
        "await import('ext:core/ops')",
        "Deno.core.ops.op_print('out')",
        "Object.prototype.core = undefined; Deno.core.print('out')",
        "(() => {}).constructor('return Deno.core.ops')()",
        "__bootstrap.core",
        "process.env",
        "require('fs')",
    ]
    .iter()
    .enumerate()
    {
        let told = result(&mut agent, &session, &format!("trick-{number}"), trick).await;
        let is_refused = told.starts_with("TypeError: ") || told.starts_with("ReferenceError: ");
        assert!(is_refused, "{trick}: {told}");
    }
    for (number, endless) in [
        "console.log('on'); while (true) {}",
        "console.log('on'); await new Promise(() => setInterval(() => {}, 1000))",
        "console.log('on'); const again = () => Promise.resolve().then(again); await again()",
        "console.log('on'); for (;;) await null",
    ]
    .iter()
    .enumerate()
    {
        let id = agent.execute(&session, &format!("endless-{number}"), endless).await;
        agent.printed(&id, "on\n").await;
        agent.ok("interrupt", json!({ "session_id": session })).await;
        assert_eq!(agent.reply(&id).await.content["ename"], "KeyboardInterrupt", "{endless}");
    }
    assert_eq!(result(&mut agent, &session, "after", "'still ' + 'here'").await, "still here");
    drop(agent);
    serve.finish().await;
}
