//! Promises: get, wait, list, cancel.

use std::time::Duration;

use cob_bridge::{BridgeError, Filter};
use cob_protocol::content::agent::{Cancel, PromiseGet, PromiseList, PromiseWait};
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::limits::PAGE_MAX;
use cob_protocol::promise::Promise;
use serde::Serialize;
use serde_json::json;

use super::with_promise;
use crate::request::{Command, Refusal};
use crate::server::agents::{Agents, ask, sees};
use crate::server::outlet::outcome;
use crate::server::ticket::Ticket;
use crate::server::views;

#[derive(Serialize)]
struct One {
    promise: Json,
}

#[derive(Serialize)]
struct Many {
    promises: Vec<Json>,
}

pub(super) fn get(ticket: Ticket, body: PromiseGet) {
    ticket.spawn(|ticket| async move {
        let found = found(&ticket, &body).await;
        ticket.settle(found.map(|promise| One { promise }));
    });
}

async fn found(ticket: &Ticket, body: &PromiseGet) -> Result<Json, Refusal> {
    let (who, agents) = (ticket.who()?, &ticket.agents);
    let promise = match (body.promise, body.session_id, &body.idempotency_key) {
        (Some(id), None, None) => {
            agents.may_see(who, id.session).await?;
            agents.bridge.promise(id).await?.ok_or(BridgeError::Unknown(id))?
        }
        (None, Some(session), Some(key)) => {
            agents.may_see_known(who, session).await?;
            let found = agents.bridge.find(session, &who.principal, key).await?;
            let unknown = || format!("`{}` has no promise with the key `{key}` in {session}", who.principal);
            found.ok_or_else(|| Refusal::new(ErrorCode::UnknownPromise, unknown()))?
        }
        _ => return Err(Refusal::bad("give `promise`, or `session_id` and `idempotency_key`")),
    };
    let request = asked(agents, &promise).await?;
    Ok(views::promise(&promise, request.as_ref()))
}

/// What an open call asks.
async fn asked(agents: &Agents, promise: &Promise) -> Result<Option<Json>, Refusal> {
    if promise.id.call.is_none() || promise.state.is_settled() {
        return Ok(None);
    }
    Ok(agents.bridge.request(promise.id).await?)
}

pub(super) fn wait(ticket: Ticket, body: &PromiseWait) {
    let (id, timeout) = (body.promise, body.timeout_ms.map(Duration::from_millis));
    // From here on it is not missed if the end cannot be recorded.
    let handle = ticket.agents.directory.get(id.session);
    let unrecorded = handle.map(|handle| handle.outlet.watch_unrecorded(id));
    ticket.spawn(move |ticket| async move {
        if let Err(refusal) = may_see(&ticket, id).await {
            return ticket.refuse(&refusal);
        }
        let unrecorded = async move {
            match unrecorded {
                Some(unrecorded) => unrecorded.await,
                None => std::future::pending().await,
            }
        };
        let settled = tokio::select! {
            biased;
            settled = settled(&ticket, id, timeout) => settled,
            reply = unrecorded => {
                let code = outcome(&reply);
                return ticket.send(reply, Json::object(), code);
            }
        };
        ticket.settle(settled.map(|promise| One { promise }));
    });
}

async fn may_see(ticket: &Ticket, id: PromiseId) -> Result<(), Refusal> {
    ticket.agents.may_see(ticket.who()?, id.session).await
}

async fn settled(ticket: &Ticket, id: PromiseId, timeout: Option<Duration>) -> Result<Json, Refusal> {
    let settled = ticket.agents.bridge.wait(id);
    let promise = match timeout {
        None => settled.await?,
        Some(timeout) => tokio::time::timeout(timeout, settled).await.map_err(|_| {
            let why = format!("{id} is not settled after {} ms", timeout.as_millis());
            Refusal::new(ErrorCode::NotSettled, why)
        })??,
    };
    Ok(views::promise(&promise, None))
}

pub(super) fn list(ticket: Ticket, body: PromiseList) {
    ticket.spawn(|ticket| async move {
        let promises = listed(&ticket, &body).await;
        ticket.settle(promises.map(|promises| Many { promises }));
    });
}

async fn listed(ticket: &Ticket, body: &PromiseList) -> Result<Vec<Json>, Refusal> {
    let (who, agents) = (ticket.who()?, &ticket.agents);
    let count_max = body.count.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let sessions: Vec<Option<SessionId>> = match body.session_id {
        Some(session) => {
            agents.may_see_known(who, session).await?;
            vec![Some(session)]
        }
        None if who.is_operator() => vec![None],
        None => {
            let records = agents.bridge.sessions().await?;
            let is_done = |session| body.after.is_some_and(|after| after.session > session);
            let mine = records.iter().filter(|record| sees(who, record) && !is_done(record.session));
            mine.map(|record| Some(record.session)).collect()
        }
    };
    let mut views = Vec::new();
    for session in sessions {
        if views.len() >= count_max {
            break;
        }
        let (kind, is_settled, after) = (body.kind, body.settled, body.after);
        let filter = Filter { session, kind, is_settled, after, count_max: count_max - views.len() };
        for promise in agents.bridge.promises(&filter).await? {
            let request = asked(agents, &promise).await?;
            views.push(views::listed(&promise, request.as_ref()));
        }
    }
    Ok(views)
}

pub(super) fn cancel(ticket: Ticket, body: &Cancel) {
    let id = body.promise;
    if id.call.is_some() {
        let why = format!("{id} is a call, which is answered; cancel the execution that asks");
        return ticket.refuse(&Refusal::bad(why));
    }
    with_promise(ticket, id, |ticket, handle| match ask(&handle, |asked| Command::Cancel(id, asked)) {
        Ok(canceled) => ticket.later(async move { Ok(json!({ "state": canceled.await? })) }),
        Err(refusal) => ticket.refuse(&refusal),
    });
}
