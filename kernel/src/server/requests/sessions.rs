//! Sessions: open, close, list, look at, interrupt, attach front ends; and the end of the server.

use cob_bridge::{Filter, SessionRecord};
use cob_protocol::content::agent::{
    OfSession, SessionAttach, SessionClose, SessionDetach, SessionInfoRequest, SessionList, SessionOpen,
};
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::limits::PAGE_MAX;
use cob_protocol::message::Outgoing;
use cob_protocol::promise::Kind;
use cob_protocol::registry::Lane;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{done, operator, with_session};
use crate::request::{Command, Phase, Refusal};
use crate::server::agents::{ask, sees, tell};
use crate::server::directory::Handle;
use crate::server::ticket::{Done, Ticket};
use crate::server::views::{SessionView, is_after};

#[derive(Serialize)]
struct Listed {
    sessions: Vec<SessionView>,
}

pub(super) fn open(ticket: Ticket, body: SessionOpen) {
    let principal = match ticket.who() {
        Ok(who) => who.principal.as_ref().to_owned(),
        Err(refusal) => return ticket.refuse(&refusal),
    };
    let opened = (ticket.agents.life.open)(principal, body);
    let agents = ticket.agents.clone();
    ticket.later(async move {
        let session = opened.await?;
        // One that was opened before, by the same key, may be closed by now.
        let state = agents.directory.get(session).map_or(Phase::Closed, |handle| phase(&handle));
        Ok(json!({ "session_id": session.to_string(), "state": state }))
    });
}

fn phase(handle: &Handle) -> Phase {
    handle.outlet.watch().borrow().state
}

pub(super) fn close(ticket: Ticket, body: &SessionClose) {
    let mode = body.mode;
    with_session(ticket, body.session_id, |ticket, handle| {
        done(ticket, &handle, |asked| Command::Close(mode, asked));
    });
}

pub(super) fn interrupt(ticket: Ticket, body: &OfSession) {
    with_session(ticket, body.session_id, |ticket, handle| {
        ticket.settle(tell(&handle, Command::Interrupt).map(|()| Done {}));
    });
}

pub(super) fn restart(ticket: Ticket, body: &OfSession) {
    with_session(ticket, body.session_id, |ticket, handle| done(ticket, &handle, Command::Restart));
}

pub(super) fn list(ticket: Ticket, body: SessionList) {
    ticket.spawn(|ticket| async move {
        let sessions = listed(&ticket, &body).await;
        ticket.settle(sessions.map(|sessions| Listed { sessions }));
    });
}

async fn listed(ticket: &Ticket, body: &SessionList) -> Result<Vec<SessionView>, Refusal> {
    let (who, count_max) = (ticket.who()?, body.count.unwrap_or(PAGE_MAX).min(PAGE_MAX));
    let directory = &ticket.agents.directory;
    if !body.closed {
        let mine = directory.list().into_iter().filter(|handle| {
            (who.is_operator() || handle.owner == *who.principal) && is_after(handle.session(), body.after)
        });
        return Ok(mine.take(count_max).map(|handle| SessionView::open(&handle)).collect());
    }
    let records = ticket.agents.bridge.sessions().await?;
    let mine = records.iter().filter(|record| sees(who, record) && is_after(record.session, body.after));
    let view = |record: &SessionRecord| match directory.get(record.session) {
        Some(handle) => SessionView::open(&handle),
        None => SessionView::closed(record),
    };
    Ok(mine.take(count_max).map(view).collect())
}

pub(super) fn info(ticket: Ticket, body: &SessionInfoRequest) {
    let (session, with_namespace) = (body.session_id, body.namespace);
    ticket.spawn(move |ticket| async move {
        let info = look(&ticket, session, with_namespace).await;
        ticket.settle(info.map(|session| json!({ "session": session })));
    });
}

async fn look(ticket: &Ticket, session: SessionId, with_namespace: bool) -> Result<Value, Refusal> {
    let (who, agents) = (ticket.who()?, &ticket.agents);
    let Some(handle) = agents.open(who, session)? else {
        return written(&SessionView::closed(&agents.record(who, session).await?));
    };
    let (looked, snapshot) = oneshot::channel();
    tell(&handle, Command::Look(looked))?;
    let namespace = if with_namespace { Some(ask(&handle, Command::Namespace)?) } else { None };
    let snapshot = snapshot.await.map_err(|_| Refusal::closed(session))?;
    let filter = Filter {
        session: Some(session),
        kind: Some(Kind::Call),
        is_settled: Some(false),
        count_max: PAGE_MAX,
        ..Filter::default()
    };
    let calls = agents.bridge.promises(&filter).await?;
    let mut info = written(&SessionView::open(&handle))?;
    if let (Value::Object(view), Value::Object(now)) = (&mut info, written(&snapshot)?) {
        // What the session says itself is newer.
        view.extend(now);
        let calls: Vec<_> = calls.iter().map(|call| call.id).collect();
        view.insert("pending_calls".to_owned(), json!(calls));
        if let Some(namespace) = namespace {
            view.insert("namespace".to_owned(), written(&namespace.await?)?);
        }
    }
    Ok(info)
}

fn written(value: &impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(value).map_err(|error| Refusal::new(ErrorCode::StoreFailed, error.to_string()))
}

pub(super) fn attach(ticket: Ticket, body: SessionAttach) {
    // Whoever may only ask for sessions has no say in what the server's user binds.
    if let Err(refusal) = operator(&ticket) {
        return ticket.refuse(&refusal);
    }
    with_session(ticket, body.session_id, |ticket, _| {
        // Not in a task that ends with the connection: what was bound meanwhile must be given up again.
        tokio::spawn(attached(ticket, body));
    });
}

async fn attached(ticket: Ticket, body: SessionAttach) {
    let (session, attachment) = (body.session_id, body.attachment);
    let (agents, connection, parent) =
        (ticket.agents.clone(), ticket.connection.clone(), ticket.parent.clone());
    let ended = match (agents.life.attach)(body).await {
        Ok(ended) => ended,
        Err(refusal) => return ticket.refuse(&refusal),
    };
    connection.attached(session, attachment);
    ticket.ok(Done {});
    tokio::select! {
        biased;
        reason = ended => {
            // Whoever asked for the end knows of it.
            if let (Ok(reason), Some(_)) = (reason, connection.detached(attachment)) {
                let content = json!({ "attachment": attachment, "reason": reason });
                let notice = Outgoing::new("session_detached", parent, Json::from(content));
                connection.send(notice, Lane::Data);
            }
        }
        () = connection.gone() => {
            if connection.detached(attachment).is_some()
                && let Err(refusal) = (agents.life.detach)(session, attachment).await
            {
                tracing::debug!(why = refusal.why, attachment, "the front end was gone already");
            }
        }
    }
}

pub(super) fn detach(ticket: Ticket, body: &SessionDetach) {
    let attachment = body.attachment;
    let Some(session) = ticket.connection.detached(attachment) else {
        let why = format!("this connection has not attached a front end under the number {attachment}");
        return ticket.refuse(&Refusal::bad(why));
    };
    let detached = (ticket.agents.life.detach)(session, attachment);
    ticket.later(async move { detached.await.map(|()| Done {}) });
}

pub(super) fn handover(ticket: Ticket) {
    if let Err(refusal) = operator(&ticket) {
        return ticket.refuse(&refusal);
    }
    let done = (ticket.agents.life.handover)();
    ticket.later(async move { done.await.map(|()| Done {}) });
}
