//! How a session ends what runs: interrupts, limits of time, and in the end the worker itself.
//!
//! The race that decides what may be said: code can end at the very moment in which its worker is killed.
//!
//! - Before the kill, everything that has arrived from the worker is dealt with ([`Session::still_runs`]). An end
//!   among it wins, and nothing is killed. So code that ended in time is never punished for a kernel that was slow
//!   to look.
//! - From the kill on, the outcome is decided. An end that the worker still managed to write between our last look
//!   and the signal is ignored ([`Session::is_killed`]), because believing it would mean a reply that says the
//!   variables are kept, from a worker that no longer has any. The output before it is kept all the same.
//! - So a reply says `kept` only if its end was taken from a worker that nobody had killed, and `lost` only after
//!   the end of the process was seen. What happens to a worker after that is news of its own: `restarting`.
//! - If there is a checkpoint to go back to, nothing is said before it is known whether that worked: then `restored`.

use std::time::Duration;

use cob_bridge::Write;
use cob_pool::{Exit, WorkerEvent};
use cob_protocol::content::ErrorReply;
use cob_protocol::error::ErrorCode;
use cob_protocol::event::ErrorText;
use cob_protocol::frame::question_target;
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::SHUTDOWN_GRACE_MS;
use cob_protocol::promise::{SessionState, Settlement, State};
use tokio::time::Instant;

use crate::calls::{Answered, CallEnd};
use crate::checkpoints::{How, Loss};
use crate::dispatch::Queued;
use crate::handlers::Verdict;
use crate::ladder::{Cause, Climb, Step};
use crate::session::{Current, Session, WorkerState};
use crate::text::{count, duration};

/// Looks that must find nothing before nothing is there. One look can be cut short, by its share of the processor
/// or in the middle of a read; the event loop looks at the sockets between two of them.
const QUIET_LOOKS: u32 = 3;

impl Session {
    /// Interrupts what runs; nothing runs, nothing happens.
    pub(crate) fn interrupt(&mut self) {
        // It wakes code that waits for an answer: from here on it is the code that takes its time.
        self.resume_clock();
        if let Some(target) = self.interruptible() {
            self.climb(target, Cause::Interrupt);
        }
    }

    /// Signals, and puts the target on the ladder.
    fn climb(&mut self, target: u64, cause: Cause) {
        if let (WorkerState::Live(worker), false) = (&self.worker, self.is_killed) {
            worker.interrupt(target);
            self.ladder.begin(target, cause, Instant::now());
        }
    }

    /// What an interrupt would aim at.
    fn interruptible(&self) -> Option<u64> {
        match self.current.as_ref()? {
            Current::Run(running) => Some(running.promise.execution),
            Current::Ask { number, .. } | Current::Look { number, .. } => Some(question_target(*number)),
            Current::Load(merging) => Some(question_target(merging.number)),
        }
    }

    // --- Time ------------------------------------------------------------------------------------------------

    /// When [`Session::deadline_passed`] has something to do. What needs a last look at the worker waits until
    /// there is room for what it may have said.
    pub(crate) fn next_deadline(&self, has_room: bool) -> Option<Instant> {
        let stop = self.stopping.map(|stopping| stopping.kill_at);
        let look = self.ladder.kill_at().or_else(|| self.time_up_at()).filter(|_| has_room);
        let [sleep, durable] = [self.sleep_at(), self.durable_at()];
        [stop, self.ladder.signal_at(), look, self.idle_until(), self.wait_until(), sleep, durable]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) async fn deadline_passed(&mut self) {
        let now = Instant::now();
        if let Some(stopping) = &mut self.stopping
            && stopping.kill_at <= now
        {
            stopping.kill_at = now + Duration::from_millis(SHUTDOWN_GRACE_MS);
            self.kill_worker();
        }
        match self.ladder.step(now) {
            Some(Step::Signal(target)) => {
                if let WorkerState::Live(worker) = &self.worker {
                    worker.interrupt(target);
                }
            }
            Some(Step::Kill(target)) => self.kill_if_it_still_runs(target).await,
            None => {}
        }
        if self.time_up_at().is_some_and(|at| at <= now) {
            self.time_is_up().await;
        }
        if self.wait_until().is_some_and(|at| at <= now) {
            self.wait_is_over();
        }
        if self.idle_until().is_some_and(|at| at <= now) {
            self.idle_for_too_long();
        }
        if self.sleep_at().is_some_and(|at| at <= now) {
            self.sleep_after_idling();
        }
    }

