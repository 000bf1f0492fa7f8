//! `execute_request`: from the turn of a cell to its settled promise.

use std::time::Duration;

use bytes::Bytes;
use cob_protocol::content::{ErrorReply, ExecuteInput, ExecuteReply, ExecuteRequest, ExecutionState};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::{ErrorText, Event};
use cob_protocol::frame::{Done, DoneStatus, Execute};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::OUTPUT_KEPT_BYTES_MAX;
use cob_protocol::promise::{SessionState, Settlement, State};
use tokio::time::Instant;

use crate::contexts::{Budget, Context};
use crate::ladder::TimeLeft;
use crate::request::ClientRequest;
use crate::session::{Cell, Current, Running, Session};

/// What cob says of an execution, whatever the code itself said.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) code: ErrorCode,
    pub(crate) evalue: String,
}

impl Verdict {
    fn state(&self) -> State {
        match self.code {
            ErrorCode::ShuttingDown | ErrorCode::InterruptedByForce => State::RejectedCanceled,
            ErrorCode::TimeLimit => State::RejectedTimedOut,
            _ => State::Rejected,
        }
    }
}

impl Running {
    pub(crate) fn new(request: ClientRequest, promise: PromiseId, cell: Option<Cell>) -> Box<Self> {
        Box::new(Self { request, promise, cell, error: None, question: None, time: None })
    }
}

impl Session {
    /// Hands a cell to the worker.
    pub(crate) async fn execute(&mut self, request: ClientRequest, body: ExecuteRequest, promise: PromiseId) {
        let store_history = body.store_history && !body.silent;
        if store_history {
            self.count += 1;
            self.history.push(self.count, body.code.clone());
        }
        let cell = Cell { count: self.count, silent: body.silent, stop_on_error: body.stop_on_error };
        let frame = Execute {
            execution: promise.execution,
            count: cell.count,
            silent: body.silent,
            store_history,
            allow_stdin: body.allow_stdin,
            user_expressions: body.user_expressions.unwrap_or_default(),
            parent: request.parent(),
        };
        self.open(&request, promise).await;
        // The worker starts while the broadcast is being written; what it says is not heard before that is done.
        let sent = self.send(frame.into(), vec![Bytes::from(body.code.clone())]);
        if !cell.silent {
            let input = ExecuteInput { code: &body.code, execution_count: cell.count };
            self.publish("execute_input", request.parent(), &input);
        }
        self.begun(Running::new(request, promise, Some(cell)), sent).await;
    }

    /// Busy, and the place that output will belong to.
    pub(crate) async fn open(&mut self, request: &ClientRequest, promise: PromiseId) {
        self.status(ExecutionState::Busy, request.parent());
        let kept = self.config.limits.output_bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let budget = Budget::new(kept.unwrap_or(OUTPUT_KEPT_BYTES_MAX));
        self.contexts.open(Context::new(promise, request.parent(), budget));
        if let Err(error) = self.bridge.start(promise).await {
            tracing::error!(%error, "start not recorded");
        }
    }

    /// The worker has the work; what could not be sent fails there and then.
    pub(crate) async fn begun(&mut self, mut running: Box<Running>, sent: Result<(), String>) {
        match sent {
            Ok(()) => {
                let limit = self.config.limits.time_ms.map(Duration::from_millis);
                running.time = limit.map(|limit| TimeLeft::start(limit, Instant::now()));
                self.current = Some(Current::Run(running));
            }
            Err(why) => {
                let verdict = Verdict { code: ErrorCode::RequestTooLarge, evalue: why };
                self.overrule(running, verdict, SessionState::Kept).await;
            }
        }
    }

    /// The worker says that an execution ended: its reply is composed, and its promise settled with it. If there is
    /// a verdict it is the outcome.
    pub(crate) async fn settle(&mut self, mut running: Box<Running>, done: &Done, verdict: Option<Verdict>) {
        if let Some(verdict) = verdict {
            return self.overrule(running, verdict, SessionState::Kept).await;
        }
        let status = done.status;
        // An error that was shown need not be how the cell ended: `%tb` shows one, an Output widget catches one.
        if status == DoneStatus::Ok {
            running.error = None;
        }
        let (state, reply) = match &running.error {
            None => {
                let reply = ExecuteReply {
                    status: "ok",
                    execution_count: running.cell.map_or(0, |cell| cell.count),
                    user_expressions: &done.user_expressions,
                    payload: &done.payload,
                };
                (State::Resolved, Json::of(&reply).unwrap_or_default())
            }
            Some(error) => {
                let state = match status {
                    DoneStatus::Interrupted => State::RejectedCanceled,
                    DoneStatus::Ok | DoneStatus::Error => State::Rejected,
                };
                (state, error_reply(&running, ErrorReply::new(error)))
            }
        };
        self.conclude(running, state, SessionState::Kept, reply).await;
    }

    /// The worker went away with the execution.
    pub(crate) async fn lose(&mut self, running: Box<Running>, loss: Verdict) {
        self.end_output(&running).await;
        let context = self.contexts.get_mut(running.promise.execution);
        let kept = context.map_or(0, |context| context.budget.kept());
        let evalue = format!("{}; {kept} bytes of its output are kept", loss.evalue);
        self.overrule(running, Verdict { evalue, ..loss }, SessionState::Lost).await;
    }

    /// The execution ends as cob says.
    async fn overrule(&mut self, mut running: Box<Running>, verdict: Verdict, session: SessionState) {
        let state = verdict.state();
        let error = ErrorText::coded(verdict.code, verdict.evalue);
        self.emit(running.promise.execution, Event::Error(error.clone())).await;
        let reply = error_reply(&running, ErrorReply::coded(&error, verdict.code, session));
        running.error = Some(error);
        self.conclude(running, state, session, reply).await;
    }

    /// Last event, settled promise, then the reply.
    async fn conclude(
        &mut self,
        mut running: Box<Running>,
        state: State,
        session_state: SessionState,
        reply: Json,
    ) {
        let promise = running.promise;
        self.cancel_question(running.question.take()).await;
        let last = self.bridge.get(promise).await.map_or(0, |promise| promise.last_event);
        self.emit(promise.execution, Event::Done { last }).await;
        self.contexts.close(promise.execution);
        let settlement = Settlement { state, value: reply.clone(), session_state };
        if let Err(error) = self.bridge.settle(promise, settlement).await {
            tracing::error!(%error, "promise not settled");
        }
        let failed = running.error.is_some();
        let reply = running.cell.is_some().then_some(reply);
        self.finish_when_flushed(running, reply, failed).await;
    }
}

/// The error reply of an execution, with what belongs to every `execute_reply`.
fn error_reply(running: &Running, reply: ErrorReply<'_>) -> Json {
    let (expressions, payload) = (Json::object(), Json::array());
    let reply = ErrorReply {
        execution_count: running.cell.map(|cell| cell.count),
        user_expressions: Some(&expressions),
        payload: Some(&payload),
        ..reply
    };
    Json::of(&reply).unwrap_or_default()
}
