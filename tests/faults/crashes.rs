//! A server that dies at a crash point, is started again in the same place, and is asked again with the same key:
//! the code runs at most once, and the answer is one.

use cob_protocol::promise::State;
use cob_tests::durable::{Client, Durable, crash_at, has_crash_points, setup};
use cob_tests::history::Asked;
use cob_tests::process;
use rustix::process::Signal;
use serde_json::Value;

/// Code that leaves its trace and prints two lines.
fn code(durable: &Durable, key: &str) -> String {
    format!("{}\nprint('{key} 1')\nprint('{key} 2')", durable.effects.python(key))
}

fn asked(key: &str) -> Asked {
    Asked { has_effect: true, token: Some(key.to_owned()), prints: Some(2 * (key.len() as u64 + 3)) }
}

/// A kernel that died at `point` while it ran the code of the key `a`, and the reply if that came before.
async fn died_at(point: &str) -> (Durable, Option<Value>) {
    let mut durable = Durable::launch_with(&setup(), &crash_at(point));
    assert!(durable.is_ready().await, "{:#?}", durable.kernel.whole_log());
    let mut client = durable.client("one").await;
    let reply = client.run("a", &code(&durable, "a"), asked("a")).await;
    durable.dies().await;
    (durable, reply)
}

/// Asks again; the reply.
async fn again(durable: &Durable, client: &mut Client) -> Value {
    client.run("a", &code(durable, "a"), asked("a")).await.expect("a reply")
}

#[tokio::test]
async fn s01_a_request_that_was_read_and_not_recorded_runs_when_it_is_sent_again() {
    if !has_crash_points() {
        return;
    }
    let (mut durable, reply) = died_at("request_read").await;
    assert_eq!((reply, durable.effects.of("a")), (None, 0));
    durable.start_again().await;
    let mut client = durable.client("one").await;
    assert_eq!(again(&durable, &mut client).await["status"], "ok");
    drop(client);
    durable.finish().await;
}

#[tokio::test]
async fn s02_a_recorded_request_runs_after_the_restart_without_being_asked_again() {
    if !has_crash_points() {
        return;
    }
    // The second of two that come at once is recorded, and waits for the first.
    let mut durable = Durable::start().await;
    let mut client = durable.client("one").await;
    client.execute("gate", cob_tests::kernel::GATE, Asked::default()).await;
    client.until(|came| came.key == "gate" && came.msg_type == "execute_input").await.unwrap();
    client.execute("a", &code(&durable, "a"), asked("a")).await;
    while !durable.look().executions.iter().any(|stored| stored.key() == Some("a")) {
        // Answered by the session's loop, behind what came before it.
        client.ask("kernel_info_request").await.unwrap();
    }
    durable.kill().await;
    drop(client);
    assert_eq!(durable.effects.of("a"), 0);
    durable.start_again().await;
    let mut client = durable.client("one").await;
    durable.kernel.open_gate();
    let reply = client.until(|came| came.key == "a" && came.is_state("idle")).await;
    assert!(reply.is_some());
    assert_eq!(durable.effects.of("a"), 1);
    assert_eq!(again(&durable, &mut client).await["status"], "ok");
    assert!(client.run("gate", cob_tests::kernel::GATE, Asked::default()).await.is_some());
    drop(client);
    durable.finish().await;
}

/// The worker outlives the server, and what it was or was not told is known.
async fn goes_on_after(point: &str) {
    if !has_crash_points() {
        return;
    }
    let (mut durable, first) = died_at(point).await;
    durable.look();
    let worker = process::marked_with("COB_WORKER=").len();
    assert!(worker > 0);
    durable.start_again().await;
    let mut client = durable.client("one").await;
    let reply = again(&durable, &mut client).await;
    assert_eq!(reply["status"], "ok", "{reply:#}");
    if let Some(first) = first {
        assert_eq!(first, reply);
    }
    assert_eq!(durable.effects.of("a"), 1);
    // It is the same session: its variables are there, and its count goes on.
    let next = client.run("b", "1", Asked::default()).await.unwrap();
    assert_eq!(next["execution_count"], reply["execution_count"].as_u64().unwrap() + 1);
    drop(client);
    durable.finish().await;
}

