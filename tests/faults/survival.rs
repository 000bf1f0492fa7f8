//! Code that goes on while its server is dead, and the server that takes it over; clients that come and go meanwhile.

use std::time::Duration;

use cob_protocol::promise::State;
use cob_tests::durable::{Durable, crash_at, has_crash_points, setup, setup_with};
use cob_tests::history::Asked;
use cob_tests::kernel::{GATE, Setup};
use cob_tests::{process, within};
use rustix::process::Signal;
use serde_json::json;

fn asked(prints: u64) -> Asked {
    Asked { has_effect: true, token: Some("a".to_owned()), prints: Some(prints) }
}

/// Prints numbered lines, and waits at the gate in the middle.
fn counting(durable: &Durable, lines: usize) -> (String, u64) {
    let effect = durable.effects.python("a");
    let half = lines / 2;
    let code = format!(
        "{effect}\nimport sys\nfor n in range({lines}):\n    print('a', n, file=(sys.stdout, sys.stderr)[n % 2])\n    \
         if n == {half}: {GATE}"
    );
    (code, (0..lines).map(|number| format!("a {number}\n").len() as u64).sum())
}

fn lines(count: usize) -> String {
    (0..count).map(|number| format!("a {number}\n")).collect()
}

#[tokio::test]
async fn s04_code_runs_on_while_its_server_is_dead_and_nothing_it_prints_is_lost() {
    let mut durable = Durable::start().await;
    let worker = durable.worker().await;
    let mut client = durable.client("one").await;
    let (code, bytes) = counting(&durable, 2000);
    client.execute("a", &code, asked(bytes)).await;
    assert!(client.printed("a", "a 998\n").await);
    durable.kill().await;
    drop(client);
    // The second half is printed while nobody listens.
    durable.kernel.open_gate();
    durable.start_again().await;
    assert_eq!(durable.worker().await, worker);
    let mut client = durable.client("one").await;
    let reply = client.run("a", &code, asked(bytes)).await.unwrap();
    assert_eq!(reply["status"], "ok", "{reply:#}");
    drop(client);
    let shown = durable.look().executions[0].text();
    let odd = shown.lines().zip(lines(2000).lines()).position(|(shown, expected)| shown != expected);
    let around = odd.map(|odd| shown.lines().skip(odd.saturating_sub(2)).take(6).collect::<Vec<_>>());
    assert_eq!((shown.lines().count(), odd), (2000, None), "{around:?}");
    durable.finish().await;
}

#[tokio::test]
async fn s04_more_output_than_pipes_and_copies_hold_waits_for_the_next_server() {
    let mut durable = Durable::start().await;
    let mut client = durable.client("one").await;
    // Displays go another way than text: both must wait, in their order.
    let code = format!(
        "{}\nfrom IPython.display import display\n{GATE}\nfor n in range(60):\n    print('a' * 99999)\n    \
         display({{'text/plain': 'd' * 99999, 'n': n}}, raw=True)",
        durable.effects.python("a")
    );
    let asked = asked(60 * 100_000);
    client.execute("a", &code, asked.clone()).await;
    client.until(|came| came.key == "a" && came.msg_type == "execute_input").await.unwrap();
    durable.kill().await;
    drop(client);
    durable.kernel.open_gate();
    durable.start_again().await;
    let mut client = durable.client("one").await;
    let reply = client.run("a", &code, asked).await.unwrap();
    assert_eq!(reply["status"], "ok", "{reply:#}");
    drop(client);
    let kinds: String = {
        let events = &durable.look().executions[0].events;
        let mut kinds: Vec<&str> = events.iter().map(|(_, event)| event.kind()).collect();
        kinds.dedup();
        kinds.join(" ")
    };
    assert_eq!(kinds, format!("{}done", "stream display ".repeat(60)));
    durable.finish().await;
}

