//! Servers that die again and again, at crash points and at any moment, under every kind of operation; and the three
//! recorders compared in the end.

use cob_protocol::crash::POINTS;
use cob_tests::durable::{Client, Durable, crash_at, has_crash_points, setup_with};
use cob_tests::history::Asked;
use cob_tests::seed::Seed;
use serde_json::json;

/// What a client asks for. Everything is asked again after a death, with the same key.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Print,
    Fail,
    Display,
    Ask,
    Flood,
    Durable,
    Exit,
}

const OPERATIONS: [Operation; 7] = [
    Operation::Print,
    Operation::Fail,
    Operation::Display,
    Operation::Ask,
    Operation::Flood,
    Operation::Durable,
    Operation::Exit,
];

impl Operation {
    /// Its code, and what the test knows of it.
    fn code(self, effect: &str, key: &str) -> (String, Asked) {
        let (rest, prints) = match self {
            Self::Print | Self::Durable => {
                (format!("for n in 1, 2, 3: print('{key}', n)"), Some(3 * (key.len() + 3)))
            }
            Self::Fail => (format!("print('{key} 1')\nundefined"), Some(key.len() + 3)),
            Self::Display => {
                let display =
                    "from IPython.display import display\ndisplay({'text/plain': 'shown'}, raw=True)";
                (format!("print('{key} 1')\n{display}\nprint('{key} 2')\n1 + 1"), Some(2 * (key.len() + 3)))
            }
            Self::Ask => (format!("print('{key}', input('who?'))"), Some(key.len() + 5)),
            Self::Flood => {
                (format!("for n in range(5000): print('{key}', 'x' * 90)"), Some(5000 * (key.len() + 92)))
            }
            // Nothing after it is known but that it happened at most once.
            Self::Exit => (format!("print('{key} 1', flush=True)\nimport os\nos._exit(3)"), None),
        };
        let prints = prints.map(|bytes| bytes as u64);
        (format!("{effect}\n{rest}"), Asked { has_effect: true, token: Some(key.to_owned()), prints })
    }
}

/// Asks for one operation; answers what it asks. `false` when the kernel ended first.
async fn ask(client: &mut Client, operation: Operation, effect: &str, key: &str) -> bool {
    send(client, operation, effect, key).await;
    loop {
        let Some(came) = client.next().await else { return false };
        if came.msg_type == "input_request" {
            client.answer(&came, "you").await;
        }
        if came.key == key && came.is_reply() {
            return client.ask("kernel_info_request").await.is_some();
        }
    }
}

/// One operation under a kernel that dies at `point`, if it comes there; then as often as it takes.
async fn dies_once(operation: Operation, point: &str) -> bool {
    // Before the store knows who has the worker, nobody but the grace ends it.
    let mut durable = Durable::launch_with(&setup_with("4"), &crash_at(point));
    if let Operation::Exit = operation {
        durable.expect_errors();
    }
    let effect = durable.effects.python("a");
    let mut has_died = false;
    loop {
        // It may die while it starts, or while somebody connects.
        let mut is_done = false;
        if durable.is_ready().await
            && let Some(mut client) = durable.try_client("one").await
        {
            is_done = ask(&mut client, operation, &effect, "a").await;
        }
        if is_done {
            break;
        }
        assert!(
            !has_died,
            "{operation:?} at {point}: it died again:\n{}",
            durable.kernel.whole_log().join("\n")
        );
        durable.dies().await;
        has_died = true;
        durable.launch_again(&[]);
    }
    durable.finish().await;
    has_died
}

/// A sample of points × operations: each point once, each operation about as often.
#[tokio::test]
async fn s_every_crash_point_is_survived_by_some_operation() {
    if !has_crash_points() {
        return;
    }
    let mut met = Vec::new();
    for (number, (point, _)) in POINTS.iter().enumerate() {
        let operation = if point.starts_with("call_") || point.starts_with("answer_") {
            Operation::Ask
        } else {
            OPERATIONS[number % OPERATIONS.len()]
        };
        if dies_once(operation, point).await {
            met.push(*point);
        }
    }
    // Some are passed only when a server takes over.
    assert!(met.len() * 2 > POINTS.len(), "{met:?}");
}