    /// Ends a session that nobody uses. What has come in and was not looked at is use.
    fn idle_for_too_long(&mut self) {
        if self.inputs.shell.is_empty() {
            tracing::info!("the session has had nothing to do for long enough, and ends");
            self.shut_down(false);
        } else {
            self.activity.asked();
        }
    }

    /// When the running code has used up its time. Whoever is being ended already is not ended twice.
    fn time_up_at(&self) -> Option<Instant> {
        match (&self.current, self.ladder.climb()) {
            (Some(Current::Run(running)), None) => running.time.and_then(|time| time.deadline()),
            _ => None,
        }
    }

    async fn time_is_up(&mut self) {
        let Some(target) = self.interruptible() else { return };
        // It may have ended in time, or asked its user something, and only we are late.
        if self.still_runs(target).await && self.time_up_at().is_some_and(|at| at <= Instant::now()) {
            tracing::info!("the running code has used up its time and is interrupted");
            self.climb(target, Cause::TimeLimit);
        }
    }

    /// A deadline has passed: what waits is not run, what runs is interrupted, what was asked is answered.
    pub(crate) async fn overdue(&mut self, due: PromiseId) {
        if self.time_out_question(due) {
            return;
        }
        if matches!(&self.current, Some(Current::Run(running)) if running.promise == due) {
            return self.interrupt_overdue(due).await;
        }
        if self.is_held(due) {
            // It has ended, and is settled as soon as it is known what became of the variables.
            return self.bridge.attend(due);
        }
        let is_it = |queued: &Queued| queued.promised.is_some_and(|promised| promised.id == due);
        if let Some(queued) = self.queue.take(is_it) {
            self.queue_bytes -= queued.request.bytes();
            let evalue = "the deadline of the request passed before its turn came; nothing was run";
            let error = ErrorText::coded(ErrorCode::DeadlinePassed, evalue);
            let reply = ErrorReply::coded(&error, ErrorCode::DeadlinePassed, SessionState::Kept);
            let content = Json::of(&reply).unwrap_or_default();
            return self.cancel(queued, State::RejectedTimedOut, content, SessionState::Kept);
        }
        if !self.arrivals.is_empty() {
            // It is on its way into the queue.
            self.again_due(due);
            return tokio::task::yield_now().await;
        }
        self.end_unheld(due);
    }

    /// Nobody holds this promise: its end could not be recorded when it came, or it belongs to no session that goes on.
    fn end_unheld(&mut self, due: PromiseId) {
        if self
            .owed
            .iter()
            .any(|write| matches!(write, Write::Settle { id, .. } | Write::Expire { id, .. } if *id == due))
        {
            return self.pay_debts();
        }
        tracing::warn!(promise = %due, "a promise that nobody holds has passed its deadline");
        let value = match due.call {
            Some(_) => Json::of(&CallEnd { request: 0, answer: Answered::TimedOut, input: None }),
            None => {
                let error = ErrorText::coded(ErrorCode::DeadlinePassed, "the deadline of the request passed");
                Json::of(&ErrorReply::coded(&error, ErrorCode::DeadlinePassed, SessionState::Lost))
            }
        };
        let value = value.unwrap_or_default();
        let settlement = Settlement::silent(State::RejectedTimedOut, value, SessionState::Lost);
        self.records.write(self.config.durability, Write::Expire { id: due, settlement });
    }

    /// It is too early to say what is to be done about it. Who has the clock of their own is told again.
    fn again_due(&mut self, due: PromiseId) {
        if self.config.is_hosted {
            self.due.push_back(due);
        }
    }

    async fn interrupt_overdue(&mut self, due: PromiseId) {
        let Some(target) = self.interruptible() else { return };
        // It may have ended in time, and only we are late.
        let still_runs = self.still_runs(target).await;
        let Some(Current::Run(running)) = &mut self.current else { return };
        if running.promise != due || running.is_overdue {
            return;
        }
        if !still_runs {
            self.again_due(due);
        } else {
            tracing::info!("the deadline of the running code has passed; it is interrupted");
            running.is_overdue = true;
            // Its end will be recorded when the code has ended; meanwhile others are due.
            self.bridge.attend(due);
            self.climb(target, Cause::Deadline);
        }
    }

    /// Somebody is asked: the time is theirs.
    pub(crate) fn pause_clock(&mut self) {
        if let Some(Current::Run(running)) = &mut self.current
            && let Some(time) = &mut running.time
        {
            time.pause(Instant::now());
        }
    }

