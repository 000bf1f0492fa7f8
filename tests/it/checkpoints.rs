//! Checkpoints of sessions of a server, with real workers: forks, ways back, and what is left when server or parent go.

use cob_tests::agents::{self, Agent, Serve, text};
use serde_json::{Value, json};

/// What code of a session prints that ends well.
async fn printed(agent: &mut Agent, session: &str, key: &str, code: &str) -> String {
    let (reply, events) = agent.run(session, key, code).await;
    assert_eq!(reply["status"], "ok", "{code}: {reply:#}");
    text(&events)
}

/// The same in many sessions at once: what each has printed.
async fn in_all(agent: &mut Agent, sessions: &[String], key: &str, code: &str) -> Vec<String> {
    let mut asked = Vec::new();
    for session in sessions {
        asked.push(agent.execute(session, key, code).await);
    }
    let mut all = Vec::new();
    for id in &asked {
        let reply = agent.reply(id).await.content;
        assert_eq!(reply["status"], "ok", "{reply:#}");
        all.push(text(&agent.events(id)));
    }
    all
}

fn names(reply: &Value) -> Vec<String> {
    let sessions = reply["sessions"].as_array().unwrap();
    sessions.iter().map(|session| session.as_str().unwrap().to_owned()).collect()
}

async fn forked(agent: &mut Agent, content: Value) -> Vec<String> {
    names(&agent.ok("fork", content).await)
}

#[tokio::test]
async fn twenty_branches_of_a_large_session_go_on_at_once_and_each_has_its_own_state() {
    let serve = Serve::start().await;
    let mut agent = serve.agent("a").await;
    let parent = agent.open().await;
    let code =
        "import os\ndata = bytearray(200_000_000)\nopen('file', 'w').write('parent')\nprint(len(data))";
    assert_eq!(printed(&mut agent, &parent, "make", code).await, "200000000\n");
    let wish = json!({ "session_id": parent, "count": 20, "name": "b", "idempotency_key": "k" });
    let branches = forked(&mut agent, wish.clone()).await;
    assert_eq!(branches.len(), 20);
    // Asked for again, they are the same.
    assert_eq!(forked(&mut agent, wish).await, branches);
    let other = json!({ "session_id": parent, "count": 2, "idempotency_key": "k" });
    agent.refused("fork", other, "key_reused").await;
    // Each writes where all the others read, and into a file that all of them had.
    let code =
        "data[0] += 1\nopen('file', 'a').write(' and ' + os.getcwd())\nprint(data[0], open('file').read())";
    let all = in_all(&mut agent, &branches, "write", code).await;
    for (branch, shown) in branches.iter().zip(&all) {
        assert!(shown.starts_with("1 parent and /") && shown.contains(&format!("/{branch}/work")), "{shown}");
        assert_eq!(shown.matches(" and ").count(), 1, "{shown}");
    }
    let shown = printed(&mut agent, &parent, "look", "print(data[0], open('file').read())").await;
    assert_eq!(shown, "0 parent\n");
    let info = agent.ok("session_info", json!({ "session_id": branches[3] })).await["session"].clone();
    assert_eq!((&info["name"], &info["execution_count"]), (&json!("b-4"), &json!(2)));
    assert!(info["forked_from"].as_str().unwrap().starts_with(&format!("{parent}.k")), "{info:#}");
    // What they came of may go.
    agent.ok("session_close", json!({ "session_id": parent })).await;
    let all = in_all(&mut agent, &branches, "after", "data[0] += 1; print(data[0])").await;
    assert!(all.iter().all(|shown| shown == "2\n"), "{all:?}");
    drop(agent);
    serve.end_unchecked().await;
}

#[tokio::test]
async fn the_parent_is_closed_while_its_branches_run() {
    let serve = Serve::start().await;
    let gate = serve.gate("gate");
    let mut agent = serve.agent("a").await;
    let parent = agent.open().await;
    printed(&mut agent, &parent, "make", "x = [1, 2, 3]").await;
    let branch = forked(&mut agent, json!({ "session_id": parent })).await.remove(0);
    let code = format!("print('on', flush=True)\n{}\nprint(sum(x))", gate.python());
    let running = agent.execute(&branch, "run", &code).await;
    agent.printed(&running, "on\n").await;
    agent.ok("session_close", json!({ "session_id": parent })).await;
    agent.refused("fork", json!({ "session_id": parent }), "session_closed").await;
    gate.open().await;
    assert_eq!(agent.reply(&running).await.content["status"], "ok");
    assert_eq!(text(&agent.events(&running)), "on\n6\n");
    // A branch can be branched off, too.
    let further = forked(&mut agent, json!({ "session_id": branch, "count": 2 })).await;
    let all = in_all(&mut agent, &further, "sum", "x.append(4); print(sum(x))").await;
    assert_eq!(all, ["10\n", "10\n"]);
    drop(agent);
    serve.end_unchecked().await;
}