#[tokio::test]
async fn s04_a_session_survives_many_servers_in_a_row() {
    let mut durable = Durable::start().await;
    let worker = durable.worker().await;
    let code = format!("{}\nx = 0\nwhile x < 100: pass\nprint('a done')", durable.effects.python("a"));
    let mut client = durable.client("one").await;
    client.execute("a", &code, asked(7)).await;
    client.until(|came| came.key == "a" && came.msg_type == "execute_input").await.unwrap();
    drop(client);
    for _ in 0..4 {
        durable.kill().await;
        durable.start_again().await;
        assert_eq!(durable.worker().await, worker);
    }
    let mut client = durable.client("one").await;
    client.control("interrupt_request").await;
    let reply = client.run("a", &code, asked(7)).await.unwrap();
    assert_eq!(reply["ename"], "KeyboardInterrupt", "{reply:#}");
    let reply = client.run("b", "x", Asked::default()).await.unwrap();
    assert_eq!((&reply["status"], &reply["execution_count"]), (&json!("ok"), &json!(2)));
    drop(client);
    durable.finish().await;
}

#[tokio::test]
async fn s04_a_worker_that_ended_while_its_server_was_dead_is_lost_with_all_it_printed_kept() {
    let mut durable = Durable::start().await;
    let worker = durable.worker().await;
    let mut client = durable.client("one").await;
    let code = format!(
        "{}\nprint('a 1', flush=True)\n{GATE}\nprint('a 2', flush=True)\nimport os\nos.kill(os.getpid(), 9)",
        durable.effects.python("a")
    );
    client.execute("a", &code, asked(8)).await;
    assert!(client.printed("a", "a 1\n").await);
    durable.kill().await;
    drop(client);
    durable.kernel.open_gate();
    process::ended(worker).await;
    durable.start_again().await;
    let mut client = durable.client("one").await;
    let reply = client.run("a", &code, asked(8)).await.unwrap();
    let code = reply["code"].as_str().unwrap_or_default().to_owned();
    assert!(["worker_lost", "execution_lost"].contains(&code.as_str()), "{reply:#}");
    drop(client);
    let text = durable.look().executions[0].text();
    // What it printed before the server died was recorded; the rest is kept if the custodian still had the pipe.
    assert!(text.starts_with("a 1\n") && "a 1\na 2\n".starts_with(&text), "{text:?}");
    if code == "worker_lost" {
        assert_eq!(text, "a 1\na 2\n");
    }
    durable.finish().await;
}

#[tokio::test]
async fn s10_a_second_server_on_the_same_store_is_refused_and_told_who_has_it() {
    let durable = Durable::start().await;
    let mut second = Setup::new().argument("--store").argument(durable.store()).launch();
    let status = within("the refusal", second.end_by_itself()).await;
    assert_eq!(status.code(), Some(1));
    let said = second.log_line("store_locked", 0).await.expect("a reason");
    assert!(said.contains(&durable.kernel.pid().to_string()), "{said}");
    drop(second);
    let mut client = durable.client("one").await;
    assert_eq!(client.run("a", "1", Asked::default()).await.unwrap()["status"], "ok");
    drop(client);
    durable.finish().await;
}

/// Servers that are killed while their workers are busy, and never started again.
async fn all_end_with_the_grace(sessions: usize) {
    const CODE: &str = "\
import subprocess
child = subprocess.Popen(['sleep', '1000000'])
print('a on')
open('../gate').read()";
    let mut servers = Vec::new();
    for _ in 0..sessions {
        let durable = Durable::start_as(&setup_with("1")).await;
        let mut client = durable.client("one").await;
        client.execute("a", CODE, Asked::default()).await;
        assert!(client.printed("a", "a on\n").await);
        servers.push(durable);
    }
    let mut left = Vec::new();
    for server in &servers {
        left.extend(server.kernel.processes().into_iter().filter(|pid| *pid != server.kernel.pid()));
    }
    // Each has a worker, and that a child.
    assert!(left.len() >= 2 * sessions, "{left:?}");
    for server in &mut servers {
        server.kernel.signal(Signal::KILL);
    }
    for server in &mut servers {
        server.kernel.end().await;
    }
    let all = async {
        for pid in left {
            process::ended(pid).await;
        }
    };
    // The grace, and two seconds.
    tokio::time::timeout(Duration::from_secs(3), all).await.expect("nobody outlives the grace");
    for server in &servers {
        assert_eq!(server.kernel.processes(), Vec::<u32>::new());
    }
}

#[tokio::test]
async fn s13_workers_whose_server_never_comes_back_end_with_the_grace_and_so_does_what_they_started() {
    all_end_with_the_grace(3).await;
}

/// `cargo test -p cob-tests --test faults -- --ignored s13_long`, about a minute.
#[tokio::test]
#[ignore = "the long recipe"]
async fn s13_long_fifty_workers_whose_server_never_comes_back_end_with_the_grace() {
    all_end_with_the_grace(50).await;
}