/// `cargo test -p cob-tests --test faults -- --ignored s_long --test-threads 2`, some minutes.
#[tokio::test]
#[ignore = "the long recipe"]
async fn s_long_every_crash_point_is_survived_by_every_operation() {
    for (point, _) in POINTS {
        for operation in OPERATIONS {
            for passage in [1, 2, 5] {
                dies_once(operation, &format!("{point}:{passage}")).await;
            }
        }
    }
}

/// A server that dies while it takes over from one that died: at `point`, fifty times at most, in the end it starts.
async fn dies_again_and_again(point: &str, times: usize) {
    let mut durable = Durable::start().await;
    let code =
        format!("{}\nprint('a 1')\n{}\nprint('a 2')", durable.effects.python("a"), cob_tests::kernel::GATE);
    let asked = Asked { has_effect: true, token: Some("a".to_owned()), prints: Some(8) };
    let mut client = durable.client("one").await;
    client.execute("a", &code, asked.clone()).await;
    assert!(client.printed("a", "a 1\n").await);
    durable.kill().await;
    drop(client);
    for _ in 0..times {
        durable.launch_again(&crash_at(point));
        durable.dies().await;
    }
    durable.start_again().await;
    durable.kernel.open_gate();
    let mut client = durable.client("one").await;
    let reply = client.run("a", &code, asked).await.unwrap();
    assert_eq!(reply["status"], "ok", "{reply:#}");
    drop(client);
    assert_eq!(durable.look().executions[0].text(), "a 1\na 2\n");
    durable.finish().await;
}

#[tokio::test]
async fn s04_a_server_that_dies_while_it_takes_over_leaves_the_worker_to_the_next() {
    if !has_crash_points() {
        return;
    }
    for point in ["store_opened", "custody_fetched", "custody_deposited", "recovered"] {
        dies_again_and_again(point, 3).await;
    }
}

/// Lives of one store that end at random moments while operations come one after the other.
async fn random_kills(seed: u64, kills: usize) {
    let mut seed = Seed::new(seed);
    let mut durable = Durable::start().await;
    durable.expect_errors();
    let mut open: Vec<(Operation, String)> = Vec::new();
    let mut number = 0;
    for _ in 0..kills {
        // So many messages, and so many turns of the loop, until the blow.
        let (mut messages, turns) = (seed.below(60), seed.below(2000));
        let mut client = durable.client("one").await;
        for (operation, key) in &open {
            send(&mut client, *operation, &durable.effects.python(key), key).await;
        }
        while messages > 0 {
            if open.len() < 4 {
                number += 1;
                let operation = OPERATIONS[seed.below(OPERATIONS.len())];
                let key = format!("k{number:04}");
                send(&mut client, operation, &durable.effects.python(&key), &key).await;
                open.push((operation, key));
            }
            let came = client.next().await.unwrap();
            messages -= 1;
            if came.msg_type == "input_request" {
                client.answer(&came, "you").await;
            }
            if came.is_reply() {
                open.retain(|(_, key)| *key != came.key);
            }
        }
        (0..turns).for_each(|_| std::thread::yield_now());
        durable.kill().await;
        // What it said before it died counts.
        while let Some(came) = client.next().await {
            if came.is_reply() {
                open.retain(|(_, key)| *key != came.key);
            }
        }
        drop(client);
        durable.start_again().await;
    }
    let mut client = durable.client("one").await;
    for (operation, key) in &open {
        assert!(ask(&mut client, *operation, &durable.effects.python(key), key).await);
    }
    drop(client);
    durable.finish().await;
}

async fn send(client: &mut Client, operation: Operation, effect: &str, key: &str) {
    let (code, asked) = operation.code(effect, key);
    let content = json!({ "code": code, "allow_stdin": true, "stop_on_error": false });
    let metadata = match operation {
        Operation::Durable => json!({ "cob": { "durability": "power" } }),
        _ => json!({}),
    };
    client.execute_with(key, &content, &metadata, asked).await;
}

#[tokio::test]
async fn s06_servers_killed_at_random_moments_lose_nothing_and_run_nothing_twice() {
    for seed in [1, 2, 3, 4] {
        random_kills(seed, 10).await;
    }
}

/// `cargo test -p cob-tests --test faults -- --ignored s06_long`, some minutes.
#[tokio::test]
#[ignore = "the long recipe"]
async fn s06_long_five_hundred_random_kills_lose_nothing_and_run_nothing_twice() {
    for seed in 100..120 {
        random_kills(seed, 25).await;
    }
}
