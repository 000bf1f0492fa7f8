//! Processes that write bundles and die, hang or flood: whoever asked is told, and the live session goes on.

use cob_tests::process;
use rustix::process::Signal;

use super::*;

/// A session with a value whose pickling does `what`, and says where; and something else.
async fn session_with(agent: &mut Agent, serve: &Serve, what: &str) -> String {
    let session = agent.open().await;
    let told = serve.server.folder().join("told");
    let code = format!(
        "import os, time, signal\nshared = [1]\nclass Odd:\n    def __reduce__(self):\n        \
         if os.getpid() == live: return (int, ())\n        open({told:?}, 'w').write(str(os.getpid()))\n        \
         {what}\n        return (int, ())\nlive = os.getpid()\nodd = Odd()"
    );
    printed(agent, &session, "make", &code).await;
    session
}

/// Nothing has happened to the session, and it can be kept when what was in the way is gone.
async fn goes_on(agent: &mut Agent, session: &str, worker_before: u32) {
    assert_eq!(worker(agent, session).await, worker_before);
    assert_eq!(
        printed(agent, session, "after", "shared.append(2); print(shared, type(odd))").await,
        "[1, 2] <class '__main__.Odd'>\n"
    );
    // What could not be stored is in memory.
    let kept = listed(agent, session).await.remove(0);
    printed(agent, session, "mend", "del odd, Odd").await;
    let id = stored(agent, session).await;
    printed(agent, session, "more", "shared.append(3)").await;
    agent.ok("restore", json!({ "session_id": session, "checkpoint": id, "fresh": true })).await;
    assert_eq!(printed(agent, session, "back", "print(shared)").await, "[1, 2]\n");
    agent.ok("restore", json!({ "session_id": session, "checkpoint": kept })).await;
    assert_eq!(printed(agent, session, "memory", "print(shared, type(odd).__name__)").await, "[1] Odd\n");
}

/// A durable checkpoint of it fails with these words.
async fn fails(agent: &mut Agent, session: &str, words: &[&str]) {
    let content = json!({ "session_id": session, "durable": true });
    let refused = agent.refused("checkpoint", content, "checkpoint_failed").await;
    let why = refused["evalue"].as_str().unwrap();
    assert!(why.ends_with(&format!("; {session}.k1 is in memory only")), "{why}");
    assert!(words.iter().all(|word| why.contains(word)), "{why}");
}

#[tokio::test]
async fn code_that_ends_the_process_that_saves_it_ends_nothing_else() {
    for (what, words) in [
        ("os._exit(7)", &["process that wrote the bundle", "7"][..]),
        ("os._exit(0)", &["process that wrote the bundle"]),
        ("os.kill(os.getpid(), signal.SIGKILL)", &["process that wrote the bundle", "KILL"]),
        ("os.abort()", &["process that wrote the bundle", "ABRT"]),
        ("os.closerange(3, 1000)", &["process that wrote the bundle"]),
    ] {
        let serve = Serve::start_as(with_grace(0)).await;
        let mut agent = serve.agent("a").await;
        let session = session_with(&mut agent, &serve, what).await;
        let pid = worker(&mut agent, &session).await;
        fails(&mut agent, &session, words).await;
        goes_on(&mut agent, &session, pid).await;
        drop(agent);
        ends_clean(serve).await;
    }
}

#[tokio::test]
async fn one_that_is_killed_while_it_hangs_is_told_and_the_next_one_works() {
    let serve = Serve::start_as(with_grace(0)).await;
    let gate = serve.gate("gate");
    let mut agent = serve.agent("a").await;
    let session = session_with(&mut agent, &serve, &format!("{}; time.sleep(1e6)", gate.python())).await;
    let pid = worker(&mut agent, &session).await;
    let asked = agent.send("checkpoint", json!({ "session_id": session, "durable": true })).await;
    gate.open().await;
    // Nobody waits for it but who asked.
    assert_eq!(printed(&mut agent, &session, "meanwhile", "print(shared)").await, "[1]\n");
    let saver = std::fs::read_to_string(serve.server.folder().join("told")).unwrap().parse().unwrap();
    process::signal(saver, Signal::KILL);
    let reply = agent.reply(&asked).await.content;
    assert_eq!(reply["code"], "checkpoint_failed", "{reply:#}");
    assert!(reply["evalue"].as_str().unwrap().contains("KILL"), "{reply:#}");
    goes_on(&mut agent, &session, pid).await;
    drop(agent);
    ends_clean(serve).await;
}

#[tokio::test]
async fn one_that_hangs_goes_with_its_session() {
    let serve = Serve::start_as(with_grace(0)).await;
    let gate = serve.gate("gate");
    let mut agent = serve.agent("a").await;
    let session = session_with(&mut agent, &serve, &format!("{}; time.sleep(1e6)", gate.python())).await;
    let asked = agent.send("checkpoint", json!({ "session_id": session, "durable": true })).await;
    gate.open().await;
    // Where it is: the answer to the next request says that it has not ended.
    assert_eq!(printed(&mut agent, &session, "meanwhile", "print(shared)").await, "[1]\n");
    let saver = std::fs::read_to_string(serve.server.folder().join("told")).unwrap().parse().unwrap();
    agent.ok("session_close", json!({ "session_id": session })).await;
    process::ended(saver).await;
    let reply = agent.reply(&asked).await.content;
    assert_eq!(reply["status"], "error", "{reply:#}");
    drop(agent);
    ends_clean(serve).await;
}

#[tokio::test]
async fn one_that_writes_nonsense_between_its_records_makes_no_bundle() {
    let serve = Serve::start_as(with_grace(0)).await;
    let mut agent = serve.agent("a").await;
    // Whatever can be written to, is.
    let what = "for fd in range(3, 200):\n            try: os.set_blocking(fd, False); os.write(fd, b'\\xff' * 65536)\n            \
                except OSError: pass";
    let session = session_with(&mut agent, &serve, what).await;
    let pid = worker(&mut agent, &session).await;
    let before = serve.resident_bytes();
    fails(&mut agent, &session, &["bundle"]).await;
    assert!(serve.resident_bytes() < before + (64 << 20));
    goes_on(&mut agent, &session, pid).await;
    drop(agent);
    ends_clean(serve).await;
}

#[tokio::test]
async fn what_prints_without_end_while_it_is_saved_reaches_nobody() {
    let serve = Serve::start_as(with_grace(0)).await;
    let mut agent = serve.agent("a").await;
    let session =
        session_with(&mut agent, &serve, "[print('x' * 65536, flush=True) for n in range(500)]").await;
    let before = serve.resident_bytes();
    let id = stored(&mut agent, &session).await;
    assert!(serve.resident_bytes() < before + (64 << 20));
    // In another session it comes from the store.
    let other = agent.open().await;
    agent.ok("restore", json!({ "session_id": other, "checkpoint": id, "fresh": true })).await;
    assert_eq!(printed(&mut agent, &other, "back", "print(shared, odd)").await, "[1] 0\n");
    drop(agent);
    ends_clean(serve).await;
}
