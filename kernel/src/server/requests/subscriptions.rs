//! Subscriptions: begin, grant, end.

use cob_protocol::content::agent::{Credit, Subscribe, Unsubscribe};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::EventNumber;
use cob_protocol::ids::{PromiseId, SessionId};
use serde_json::json;

use crate::request::Refusal;
use crate::server::flow::Flow;
use crate::server::line::Line;
use crate::server::reading::{Reader, Style};
use crate::server::subscription::{self, SessionReader};
use crate::server::ticket::{Done, Ticket};

pub(super) fn subscribe(ticket: Ticket, body: &Subscribe) {
    let (from, credit) = (body.from, body.credit);
    match (body.promise, body.session_id) {
        (Some(promise), None) if promise.call.is_some() => {
            ticket.refuse(&Refusal::bad(format!("{promise} is a call, which has no events; wait for it")));
        }
        (Some(promise), None) => of_promise(ticket, promise, from, credit),
        (None, Some(session)) => of_session(ticket, session, from, credit),
        _ => ticket.refuse(&Refusal::bad("give either `promise` or `session_id`")),
    }
}

fn of_promise(ticket: Ticket, promise: PromiseId, from: EventNumber, credit: u64) {
    let line = match Line::open(&ticket, Flow::new(credit, true)) {
        Ok(line) => line,
        Err(refusal) => return ticket.refuse(&refusal),
    };
    let follower = ticket.agents.bridge.follow(promise, from);
    ticket.spawn(move |ticket| async move {
        if let Err(refusal) = exists(&ticket, promise).await {
            return ticket.refuse(&refusal);
        }
        ticket.ok(json!({ "subscription": line.name }));
        subscription::read(Reader::new(line, follower, Style::Events)).await;
    });
}

async fn exists(ticket: &Ticket, promise: PromiseId) -> Result<(), Refusal> {
    ticket.agents.may_see(ticket.who()?, promise.session).await?;
    match ticket.agents.bridge.promise(promise).await? {
        Some(_) => Ok(()),
        None => Err(cob_bridge::BridgeError::Unknown(promise).into()),
    }
}

fn of_session(ticket: Ticket, session: SessionId, from: EventNumber, credit: u64) {
    let line = match Line::open(&ticket, Flow::new(credit, true)) {
        Ok(line) => line,
        Err(refusal) => return ticket.refuse(&refusal),
    };
    let follower = ticket.agents.bridge.follow_session(session, from);
    let handle = ticket.agents.directory.get(session);
    let status = handle.as_ref().map(|handle| handle.outlet.watch());
    let restored = handle.map(|handle| handle.outlet.watch_restored());
    ticket.spawn(move |ticket| async move {
        let seen = match ticket.who() {
            Ok(who) => ticket.agents.may_see_known(who, session).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = seen {
            return ticket.refuse(&refusal);
        }
        ticket.ok(json!({ "subscription": line.name }));
        SessionReader { line, session, follower, status, restored }.read().await;
    });
}

pub(super) fn credit(ticket: Ticket, body: &Credit) {
    // It may have ended a moment ago.
    if let Some(flow) = ticket.connection.flow(&body.subscription) {
        flow.grant(body.credit);
    }
    ticket.ok(Done {});
}

pub(super) fn unsubscribe(ticket: Ticket, body: &Unsubscribe) {
    match ticket.connection.flow(&body.subscription) {
        Some(flow) => {
            ticket.ok(Done {});
            flow.stop();
        }
        None => {
            let why = format!("this connection has no subscription `{}`", body.subscription.escape_debug());
            ticket.refuse(&Refusal::new(ErrorCode::UnknownSubscription, why));
        }
    }
}
