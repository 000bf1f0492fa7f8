//! S: servers that are killed, ended and replaced while the code of many sessions runs.

use std::path::Path;

use cob_tests::agents::{Agent, Serve, are_whole, text};
use cob_tests::history::Asked;
use serde_json::json;

use super::{asked, token, view};

/// Prints, waits until the file is there, prints again.
fn waiting(serve: &Serve, key: &str, until: &Path) -> (String, Asked) {
    let (effect, token) = (serve.effects.python(key), token(key));
    let code = format!(
        "{effect}\nimport os, time\nprint('{token} 1', flush=True)\nwhile not os.path.exists({until:?}): time.sleep(0.01)\n\
         print('{token} 2')"
    );
    (code, asked(&token, 2 * (token.len() + 3)))
}

/// Sessions in which code runs, each with its key and another execution that waits behind it.
async fn running(serve: &Serve, count: usize, until: &Path) -> Vec<(String, String)> {
    let mut agent = serve.recorded("agent").await;
    let mut sent = Vec::new();
    for number in 0..count {
        let (session, key) = (agent.open().await, format!("k{number}"));
        let (code, asked) = waiting(serve, &key, until);
        let id = agent.execute_as(&session, &key, &code, asked).await;
        let (code, asked) = super::counting(serve, &format!("{key}q"), 1);
        let queued = agent.execute_as(&session, &format!("{key}q"), &code, asked).await;
        sent.push((session, key, id, queued));
    }
    let mut sessions = Vec::new();
    for (session, key, id, queued) in sent {
        agent.printed(&id, &format!("{} 1\n", token(&key))).await;
        agent.take("ack", |got| got.msg_type == "ack" && got.parent == queued).await;
        sessions.push((session, key));
    }
    sessions
}

/// Everything ends, when it is asked for again, as if nothing had happened.
async fn completes(serve: &Serve, sessions: &[(String, String)], until: &Path) {
    let mut agent = serve.recorded("agent").await;
    let mut ids = Vec::new();
    for (session, key) in sessions {
        let (code, asked) = waiting(serve, key, until);
        let id = agent.execute_as(session, key, &code, asked).await;
        let (code, asked) = super::counting(serve, &format!("{key}q"), 1);
        let queued = agent.execute_as(session, &format!("{key}q"), &code, asked).await;
        ids.push((key, id, queued));
    }
    std::fs::write(until, "").unwrap();
    for (key, id, queued) in ids {
        let token = token(key);
        let both = format!("{token} 1\n{token} 2\n");
        for (id, wanted) in [(id, both), (queued, super::counted(&format!("{key}q"), 1))] {
            let reply = agent.reply(&id).await;
            assert_eq!(reply.content["status"], "ok", "{reply:?}");
            let events = agent.events(&id);
            are_whole(&events);
            assert_eq!(text(&events), wanted);
        }
    }
}

#[tokio::test]
async fn s04_a_server_that_is_killed_with_many_sessions_running_completes_them_all_once() {
    many_sessions_survive(12).await;
}

#[tokio::test]
#[ignore = "two hundred workers"]
async fn s04_a_server_that_is_killed_with_two_hundred_sessions_running() {
    many_sessions_survive(200).await;
}

async fn many_sessions_survive(count: usize) {
    let mut serve = Serve::start().await;
    let until = serve.server.folder().join("go");
    let sessions = running(&serve, count, &until).await;
    serve.kill().await;
    serve.start_again().await;
    completes(&serve, &sessions, &until).await;
    serve.finish().await;
}

#[tokio::test]
async fn s04_a_server_that_is_killed_again_and_again_completes_what_runs() {
    let mut serve = Serve::start().await;
    let until = serve.server.folder().join("go");
    let sessions = running(&serve, 2, &until).await;
    for _ in 0..3 {
        serve.kill().await;
        serve.start_again().await;
        let mut agent = serve.agent("witness").await;
        for (session, _) in &sessions {
            assert_eq!(view(&mut agent, &format!("{session}.e1")).await["state"], "started");
        }
    }
    completes(&serve, &sessions, &until).await;
    serve.finish().await;
}

#[tokio::test]
async fn a_server_that_is_replaced_hands_everything_over() {
    let mut serve = Serve::start().await;
    let until = serve.server.folder().join("go");
    let sessions = running(&serve, 4, &until).await;
    let instance = serve.file().instance;
    serve.replace().await;
    assert_ne!(serve.file().instance, instance);
    completes(&serve, &sessions, &until).await;
    serve.finish().await;
}

#[tokio::test]
async fn a_server_that_ends_in_order_settles_what_runs_and_waits_and_tells_so() {
    let mut serve = Serve::start().await;
    let mut agent = serve.recorded("agent").await;
    let session = agent.open().await;
    let code = format!("{}\nprint('a 1', flush=True)\nwhile True: pass", serve.effects.python("a"));
    let running = agent.execute_as(&session, "a", &code, asked("a", 4)).await;
    agent.printed(&running, "a 1\n").await;
    let never = Asked { has_effect: true, ..Asked::default() };
    let queued = agent.execute_as(&session, "b", &serve.effects.python("b"), never).await;
    agent.take("ack", |got| got.msg_type == "ack" && got.parent == queued).await;
    assert!(serve.end().await.success());
    for id in [running, queued] {
        let reply = agent.try_reply(&id).await;
        let reply = reply.unwrap_or_else(|| unreachable!("no reply to {id}: {:#?}", agent.aside()));
        assert_eq!(reply.content["status"], "error", "{reply:?}");
    }
    agent.closed().await;
    drop(agent);
    assert_eq!((serve.effects.of("a"), serve.effects.of("b")), (1, 0));
    let snapshot = serve.look();
    let open: Vec<_> = snapshot.promises().filter(|promise| !promise.state.is_settled()).collect();
    assert!(open.is_empty(), "{open:#?}");
    // Started again, it knows what became of them.
    serve.start_again().await;
    let mut agent = serve.agent("agent").await;
    for number in 1..=2 {
        let view = view(&mut agent, &format!("{session}.e{number}")).await;
        assert!(view["state"].as_str().unwrap().starts_with("rejected"), "{view:#}");
    }
    drop(agent);
    serve.finish().await;
}

#[tokio::test]
async fn s10_a_second_server_is_refused_and_the_first_is_untouched() {
    let serve = Serve::start().await;
    let mut agent: Agent = serve.agent("agent").await;
    let session = agent.open().await;
    let output = serve.server.output(&["serve", "--store", "../store"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&serve.server.pid().to_string()), "{said}");
    let (reply, _) = agent.run(&session, "after", "1").await;
    assert_eq!(reply["status"], "ok");
    agent.ok("ping", json!({})).await;
    drop(agent);
    serve.finish().await;
}
