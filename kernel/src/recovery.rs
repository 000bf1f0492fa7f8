//! The session goes on after its server died: what was recorded is taken up where it stood.
//!
//! | it was killed | and then |
//! |---|---|
//! | before the promise was recorded | nothing happened; the retry runs once |
//! | before the start was recorded | it runs, unasked, once |
//! | before the worker got the request | the worker says so, and gets it |
//! | while it ran | it goes on; its frames and output since the last record come again, and are recorded once |
//! | before the end was recorded | the worker sends it again |
//! | after that | a retry gets the stored reply |
//!
//! Without its worker an execution that was started is `execution_lost`, and never run again.

use std::sync::Arc;

use cob_bridge::{Bridge, BridgeError, Filter, OutputState, SessionRecord, Unsettled, Write, ending};
use cob_pool::{Lane, Taken};
use cob_protocol::content::{ErrorReply, ExecutionState};
use cob_protocol::crash_point;
use cob_protocol::error::ErrorCode;
use cob_protocol::event::{ErrorText, Event};
use cob_protocol::frame::{Attached, Comm, CommAction, Outcome, is_repeatable};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::{OUTPUT_KEPT_BYTES_MAX, READ_BYTES_MAX, READ_EVENTS_MAX};
use cob_protocol::promise::{Kind, Promise, SessionState, Settlement, State};
use cob_protocol::registry::Request;

use crate::calls::{Ask, CallEnd, CallRecord, Question};
use crate::contexts::{Budget, Context};
use crate::dispatch::{Promised, Queued, Work};
use crate::handlers::{Verdict, execute_frame};
use crate::records::Effect;
use crate::request::ClientRequest;
use crate::session::{Cell, Current, Running, Session, WorkerState};
use crate::survival::Note;

/// Events in which the error of an execution is looked for that has not ended: little comes after it but the end.
const LAST_EVENTS: u64 = 64;

/// What was recorded of a session that was not closed.
#[derive(Debug)]
pub struct Past {
    record: SessionRecord,
    unsettled: Vec<Unsettled>,
    /// The last question of the execution that was started: code asks one thing at a time.
    call: Option<LastCall>,
    /// The last execution that was settled, and the number that its next event will have.
    last: Option<(PromiseId, u64, Option<Json>)>,
    /// The error that the execution which was started has shown already.
    error: Option<ErrorText>,
    /// It was to begin where another session stood.
    is_branch: bool,
}

#[derive(Debug)]
struct LastCall {
    promise: Promise,
    /// What was asked, as long as there is no answer.
    record: Option<CallRecord>,
}

impl LastCall {
    fn open(&self) -> Option<Question> {
        let record = self.record.as_ref().filter(|_| !self.promise.state.is_settled())?;
        let deadline = self.promise.deadline.unwrap_or(self.promise.created_at);
        let (request, promise) = (record.request, self.promise.id);
        Some(Question { request, promise, ask: Ask::of(record), deadline, is_put: false })
    }

    fn end(&self) -> Option<CallEnd> {
        self.promise.value.as_ref()?.read().ok()
    }
}

impl Past {
    /// Reads what is needed to go on with a session.
    ///
    /// # Errors
    /// [`BridgeError`] when the store cannot be read.
    pub async fn read(bridge: &Bridge, record: SessionRecord) -> Result<Self, BridgeError> {
        let session = record.session;
        let mut unsettled = bridge.unsettled(session).await?;
        for known in unsettled.iter_mut().filter(|known| known.promise.state == State::Started) {
            if known.output == OutputState::default() {
                // Of one that was not to outlive its server the events are all there is.
                let printed = printed(bridge, known.promise.id).await?;
                known.output = OutputState { written: printed, head: printed, ..OutputState::default() };
            }
        }
        let started = unsettled.iter().find(|known| known.promise.state == State::Started);
        let call = match started {
            Some(known) => Self::last_call(bridge, known.promise.id).await?,
            None => None,
        };
        let last = Self::last(bridge, &record, &unsettled).await?;
        let error = match started {
            Some(known) => Self::error(bridge, known).await?,
            None => None,
        };
        Ok(Self { record, unsettled, call, last, error, is_branch: false })
    }

