//! What sessions with checkpoints leave behind when they are closed: nothing.

use std::time::{Duration, Instant};

use cob_tests::bundles::files;
use cob_tests::process;
use cob_tests::server::SPARES;

use super::*;

/// What a server has of the system.
#[derive(Debug, PartialEq)]
struct Has {
    /// Children that live, with what they are.
    children: Vec<String>,
    descriptors: Vec<String>,
    chunks: usize,
}

/// Children that have ended and were not waited for.
fn zombies(of: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut rest = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        rest.next() == Some("Z") && rest.next() == Some(of.to_string().as_str())
    };
    pids.filter(is_one).collect()
}

fn has(serve: &Serve) -> Has {
    let pid = serve.server.pid();
    let mut children: Vec<_> = process::children(pid).into_iter().map(process::command_line).collect();
    children.sort();
    let mut descriptors: Vec<_> = process::descriptors(pid).into_values().collect();
    descriptors.sort();
    Has { children, descriptors, chunks: files(&serve.store()).len() }
}

/// A session that has done all that can be done with checkpoints, and its branches are closed.
async fn whole_life(agent: &mut Agent, key: &str) {
    let session = agent.open().await;
    printed(agent, &session, &format!("{key}1"), MAKE).await;
    agent.ok("checkpoint", json!({ "session_id": session, "label": "one" })).await;
    let id = stored(agent, &session).await;
    printed(agent, &session, &format!("{key}2"), "shared.append(2)").await;
    agent.ok("restore", json!({ "session_id": session, "label": "one" })).await;
    let branches = agent.ok("fork", json!({ "session_id": session, "count": 2 })).await["sessions"].clone();
    let branch = branches[0].as_str().unwrap();
    printed(
        agent,
        branch,
        &format!("{key}3"),
        "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])",
    )
    .await;
    let crash = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)";
    let (reply, _) = agent.run(&session, &format!("{key}4"), crash).await;
    assert_eq!(reply["session_state"], "restored", "{reply:#}");
    let hibernate = json!({ "session_id": session, "force": true });
    let slept = name(&agent.ok("hibernate", hibernate).await["checkpoint"]);
    assert_eq!(printed(agent, &session, &format!("{key}5"), LOOK).await, "True 2304000 [1]\n");
    for id in [id, slept] {
        agent.ok("checkpoint_delete", json!({ "checkpoint": id })).await;
    }
    for session in [json!(session), branches[0].clone(), branches[1].clone()] {
        agent.ok("session_close", json!({ "session_id": session })).await;
    }
}

#[tokio::test]
async fn sessions_with_checkpoints_leave_nothing_behind_when_they_are_closed() {
    let serve = Serve::start_as(with_grace(15)).await;
    let mut agent = serve.agent("a").await;
    // The first one makes what all share: zygotes, spares, connections to the store.
    whole_life(&mut agent, "first").await;
    // What was given up goes soon after, and nothing tells when: processes are reaped, files are removed.
    let give_up = Instant::now() + Duration::from_secs(20);
    let quiet = |wanted: Option<&Has>| {
        loop {
            let now = has(&serve);
            let is_clear = now.chunks == 0 && zombies(serve.server.pid()).is_empty();
            let is_it = wanted.map_or_else(|| has(&serve) == now, |wanted| now == *wanted);
            if (is_clear && is_it) || Instant::now() > give_up {
                assert!(is_clear, "{:?} {now:#?}", zombies(serve.server.pid()));
                return now;
            }
            std::thread::yield_now();
        }
    };
    // Sessions have a zygote of their own.
    serve.server.holds(2 * SPARES, 0).await;
    agent.settle().await;
    let before = quiet(None);
    for round in 0..5 {
        whole_life(&mut agent, &format!("r{round}")).await;
    }
    // Sessions have a zygote of their own.
    serve.server.holds(2 * SPARES, 0).await;
    agent.settle().await;
    assert_eq!(quiet(Some(&before)), before);
    drop(agent);
    ends_clean(serve).await;
}
