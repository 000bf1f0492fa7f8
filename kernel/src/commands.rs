//! What a server asks of a session beside its clients' requests: at once, whatever waits or runs.

use cob_bridge::StoreError;
use cob_pool::Lane;
use cob_pool::usage::ProcessSample;
use cob_protocol::content::ErrorReply;
use cob_protocol::content::agent::CloseMode;
use cob_protocol::error::ErrorCode;
use cob_protocol::event::ErrorText;
use cob_protocol::frame::Namespace;
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::promise::{SessionState, State};

use crate::arrivals::Fate;
use crate::records::Effect;
use crate::request::{Asked, Canceled, Command, Refusal, Snapshot, Waiting, WorkerView};
use crate::session::{Current, Session, WorkerState};
use crate::telling::{refusal_code, store_code};

impl Session {
    pub(crate) fn command(&mut self, command: Command) {
        match command {
            Command::Interrupt => self.interrupt(),
            Command::Shutdown => self.shut_down(false),
            Command::Close(mode, asked) => self.close_for(mode, asked),
            Command::Restart(asked) => self.restart(asked),
            Command::Cancel(promise, asked) => self.cancel_execution(promise, asked),
            Command::Overdue(promise) => self.routed(promise),
            // Whoever asked may have gone, here and below.
            Command::Look(asked) => drop(asked.send(self.snapshot())),
            Command::Namespace(asked) => self.ask_namespace(asked),
            Command::Answer(promise, given, asked) => self.answer(promise, given, asked),
            Command::RegisterTools(address, tools, asked) => self.register_tools(&address, tools, asked),
            Command::UnregisterTools(address, names, asked) => {
                self.unregister_tools(&address, names.as_deref(), asked);
            }
            command => self.checkpoint_command(command),
        }
    }

