//! L: many sessions, many agents, many promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use cob_tests::agents::{Agent, PLENTY, Serve, are_whole, setup, text};
use cob_tests::seed::Seed;
use serde_json::json;
use tokio::task::JoinSet;

use super::{counted, counting};

#[tokio::test]
async fn l02_many_sessions_print_at_once_and_each_sees_all_of_its_own_and_nothing_else() {
    sessions_print(50, 200).await;
}

#[tokio::test]
#[ignore = "a thousand workers"]
async fn l02_a_thousand_sessions_print_at_once() {
    sessions_print(1_000, 200).await;
}

async fn sessions_print(count: usize, lines: usize) {
    const AGENTS: usize = 5;
    let serve = Arc::new(Serve::start().await);
    let mut agents = JoinSet::new();
    for number in 0..AGENTS {
        let serve = Arc::clone(&serve);
        agents.spawn(async move {
            let mut agent = serve.recorded(&format!("agent-{number}")).await;
            let mut sent = Vec::new();
            for nth in 0..count / AGENTS {
                let (session, key) = (agent.open().await, format!("t{number}x{nth}"));
                let (code, asked) = counting(&serve, &key, lines);
                let id = agent.execute_as(&session, &key, &code, asked).await;
                sent.push((session, key, id));
            }
            for (session, key, id) in sent {
                let reply = agent.reply(&id).await;
                assert_eq!(reply.content["status"], "ok", "{reply:?}");
                let events = agent.events(&id);
                are_whole(&events);
                assert_eq!(text(&events), counted(&key, lines));
                let promise = format!("{session}.e1");
                assert!(events.iter().all(|event| event.content["promise"] == *promise));
            }
            let strange = agent.aside().iter().filter(|got| got.msg_type != "ack");
            assert_eq!(strange.count(), 0);
        });
    }
    while let Some(outcome) = agents.join_next().await {
        outcome.unwrap();
    }
    Arc::into_inner(serve).expect("nobody else has it").finish().await;
}

#[tokio::test]
async fn l04_promises_that_many_agents_settle_in_any_order_are_settled_once_each() {
    const SESSIONS: usize = 3;
    const QUEUED: usize = 200;
    const AGENTS: u64 = 8;
    let serve = Serve::start().await;
    let mut owner = serve.agent("owner").await;
    let mut promises = Vec::new();
    let mut blocked = Vec::new();
    for _ in 0..SESSIONS {
        let session = owner.open().await;
        let id = owner.execute(&session, "blocks", "print('on', flush=True)\nwhile True: pass").await;
        owner.printed(&id, "on\n").await;
        for number in 0..QUEUED {
            let content = json!({ "session_id": session, "code": serve.effects.python("never"), "idempotency_key": format!("q{number}") });
            let id = owner.send("execute_request", content).await;
            let ack = owner.take("ack", |got| got.msg_type == "ack" && got.parent == id).await;
            promises.push((ack.content["promise"].as_str().unwrap().to_owned(), id));
        }
        blocked.push((session, id));
    }
    let mut agents = JoinSet::new();
    for number in 0..AGENTS {
        let mut agent = serve.agent(&format!("agent-{number}")).await;
        let mut names: Vec<String> = promises.iter().map(|(promise, _)| promise.clone()).collect();
        agents.spawn(async move {
            let mut seed = Seed::new(number);
            let mut outcomes: Vec<(String, String)> = Vec::new();
            while !names.is_empty() {
                let promise = names.swap_remove(seed.below(names.len()));
                let reply = agent.ask("cancel", json!({ "promise": promise })).await;
                let said = reply["state"].as_str().or(reply["code"].as_str()).unwrap_or_default();
                outcomes.push((promise, said.to_owned()));
            }
            outcomes
        });
    }
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Some(outcomes) = agents.join_next().await {
        outcomes.unwrap().into_iter().for_each(|(promise, what)| said.entry(promise).or_default().push(what));
    }
    for (promise, mut outcomes) in said {
        outcomes.sort();
        let mut wanted = vec!["already_settled"; AGENTS as usize - 1];
        wanted.push("queued");
        assert_eq!(outcomes, wanted, "{promise}");
    }
    for (_, id) in &promises {
        assert_eq!(owner.reply(id).await.content["code"], "canceled");
    }
    for (session, id) in blocked {
        owner.ok("interrupt", json!({ "session_id": session })).await;
        assert_eq!(owner.reply(&id).await.content["ename"], "KeyboardInterrupt");
    }
    assert_eq!(serve.effects.of("never"), 0);
    drop(owner);
    // The same keys were used in several sessions.
    serve.end_unchecked().await;
}

#[tokio::test]
async fn two_hundred_agents_at_one_server_are_all_served() {
    const AGENTS: usize = 200;
    let serve = Arc::new(Serve::start_as(setup().spares(4)).await);
    let mut opener = serve.agent("opener").await;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(opener.open().await);
    }
    let mut connected = Vec::new();
    for number in 0..AGENTS {
        connected.push(serve.recorded(&format!("agent-{number}")).await);
    }
    let mut agents = JoinSet::new();
    for (number, mut agent) in connected.into_iter().enumerate() {
        let (serve, session) = (Arc::clone(&serve), sessions[number % sessions.len()].clone());
        agents.spawn(async move {
            let key = format!("k{number}");
            let (code, asked) = counting(&serve, &key, 2);
            let id = agent.execute_as(&session, &key, &code, asked).await;
            let follow = json!({ "session_id": session, "from": 1, "credit": PLENTY });
            let followed = agent.send("subscribe", follow).await;
            let reply = agent.reply(&id).await;
            assert_eq!(reply.content["status"], "ok", "{reply:?}");
            assert_eq!(text(&agent.events(&id)), counted(&key, 2));
            // It may also see what others run in its session.
            agent
                .take("its own execution, followed", |got| {
                    got.msg_type == "execution_began" && got.content["subscription"] == *followed
                })
                .await;
            agent
        });
    }
    let mut kept: Vec<Agent> = Vec::new();
    while let Some(agent) = agents.join_next().await {
        kept.push(agent.unwrap());
    }
    for session in sessions {
        opener.ok("session_close", json!({ "session_id": session })).await;
    }
    drop((kept, opener));
    Arc::into_inner(serve).expect("nobody else has it").finish().await;
}