    /// Of a session that was to begin where another one stood, if this is true.
    #[must_use]
    pub fn of_branch(self, is_branch: bool) -> Self {
        Self { is_branch, ..self }
    }

    /// Whether no code of it ever ran.
    fn is_unused(&self) -> bool {
        self.last.is_none() && !self.unsettled.iter().any(|known| known.promise.state == State::Started)
    }

    async fn last_call(bridge: &Bridge, execution: PromiseId) -> Result<Option<LastCall>, BridgeError> {
        let mut last: Option<Promise> = None;
        loop {
            let after = last.as_ref().map_or(execution, |promise| promise.id);
            let filter = Filter {
                session: Some(execution.session),
                kind: Some(Kind::Call),
                after: Some(after),
                count_max: READ_EVENTS_MAX,
                ..Filter::default()
            };
            let page = bridge.promises(&filter).await?;
            let theirs = page.into_iter().take_while(|promise| promise.id.execution == execution.execution);
            match theirs.last() {
                Some(promise) => last = Some(promise),
                None => break,
            }
        }
        let Some(promise) = last else { return Ok(None) };
        let record = bridge.request(promise.id).await?.and_then(|record| record.read().ok());
        Ok(Some(LastCall { promise, record }))
    }

    /// The error among the last events of an execution: its end, which refers to it, may not be recorded.
    async fn error(bridge: &Bridge, known: &Unsettled) -> Result<Option<ErrorText>, BridgeError> {
        let mut error = None;
        let mut from = known.next_event.saturating_sub(LAST_EVENTS).max(1);
        while from < known.next_event {
            let events = match bridge.events(known.promise.id, from, READ_EVENTS_MAX, READ_BYTES_MAX).await {
                Ok(events) if events.is_empty() => break,
                Ok(events) => events,
                Err(BridgeError::Forgotten { first, .. }) if first > from => {
                    from = first;
                    continue;
                }
                Err(error) => return Err(error),
            };
            from += events.len() as u64;
            for recorded in events {
                if let Event::Error(text) = &*recorded.event {
                    error = Some(text.clone());
                }
            }
        }
        Ok(error)
    }

    async fn last(
        bridge: &Bridge,
        record: &SessionRecord,
        unsettled: &[Unsettled],
    ) -> Result<Option<(PromiseId, u64, Option<Json>)>, BridgeError> {
        let open = unsettled.iter().map(|known| &known.promise);
        let first_open = open.filter(|known| known.id.call.is_none() && !known.is_channel());
        let mut number =
            first_open.map(|known| known.id.execution).min().unwrap_or(record.executions + 1) - 1;
        // Channels have numbers among the executions.
        let (id, promise) = loop {
            if number == 0 {
                return Ok(None);
            }
            let id = PromiseId::execution(record.session, number);
            match bridge.promise(id).await? {
                Some(promise) if promise.is_channel() => number -= 1,
                Some(promise) => break (id, promise),
                None => return Ok(None),
            }
        };
        let mut next = promise.last_event + 1;
        // Late output that came after its end.
        loop {
            match bridge.events(id, next, READ_EVENTS_MAX, READ_BYTES_MAX).await {
                Ok(events) if events.is_empty() => break,
                Ok(events) => next += events.len() as u64,
                Err(BridgeError::Forgotten { first, .. }) if first > next => next = first,
                Err(error) => return Err(error),
            }
        }
        Ok(Some((id, next, bridge.request(id).await?)))
    }
}

