//! `execute_request`: from the turn of a cell to its settled promise.

use std::time::Duration;

use bytes::Bytes;
use cob_bridge::Write;
use cob_pool::Lane;
use cob_protocol::content::{ErrorReply, ExecuteInput, ExecuteReply, ExecuteRequest, ExecutionState};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::{ErrorText, Event};
use cob_protocol::frame::{Done, DoneStatus, Execute, Frame};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::OUTPUT_KEPT_BYTES_MAX;
use cob_protocol::message::Outgoing;
use cob_protocol::promise::{SessionState, Settlement, State, Tally};
use tokio::time::Instant;

use crate::contexts::{Budget, Context};
use crate::dispatch::{Promised, Queued, options_of};
use crate::ladder::TimeLeft;
use crate::records::Effect;
use crate::replies;
use crate::request::ClientRequest;
use crate::session::{Cell, Current, Finishing, Running, Session};
use crate::telling::store_code;

/// What cob says of an execution, whatever the code itself said.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) code: ErrorCode,
    pub(crate) evalue: String,
}

impl Verdict {
    fn state(&self) -> State {
        match self.code {
            ErrorCode::ShuttingDown
            | ErrorCode::SessionClosed
            | ErrorCode::Restarted
            | ErrorCode::InterruptedByForce => State::RejectedCanceled,
            ErrorCode::TimeLimit | ErrorCode::DeadlinePassed => State::RejectedTimedOut,
            _ => State::Rejected,
        }
    }
}

impl Running {
    pub(crate) fn new(request: ClientRequest, promised: Promised, cell: Option<Cell>) -> Box<Self> {
        Box::new(Self {
            request,
            promise: promised.id,
            is_whole: true,
            durability: promised.durability,
            calls: 0,
            unrecorded: None,
            is_overdue: false,
            is_resumed: false,
            cell,
            error: None,
            question: None,
            wait: None,
            time: None,
            restored: None,
        })
    }

    /// Whether it is a cell that people see: one that can be undone.
    pub(crate) fn is_counted_cell(&self) -> bool {
        self.cell.is_some_and(|cell| !cell.silent)
    }
}

/// A cell as its worker gets it; the code is the payload.
pub(crate) fn execute_frame(
    request: &ClientRequest,
    body: &ExecuteRequest,
    promise: PromiseId,
    cell: Cell,
) -> Frame {
    Execute {
        execution: promise.execution,
        count: cell.count,
        silent: body.silent,
        store_history: cell.is_in_history,
        allow_stdin: body.allow_stdin,
        user_expressions: body.user_expressions.clone().unwrap_or_default(),
        parent: request.parent(),
    }
    .into()
}

impl Session {
    /// Hands a cell to the worker.
    pub(crate) fn execute(&mut self, request: ClientRequest, body: ExecuteRequest, promised: Promised) {
        let promise = promised.id;
        let store_history = body.store_history && !body.silent;
        if store_history {
            self.count += 1;
            self.history.push(self.count, body.code.clone());
        }
        let cell = Cell {
            count: self.count,
            silent: body.silent,
            stop_on_error: body.stop_on_error,
            is_in_history: store_history,
        };
        self.open(&request, promised);
        self.send(
            execute_frame(&request, &body, promise, cell),
            vec![Bytes::from(body.code.clone())],
            Lane::Data,
        );
        if !cell.silent && self.outlet.is_heard() {
            let input = ExecuteInput { code: &body.code, execution_count: cell.count };
            let content = Json::of(&input).unwrap_or_default();
            let metadata = replies::acknowledgement(promise, promised.durability);
            let message = Outgoing { metadata, ..Outgoing::new("execute_input", request.parent(), content) };
            self.records.then(Effect::Publish(message));
        }
        // What goes to the worker now does not wait for what is written next.
        self.records.submit();
        if store_history {
            let session = self.config.id;
            let (execution, line) = (promise.execution, cell.count);
            self.checkpoints.stands_at(execution, line);
            let history = Write::HistoryInput { session, execution, line, source: body.code };
            self.later.push(history);
        }
        self.begun(Running::new(request, promised, Some(cell)));
    }

    /// Busy, and the place that output will belong to.
    pub(crate) fn open(&mut self, request: &ClientRequest, promised: Promised) {
        self.status(ExecutionState::Busy, request);
        let Promised { id, durability, is_started } = promised;
        self.contexts.open(Context::new(id, request.parent(), self.budget(request)));
        if !is_started {
            self.records.write(durability, Write::Start { id, count: self.count });
        }
    }

    /// How much of the text of an execution is kept: what the session allows, or less if that was asked for.
    pub(crate) fn budget(&self, request: &ClientRequest) -> Budget {
        let limits = [self.config.limits.output_bytes, options_of(request).output_limit];
        let kept = limits.into_iter().flatten().min().and_then(|bytes| usize::try_from(bytes).ok());
        Budget::new(kept.unwrap_or(OUTPUT_KEPT_BYTES_MAX))
    }

