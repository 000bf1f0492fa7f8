//! A request that waits for its reply.
//!
//! **Invariant:** every request gets exactly one reply, if its connection is still there: a ticket that is dropped
//! without one sends an error.

use std::sync::Arc;
use std::time::Instant;

use cob_protocol::error::ErrorCode;
use cob_protocol::json::Json;
use cob_protocol::message::Outgoing;
use cob_protocol::registry::Lane;
use serde::Serialize;
use tracing::Span;

use super::agents::Agents;
use super::interceptors::Observation;
use super::peers::{Connection, Who};
use crate::request::Refusal;
use crate::trace::TraceContext;

/// See the module.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) agents: Arc<Agents>,
    pub(crate) connection: Arc<Connection>,
    /// Header of the request.
    pub(crate) parent: Json,
    pub(crate) msg_id: String,
    /// The request's row.
    pub(crate) kind: Kind,
    /// The trace that it belongs to.
    pub(crate) trace: Option<TraceContext>,
    pub(crate) asked_at: Instant,
    pub(crate) is_answered: bool,
    /// It stands among the open requests of its connection.
    pub(crate) is_open: bool,
}

/// The type of a reply to what has no reply of its own: only errors.
pub(crate) const ERROR_REPLY: &str = "error_reply";

/// What kind of request it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Empty: it has none.
    pub(crate) reply: &'static str,
    pub(crate) lane: Lane,
}

#[derive(Serialize)]
struct Fine<T> {
    status: &'static str,
    #[serde(flatten)]
    fields: T,
}

/// A reply that says nothing but that it is done.
#[derive(Serialize)]
pub(crate) struct Done {}

impl Ticket {
    /// Who asks; nobody gets this far without having said so.
    pub(crate) fn who(&self) -> Result<&Who, Refusal> {
        let why = || Refusal::new(ErrorCode::NotGreeted, "this connection has not said hello");
        self.connection.who().ok_or_else(why)
    }

    /// Makes `span` a part of the trace that the request belongs to.
    pub(crate) fn adopt(&self, span: &Span) {
        if let Some(trace) = &self.trace {
            trace.adopt(span);
        }
    }

    /// It is done: `fields` beside `status`.
    pub(crate) fn ok(self, fields: impl Serialize) {
        match Json::of(&Fine { status: "ok", fields }) {
            Ok(content) => self.send(content, Json::object(), None),
            Err(error) => self.refuse(&Refusal::new(ErrorCode::StoreFailed, error.to_string())),
        }
    }

    /// It is not done.
    pub(crate) fn refuse(self, refusal: &Refusal) {
        self.send(refusal.content(), Json::object(), Some(refusal.code.code()));
    }

    /// Either.
    pub(crate) fn settle(self, outcome: Result<impl Serialize, Refusal>) {
        match outcome {
            Ok(fields) => self.ok(fields),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// A content that was written by somebody else; `code` says what is wrong, if something is.
    pub(crate) fn send(mut self, content: Json, metadata: Json, code: Option<&'static str>) {
        self.answer(content, metadata, code);
    }

    /// As [`Ticket::send`], while the request stays open.
    pub(crate) fn answer(&mut self, content: Json, metadata: Json, code: Option<&'static str>) {
        if std::mem::replace(&mut self.is_answered, true) {
            return;
        }
        let took = self.asked_at.elapsed();
        self.agents.interceptors.observe(Observation::Answered { name: self.kind.name, code, took });
        // What has no reply is told only what is wrong.
        let reply = if self.kind.reply.is_empty() { ERROR_REPLY } else { self.kind.reply };
        if code.is_some() || !self.kind.reply.is_empty() {
            let message = Outgoing { metadata, ..Outgoing::new(reply, self.parent.clone(), content) };
            self.connection.send(message, self.kind.lane);
        }
    }

    /// Does the rest in a task of its own, which ends with the connection.
    pub(crate) fn spawn<F>(self, work: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        let span = tracing::debug_span!("request", kind = self.kind.name, msg_id = self.msg_id);
        self.adopt(&span);
        let work = work(self);
        let task = async move {
            tokio::select! {
                biased;
                () = connection.gone() => {}
                () = work => {}
            }
        };
        tokio::spawn(tracing::Instrument::instrument(task, span));
    }

    /// Waits for an outcome in a task of its own, and answers with it.
    pub(crate) fn later<T: Serialize>(
        self,
        outcome: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) {
        self.spawn(|ticket| async move {
            let outcome = outcome.await;
            ticket.settle(outcome);
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_answered {
            let refusal = Refusal::new(ErrorCode::ShuttingDown, "the server gave the request up");
            self.answer(refusal.content(), Json::object(), Some(refusal.code.code()));
        }
        if self.is_open {
            self.connection.end(&self.msg_id);
        }
    }
}
