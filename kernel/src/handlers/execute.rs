//! `execute_request`: from the turn of a cell to its settled promise.

use bytes::Bytes;
use cob_pool::Exit;
use cob_protocol::content::{ErrorReply, ExecuteInput, ExecuteReply, ExecuteRequest, ExecutionState};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::{ErrorText, Event};
use cob_protocol::frame::{Done, DoneStatus, Execute};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::promise::{SessionState, Settlement, State};

use crate::contexts::Context;
use crate::request::ClientRequest;
use crate::session::{Cell, Current, Running, Session};

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
        let running = Box::new(Running { request, promise, cell: Some(cell), error: None, question: None });
        self.begun(running, sent).await;
    }

    /// Busy, and the place that output will belong to.
    pub(crate) async fn open(&mut self, request: &ClientRequest, promise: PromiseId) {
        self.status(ExecutionState::Busy, request.parent());
        self.contexts.open(Context::new(promise, request.parent()));
        if let Err(error) = self.bridge.start(promise).await {
            tracing::error!(%error, "start not recorded");
        }
    }

    /// The worker has the work; what could not be sent fails there and then.
    pub(crate) async fn begun(&mut self, mut running: Box<Running>, sent: Result<(), String>) {
        match sent {
            Ok(()) => self.current = Some(Current::Run(running)),
            Err(why) => {
                let error = ErrorText::coded(ErrorCode::RequestTooLarge, why);
                self.emit(running.promise.execution, Event::Error(error.clone())).await;
                let reply = self.error_reply(&running, &error, Some(ErrorCode::RequestTooLarge));
                running.error = Some(error);
                self.conclude(running, State::Rejected, SessionState::Kept, reply).await;
            }
        }
    }

    /// The worker says that an execution ended: its reply is composed, and its promise settled with it.
    pub(crate) async fn settle(&mut self, mut running: Box<Running>, status: DoneStatus, done: &Done) {
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
                (state, self.error_reply(&running, error, None))
            }
        };
        self.conclude(running, state, SessionState::Kept, reply).await;
    }

    /// The worker went away with the execution.
    pub(crate) async fn lose(&mut self, mut running: Box<Running>, code: ErrorCode, exit: &Exit) {
        self.end_output(&running).await;
        let execution = running.promise.execution;
        let written = self.contexts.get_mut(execution).map_or(0, |context| context.budget.written);
        let error =
            ErrorText::coded(code, format!("the worker {exit}; {written} bytes of its output are kept"));
        self.emit(execution, Event::Error(error.clone())).await;
        let reply = self.error_reply(&running, &error, Some(code));
        running.error = Some(error);
        let state = if code == ErrorCode::ShuttingDown { State::RejectedCanceled } else { State::Rejected };
        self.conclude(running, state, SessionState::Lost, reply).await;
    }

    fn error_reply(&self, running: &Running, error: &ErrorText, code: Option<ErrorCode>) -> Json {
        let (expressions, payload) = (Json::object(), Json::array());
        let reply = ErrorReply {
            code: code.map(ErrorCode::code),
            hint: code.map(ErrorCode::hint),
            execution_count: running.cell.map(|cell| cell.count),
            user_expressions: Some(&expressions),
            payload: Some(&payload),
            ..ErrorReply::new(error)
        };
        Json::of(&reply).unwrap_or_default()
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