impl Session {
    /// Takes up what was recorded, with its worker if that is still there.
    pub(crate) async fn recover(&mut self, past: Past) {
        let is_unused_branch = past.is_branch && past.is_unused();
        let Past { record, unsettled, call, last, error, .. } = past;
        self.records.write(self.config.durability, Write::Recover { session: record.session });
        self.count = record.count;
        if let Some((id, next_event, request)) = last {
            let request = request.and_then(|request| ClientRequest::from_record(&request).ok());
            let (parent, budget) = match request {
                Some((request, _)) => (request.parent(), self.budget(&request)),
                None => (Json::object(), Budget::new(OUTPUT_KEPT_BYTES_MAX)),
            };
            let mut context = Context::new(id, parent, budget);
            context.next_event = next_event;
            self.contexts.open(context);
            self.contexts.close(id.execution);
        }
        self.recover_checkpoints(&record).await;
        let is_taken = self.take_worker_over(&record).await;
        if !is_taken {
            self.sleep_at_newest();
            let write = Write::Custody { session: self.config.id, custody: None };
            self.records.write(self.config.durability, write);
        }
        let (channels, unsettled): (Vec<_>, Vec<_>) =
            unsettled.into_iter().partition(|known| known.promise.is_channel());
        channels.iter().for_each(|known| self.channels.leave(known));
        for known in unsettled.into_iter().filter(|known| known.promise.id.call.is_none()) {
            self.take_up(known, call.as_ref(), error.clone(), is_taken);
        }
        // All that it was made for are variables that it does not have, or not any more.
        if is_unused_branch && !is_taken && self.checkpoints.there().next().is_none() {
            tracing::warn!(session = %self.config.id, "a branch is closed: what it was to begin with is gone");
            return self.shut_down(false);
        }
        // One of many begins when it is needed.
        if !is_taken && (!self.config.is_hosted || !self.queue.is_empty()) {
            self.start_worker();
        }
    }

    /// Those in memory went with the last server.
    async fn recover_checkpoints(&mut self, record: &SessionRecord) {
        let stored = match self.bridge.bundles() {
            None => Vec::new(),
            Some(bundles) => bundles.list(record.session).await.unwrap_or_else(|error| {
                tracing::error!(%error, "the checkpoints of the session cannot be read");
                Vec::new()
            }),
        };
        self.checkpoints.recover(record.checkpoints, record.executions, stored);
    }