#[tokio::test]
async fn s03_a_start_that_was_recorded_and_not_sent_is_sent_to_the_worker_that_is_still_there() {
    goes_on_after("start_committed").await;
}

#[tokio::test]
async fn s03_a_frame_that_was_sent_is_not_sent_again() {
    goes_on_after("frame_sent").await;
}

#[tokio::test]
async fn s04_output_that_was_recorded_and_not_shown_is_there() {
    goes_on_after("event_committed").await;
}

#[tokio::test]
async fn s04_output_that_was_shown_and_not_acknowledged_is_not_there_twice() {
    goes_on_after("event_sent").await;
}

#[tokio::test]
async fn s05_a_result_that_was_read_and_not_recorded_comes_again() {
    goes_on_after("done_read").await;
}

#[tokio::test]
async fn s06_a_settled_execution_whose_reply_was_not_sent_is_answered_from_the_store() {
    goes_on_after("settled_before_reply").await;
}

#[tokio::test]
async fn s06_a_reply_that_was_sent_comes_again_byte_for_byte() {
    goes_on_after("reply_sent").await;
}

/// The worker ends as well, before a server comes.
async fn is_lost_after(point: &str, effects: std::ops::RangeInclusive<usize>) {
    if !has_crash_points() {
        return;
    }
    let mut durable = Durable::launch_with(&setup(), &crash_at(point));
    let worker = durable.worker().await;
    let mut client = durable.client("one").await;
    client.run("before", "x = 1", Asked::default()).await;
    client.run("a", &code(&durable, "a"), asked("a")).await;
    drop(client);
    durable.dies().await;
    process::signal(worker, Signal::KILL);
    process::ended(worker).await;
    durable.start_again().await;
    let mut client = durable.client("one").await;
    let reply = again(&durable, &mut client).await;
    // The custodian may know already that the worker is gone, or hand over a dead one, whose end is named then.
    assert!(reply["code"] == "execution_lost" || reply["code"] == "worker_lost", "{reply:#}");
    assert_eq!(reply["session_state"], "lost", "{reply:#}");
    assert!(effects.contains(&durable.effects.of("a")));
    let lost = client.run("c", "'x' in globals()", Asked::default()).await.unwrap();
    assert_eq!(lost["status"], "ok");
    let shown = durable.look().executions.iter().find(|stored| stored.key() == Some("a")).cloned().unwrap();
    assert_eq!(shown.promise.state, State::Rejected);
    drop(client);
    durable.finish().await;
}

#[tokio::test]
async fn s03_an_execution_that_was_never_sent_is_lost_with_its_worker_and_not_run() {
    // The first is that of `before`.
    is_lost_after("start_committed:2", 0..=0).await;
}

#[tokio::test]
async fn s05_an_execution_whose_result_was_not_recorded_is_lost_with_its_worker_and_not_run_again() {
    is_lost_after("done_read:2", 1..=1).await;
}

#[tokio::test]
async fn s07_each_of_a_hundred_requests_in_a_group_is_there_or_is_not() {
    if !has_crash_points() {
        return;
    }
    for point in ["commit_begins:20", "commit_half:21", "commit_done:22"] {
        let mut durable = Durable::launch_with(&setup(), &crash_at(point));
        assert!(durable.is_ready().await);
        let mut client = durable.client("one").await;
        let keys: Vec<String> = (0..100).map(|number| format!("k{number:02}")).collect();
        for key in &keys {
            client.execute(key, &code(&durable, key), asked(key)).await;
        }
        while client.next().await.is_some() {}
        drop(client);
        durable.dies().await;
        let sessions = &durable.look().sessions;
        assert!(sessions.iter().any(|session| session.custody.is_some()), "{sessions:?}");
        durable.start_again().await;
        let mut client = durable.client("one").await;
        for key in &keys {
            client.execute(key, &code(&durable, key), asked(key)).await;
        }
        for key in &keys {
            if durable.history.replies(key).is_empty() {
                client.until(|came| came.key == *key && came.is_reply()).await.unwrap();
            }
        }
        client.ask("kernel_info_request").await.unwrap();
        drop(client);
        durable.finish().await;
    }
}
