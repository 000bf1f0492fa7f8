//! What a session hears of its worker: that it is there, what it does, that it is gone.

use cob_pool::{Exit, LeaseError, Leased, StartError, WorkerEvent};
use cob_protocol::checkpoint::Restoration;
use cob_protocol::content::ExecutionState;
use cob_protocol::crash_point;
use cob_protocol::error::ErrorCode;
use cob_protocol::frame::{Done, DoneStatus, Frame};
use cob_protocol::json::Json;

use crate::checkpoints::{Held, NotStarted, Started};
use crate::session::{Current, End, Session, WorkerState};

/// What comes from a worker.
pub(crate) enum News {
    /// It is there, or will never be.
    Started(Box<Result<Started, NotStarted>>),
    /// It did something.
    Event(WorkerEvent),
}

impl WorkerState {
    /// The next thing that happens; for ever nothing when there is no worker. Cancel-safe.
    pub(crate) async fn news(&mut self) -> News {
        match self {
            Self::Starting(task) => News::Started(Box::new(task.await.unwrap_or_else(|error| {
                let source = std::io::Error::other(error);
                let error = StartError::Spawn { program: "the worker".to_owned(), source };
                Err(NotStarted::Lease(error.into()))
            }))),
            Self::Live(worker) => News::Event(worker.next().await),
            Self::None => std::future::pending().await,
        }
    }
}

impl Session {
    pub(crate) fn worker_started(&mut self, started: Result<Started, NotStarted>) {
        match started {
            Ok(started) => {
                self.install(started);
                self.restarted();
            }
            Err(NotStarted::Checkpoint(refusal)) => self.not_woken(&refusal),
            Err(NotStarted::Lease(error)) => {
                self.worker = WorkerState::None;
                let code = match error {
                    LeaseError::Limits { .. } => ErrorCode::InvalidLimit,
                    _ => ErrorCode::WorkerStartFailed,
                };
                self.conclude_held(None, &[]);
                self.refuse_queue(code, &error.to_string());
                self.refuse_wishes(code, &error.to_string());
                self.not_restarted(code, &error.to_string());
                self.announce(ExecutionState::Dead);
                self.end = Some(End::StartFailed(error));
            }
        }
    }

    /// The session has a worker; where its variables came from, if it did not begin empty.
    pub(crate) fn install(&mut self, started: Started) -> Option<Restoration> {
        let Started { leased, kept, begun, failures } = started;
        let Leased { worker, ready, origin, limits, enforced } = leased;
        tracing::info!(pid = worker.pid(), executor = ready.executor, ?origin, "worker ready");
        for lacking in ready.confinement.iter().filter(|measure| measure.starts_with("not enforced")) {
            tracing::warn!(lacking, "the session is less isolated than asked for");
        }
        self.origin = Some(origin);
        self.enforced = Json::from(enforced);
        self.config.limits = limits;
        self.worker = WorkerState::Live(Box::new(worker));
        self.ready = Some(ready);
        self.keep(kept);
        let restoration = self.worker_begun(begun, &failures);
        self.conclude_held(restoration.as_ref(), &failures);
        self.tell_who_waits();
        restoration
    }

    /// The worker has introduced itself.
    pub(crate) fn tell_who_waits(&mut self) {
        for request in std::mem::take(&mut self.waiting_for_ready) {
            self.answer_kernel_info(&request);
        }
    }

    pub(crate) fn worker_event(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Output(stream, bytes) => self.output(stream, &bytes),
            WorkerEvent::Gone(exit) => self.worker_gone(&exit),
            WorkerEvent::Frame(Frame::Done(done), _) => self.done(done),
            WorkerEvent::Frame(frame, payloads) => {
                if let Err(violation) = self.frame(frame, payloads) {
                    self.condemn_worker(violation);
                }
            }
        }
    }

    fn worker_gone(&mut self, exit: &Exit) {
        self.worker = WorkerState::None;
        self.release_kept();
        let loss = self.loss(exit);
        self.ladder.clear();
        self.is_killed = false;
        self.comms.clear();
        let stopping = self.stopping.is_some();
        let successor = self.successor.take().filter(|_| !stopping);
        if let Some(current) = self.current.take() {
            // What is said of it depends on where the session goes on.
            let goes_back = successor.is_some() || self.checkpoints.is_on_its_way() || self.has_way_back();
            if goes_back && !stopping && self.restarting.is_empty() {
                self.held = Some(Box::new(Held { current, loss }));
            } else {
                self.lose_current(current, loss);
            }
        }
        if stopping {
            self.end = Some(End::Shutdown);
        } else if let Some(successor) = successor {
            tracing::debug!(%exit, "the worker was ended, since the session went back");
            self.succeed(successor);
        } else if !self.has_fallen_asleep() {
            self.next_worker(exit);
        }
    }

    /// Another one, since the last one is gone.
    fn next_worker(&mut self, exit: &Exit) {
        let is_restarted = !self.restarting.is_empty();
        if is_restarted {
            tracing::debug!(%exit, "the worker was ended for a restart");
        } else {
            tracing::warn!(%exit, "worker lost; starting another");
        }
        self.announce(ExecutionState::Restarting);
        if is_restarted {
            self.start_worker();
        } else if !self.checkpoints.is_on_its_way() {
            self.replace_worker();
        }
        self.announce(ExecutionState::Starting);
    }

    fn done(&mut self, done: Done) {
        crash_point!("done_read");
        if self.is_killed {
            return tracing::debug!("an end from a worker that was killed");
        }
        let is_current =
            matches!(&self.current, Some(Current::Run(r)) if r.promise.execution == done.execution);
        if !is_current {
            return self.condemn_worker("the end of an execution that does not run");
        }
        let Some(Current::Run(mut running)) = self.current.take() else { return };
        let verdict = self.time_verdict();
        self.ladder.clear();
        self.end_output(&running);
        if done.status != DoneStatus::Ok && running.error.is_none() {
            running.error = Some(cob_protocol::event::ErrorText::coded(
                ErrorCode::WorkerLost,
                "the worker reported a failure without saying which",
            ));
        }
        match verdict {
            None => self.measure_and_settle(running, done),
            verdict => self.settle(running, &done, verdict),
        }
    }
}
