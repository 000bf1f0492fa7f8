//! Where a session stands: what everybody may know of it at any time, and since when it has had nothing to do.

use cob_protocol::ids::PromiseId;
use cob_protocol::time::Timestamp;
use tokio::time::Instant;

use crate::request::Phase;
use crate::server::{Holding, SessionStatus};
use crate::session::{Current, End, Session, WorkerState};

/// Since when nothing has run or waited.
#[derive(Debug)]
pub(crate) struct Activity {
    /// `None`: something does.
    idle_since: Option<Instant>,
    /// When something last did, or the session began.
    last_at: Timestamp,
}

impl Activity {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { idle_since: Some(Instant::now()), last_at: now }
    }

    /// Something was asked for.
    pub(crate) fn asked(&mut self) {
        self.idle_since = None;
    }

    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }

    pub(crate) fn last_at(&self, now: Timestamp) -> Timestamp {
        if self.idle_since.is_none() { now } else { self.last_at }
    }

    fn follow(&mut self, is_at_work: bool, now: impl FnOnce() -> Timestamp) {
        if is_at_work {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
            self.last_at = now();
        }
    }
}

impl Session {
    /// Whether something runs, or waits to be run or answered.
    pub(crate) fn is_at_work(&self) -> bool {
        self.current.is_some()
            || self.is_ending()
            || !self.queue.is_empty()
            || !self.arrivals.is_empty()
            || !self.restarting.is_empty()
            || self.held.is_some()
            || self.checkpoints.is_at_work()
    }

    /// The question that its code waits for.
    pub(crate) fn asking(&self) -> Option<PromiseId> {
        match &self.current {
            Some(Current::Run(running)) => running.question.as_ref().map(|question| question.promise),
            _ => None,
        }
    }

    pub(crate) fn standing(&self) -> SessionStatus {
        let held = self.held.as_ref().map(|held| &held.current);
        let running = match self.current.as_ref().or(held) {
            Some(Current::Run(running)) => Some(running.promise),
            _ => None,
        };
        SessionStatus { state: self.phase(), running }
    }

    fn phase(&self) -> Phase {
        match &self.end {
            Some(End::StartFailed(_)) => return Phase::Dead,
            Some(End::Shutdown) if self.is_closed && self.records.is_empty() => return Phase::Closed,
            Some(End::Shutdown) => return Phase::Closing,
            None if self.stopping.is_some() || self.is_draining => return Phase::Closing,
            None => {}
        }
        match &self.worker {
            _ if !self.restarting.is_empty() => Phase::Restarting,
            WorkerState::Starting(_) if self.ready.is_none() => Phase::Starting,
            WorkerState::Starting(_) => Phase::Restarting,
            WorkerState::None if !self.is_at_work() => Phase::Dormant,
            WorkerState::None if self.held.is_some() => Phase::Restarting,
            WorkerState::None => Phase::Starting,
            WorkerState::Live(_) if self.asking().is_some() => Phase::Asking,
            WorkerState::Live(_) if self.is_at_work() => Phase::Busy,
            WorkerState::Live(_) => Phase::Idle,
        }
    }

    /// Tells where the session stands, if that has changed.
    pub(crate) fn tell_standing(&mut self) {
        let bridge = &self.bridge;
        let is_at_work = self.current.is_some()
            || self.is_concluding
            || self.finishing.is_some()
            || self.measuring.is_some()
            || self.held.is_some()
            || self.checkpoints.is_at_work()
            || !self.queue.is_empty()
            || !self.arrivals.is_empty();
        self.activity.follow(is_at_work, || bridge.now());
        if self.outlet.is_server() {
            self.outlet.set_status(self.standing());
            self.outlet.holds(Holding {
                checkpoints: self.checkpoints.in_memory().count(),
                bytes: self.checkpoints.bytes(),
                wakes_at: self.wakes_at(),
            });
        }
    }

    /// When it has had nothing to do for too long.
    pub(crate) fn idle_until(&self) -> Option<Instant> {
        let timeout = self.config.idle_timeout?;
        if self.is_stopping() {
            return None;
        }
        self.activity.idle_since().map(|since| since + timeout)
    }
}
