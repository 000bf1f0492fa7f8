//! Checkpoints while everything around them dies: what a client was told is so, and the session can be used.

mod crashes;
mod large;
mod leftovers;
mod model;
mod random;
mod recovery;
mod savers;

use cob_tests::agents::{Agent, Serve, text};
use cob_tests::bundles;
use cob_tests::server::ServerSetup;
use serde_json::{Value, json};

/// A session with values that are one another's.
const MAKE: &str = "shared = [1]\na = {'s': shared}\nb = {'s': shared}\nblob = bytes(range(256)) * 9000";

/// What became of them.
const LOOK: &str = "print(a['s'] is b['s'] is shared, len(blob), shared)";

/// What code prints that ends well.
async fn printed(agent: &mut Agent, session: &str, key: &str, code: &str) -> String {
    let (reply, events) = agent.run(session, key, code).await;
    assert_eq!(reply["status"], "ok", "{code}: {reply:#}");
    text(&events)
}

/// Takes a durable checkpoint; its name.
async fn stored(agent: &mut Agent, session: &str) -> String {
    let content = json!({ "session_id": session, "durable": true });
    name(&agent.ok("checkpoint", content).await["checkpoint"])
}

fn name(view: &Value) -> String {
    view["checkpoint"].as_str().unwrap().to_owned()
}

fn number(checkpoint: &str) -> u64 {
    checkpoint.split_once(".k").unwrap().1.parse().unwrap()
}

/// The names of all checkpoints of a session.
async fn listed(agent: &mut Agent, session: &str) -> Vec<String> {
    let listed = agent.ok("checkpoint_list", json!({ "session_id": session })).await;
    listed["checkpoints"].as_array().unwrap().iter().map(name).collect()
}

async fn info(agent: &mut Agent, session: &str) -> Value {
    agent.ok("session_info", json!({ "session_id": session })).await["session"].clone()
}

/// The process of the worker of a session.
async fn worker(agent: &mut Agent, session: &str) -> u32 {
    let info = info(agent, session).await;
    u32::try_from(info["worker"]["pid"].as_u64().unwrap_or_else(|| unreachable!("{info:#}"))).unwrap()
}

/// A server whose workers outlive it so long, in seconds.
fn with_grace(seconds: u64) -> ServerSetup {
    let setup = ServerSetup::new().argument("--store").argument("../store").env("PYTHONNOUSERSITE", "1");
    setup.argument("--grace").argument(seconds.to_string()).argument("--drain").argument("1")
}

/// Ends the server; once the next one has cleared up, its store has no file that no bundle needs.
async fn ends_clean(mut serve: Serve) {
    serve.end().await;
    bundles::is_clear(&serve.store()).await;
    drop(serve);
}
