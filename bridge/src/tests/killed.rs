//! A process that is killed: what it was told is recorded is there, in order, and nothing is half there.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};

use cob_protocol::promise::Durability::Process;

use super::*;
use crate::StoreOptions;

const STORE: &str = "COB_TEST_STORE";

/// Runs in a process of its own: pairs of events, one group each; a line for each pair that is recorded.
#[tokio::test]
#[ignore = "started by the test that kills it"]
async fn one_who_records_until_it_is_killed() {
    let Some(folder) = std::env::var_os(STORE) else { return };
    let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::new(folder) };
    let bridge = Bridge::open(&options, clock()).unwrap();
    let id = match bridge.sessions().await.unwrap().is_empty() {
        true => begin(&bridge).await,
        false => another(&bridge).await,
    };
    let mut out = std::io::stdout();
    writeln!(out, "began {id}").unwrap();
    let mut pending = std::collections::VecDeque::new();
    for pair in 0.. {
        let writes = vec![event(id, 2 * pair + 1, "x"), event(id, 2 * pair + 2, "x")];
        pending.push_back((pair, bridge.submit(Process, writes)));
        // Some alone, some in a crowd.
        while pending.len() > pair as usize % 7 {
            let Some((pair, submitted)) = pending.pop_front() else { break };
            submitted.await.unwrap();
            writeln!(out, "recorded {pair}").unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_kill_and_no_group_is_half_there() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "tests::killed::one_who_records_until_it_is_killed",
            ])
            .env(STORE, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let begin = lines.by_ref().find_map(|line| line.split_once("began ").map(|(_, id)| id.to_owned()));
        let id: PromiseId = begin.unwrap().parse().unwrap();
        assert_eq!(id.execution, round);
        for _ in 0..round * 40 {
            lines.next().unwrap();
        }
        child.kill().unwrap();
        // What it had said by then counts too; the last line may be cut.
        let rest: Vec<String> = lines.filter(|line| line.starts_with("recorded ")).collect();
        child.wait().unwrap();
        let recorded = round * 40 + (rest.len() as u64).saturating_sub(1);
        let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::new(folder.path()) };
        let bridge = Bridge::open(&options, clock()).unwrap();
        let mut follower = bridge.follow(id, 1);
        let mut last = 0;
        let next = bridge.unsettled(SESSION).await.unwrap().last().unwrap().next_event;
        while last + 1 < next {
            for recorded in follower.next(1024).await.unwrap() {
                last += 1;
                assert_eq!(recorded.number, last);
            }
        }
        assert!(last >= 2 * recorded, "{last} events, and {recorded} pairs were answered");
        assert_eq!(last % 2, 0, "half of a group is there");
        assert_eq!(bridge.metrics().pending.executions as u64, round);
        bridge.close().await;
    }
}
