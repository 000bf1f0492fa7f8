//! What a server finds that was killed: a worker that lived on goes on with its checkpoints, one that did not is replaced by
//! what is in the store, and nobody is told that something is there that is not.

use cob_protocol::checkpoint::Policy;
use cob_tests::durable::{Durable, setup_with};
use cob_tests::history::Asked;
use cob_tests::process;
use rustix::process::Signal;

use super::*;

#[tokio::test]
async fn a_worker_within_its_grace_goes_on_and_its_next_checkpoints_work() {
    let setup = with_grace(15).argument("--checkpoints").argument("auto");
    let mut serve = Serve::start_as(setup).await;
    let mut agent = serve.agent("a").await;
    let session = agent.open().await;
    printed(&mut agent, &session, "make", MAKE).await;
    let first = stored(&mut agent, &session).await;
    let pid = worker(&mut agent, &session).await;
    drop(agent);
    serve.kill().await;
    serve.start_again().await;
    let mut agent = serve.agent("b").await;
    assert_eq!(worker(&mut agent, &session).await, pid);
    let known = listed(&mut agent, &session).await;
    assert!(known.contains(&first), "{known:?}");
    printed(&mut agent, &session, "set", "shared[:] = [3]").await;
    let kept = agent.ok("checkpoint", json!({ "session_id": session, "label": "kept" })).await;
    let kept = name(&kept["checkpoint"]);
    assert!(known.iter().all(|id| number(id) < number(&kept)), "{kept} after {known:?}");
    printed(&mut agent, &session, "more", "shared.append(77)").await;
    let back = agent.ok("restore", json!({ "session_id": session, "undo": 1 })).await["restored"].clone();
    assert_eq!((&back["tier"], &back["executions_since"]), (&json!("memory"), &json!(1)), "{back:#}");
    assert_eq!(printed(&mut agent, &session, "look", LOOK).await, "True 2304000 [3]\n");
    // The worker is another one now, forked off the copy of one that was taken over: it lives on as well.
    let thawed = worker(&mut agent, &session).await;
    assert_ne!(thawed, pid);
    printed(&mut agent, &session, "again", "shared.append(5)").await;
    drop(agent);
    serve.kill().await;
    serve.start_again().await;
    let mut agent = serve.agent("c").await;
    assert_eq!(worker(&mut agent, &session).await, thawed);
    assert_eq!(printed(&mut agent, &session, "alive", LOOK).await, "True 2304000 [3, 5]\n");
    drop(agent);
    ends_clean(serve).await;
}

/// A session whose worker dies while its server is dead, or with it, in the middle of an execution; it had a durable
/// checkpoint, if `is_stored`, and `recover` is as it says.
async fn lost_in_the_middle(grace: u64, is_stored: bool, recover: bool) -> (Serve, String, String, Value) {
    let mut serve = Serve::start_as(with_grace(grace)).await;
    let gate = serve.gate("gate");
    let mut agent = serve.agent("a").await;
    let mut content = json!({ "language": "python", "checkpoints": { "recover": recover } });
    let (variable, value) = serve.server.marker().split_once('=').unwrap();
    content["environment"]["env"][variable] = json!(value);
    let session = agent.ok("session_open", content).await["session_id"].as_str().unwrap().to_owned();
    printed(&mut agent, &session, "make", MAKE).await;
    let id = if is_stored { stored(&mut agent, &session).await } else { String::new() };
    printed(&mut agent, &session, "change", "shared.append(2)").await;
    let code = format!("print('on', flush=True)\n{}", gate.python());
    let running = agent.execute(&session, "lost", &code).await;
    agent.printed(&running, "on\n").await;
    let pid = worker(&mut agent, &session).await;
    drop(agent);
    serve.kill().await;
    process::signal(pid, Signal::KILL);
    process::ended(pid).await;
    serve.start_again().await;
    let mut agent = serve.agent("b").await;
    let (reply, _) = agent.run(&session, "lost", &code).await;
    assert_eq!(reply["code"], "execution_lost", "{reply:#}");
    let asked = agent.execute(&session, "next", "print(globals().get('shared'))").await;
    let after = agent.reply(&asked).await;
    let shown = text(&agent.events(&asked));
    let told = [&after.content["restored"], &after.metadata["cob"]["restored"]];
    let restored = told.into_iter().find(|told| !told.is_null()).cloned().unwrap_or_default();
    let found = json!({ "lost": reply, "shown": shown, "restored": restored, "after": after.content });
    drop(agent);
    (serve, session, id, found)
}

#[tokio::test]
async fn without_its_worker_a_session_wakes_up_at_the_newest_in_the_store_and_says_so() {
    for grace in [0, 15] {
        let (serve, _, id, found) = lost_in_the_middle(grace, true, true).await;
        assert_eq!(found["shown"], "[1]\n", "{found:#}");
        assert_eq!(found["restored"]["checkpoint"], json!(id), "{found:#}");
        let lost = &found["lost"];
        assert!(lost["evalue"].as_str().unwrap().contains(&format!("but for those in {id}")), "{lost:#}");
        ends_clean(serve).await;
    }
}

#[tokio::test]
async fn a_session_that_is_not_to_go_back_has_lost_its_variables_and_says_so() {
    for (is_stored, recover) in [(true, false), (false, true)] {
        let (serve, session, id, found) = lost_in_the_middle(0, is_stored, recover).await;
        assert_eq!((&found["shown"], &found["restored"]), (&json!("None\n"), &Value::Null), "{found:#}");
        assert_eq!(found["lost"]["session_state"], "lost", "{found:#}");
        let why = found["lost"]["evalue"].as_str().unwrap();
        assert!(why.contains("the variables are lost") && !why.contains("but for"), "{why}");
        // It can still be gone back to by whoever wants to.
        if is_stored {
            let mut agent = serve.agent("c").await;
            agent.ok("restore", json!({ "session_id": session, "checkpoint": id })).await;
            assert_eq!(printed(&mut agent, &session, "back", LOOK).await, FIRST);
        }
        ends_clean(serve).await;
    }
}

const FIRST: &str = "True 2304000 [1]\n";

#[tokio::test]
async fn a_kernel_with_a_store_does_the_same_when_it_starts_again() {
    let policy = serde_json::to_string(&Policy::default()).unwrap();
    let mut durable = Durable::start_as(&setup_with("0").argument("--checkpoints").argument(policy)).await;
    let mut client = durable.client("one").await;
    let code = format!("{MAKE}\nimport cob\ncob.checkpoint('kept', durable=True)");
    assert_eq!(client.run("make", &code, Asked::default()).await.unwrap()["status"], "ok");
    let stored = durable.kernel.log_line("checkpoint stored", 0).await;
    assert!(stored.is_some());
    let reply = client.run("change", "shared.append(2)", Asked::default()).await.unwrap();
    assert_eq!(reply["status"], "ok");
    drop(client);
    durable.kill().await;
    durable.start_again().await;
    let mut client = durable.client("two").await;
    let asked = Asked { prints: Some(FIRST.len() as u64), ..Asked::default() };
    let reply = client.run("look", &format!("print(end='')\n{LOOK}"), asked).await.unwrap();
    assert_eq!(reply["status"], "ok", "{reply:#}");
    drop(client);
    let shown = durable.look().executions.last().unwrap().text();
    assert_eq!(shown, FIRST);
    durable.finish().await;
}
