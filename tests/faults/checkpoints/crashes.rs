//! A server that dies at any step of a durable checkpoint, of sleep, of a branch or an import: the next one goes on.

use cob_tests::durable::{crash_at, has_crash_points};
use cob_tests::process;
use rustix::process::Signal;

use super::*;

/// A server that dies at `point` when `request` is sent to it; before that its session has got `k1`, and has changed
/// since. It is started again.
async fn died(point: &str, grace: u64, request: &str, content: Value) -> (Serve, String, String) {
    let mut serve = Serve::start_as(with_grace(grace)).await;
    let mut agent = serve.agent("a").await;
    let session = agent.open().await;
    printed(&mut agent, &session, "make", MAKE).await;
    let first = stored(&mut agent, &session).await;
    drop(agent);
    serve.kill().await;
    serve.start_again_with(&crash_at(point)).await;
    let mut agent = serve.agent("a").await;
    printed(&mut agent, &session, "change", "shared.append(2)\nblob += b'x'").await;
    let mut content = content;
    content["session_id"] = json!(session);
    let reply = agent.try_ask(request, content).await;
    assert_eq!(reply, None, "{point} was not passed");
    drop(agent);
    serve.dies().await;
    serve.start_again().await;
    (serve, session, first)
}

const FIRST: &str = "True 2304000 [1]\n";
const SECOND: &str = "True 2304001 [1, 2]\n";

/// The first checkpoint is as it was, a second one is whole if it is there, numbers go on, and the session goes on with
/// `now`.
async fn goes_on(serve: &Serve, session: &str, first: &str, second: Option<bool>, now: &str) {
    let mut agent = serve.agent("b").await;
    assert_eq!(printed(&mut agent, session, "now", LOOK).await, now);
    let known = listed(&mut agent, session).await;
    assert!(known.contains(&first.to_owned()), "{known:?}");
    let more: Vec<_> = known.iter().filter(|id| *id != first).cloned().collect();
    if let Some(second) = second {
        assert_eq!(more.len(), usize::from(second), "{known:?}");
    }
    let next = stored(&mut agent, session).await;
    assert!(known.iter().all(|id| number(id) < number(&next)), "{next} after {known:?}");
    for (id, expected) in more.iter().map(|id| (id.as_str(), SECOND)).chain([(first, FIRST), (&next, now)]) {
        let content = json!({ "session_id": session, "checkpoint": id, "fresh": true });
        let back = agent.ok("restore", content).await["restored"].clone();
        assert_eq!((&back["checkpoint"], &back["missing"]), (&json!(id), &Value::Null), "{back:#}");
        assert_eq!(printed(&mut agent, session, id, LOOK).await, expected, "{id}");
    }
}

#[tokio::test]
async fn a_server_that_dies_at_any_step_of_a_durable_checkpoint_has_it_whole_or_not_at_all() {
    if !has_crash_points() {
        return;
    }
    for (point, is_there) in [
        ("bundle_begun", false),
        ("chunk_written", false),
        ("chunk_written:2", false),
        ("chunks_synced", false),
        ("bundle_row_before", false),
        ("bundle_row_after", true),
    ] {
        let (serve, session, first) = died(point, 15, "checkpoint", json!({ "durable": true })).await;
        // The worker has outlived both.
        goes_on(&serve, &session, &first, Some(is_there), SECOND).await;
        ends_clean(serve).await;
    }
}

#[tokio::test]
async fn without_its_worker_the_session_goes_on_from_the_newest_that_is_whole() {
    if !has_crash_points() {
        return;
    }
    // The worker of the first server is gone with it: the change is made to what was woken up.
    for (point, now) in [("chunk_written", FIRST), ("bundle_row_before", FIRST), ("bundle_row_after", SECOND)]
    {
        let (serve, session, first) = died(point, 0, "checkpoint", json!({ "durable": true })).await;
        goes_on(&serve, &session, &first, Some(now == SECOND), now).await;
        ends_clean(serve).await;
    }
}

#[tokio::test]
async fn a_server_that_dies_while_a_session_falls_asleep_loses_nothing_that_was_stored() {
    if !has_crash_points() {
        return;
    }
    for (point, grace, now) in [
        ("bundle_begun", 15, SECOND),
        ("bundle_row_after", 15, SECOND),
        ("bundle_row_before", 0, FIRST),
        ("bundle_row_after", 0, SECOND),
    ] {
        let (serve, session, first) = died(point, grace, "hibernate", json!({})).await;
        goes_on(&serve, &session, &first, None, now).await;
        ends_clean(serve).await;
    }
}