    async fn take_worker_over(&mut self, record: &SessionRecord) -> bool {
        let (Some(custody), Some(survival)) = (&record.custody, self.config.survival.clone()) else {
            return false;
        };
        let progress = cob_pool::Progress {
            frames: record.progress.frames,
            stdout: record.progress.stdout,
            stderr: record.progress.stderr,
        };
        let place = (std::path::Path::new(&custody.socket), custody.secret.as_str());
        let Taken { worker, note, custodian } = match survival.fetch(place, progress).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(%error, "the worker of the session did not outlive its server");
                return false;
            }
        };
        let Ok(note) = serde_json::from_str::<Note>(&note) else {
            tracing::error!("the worker of the session is of another version of cob; it is not taken over");
            return false;
        };
        match survival.keep(Some(custodian), &worker, &note).await {
            Ok(kept) => {
                self.keep(Some(kept));
                // Until the new secret is recorded, the old one is all that a server after this one would know.
                self.records.then(Effect::Forget { secret: custody.secret.clone() });
            }
            Err(error) => tracing::error!(%error, "the worker will not outlive this process"),
        }
        tracing::info!(pid = worker.pid(), "worker ready: taken over, it outlived its server");
        let Note { ready, origin, limits, enforced } = note;
        self.generation += 1;
        // Greater than any that was used before: nobody asks a question per microsecond.
        self.next_question = u64::try_from(self.bridge.now().micros()).unwrap_or_default();
        self.first_question = self.next_question;
        self.config.limits = limits;
        (self.ready, self.origin, self.enforced) = (Some(ready), Some(origin), enforced);
        self.worker = WorkerState::Live(Box::new(worker));
        true
    }

    /// Goes on with one execution that was not settled.
    fn take_up(
        &mut self,
        known: Unsettled,
        call: Option<&LastCall>,
        error: Option<ErrorText>,
        is_taken: bool,
    ) {
        let Promise { id, durability, state, .. } = known.promise;
        let is_started = state == State::Started;
        let promised = Promised { id, durability, is_started };
        let request = known.request.as_ref().and_then(|record| ClientRequest::from_record(record).ok());
        let work = request.as_ref().and_then(|(request, _)| work_of(request));
        let (Some((request, is_whole)), Some(work)) = (request, work) else {
            return self.give_up(known, SessionState::Lost, "its request was not recorded");
        };
        // Cells have no use for binary parts.
        let is_whole = is_whole || matches!(work, Work::Execute(_));
        if !is_started && !is_whole {
            let state = if is_taken { SessionState::Kept } else { SessionState::Lost };
            return self.give_up(known, state, "the binary parts of its request were not recorded");
        }
        if !is_started || self.current.is_some() {
            self.queue_bytes += request.bytes();
            self.queue.push(Queued::new(request, work, Some(promised)));
            return;
        }
        let mut context = Context::new(id, request.parent(), self.budget(&request));
        context.resume(known.output, known.next_event);
        self.contexts.open(context);
        let cell = match &work {
            Work::Execute(body) => Some(Cell {
                count: self.count,
                silent: body.silent,
                stop_on_error: body.stop_on_error,
                is_in_history: body.store_history && !body.silent,
            }),
            _ => None,
        };
        if let (Work::Execute(body), Some(cell)) = (&work, cell)
            && cell.is_in_history
        {
            self.history.push(cell.count, body.code.clone());
            let session = self.config.id;
            let source = body.code.clone();
            let (execution, line) = (id.execution, cell.count);
            self.later.push(Write::HistoryInput { session, execution, line, source });
        }
        let mut running = Running::new(request, promised, cell);
        running.is_whole = is_whole;
        running.error = error;
        running.calls = call.and_then(|call| call.promise.id.call).unwrap_or(0);
        running.question = call.and_then(LastCall::open);
        self.recalled = call.and_then(LastCall::end);
        running.is_resumed = is_taken;
        if is_taken {
            tracing::info!(promise = %id, "the code that ran goes on");
            self.status(ExecutionState::Busy, &running.request);
            self.begun(running);
            if self.has_question() {
                self.pause_clock();
            }
        } else {
            self.end_output(&running);
            let variables = match self.wakes_at() {
                None => "the variables are lost".to_owned(),
                Some(id) => {
                    format!("the variables are lost but for those in {id}, where the session goes on")
                }
            };
            let evalue = format!(
                "cob was ended while this ran, or was about to run, and its worker is gone; \
                 whether it ran to its end is not known, and it was not run again; {variables}"
            );
            let verdict = Verdict { code: ErrorCode::ExecutionLost, evalue };
            self.overrule(running, verdict, SessionState::Lost);
        }
    }

    /// Settles an execution that cannot be gone on with. What comes out of the pipes now is none of its output.
    fn give_up(&mut self, mut known: Unsettled, state: SessionState, why: &str) {
        let (id, durability) = (known.promise.id, known.promise.durability);
        tracing::warn!(promise = %id, why, "an execution is given up");
        let error = ErrorText::coded(ErrorCode::ExecutionLost, format!("cob was ended, and {why}"));
        let reply = ErrorReply::coded(&error, ErrorCode::ExecutionLost, state);
        let value = Json::of(&reply).unwrap_or_default();
        let event = Arc::new(Event::Error(error));
        self.records.write(durability, Write::Append { id, number: known.next_event, event });
        known.next_event += 1;
        for write in ending(&known, Settlement::silent(State::Rejected, value, state)) {
            match write {
                Write::Settle { .. } => self.write_surely(durability, write),
                write => self.records.write(durability, write),
            }
        }
    }

    fn has_question(&self) -> bool {
        matches!(&self.current, Some(Current::Run(running)) if running.question.is_some())
    }

    /// The worker has moved to this server, and says what it got from the last one.
    pub(crate) fn attached(&mut self, attached: &Attached) {
        crash_point!("worker_attached");
        // What began here was sent to the worker's new socket, whatever it had before it moved.
        let Some(Current::Run(running)) = &mut self.current else { return };
        if !std::mem::take(&mut running.is_resumed) {
            return;
        }
        let promise = running.promise;
        if attached.execution < promise.execution {
            return self.send_again();
        }
        let Some(request) = attached.call else { return };
        if running.question.as_ref().is_some_and(|question| question.request == request) {
            return self.put_question();
        }
        if is_repeatable(request) {
            return self.answer_call(request, Outcome::Again);
        }
        // What was not recorded of a question comes again.
        let Some(end) = self.recalled.take_if(|end| end.request == request) else { return };
        match (end.answer.outcome(), end.input) {
            (Some(outcome), _) => self.answer_call(request, outcome),
            // A password, which nobody has written down.
            (None, Some(input)) => self.ask(request, Ask::Input(input)),
            // The question was given up.
            (None, None) => {}
        }
    }

    /// The request never reached the worker.
    fn send_again(&mut self) {
        let Some(Current::Run(running)) = &self.current else { return };
        let (promise, cell) = (running.promise, running.cell);
        let request = running.request.clone();
        let is_whole = running.is_whole;
        match (work_of(&request).filter(|_| is_whole), cell) {
            (Some(Work::Execute(body)), Some(cell)) => {
                let code = bytes::Bytes::from(body.code.clone());
                self.send(execute_frame(&request, &body, promise, cell), vec![code], Lane::Data);
            }
            (Some(Work::Comm(comm)), _) => {
                let comm = Comm { execution: promise.execution, ..*comm };
                self.send(comm.into(), Vec::new(), Lane::Data);
            }
            _ => {
                let Some(Current::Run(running)) = self.current.take() else { return };
                let why =
                    "cob was ended before the worker got the request, whose binary parts were not recorded";
                self.fail(running, ErrorCode::ExecutionLost, why.to_owned());
            }
        }
    }
}

