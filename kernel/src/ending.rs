//! How things end: an execution with its reply, and the session with its last record.

use std::time::Duration;

use cob_bridge::Write;
use cob_pool::Lane;
use cob_protocol::content::ExecutionState;
use cob_protocol::crash_point;
use cob_protocol::frame::Shutdown;
use cob_protocol::limits::{OUTPUT_BEFORE_REPLY_MS_MAX, SHUTDOWN_GRACE_MS};
use cob_protocol::message::Outgoing;
use tokio::time::Instant;

use crate::records::Effect;
use crate::session::{End, Finishing, Running, Session, Stopping, WorkerState};
use crate::telling::status;

impl Session {
    /// One execution has ended and is not yet replied to: the worker is not heard, and gets nothing new.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_concluding || self.finishing.is_some() || self.measuring.is_some()
    }

    /// Holds the reply back until the output before it is on the wire; usually it already is.
    pub(crate) fn finish_when_flushed(&mut self, mut finishing: Box<Finishing>) {
        self.is_concluding = false;
        finishing.deadline = Instant::now() + Duration::from_millis(OUTPUT_BEFORE_REPLY_MS_MAX);
        self.finishing = Some(finishing);
        self.outlet.flush();
        if self.is_lagging || self.outlet.is_flushed() {
            self.finish();
        }
    }

    /// Whether a reply waits for the output before it: nothing else is told meanwhile.
    pub(crate) fn is_finishing(&self) -> bool {
        self.finishing.is_some()
    }

    /// Reply, then idle, then what else depends on the outcome.
    pub(crate) fn finish(&mut self) {
        let Some(finishing) = self.finishing.take() else { return };
        let Finishing { running, reply, failed, .. } = *finishing;
        self.is_lagging = !self.outlet.is_flushed();
        let Running { request, promise, cell, durability, .. } = *running;
        if let Some(content) = reply {
            let metadata = self.settled_metadata(promise);
            let message = Outgoing { metadata, ..Outgoing::new("execute_reply", request.parent(), content) };
            self.reply_to_joined(promise, &message);
            // Agents are told from the journal.
            if !request.is_agents() {
                self.outlet.reply(request.channel, &request.client.address, message);
            }
        }
        crash_point!("reply_sent");
        tracing::trace!(%promise, durability = durability.as_str(), "replied");
        // What stands in the queue came later.
        self.perform(Effect::Publish(status(ExecutionState::Idle, request.parent())));
        if failed && cell.is_some_and(|cell| cell.stop_on_error) {
            self.abort_queued_of(&request.client);
        }
    }

    // --- Shutdown --------------------------------------------------------------------------------------------

    /// Ends the session: what waits is refused, what runs is interrupted, the worker gets a moment for its exit
    /// hooks.
    pub(crate) fn shut_down(&mut self, restart: bool) {
        if self.stopping.is_some() || self.end.is_some() {
            return;
        }
        self.interrupt();
        let (code, why) = self.farewell();
        self.refuse_queue(code, why);
        self.end_ways(code, why);
        match &mut self.worker {
            WorkerState::Live(worker) => {
                // If it cannot be told it is killed in a moment.
                let _ = worker.send(&Shutdown { restart }.into(), Vec::new(), Lane::Control);
                let kill_at = Instant::now() + Duration::from_millis(SHUTDOWN_GRACE_MS);
                self.stopping = Some(Stopping { kill_at });
            }
            WorkerState::Starting(task) => {
                task.abort();
                self.worker = WorkerState::None;
                self.end = Some(End::Shutdown);
            }
            WorkerState::None => self.end = Some(End::Shutdown),
        }
    }

    /// Whether it has ended, and everybody who is to know has been told.
    pub(crate) fn is_over(&self) -> bool {
        let is_told = self.records.is_empty()
            && self.finishing.is_none()
            && self.arrivals.is_empty()
            && !self.channels.is_opening();
        self.end.is_some() && is_told
    }

    /// Everything of it is settled.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.pay_debts();
        self.close_channels();
        self.write_surely(self.config.durability, Write::CloseSession { session: self.config.id });
    }
}