#[tokio::test]
async fn s13_without_a_grace_workers_end_with_their_server_and_what_ran_is_lost() {
    let mut durable = Durable::start_as(&setup_with("0")).await;
    let worker = durable.worker().await;
    let mut client = durable.client("one").await;
    let code = format!("{}\nprint('a 1')\n{GATE}", durable.effects.python("a"));
    client.execute("a", &code, asked(4)).await;
    assert!(client.printed("a", "a 1\n").await);
    durable.kill().await;
    process::ended(worker).await;
    drop(client);
    durable.start_again().await;
    let mut client = durable.client("one").await;
    let reply = client.run("a", &code, asked(4)).await.unwrap();
    assert_eq!((&reply["code"], &reply["session_state"]), (&json!("execution_lost"), &json!("lost")));
    drop(client);
    durable.finish().await;
}

#[tokio::test]
async fn c01_a_question_stays_open_while_its_client_is_away_and_is_answered_once() {
    let mut durable = Durable::start().await;
    let code = format!("{}\nprint('a', input('who?'))", durable.effects.python("a"));
    let mut client = durable.client("one").await;
    client.execute("a", &code, asked(6)).await;
    client.until(|came| came.msg_type == "input_request").await.unwrap();
    drop(client);
    // The same client, back again; and another server in between.
    let mut client = durable.client("one").await;
    client.execute("a", &code, asked(6)).await;
    let question = client.until(|came| came.msg_type == "input_request").await.unwrap();
    assert_eq!(question.json()["prompt"], "who?");
    drop(client);
    durable.kill().await;
    durable.start_again().await;
    let mut client = durable.client("one").await;
    client.execute("a", &code, asked(6)).await;
    let question = client.until(|came| came.msg_type == "input_request").await.unwrap();
    client.answer(&question, "you").await;
    client.answer(&question, "nobody").await;
    assert_eq!(client.finish("a").await.unwrap()["status"], "ok");
    drop(client);
    let snapshot = durable.look();
    assert_eq!(snapshot.executions[0].text(), "a you\n");
    let calls: Vec<_> = snapshot.calls.iter().map(|call| call.state).collect();
    assert_eq!(calls, [State::Resolved]);
    durable.finish().await;
}

/// A question that is open when the server dies at `point`.
async fn asks_again_after(point: &str) {
    if !has_crash_points() {
        return;
    }
    let mut durable = Durable::launch_with(&setup(), &crash_at(point));
    assert!(durable.is_ready().await);
    let code = format!("{}\nprint('a', input('who?'))", durable.effects.python("a"));
    let mut client = durable.client("one").await;
    client.execute("a", &code, asked(6)).await;
    while let Some(came) = client.next().await {
        if came.msg_type == "input_request" {
            client.answer(&came, "you").await;
        }
    }
    drop(client);
    durable.dies().await;
    durable.start_again().await;
    let mut client = durable.client("one").await;
    client.execute("a", &code, asked(6)).await;
    let mut reply = None;
    while reply.is_none() {
        let came = client.next().await.unwrap();
        if came.msg_type == "input_request" {
            client.answer(&came, "you").await;
        }
        reply = came.is_reply().then(|| came.json());
    }
    assert_eq!(reply.unwrap()["status"], "ok");
    client.ask("kernel_info_request").await.unwrap();
    drop(client);
    assert_eq!(durable.look().executions[0].text(), "a you\n");
    durable.finish().await;
}

#[tokio::test]
async fn c01_a_question_that_was_recorded_and_not_put_is_put_by_the_next_server() {
    asks_again_after("call_committed").await;
}

#[tokio::test]
async fn c01_an_answer_that_was_recorded_and_not_given_is_given_by_the_next_server() {
    asks_again_after("answer_committed").await;
}

