//! What is said when a request is not run, and who hears it.

use cob_bridge::BridgeError;
use cob_protocol::content::{AbortedReply, ErrorReply, ExecutionState};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::ErrorText;
use cob_protocol::json::Json;
use cob_protocol::message::Outgoing;
use cob_protocol::promise::{SessionState, Settlement, State};
use cob_protocol::registry::{self, RequestError};

use crate::dispatch::{Promised, Queued, Work};
use crate::records::Effect;
use crate::request::{Client, ClientRequest};
use crate::session::Session;
use crate::telling::{end_of, refusal_code};

impl Session {
    pub(crate) fn reply_error(
        &mut self,
        request: &ClientRequest,
        code: ErrorCode,
        evalue: &str,
        state: SessionState,
    ) {
        let Some(reply_type) = registry::reply_type(&request.message.header.msg_type) else { return };
        let error = ErrorText::coded_in(code, evalue, state);
        let mut reply = ErrorReply::coded(&error, code, state);
        reply.execution_count = (reply_type == "execute_reply").then_some(self.count);
        if let Ok(content) = Json::of(&reply) {
            self.reply(request, reply_type, content);
        }
    }

    pub(crate) fn refuse_unreadable(&mut self, request: &ClientRequest, error: &RequestError) {
        tracing::warn!(%error, channel = request.channel.as_str(), "request refused");
        self.at_once(request, |session| {
            session.reply_error(request, ErrorCode::BadRequest, &error.to_string(), SessionState::Kept);
        });
    }

    pub(crate) fn refuse_bridge(&mut self, request: &ClientRequest, error: &BridgeError) {
        self.at_once(request, |session| {
            session.reply_error(request, refusal_code(error), &error.to_string(), SessionState::Kept);
        });
    }

    /// Refuses everything that waits, because the session is over.
    pub(crate) fn refuse_queue(&mut self, code: ErrorCode, why: &str) {
        self.refuse_waiting_in(code, why, SessionState::Lost);
    }

    /// Refuses everything that waits; what became of the variables.
    pub(crate) fn refuse_waiting_in(&mut self, code: ErrorCode, why: &str, state: SessionState) {
        for request in std::mem::take(&mut self.waiting_for_ready) {
            self.at_once(&request, |session| session.reply_error(&request, code, why, state));
        }
        self.refuse_turns_in(code, why, state);
    }

    /// Refuses what waits its turn.
    pub(crate) fn refuse_turns(&mut self, code: ErrorCode, why: &str) {
        self.refuse_turns_in(code, why, SessionState::Lost);
    }

    /// Refuses what waits its turn; what became of the variables.
    pub(crate) fn refuse_turns_in(&mut self, code: ErrorCode, why: &str, state: SessionState) {
        for queued in self.queue.take_all(|_| true) {
            self.queue_bytes -= queued.request.bytes();
            self.refuse_in(queued, code, why, state);
        }
    }

    /// A request will not run, because the session is over.
    pub(crate) fn refuse(&mut self, queued: Queued, code: ErrorCode, why: &str) {
        self.refuse_in(queued, code, why, SessionState::Lost);
    }

    /// A request will not run; what became of the variables.
    pub(crate) fn refuse_in(&mut self, queued: Queued, code: ErrorCode, why: &str, state: SessionState) {
        let error = ErrorText::coded_in(code, why, state);
        let mut reply = ErrorReply::coded(&error, code, state);
        reply.execution_count = matches!(queued.work, Work::Execute(_)).then_some(self.count);
        let content = Json::of(&reply).unwrap_or_default();
        self.cancel(queued, State::RejectedCanceled, content, state);
    }

    /// After an error: the executions that this client has queued are not run.
    pub(crate) fn abort_queued_of(&mut self, client: &Client) {
        let is_theirs =
            |queued: &Queued| queued.request.client.is(client) && matches!(queued.work, Work::Execute(_));
        for queued in self.queue.take_all(is_theirs) {
            self.abort(queued);
        }
        // Those that are being recorded stand behind it as well.
        self.arrivals.abort(client);
    }

    /// One of them.
    pub(crate) fn abort(&mut self, queued: Queued) {
        self.queue_bytes -= queued.request.bytes();
        let reply = AbortedReply { status: "aborted", execution_count: self.count };
        let content = Json::of(&reply).unwrap_or_default();
        self.cancel(queued, State::RejectedCanceled, content, SessionState::Kept);
    }

    /// Settles the promise of a request that will not run, and answers all who asked for it: like every retry later.
    pub(crate) fn cancel(&mut self, queued: Queued, state: State, value: Json, session_state: SessionState) {
        let Queued { request, promised, .. } = queued;
        if let Some(Promised { id, durability, .. }) = promised {
            let settlement = Settlement::silent(state, value.clone(), session_state);
            self.write_surely(durability, end_of(id, settlement));
        }
        let promise = promised.map(|promised| promised.id);
        if let Some(promise) = promise {
            self.records.then(Effect::Unrecorded { promise, reply: value.clone() });
        }
        let joined = promise.map(|id| self.take_joined(id)).unwrap_or_default();
        self.status(ExecutionState::Busy, &request);
        let joined = joined.into_iter().map(|joined| (joined.request, joined.is_resent));
        for (request, is_resent) in std::iter::once((request, false)).chain(joined) {
            // Agents are told from the journal what became of a promise.
            if (promise.is_none() || !request.is_agents())
                && let Some(reply_type) = registry::reply_type(&request.message.header.msg_type)
            {
                let message = Outgoing::new(reply_type, request.parent(), value.clone());
                let (channel, address) = (request.channel, request.client.address.clone());
                self.records.then(Effect::Answer { promise, channel, address, message });
            }
            if !is_resent {
                self.status(ExecutionState::Idle, &request);
            }
        }
    }
}
