//! C12: networks that are slow, crumble, break and swallow; and storms of agents that come back.

use std::time::Duration;

use cob_tests::agents::{Agent, Got, Place, Serve, are_whole, text};
use cob_tests::seed::Seed;
use cob_tests::toxic::{Proxy, Toxic};
use cob_tests::within;
use serde_json::json;
use tokio::task::JoinSet;

use super::{counted, counting};

/// More than the server says in one such conversation, so that some are not struck at all.
const CONVERSATION_BYTES: usize = 6_000;

/// Asks on one connection; `None` when that breaks.
async fn attempt(serve: &Serve, place: &Place, session: &str, key: &str) -> Option<(Got, Vec<Got>)> {
    let mut agent = Agent::try_greeted(place, "client").await?;
    agent.record(&serve.history);
    let (code, asked) = counting(serve, key, 3);
    let id = agent.execute_as(session, key, &code, asked).await;
    let reply = agent.try_reply(&id).await?;
    Some((reply, agent.events(&id)))
}

/// Asks under a toxic, and again without it if that was too much for the connection.
async fn answered(serve: &Serve, proxy: &Proxy, toxic: Toxic, session: &str, key: &str) -> (Got, Vec<Got>) {
    let struck = proxy.struck();
    proxy.set(toxic);
    let place = proxy.place();
    let first = async {
        tokio::select! {
            biased;
            outcome = attempt(serve, &place, session, key) => outcome,
            // Nothing else could tell a client that nothing more will come.
            () = proxy.strikes_after(struck), if toxic.is_silent() => None,
        }
    };
    let outcome = first.await;
    proxy.set(Toxic::Clear);
    match outcome {
        Some(outcome) => outcome,
        None => attempt(serve, &place, session, key).await.expect("a connection that stays"),
    }
}

async fn survives(toxics: impl IntoIterator<Item = Toxic>) {
    let serve = Serve::with_port().await;
    let proxies = [Proxy::before(&serve.place()).await, Proxy::before(&serve.port()).await];
    let mut agent = serve.agent("opener").await;
    let session = agent.open().await;
    for (number, toxic) in toxics.into_iter().enumerate() {
        let proxy = &proxies[number % 2];
        let key = format!("k{number}");
        let (reply, events) =
            within(&format!("an answer despite {toxic:?}"), answered(&serve, proxy, toxic, &session, &key))
                .await;
        assert_eq!(reply.content["status"], "ok", "{toxic:?}: {reply:?}");
        are_whole(&events);
        assert_eq!(text(&events), counted(&key, 3), "{toxic:?}");
        assert_eq!(serve.effects.of(&key), 1, "{toxic:?}");
    }
    drop(agent);
    serve.finish().await;
}

fn endings(seeds: std::ops::Range<u64>) -> impl Iterator<Item = Toxic> {
    seeds.flat_map(|seed| Toxic::endings(&mut Seed::new(seed), CONVERSATION_BYTES))
}

#[tokio::test]
async fn c12_connections_that_break_anywhere_cost_no_execution_and_run_none_twice() {
    survives(endings(0..16)).await;
}

#[tokio::test]
#[ignore = "2,500 broken connections: minutes"]
async fn c12_a_great_many_connections_that_break_anywhere() {
    survives(endings(1_000..1_500)).await;
}

#[tokio::test]
async fn c12_slow_and_crumbling_connections_complete() {
    let late = Toxic::Latency(Duration::from_millis(20));
    let slow = Toxic::Bandwidth(20_000);
    survives([late, late, slow, slow, Toxic::Crumbs, Toxic::Crumbs]).await;
}

#[tokio::test]
#[ignore = "as slow as the catalogue has it"]
async fn c12_very_slow_connections_complete() {
    let late = Toxic::Latency(Duration::from_secs(1));
    let slow = Toxic::Bandwidth(1_000);
    survives([late, late, slow, slow]).await;
}

#[tokio::test]
async fn c12_a_storm_of_agents_that_come_back_again_and_again_loses_and_repeats_nothing() {
    const AGENTS: usize = 24;
    const KEYS: usize = 6;
    let serve = std::sync::Arc::new(Serve::start().await);
    let proxy = Proxy::before(&serve.place()).await;
    let mut opener = serve.agent("opener").await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(opener.open().await);
    }
    let mut agents = JoinSet::new();
    let (done, mut progress) = tokio::sync::mpsc::channel(AGENTS * KEYS);
    for agent in 0..AGENTS {
        let (serve, place) = (std::sync::Arc::clone(&serve), proxy.place());
        let (session, done) = (sessions[agent % sessions.len()].clone(), done.clone());
        agents.spawn(async move {
            for number in 0..KEYS {
                let key = format!("k{agent}x{number}");
                let (reply, events) = loop {
                    if let Some(outcome) = attempt(&serve, &place, &session, &key).await {
                        break outcome;
                    }
                };
                assert_eq!(reply.content["status"], "ok", "{reply:?}");
                assert_eq!(text(&events), counted(&key, 3));
                let _ = done.send(()).await;
            }
        });
    }
    drop(done);
    let mut count = 0;
    while within("progress", progress.recv()).await.is_some() {
        count += 1;
        if count % 12 == 0 {
            proxy.sever();
        }
    }
    while let Some(outcome) = agents.join_next().await {
        outcome.unwrap();
    }
    let counts = serve.effects.counts();
    assert_eq!((counts.len(), counts.values().max()), (AGENTS * KEYS, Some(&1)));
    let info = opener.ok("server_info", json!({})).await;
    assert_eq!(info["sessions"]["open"], 4, "{info:#}");
    drop(opener);
    let serve = std::sync::Arc::into_inner(serve).expect("nobody else has it");
    serve.finish().await;
}