    /// The code goes on.
    pub(crate) fn resume_clock(&mut self) {
        if let Some(Current::Run(running)) = &mut self.current
            && let Some(time) = &mut running.time
        {
            time.resume(Instant::now());
        }
    }

    // --- Force -----------------------------------------------------------------------------------------------

    async fn kill_if_it_still_runs(&mut self, target: u64) {
        if self.still_runs(target).await && self.ladder.climb().is_some() {
            tracing::warn!("the running code does not react to interrupts; its worker is killed");
            self.ladder.killed();
            self.kill_worker();
        }
    }

    /// Deals with everything that has arrived from the worker, without waiting for more; whether `target` still
    /// runs then. `false` also when there is no room for what has arrived: then it is too early to say.
    async fn still_runs(&mut self, target: u64) -> bool {
        let mut quiet = 0;
        while quiet < QUIET_LOOKS && self.ladder.may_look() {
            if self.interruptible() != Some(target) || !self.outlet.has_room() {
                return false;
            }
            let WorkerState::Live(worker) = &mut self.worker else { return false };
            let arrived = tokio::select! {
                biased;
                event = worker.next() => Some(event),
                () = std::future::ready(()) => None,
            };
            match arrived {
                Some(event) => {
                    quiet = 0;
                    self.ladder.looked_at(output_bytes(&event));
                    self.worker_event(event);
                }
                None => {
                    quiet += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        self.interruptible() == Some(target)
    }

    /// Kills the worker. Nothing it said that we have not heard yet counts as an end any more.
    pub(crate) fn kill_worker(&mut self) {
        if let WorkerState::Live(worker) = &mut self.worker {
            worker.kill();
            self.is_killed = true;
        }
    }

    /// Kills a worker that said what it must not say.
    pub(crate) fn condemn_worker(&mut self, violation: &str) {
        tracing::error!(violation, "the worker broke the protocol and is killed");
        if let WorkerState::Live(worker) = &mut self.worker {
            worker.condemn(violation);
            self.is_killed = true;
        }
    }

    // --- What is said of it ----------------------------------------------------------------------------------

    /// What is said of an execution that was told to end for the time it took, and did.
    pub(crate) fn time_verdict(&self) -> Option<Verdict> {
        let climb = self.ladder.climb().filter(|climb| climb.cause == Cause::TimeLimit)?;
        let asked = count(climb.signals, "an interrupt", "interrupts");
        let evalue = format!("{} and ended after {asked}; the variables are kept", self.took_too_long());
        Some(Verdict { code: ErrorCode::TimeLimit, evalue })
    }

    /// What is said of whatever was lost with the worker.
    pub(crate) fn loss(&self, exit: &Exit) -> Loss {
        let gone = |code| Loss { code, what: format!("the worker {exit}"), how: How::Gone };
        if self.stopping.is_some() {
            return gone(self.farewell().0);
        }
        let is_restarted = !self.restarting.is_empty();
        if self.is_killed && (is_restarted || self.successor.is_some()) {
            let did = if is_restarted { "was restarted" } else { "was told to go back" };
            let what = format!("the session {did} while it ran");
            return Loss { code: ErrorCode::Restarted, what, how: How::Replaced };
        }
        let climb = self.ladder.climb().filter(|_| self.is_killed);
        match (climb, code_of_end(exit, climb.map(|climb| climb.cause))) {
            (
                Some(climb),
                code @ (ErrorCode::InterruptedByForce | ErrorCode::TimeLimit | ErrorCode::DeadlinePassed),
            ) => Loss { code, what: self.forced(climb), how: How::Forced },
            (_, code) => gone(code),
        }
    }

    fn forced(&self, climb: Climb) -> String {
        let interrupts = count(climb.signals, "an interrupt", "interrupts");
        let within = climb.grace.map(|grace| format!(" within {}", duration(grace))).unwrap_or_default();
        let end = format!("did not react to {interrupts}{within}");
        match climb.cause {
            Cause::Interrupt => format!("the code {end}"),
            Cause::TimeLimit => format!("{} and {end}", self.took_too_long()),
            Cause::Deadline => format!("the deadline of the request passed, the code {end}"),
        }
    }

    fn took_too_long(&self) -> String {
        let limit = Duration::from_millis(self.config.limits.time_ms.unwrap_or_default());
        format!("the code took longer than its limit of {}", duration(limit))
    }
}

fn output_bytes(event: &WorkerEvent) -> usize {
    match event {
        WorkerEvent::Output(_, bytes) => bytes.len(),
        WorkerEvent::Frame(..) | WorkerEvent::Gone(_) => 0,
    }
}

/// The code for what was lost with a worker, which we had killed or not.
fn code_of_end(exit: &Exit, killed: Option<Cause>) -> ErrorCode {
    match (exit, killed) {
        (Exit::MemoryLimit(_), _) => ErrorCode::MemoryLimit,
        (Exit::CpuLimit(_), _) => ErrorCode::CpuLimit,
        (Exit::Stalled(_), _) => ErrorCode::WorkerStalled,
        // It was quicker than we, or it was killed for something else.
        (Exit::Status(_) | Exit::Violation(_), _) | (_, None) => ErrorCode::WorkerLost,
        (_, Some(Cause::Interrupt)) => ErrorCode::InterruptedByForce,
        (_, Some(Cause::TimeLimit)) => ErrorCode::TimeLimit,
        (_, Some(Cause::Deadline)) => ErrorCode::DeadlinePassed,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use cob_bridge::Bridge;
    use cob_pool::{Program, Workers};
    use cob_protocol::ids::SessionId;
    use cob_protocol::json::Json;
    use cob_protocol::message::{Channel, Incoming};
    use cob_protocol::promise::Durability;
    use cob_protocol::resources::Limits;
    use cob_protocol::time::SystemClock;

    use super::*;
    use crate::outlet::Outlet;
    use crate::request::{ClientRequest, lanes};
    use crate::session::Config;

    #[tokio::test]
    async fn a_request_that_comes_with_the_end_of_patience_is_not_refused() {
        let config = Config {
            id: SessionId(1),
            program: Program {
                path: "/nowhere".into(),
                arguments: Vec::new(),
                environment: Vec::new(),
                directory: None,
                image: None,
            },
            options: Json::object(),
            limits: Limits::default(),
            interrupt_grace: None,
            umask: None,
            is_confined: false,
            workers: Workers::Cold,
            ports: None,
            durability: Durability::None,
            is_hosted: true,
            idle_timeout: Some(Duration::ZERO),
            about: None,
            survival: None,
            past: None,
            checkpoints: cob_protocol::checkpoint::Policy::default(),
            seed: None,
            history: Vec::new(),
        };
        let (senders, inputs) = lanes();
        let bridge = Bridge::in_memory(Arc::new(SystemClock));
        let mut session = Session::new(config, bridge, Outlet::local().0, inputs);
        let header = Json::parse(r#"{"msg_id":"m","msg_type":"execute_request","session":"c"}"#).unwrap();
        let message = Incoming {
            header: header.read().unwrap(),
            header_json: header,
            metadata: Json::object(),
            content: Bytes::from_static(b"{}"),
            buffers: Vec::new(),
        };
        senders.shell.try_send(ClientRequest::new(Bytes::new(), Channel::Shell, message)).unwrap();
        session.deadline_passed().await;
        assert!(!session.is_stopping() && session.idle_until().is_none());
        session.inputs.shell.try_recv().unwrap();
        session.tell_standing();
        session.deadline_passed().await;
        assert!(session.is_stopping());
    }

    #[test]
    fn how_a_worker_ended_decides_the_code_and_only_then_who_killed_it() {
        let killed = Exit::Signal(9);
        for (exit, killer, code) in [
            (&killed, None, ErrorCode::WorkerLost),
            (&killed, Some(Cause::Interrupt), ErrorCode::InterruptedByForce),
            (&killed, Some(Cause::TimeLimit), ErrorCode::TimeLimit),
            (&Exit::Unknown, Some(Cause::Interrupt), ErrorCode::InterruptedByForce),
            (&Exit::Status(0), Some(Cause::Interrupt), ErrorCode::WorkerLost),
            (&Exit::Violation(String::new()), Some(Cause::Interrupt), ErrorCode::WorkerLost),
            (&Exit::MemoryLimit(1), Some(Cause::Interrupt), ErrorCode::MemoryLimit),
            (&Exit::CpuLimit(1), None, ErrorCode::CpuLimit),
            (&Exit::Stalled(19), None, ErrorCode::WorkerStalled),
        ] {
            assert_eq!(code_of_end(exit, killer), code, "{exit:?} {killer:?}");
        }
    }
}