#[tokio::test]
async fn a_server_that_dies_while_a_session_wakes_up_leaves_it_asleep_or_awake() {
    if !has_crash_points() {
        return;
    }
    for (point, grace) in [
        ("promise_committed", 15),
        ("start_committed", 15),
        ("frame_sent", 15),
        ("start_committed", 0),
        ("frame_sent", 0),
    ] {
        let mut serve = Serve::start_as(with_grace(grace)).await;
        let mut agent = serve.agent("a").await;
        let session = agent.open().await;
        printed(&mut agent, &session, "make", MAKE).await;
        agent.ok("hibernate", json!({ "session_id": session })).await;
        let first = listed(&mut agent, &session).await.remove(0);
        drop(agent);
        serve.kill().await;
        serve.start_again_with(&crash_at(point)).await;
        let mut agent = serve.agent("a").await;
        assert_eq!(info(&mut agent, &session).await["wakes_at"], json!(first));
        let asked = agent.execute(&session, "wakes", "shared.append(2)").await;
        assert!(agent.try_reply(&asked).await.is_none(), "{point} was not passed");
        drop(agent);
        serve.dies().await;
        serve.start_again().await;
        let mut agent = serve.agent("b").await;
        let (reply, _) = agent.run(&session, "wakes", "shared.append(2)").await;
        let has_run = match (reply["status"].as_str(), reply["code"].as_str()) {
            (Some("ok"), _) => true,
            (_, Some("execution_lost")) => false,
            _ => unreachable!("{point}: {reply:#}"),
        };
        let shown = printed(&mut agent, &session, "look", LOOK).await;
        let expected = if has_run { "True 2304000 [1, 2]\n" } else { FIRST };
        assert_eq!(shown, expected, "{point} {grace} {reply:#}");
        drop(agent);
        ends_clean(serve).await;
    }
}

#[tokio::test]
async fn branches_that_were_recorded_and_never_began_do_not_pretend_to_hold_anything() {
    if !has_crash_points() {
        return;
    }
    let fork = json!({ "count": 2, "idempotency_key": "k" });
    let (serve, session, first) = died("branches_opened", 15, "fork", fork.clone()).await;
    let mut agent = serve.agent("b").await;
    // Whoever asks again with the same key hears which they were, and that they are closed.
    let mut again = fork;
    again["session_id"] = json!(session);
    let branches = agent.ok("fork", again.clone()).await["sessions"].clone();
    for branch in branches.as_array().unwrap() {
        let run = json!({ "session_id": branch, "code": "shared", "idempotency_key": "look" });
        agent.refused("execute_request", run, "session_closed").await;
    }
    again["idempotency_key"] = json!("k2");
    let branches = agent.ok("fork", again).await["sessions"].clone();
    for branch in branches.as_array().unwrap() {
        assert_eq!(printed(&mut agent, branch.as_str().unwrap(), "look", LOOK).await, SECOND);
    }
    goes_on(&serve, &session, &first, None, SECOND).await;
    drop(agent);
    ends_clean(serve).await;
}

#[tokio::test]
async fn a_branch_whose_worker_is_gone_before_it_was_used_does_not_pretend_either() {
    let mut serve = Serve::start_as(with_grace(15)).await;
    let mut agent = serve.agent("a").await;
    let session = agent.open().await;
    printed(&mut agent, &session, "make", MAKE).await;
    let branches = agent.ok("fork", json!({ "session_id": session, "count": 2 })).await["sessions"].clone();
    let [unused, used] = [0, 1].map(|place| branches[place].as_str().unwrap().to_owned());
    printed(&mut agent, &used, "own", "mine = 1").await;
    let id = stored(&mut agent, &used).await;
    let workers = [worker(&mut agent, &unused).await, worker(&mut agent, &used).await];
    drop(agent);
    serve.kill().await;
    for pid in workers {
        process::signal(pid, Signal::KILL);
        process::ended(pid).await;
    }
    serve.start_again().await;
    let mut agent = serve.agent("b").await;
    let run = json!({ "session_id": unused, "code": "shared", "idempotency_key": "look" });
    agent.refused("execute_request", run, "session_closed").await;
    // What it had stored is its own.
    assert_eq!(info(&mut agent, &used).await["wakes_at"], json!(id));
    assert_eq!(printed(&mut agent, &used, "look", LOOK).await, FIRST);
    drop(agent);
    ends_clean(serve).await;
}

#[tokio::test]
async fn a_server_that_dies_while_it_takes_a_bundle_in_has_it_whole_or_not_at_all() {
    if !has_crash_points() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gift.cob");
    let one = Serve::start().await;
    let mut agent = one.agent("a").await;
    let from = agent.open().await;
    printed(&mut agent, &from, "make", &format!("{MAKE}\nshared.append(2); blob += b'x'")).await;
    let id = stored(&mut agent, &from).await;
    agent.ok("checkpoint_export", json!({ "checkpoint": id, "path": file })).await;
    let key = std::fs::read_to_string(one.store().join("bundle.key")).unwrap();
    drop(agent);
    one.end_unchecked().await;
    for (point, is_there) in [
        ("import_checked", false),
        ("chunk_written", false),
        ("import_read", false),
        ("bundle_row_before", false),
        ("bundle_row_after", true),
    ] {
        let import = json!({ "path": file, "key": key.trim() });
        let (serve, session, first) = died(point, 15, "checkpoint_import", import).await;
        goes_on(&serve, &session, &first, Some(is_there), SECOND).await;
        ends_clean(serve).await;
    }
}