/// Bytes of text in the events of an execution.
async fn printed(bridge: &Bridge, id: PromiseId) -> Result<u64, BridgeError> {
    let (mut printed, mut next) = (0, 1);
    loop {
        let events = match bridge.events(id, next, READ_EVENTS_MAX, READ_BYTES_MAX).await {
            Err(BridgeError::Forgotten { first, .. }) if first > next => {
                next = first;
                continue;
            }
            events => events?,
        };
        let Some(last) = events.last() else { return Ok(printed) };
        next = last.number + 1;
        for recorded in &events {
            if let Event::Stream { text, .. } = &*recorded.event {
                printed += text.len() as u64;
            }
        }
    }
}

/// What a recorded request asks for.
fn work_of(request: &ClientRequest) -> Option<Work> {
    let message = &request.message;
    let comm = |action, comm_id, target: (Option<String>, Option<String>), data| {
        Work::Comm(Box::new(Comm {
            action,
            execution: 0,
            comm_id,
            target_name: target.0,
            target_module: target.1,
            data,
            metadata: message.metadata.clone(),
            parent: request.parent(),
            at: Default::default(),
        }))
    };
    match Request::read(&message.header.msg_type, request.channel, &message.content).ok()? {
        Request::Execute(body) => Some(Work::Execute(body)),
        Request::CommOpen(body) => {
            let target = (Some(body.target_name), body.target_module);
            Some(comm(CommAction::Open, body.comm_id, target, body.data))
        }
        Request::CommMsg(body) => Some(comm(CommAction::Msg, body.comm_id, (None, None), body.data)),
        Request::CommClose(body) => Some(comm(CommAction::Close, body.comm_id, (None, None), body.data)),
        _ => None,
    }
}
