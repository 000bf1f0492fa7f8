//! The cases of the catalogue at the agent endpoint of `cob serve`.

mod clients;
mod floods;
mod front_ends;
mod load;
mod networks;
mod protocol;
mod servers;

use cob_tests::agents::{Agent, Serve};
use cob_tests::history::Asked;
use serde_json::{Value, json};

/// What is known of code that leaves its effect and prints so many bytes, each line of them begun with its token.
fn asked(token: &str, prints: usize) -> Asked {
    Asked { has_effect: true, token: Some(token.to_owned()), prints: Some(prints as u64) }
}

/// Code that leaves its effect, then prints numbered lines; and how many bytes that is.
fn counting(serve: &Serve, key: &str, lines: usize) -> (String, Asked) {
    let (effect, token) = (serve.effects.python(key), token(key));
    let code = format!("{effect}\nfor n in range({lines}): print('{token}', n)");
    (code, asked(&token, counted(key, lines).len()))
}

/// What that prints.
fn counted(key: &str, lines: usize) -> String {
    (0..lines).map(|number| format!("{} {number}\n", token(key))).collect()
}

/// What no other key's token contains.
fn token(key: &str) -> String {
    format!("[{key}]")
}

/// The server is there for everybody.
async fn serves(serve: &Serve) {
    let mut agent = serve.agent("somebody").await;
    let session = agent.open().await;
    let (reply, _) = agent.run(&session, "served", "1 + 1").await;
    assert_eq!(reply["status"], "ok", "{reply:#}");
    close(&mut agent, &session).await;
}

async fn close(agent: &mut Agent, session: &str) {
    agent.ok("session_close", json!({ "session_id": session })).await;
}

/// What a promise looks like.
async fn view(agent: &mut Agent, promise: &str) -> Value {
    agent.ok("promise_get", json!({ "promise": promise })).await["promise"].clone()
}