#[tokio::test]
async fn variables_go_back_and_everything_else_stays() {
    let serve = Serve::start_as(agents::setup().argument("--checkpoints").argument("auto")).await;
    let mut agent = serve.agent("a").await;
    let session = agent.open().await;
    printed(&mut agent, &session, "1", "x = 1").await;
    let taken = agent.ok("checkpoint", json!({ "session_id": session, "label": "one" })).await;
    let id = taken["checkpoint"]["checkpoint"].as_str().unwrap().to_owned();
    printed(&mut agent, &session, "2", "x = 2; open('file', 'w').close()").await;
    printed(&mut agent, &session, "3", "x = 3").await;
    let followed = agent.send("subscribe", json!({ "session_id": session, "from": 4, "credit": 1000 })).await;
    agent.reply(&followed).await;
    let back = agent.ok("restore", json!({ "session_id": session, "undo": 1 })).await;
    assert_eq!(
        (&back["restored"]["tier"], &back["restored"]["executions_since"]),
        (&json!("memory"), &json!(1))
    );
    let told = agent.take("the notice", |got| got.msg_type == "session_restored").await;
    assert_eq!(told.content["restored"]["checkpoint"], back["restored"]["checkpoint"]);
    let shown = printed(&mut agent, &session, "4", "import os; print(x, os.path.exists('file'))").await;
    assert_eq!(shown, "2 True\n");
    let back = agent.ok("restore", json!({ "session_id": session, "label": "one" })).await;
    assert_eq!(back["restored"]["checkpoint"], json!(id));
    assert_eq!(printed(&mut agent, &session, "5", "print(x)").await, "1\n");
    // Any number of times, also from what came later.
    agent.ok("restore", json!({ "session_id": session, "checkpoint": id, "now": true })).await;
    let (reply, _) = agent.run(&session, "6", "x").await;
    assert_eq!(reply["execution_count"], 6);
    let listed = agent.ok("checkpoint_list", json!({ "session_id": session })).await;
    let kept =
        listed["checkpoints"].as_array().unwrap().iter().find(|view| view["checkpoint"] == id.as_str());
    assert_eq!((&kept.unwrap()["label"], &listed["policy"]["mode"]), (&json!("one"), &json!("auto")));
    agent.ok("checkpoint_delete", json!({ "checkpoint": id })).await;
    let gone = json!({ "session_id": session, "checkpoint": id });
    agent.refused("restore", gone, "unknown_checkpoint").await;
    let figures = agent.ok("server_info", json!({})).await["checkpoints"].clone();
    assert_eq!((&figures["restored"], &figures["taken"]), (&json!(3), &json!(1)), "{figures}");
    drop(agent);
    serve.end_unchecked().await;
}

#[tokio::test]
async fn nobody_forks_or_goes_back_in_a_session_of_another() {
    let serve = Serve::start().await;
    let mut ann = Agent::connect(&serve.place(), "ann").await;
    ann.ok("hello_request", json!({ "versions": [1], "principal": "ann" })).await;
    let (variable, value) = serve.server.marker().split_once('=').unwrap();
    ann.mark(variable, value);
    let session = ann.open().await;
    printed(&mut ann, &session, "1", "secret = 42").await;
    let taken = ann.ok("checkpoint", json!({ "session_id": session })).await;
    let mut bob = Agent::connect(&serve.place(), "bob").await;
    bob.ok("hello_request", json!({ "versions": [1], "principal": "bob" })).await;
    bob.mark(variable, value);
    let own = bob.open().await;
    let checkpoint = taken["checkpoint"]["checkpoint"].clone();
    for (request, content) in [
        ("fork", json!({ "session_id": session })),
        ("restore", json!({ "session_id": session, "undo": 1 })),
        ("restore", json!({ "session_id": own, "checkpoint": checkpoint })),
        ("checkpoint_list", json!({ "session_id": session })),
        ("checkpoint_delete", json!({ "checkpoint": checkpoint })),
        ("checkpoint_export", json!({ "checkpoint": checkpoint, "path": "/tmp/x" })),
    ] {
        bob.refused(request, content, "forbidden").await;
    }
    // The operator may, and what he forks off is his.
    let mut operator = serve.agent("operator").await;
    let branch = forked(&mut operator, json!({ "session_id": session })).await.remove(0);
    assert_eq!(printed(&mut operator, &branch, "1", "print(secret)").await, "42\n");
    ann.refused("session_info", json!({ "session_id": branch }), "forbidden").await;
    drop((ann, bob, operator));
    serve.end_unchecked().await;
}

#[tokio::test]
async fn the_command_line_forks_undoes_and_says_what_went_wrong() {
    let serve = Serve::start_as(agents::setup().argument("--checkpoints").argument("auto")).await;
    let mut agent = serve.agent("a").await;
    let session = agent.open().await;
    printed(&mut agent, &session, "1", "x = 1").await;
    printed(&mut agent, &session, "2", "x = 2").await;
    let run = |arguments: &str| {
        let arguments: Vec<_> = ["checkpoint"].into_iter().chain(arguments.split(' ')).collect();
        let output = serve.server.output(&arguments);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, undone, _) = run(&format!("undo {session}"));
    assert!(code == Some(0) && undone.starts_with("as it was at "), "{undone}");
    assert_eq!(printed(&mut agent, &session, "3", "print(x)").await, "1\n");
    let (code, forks, _) = run(&format!("fork {session} -n 2"));
    assert_eq!((code, forks.lines().count()), (Some(0), 2), "{forks}");
    let (code, listed, _) = run(&format!("list {session}"));
    assert!(code == Some(0) && listed.contains("automatic") && listed.contains("memory"), "{listed}");
    let (code, json, _) = run(&format!("list {session} --json"));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["policy"]["mode"]), (Some(0), &json!("auto")));
    let (code, _, wrong) = run(&format!("restore {session} {session}.k999"));
    assert!(code == Some(2) && wrong.contains("k999") && wrong.contains("cob checkpoint list"), "{wrong}");
    let (code, _, wrong) = run(&format!("list {session} --store /no/such/store"));
    assert!(code == Some(2) || code == Some(1), "{wrong}");
    assert!(wrong.contains("/no/such/store"), "{wrong}");
    drop(agent);
    serve.end_unchecked().await;
}