#[tokio::test]
async fn s04_code_that_waits_at_a_channel_asks_the_next_server_and_what_it_sent_is_there_once() {
    let mut durable = Durable::start().await;
    let code = format!(
        "{}\nimport cob\nc = cob.channel('c')\nc.send(1)\nprint('a waits', flush=True)\n\
         try: c.recv(timeout=1)\nexcept TimeoutError: c.send(2)\nprint('a', c._next)",
        durable.effects.python("a")
    );
    let mut client = durable.client("one").await;
    client.execute("a", &code, asked(12)).await;
    assert!(client.printed("a", "a waits\n").await);
    durable.kill().await;
    drop(client);
    durable.start_again().await;
    let mut client = durable.client("one").await;
    let reply = client.run("a", &code, asked(12)).await.unwrap();
    assert_eq!(reply["status"], "ok", "{reply:#}");
    drop(client);
    assert_eq!(durable.look().executions[0].text(), "a waits\na 3\n");
    durable.finish().await;
}

#[tokio::test]
async fn c01_the_call_of_a_tool_stays_open_while_servers_come_and_go_until_its_time_is_over() {
    let mut durable = Durable::start().await;
    let code = format!(
        "{}\nimport cob\nprint('a asks', flush=True)\n\
         try: cob.tools.call('x', {{}}, timeout=2)\nexcept cob.ToolUnavailable: print('a none')",
        durable.effects.python("a")
    );
    let mut client = durable.client("one").await;
    client.execute("a", &code, asked(14)).await;
    assert!(client.printed("a", "a asks\n").await);
    drop(client);
    durable.kill().await;
    durable.start_again().await;
    let mut client = durable.client("one").await;
    let reply = client.run("a", &code, asked(14)).await.unwrap();
    assert_eq!(reply["status"], "ok", "{reply:#}");
    drop(client);
    let snapshot = durable.look();
    assert_eq!(snapshot.executions[0].text(), "a asks\na none\n");
    assert!(snapshot.calls.iter().all(|call| call.state == State::RejectedTimedOut));
    durable.finish().await;
}

#[tokio::test]
async fn c03_a_client_that_vanishes_gets_the_same_answer_during_and_after() {
    let durable = Durable::start().await;
    let code = format!("{}\nprint('a 1')\n{GATE}\nprint('a 2')", durable.effects.python("a"));
    let mut client = durable.client("one").await;
    client.execute("a", &code, asked(8)).await;
    assert!(client.printed("a", "a 1\n").await);
    drop(client);
    let mut during = durable.client("one").await;
    during.execute("a", &code, asked(8)).await;
    during.ask("kernel_info_request").await.unwrap();
    durable.kernel.open_gate();
    let first = during.finish("a").await.unwrap();
    drop(during);
    let mut after = durable.client("one").await;
    assert_eq!(after.run("a", &code, asked(8)).await.unwrap(), first);
    drop(after);
    durable.finish().await;
}

#[tokio::test]
async fn p09_a_key_with_another_body_is_refused_by_the_next_server_too() {
    let mut durable = Durable::start().await;
    let code = format!("{}\nprint('a 1')", durable.effects.python("a"));
    let mut client = durable.client("one").await;
    client.run("a", &code, asked(4)).await.unwrap();
    drop(client);
    for _ in 0..2 {
        let mut client = durable.client("one").await;
        let refused = client.run("a", &format!("{code}\n2"), asked(4)).await.unwrap();
        assert_eq!(refused["code"], "key_reused", "{refused:#}");
        assert_eq!(client.run("a", &code, asked(4)).await.unwrap()["status"], "ok");
        drop(client);
        durable.kill().await;
        durable.start_again().await;
    }
    durable.finish().await;
}

#[tokio::test]
async fn p10_fifty_at_once_and_fifty_after_a_kill_have_one_effect_and_one_answer() {
    let mut durable = Durable::start().await;
    let code = format!("{}\n{GATE}\nprint('a 1')", durable.effects.python("a"));
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = durable.client("one").await;
        for _ in 0..10 {
            client.execute("a", &code, asked(4)).await;
        }
        client.ask("kernel_info_request").await.unwrap();
        clients.push(client);
    }
    durable.kill().await;
    drop(clients);
    durable.start_again().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = durable.client("one").await;
        for _ in 0..10 {
            client.execute("a", &code, asked(4)).await;
        }
        client.ask("kernel_info_request").await.unwrap();
        clients.push(client);
    }
    durable.kernel.open_gate();
    for client in &mut clients {
        for _ in 0..10 {
            client.until(|came| came.key == "a" && came.is_reply()).await.unwrap();
        }
    }
    drop(clients);
    assert_eq!((durable.effects.of("a"), durable.history.replies("a").len()), (1, 50));
    durable.finish().await;
}
