//! What the server holds and does: `server_info`, `metrics`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::hello::limits;
use crate::server::agents::Agents;
use crate::server::interceptors::Figures;
use crate::server::metrics::{Exposition, METRICS};
use crate::server::peers::Who;
use crate::server::ticket::Ticket;

pub(super) fn server(ticket: Ticket) {
    ticket.spawn(|ticket| async move {
        let mut pool = pool(&ticket.agents).await;
        // They name the interpreters of everybody.
        if !ticket.who().is_ok_and(Who::is_operator)
            && let Some(pool) = pool.as_object_mut()
        {
            pool.remove("environments");
        }
        let info = json!({
            "server": ticket.agents.server(),
            "sessions": sessions(&ticket.agents),
            "checkpoints": checkpoints(&ticket.agents),
            "pool": pool,
            "records": ticket.agents.bridge.metrics(),
            "endpoint": endpoint(&ticket.agents),
            "interceptors": interceptors(&ticket.agents),
            "limits": limits(),
        });
        ticket.ok(info);
    });
}

pub(super) fn metrics(ticket: Ticket) {
    ticket.spawn(|ticket| async move {
        // What was asked before this is in it.
        ticket.agents.interceptors.caught_up(METRICS).await;
        let pool = pool(&ticket.agents).await;
        let text = exposition(&ticket.agents, &pool);
        ticket.ok(json!({ "text": text }));
    });
}

fn sessions(agents: &Agents) -> Value {
    let open = agents.directory.list();
    let executions: usize = open.iter().map(|handle| handle.open_executions()).sum();
    json!({ "open": open.len(), "open_executions": executions, "by_state": by_state(agents) })
}

/// Of all sessions: what they hold in memory, and what they have done.
fn checkpoints(agents: &Agents) -> Value {
    let (mut held, mut bytes, mut hibernating) = (0, 0, 0);
    for holding in agents.directory.list().iter().map(|handle| handle.outlet.holding()) {
        held += holding.checkpoints;
        bytes += holding.bytes;
        hibernating += usize::from(holding.wakes_at.is_some());
    }
    let mut all = agents.directory.deeds().figures();
    all["in_memory"] = json!(held);
    all["in_memory_bytes"] = json!(bytes);
    all["hibernating_sessions"] = json!(hibernating);
    all
}

fn by_state(agents: &Agents) -> BTreeMap<String, u64> {
    let mut states = BTreeMap::new();
    for handle in agents.directory.list() {
        let state = handle.outlet.watch().borrow().state;
        // Every state is written as a word.
        if let Ok(Value::String(state)) = serde_json::to_value(state) {
            *states.entry(state).or_default() += 1;
        }
    }
    states
}

async fn pool(agents: &Agents) -> Value {
    (agents.config.pool)().await.read().unwrap_or_default()
}

fn endpoint(agents: &Agents) -> Value {
    let counters = agents.sender.counters();
    let (peers, subscriptions) = agents.peers.count();
    let connections = counters.connections;
    json!({
        "peers": peers,
        "subscriptions": subscriptions,
        "admitted": connections.admitted,
        "rejected": connections.rejected,
        "malformed": connections.malformed,
        "cut_off": connections.cut_off,
        "taken_over": connections.taken_over,
        "accept_errors": connections.accept_errors,
        "dropped": counters.dropped,
    })
}

fn interceptors(agents: &Agents) -> Value {
    let all = agents.interceptors.figures().into_iter();
    Value::Object(all.map(|(name, figures)| (name.to_owned(), json!(figures))).collect::<Map<_, _>>())
}

const CHECKPOINTS: &str = "A figure of checkpoints: `cob info` explains them.";

fn exposition(agents: &Agents, pool: &Value) -> String {
    let mut text = Exposition::default();
    agents.tally.write(&mut text);
    text.family("cob_sessions", "gauge", "Open sessions, by state.");
    for (state, count) in by_state(agents) {
        text.sample("cob_sessions", &[("state", &state)], count);
    }
    let executions: usize = agents.directory.list().iter().map(|handle| handle.open_executions()).sum();
    text.one("cob_open_executions", "gauge", "Executions that wait, run or are delivered.", executions);
    for (name, value) in checkpoints(agents).as_object().into_iter().flatten() {
        let is_now = ["in_memory", "in_memory_bytes", "hibernating_sessions"].contains(&name.as_str());
        let (kind, suffix) = if is_now { ("gauge", "") } else { ("counter", "_total") };
        text.one(&format!("cob_checkpoints_{name}{suffix}"), kind, CHECKPOINTS, value);
    }
    let records = json!(agents.bridge.metrics());
    text.numbers("cob_records", "A figure of the records: `cob info` explains them.", &records);
    text.numbers("cob_pool", "A figure of the pool of workers: `cob info` explains them.", pool);
    text.numbers("cob_endpoint", "A figure of the endpoint of agents.", &endpoint(agents));
    let figures = agents.interceptors.figures();
    let family = |text: &mut Exposition, name, kind, help, figure: fn(&_) -> u64| {
        text.family(name, kind, help);
        for (interceptor, figures) in &figures {
            text.sample(name, &[("name", interceptor)], figure(figures));
        }
    };
    let seen: fn(&Figures) -> u64 = |figures| figures.observed;
    family(&mut text, "cob_interceptor_observed_total", "counter", "What interceptors have seen.", seen);
    let dropped: fn(&Figures) -> u64 = |figures| figures.dropped;
    family(&mut text, "cob_interceptor_dropped_total", "counter", "What they have not seen.", dropped);
    let slow: fn(&Figures) -> u64 = |figures| figures.over_budget;
    family(&mut text, "cob_interceptor_over_budget_total", "counter", "What took them too long.", slow);
    let out: fn(&Figures) -> u64 = |figures| u64::from(figures.is_quarantined);
    family(&mut text, "cob_interceptor_quarantined", "gauge", "Whether they see nothing any more.", out);
    text.into_text()
}