    /// The worker gets the work.
    pub(crate) fn begun(&mut self, mut running: Box<Running>) {
        let limit = self.config.limits.time_ms.map(Duration::from_millis);
        running.time = limit.map(|limit| TimeLeft::start(limit, Instant::now()));
        self.checkpoints.code_runs(running.is_counted_cell());
        let restored = self.checkpoints.restored.take().filter(|(_, is_told)| !is_told);
        running.restored = restored.map(|(restoration, _)| Box::new(restoration));
        self.current = Some(Current::Run(running));
    }

    /// The worker says that an execution ended: its reply is composed, and its promise settled with it. If there is
    /// a verdict it is the outcome.
    pub(crate) fn settle(&mut self, mut running: Box<Running>, done: &Done, verdict: Option<Verdict>) {
        let verdict = verdict.or_else(|| overdue(&running)).or_else(|| unrecorded(&running));
        if let Some(verdict) = verdict {
            return self.overrule(running, verdict, SessionState::Kept);
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
                    restored: running.restored.as_deref(),
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
        self.conclude(running, state, SessionState::Kept, reply);
    }

    /// It cannot be run, and the session is as it was.
    pub(crate) fn fail(&mut self, running: Box<Running>, code: ErrorCode, why: String) {
        self.overrule(running, Verdict { code, evalue: why }, SessionState::Kept);
    }

    /// The worker went away with the execution; what became of the variables.
    pub(crate) fn lose(&mut self, running: Box<Running>, loss: Verdict, state: SessionState) {
        self.end_output(&running);
        let context = self.contexts.get_mut(running.promise.execution);
        let kept = context.map_or(0, |context| context.budget.kept());
        let evalue = format!("{}; {kept} bytes of its output are kept", loss.evalue);
        self.overrule(running, Verdict { evalue, ..loss }, state);
    }

    /// The execution ends as cob says.
    pub(crate) fn overrule(&mut self, mut running: Box<Running>, verdict: Verdict, session: SessionState) {
        let state = verdict.state();
        let error = ErrorText::coded_in(verdict.code, verdict.evalue, session);
        self.emit(running.promise.execution, Event::Error(error.clone()));
        let reply = error_reply(&running, ErrorReply::coded(&error, verdict.code, session));
        running.error = Some(error);
        self.conclude(running, state, session, reply);
    }

    /// Last event, settled promise, then the reply.
    fn conclude(
        &mut self,
        mut running: Box<Running>,
        state: State,
        session_state: SessionState,
        reply: Json,
    ) {
        let promise = running.promise;
        self.cancel_question(running.question.take());
        let (mut last_event, mut tally) = (0, Tally::default());
        if let Some(context) = self.contexts.get_mut(promise.execution) {
            let last = context.next_event - 1;
            tally = context.budget.tally();
            last_event = last + u64::from(running.unrecorded.is_none());
            self.emit(promise.execution, Event::Done { last });
        }
        self.contexts.close(promise.execution);
        for write in std::mem::take(&mut self.later) {
            self.records.write(running.durability, write);
        }
        let settlement = Settlement { state, value: reply.clone(), session_state, last_event, tally };
        let write = match state {
            State::RejectedTimedOut if running.is_overdue => Write::Expire { id: promise, settlement },
            _ => Write::Settle { id: promise, settlement },
        };
        self.records.write(running.durability, write);
        let failed = running.error.is_some();
        if !failed {
            self.start_next();
        }
        let reply = running.cell.is_some().then_some(reply);
        let finishing = Finishing { running, reply, failed, deadline: Instant::now() };
        self.is_concluding = true;
        self.records.then(Effect::Finish(Box::new(finishing)));
    }

    /// What is next in the queue is recorded as started together with the end of what was before it: one commit less
    /// between two cells.
    fn start_next(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let Some(next) = self.queue.front() else { return };
        let count = self.count_of(&next.work);
        if let Some(Queued { promised: Some(promised), .. }) = self.queue.front_mut()
            && !promised.is_started
        {
            promised.is_started = true;
            self.records.write(promised.durability, Write::Start { id: promised.id, count });
            self.records.then(Effect::Started(promised.id));
        }
    }
}

/// What is said of an execution whose deadline passed while it ran.
fn overdue(running: &Running) -> Option<Verdict> {
    running.is_overdue.then(|| Verdict {
        code: ErrorCode::DeadlinePassed,
        evalue: "the deadline of the request passed while its code ran; it was interrupted, the variables are kept"
            .to_owned(),
    })
}

/// What is said of an execution whose output the store did not take.
fn unrecorded(running: &Running) -> Option<Verdict> {
    let error = running.unrecorded.as_ref()?;
    let evalue =
        format!("{error}; the code has ended, but not all of its output is recorded; the variables are kept");
    Some(Verdict { code: store_code(error), evalue })
}

/// The error reply of an execution, with what belongs to every `execute_reply`.
fn error_reply(running: &Running, reply: ErrorReply<'_>) -> Json {
    let (expressions, payload) = (Json::object(), Json::array());
    let reply = ErrorReply {
        execution_count: running.cell.map(|cell| cell.count),
        user_expressions: Some(&expressions),
        payload: Some(&payload),
        restored: running.restored.as_deref(),
        ..reply
    };
    Json::of(&reply).unwrap_or_default()
}