    /// Answers behind everything that was written so far; with the store's reason if that is not recorded.
    pub(crate) fn report<T: Send + 'static>(&mut self, asked: Asked<T>, answer: T) {
        self.records.then(Effect::Report(Box::new(move |recorded| {
            let answer = match recorded {
                Ok(()) => Ok(answer),
                Err(error) => Err(not_recorded(error)),
            };
            let _ = asked.send(answer);
        })));
    }

    /// Says why nothing can be done about a promise that this session does not hold open. The store knows; the session
    /// does not wait for it.
    pub(crate) fn explain<T: Send + 'static>(&self, id: PromiseId, asked: Asked<T>) {
        let bridge = self.bridge.clone();
        tokio::spawn(async move {
            let refusal = match bridge.promise(id).await {
                Ok(Some(known)) if known.state.is_settled() => {
                    let how = known.state.as_str();
                    Refusal::new(ErrorCode::AlreadySettled, format!("{id} is settled: {how}"))
                }
                // Its end is on its way.
                Ok(Some(_)) => Refusal::new(ErrorCode::AlreadySettled, format!("{id} has just ended")),
                Ok(None) => Refusal::new(ErrorCode::UnknownPromise, format!("there is no promise {id}")),
                Err(error) => Refusal::new(refusal_code(&error), error.to_string()),
            };
            let _ = asked.send(Err(refusal));
        });
    }

    // --- The session as a whole ------------------------------------------------------------------------------

    fn close_for(&mut self, mode: CloseMode, asked: Asked<()>) {
        // Who has gone need not be told.
        self.closing.retain(|known| !known.is_closed());
        self.closing.push(asked);
        match mode {
            CloseMode::Now => self.shut_down(false),
            CloseMode::Drain => {
                self.accept_overtaken();
                self.is_draining = true;
            }
        }
    }

    /// Takes in the requests that came before a command, which has overtaken them.
    fn accept_overtaken(&mut self) {
        for _ in 0..self.inputs.shell.len() {
            let Ok(request) = self.inputs.shell.try_recv() else { return };
            self.accept(request);
        }
    }

    /// Ends a session that was to do what it had to do first, and has.
    pub(crate) fn end_when_drained(&mut self) {
        if self.is_draining && self.stopping.is_none() && self.end.is_none() && !self.is_at_work() {
            self.shut_down(false);
        }
    }

    /// A fresh namespace. What was asked for before gets none of it.
    pub(crate) fn restart(&mut self, asked: Asked<()>) {
        if let Some((code, why)) = self.over() {
            return drop(asked.send(Err(Refusal::new(code, why))));
        }
        self.refuse_turns(ErrorCode::Restarted, "the session was restarted before its turn came");
        self.arrivals.condemn(Fate::Restarted);
        self.restarting.push(asked);
        self.forget_where_to_go();
        self.kill_worker();
    }

    /// The next worker is there.
    pub(crate) fn restarted(&mut self) {
        for asked in std::mem::take(&mut self.restarting) {
            self.report(asked, ());
        }
    }

    /// Tells who waits for a worker that there will be none.
    pub(crate) fn not_restarted(&mut self, code: ErrorCode, why: &str) {
        for asked in std::mem::take(&mut self.restarting) {
            let _ = asked.send(Err(Refusal::new(code, why)));
        }
    }

    /// Everything of it is recorded, as far as it can be: whoever waits for its end is told, whoever came too late is
    /// refused.
    pub(crate) fn say_goodbye(&mut self) {
        self.not_restarted(ErrorCode::SessionClosed, "the session was closed");
        self.end_ways(ErrorCode::SessionClosed, "the session was closed");
        let is_recorded = self.owed.is_empty();
        for asked in std::mem::take(&mut self.closing) {
            let failed =
                || Refusal::new(ErrorCode::StoreFailed, "the end of the session is not all recorded");
            let _ = asked.send(if is_recorded { Ok(()) } else { Err(failed()) });
        }
        self.refuse_late_requests();
    }

    // --- Executions ------------------------------------------------------------------------------------------

    fn cancel_execution(&mut self, id: PromiseId, asked: Asked<Canceled>) {
        if id.call.is_some() {
            let why = format!("{id} is a call, which is answered; cancel the execution that asks");
            return drop(asked.send(Err(Refusal::new(ErrorCode::UnknownPromise, why))));
        }
        if matches!(&self.current, Some(Current::Run(running)) if running.promise == id) {
            self.interrupt();
            return drop(asked.send(Ok(Canceled::Running)));
        }
        if self.is_held(id) {
            return drop(asked.send(Ok(Canceled::Running)));
        }
        let Some(queued) = self.queue.take(|queued| queued.promised.is_some_and(|known| known.id == id))
        else {
            return self.explain(id, asked);
        };
        self.queue_bytes -= queued.request.bytes();
        let error = ErrorText::coded(ErrorCode::Canceled, "it was cancelled before its turn came");
        let reply = ErrorReply::coded(&error, ErrorCode::Canceled, SessionState::Kept);
        let content = Json::of(&reply).unwrap_or_default();
        self.cancel(queued, State::RejectedCanceled, content, SessionState::Kept);
        self.report(asked, Canceled::Queued);
    }

    /// A deadline has passed, and whoever watches the clock says so once.
    fn routed(&mut self, id: PromiseId) {
        self.bridge.attend(id);
        if !self.due.contains(&id) {
            self.due.push_back(id);
        }
    }

    // --- Looking ---------------------------------------------------------------------------------------------

    fn ask_namespace(&mut self, asked: Asked<Json>) {
        if matches!(self.worker, WorkerState::None) && self.over().is_none() {
            return drop(asked.send(match self.wakes_at() {
                // Nothing was ever defined in it.
                None if self.held.is_none() => Ok(Json::array()),
                None => Err(Refusal::new(ErrorCode::Busy, "the session goes back to a checkpoint")),
                Some(id) => {
                    let why =
                        format!("the session sleeps; its variables are in {id} until the next execution");
                    Err(Refusal::new(ErrorCode::Busy, why))
                }
            }));
        }
        if !self.is_free() || self.is_at_work() {
            let why = "the session is busy, and its variables are in motion";
            return drop(asked.send(Err(Refusal::new(ErrorCode::Busy, why))));
        }
        self.next_question += 1;
        let number = self.next_question;
        self.current = Some(Current::Look { number, asked });
        self.send(Namespace { request: number }.into(), Vec::new(), Lane::Data);
    }

    fn snapshot(&self) -> Snapshot {
        let worker = match &self.worker {
            WorkerState::Live(worker) => Some(WorkerView {
                pid: worker.pid(),
                origin: self.origin.map_or("", cob_pool::Origin::as_str),
                resident_bytes: ProcessSample::take(worker.pid()).map_or(0, |sample| sample.resident_bytes),
            }),
            WorkerState::Starting(_) | WorkerState::None => None,
        };
        let waiting = self.queue.iter().filter_map(|queued| {
            queued.promised.map(|known| Waiting { promise: known.id, priority: queued.priority })
        });
        let status = self.standing();
        Snapshot {
            state: status.state,
            running: status.running,
            output: status
                .running
                .and_then(|promise| self.contexts.get(promise.execution))
                .map(|context| context.budget.tally()),
            queue: waiting.collect(),
            asking: self.asking(),
            execution_count: self.count,
            last_active_at: self.activity.last_at(self.bridge.now()),
            worker,
            limits: self.enforced.clone(),
            confinement: self.ready.as_ref().map(|ready| ready.confinement.clone()).unwrap_or_default(),
            tools: self.tools.list(),
            channels: self.channels.names().into_iter().map(str::to_owned).collect(),
            checkpoint_policy: self.config.checkpoints.clone(),
            checkpoints: self.checkpoints.in_memory().count(),
            checkpoint_bytes: self.checkpoints.bytes(),
            checkpoint_skipped: self.checkpoints.skipped.clone(),
            restored: self.checkpoints.restored.as_ref().map(|(restoration, _)| restoration.clone()),
            wakes_at: self.wakes_at(),
        }
    }
}

pub(crate) fn not_recorded(error: &StoreError) -> Refusal {
    Refusal::new(store_code(error), format!("{error}; nothing of it is recorded"))
}
