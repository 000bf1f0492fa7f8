//! How a session tells: everything that leaves it passes here, in order and behind its records.

use cob_bridge::{BridgeError, Outcomes, StoreError, Write, Written};
use cob_protocol::content::{ErrorReply, ExecutionState, StatusContent};
use cob_protocol::crash_point;
use cob_protocol::error::ErrorCode;
use cob_protocol::event::ErrorText;
use cob_protocol::frame::{ExecutionNumber, Frame, Outcome};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::message::{Channel, Outgoing};
use cob_protocol::promise::{Durability, SessionState, Settlement, State};

use crate::records::{Effect, Released, Touched};
use crate::request::{ClientRequest, Refusal};
use crate::session::{Current, Finishing, Session, WorkerState};

impl Session {
    // --- Saying ----------------------------------------------------------------------------------------------

    /// The state of the session as a whole.
    pub(crate) fn announce(&mut self, state: ExecutionState) {
        self.records.then(Effect::Publish(status(state, Json::object())));
    }

    /// Busy or idle with a request.
    pub(crate) fn status(&mut self, state: ExecutionState, request: &ClientRequest) {
        if self.outlet.is_heard() {
            self.tell(request.channel, Effect::Publish(status(state, request.parent())));
        }
    }

    /// Broadcasts something about a request.
    pub(crate) fn publish(
        &mut self,
        request: &ClientRequest,
        msg_type: &'static str,
        content: &impl serde::Serialize,
    ) {
        match Json::of(content) {
            Ok(content) => {
                let message = Outgoing::new(msg_type, request.parent(), content);
                self.tell(request.channel, Effect::Publish(message));
            }
            Err(error) => tracing::error!(msg_type, %error, "message not published"),
        }
    }

    pub(crate) fn reply(&mut self, request: &ClientRequest, msg_type: &'static str, content: Json) {
        self.send_reply(request, Outgoing::new(msg_type, request.parent(), content));
    }

    pub(crate) fn send_reply(&mut self, request: &ClientRequest, message: Outgoing) {
        let address = request.client.address.clone();
        self.tell(request.channel, Effect::Reply { channel: request.channel, address, message });
    }

    /// Lets something happen in its turn; what answers the control channel waits for no record.
    fn tell(&mut self, channel: Channel, effect: Effect) {
        match channel {
            Channel::Control => self.perform(effect),
            Channel::Shell | Channel::Stdin | Channel::Iopub => self.records.then(effect),
        }
    }

    // --- Doing -----------------------------------------------------------------------------------------------

    /// Submits what was written and does what is due; whether there may be more to do at once.
    pub(crate) fn tell_on(&mut self) -> bool {
        self.write_progress();
        self.records.submit();
        while !self.is_finishing()
            && let Some(released) = self.records.release()
        {
            match released {
                Released::Effect(effect) => self.perform(effect),
                Released::Recorded(outcomes) => self.recorded(outcomes),
                Released::Failed(error, touched) => self.not_recorded(&error, &touched),
            }
        }
        self.records.has_unsubmitted()
    }

    pub(crate) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Show(message) => {
                crash_point!("event_committed");
                self.outlet.publish(message);
                crash_point!("event_sent");
            }
            Effect::Publish(message) => self.outlet.publish(message),
            Effect::Reply { channel, address, message } => {
                if channel == Channel::Stdin {
                    crash_point!("call_committed");
                }
                self.outlet.reply(channel, &address, message);
            }
            Effect::Answer { promise, channel, address, message } => {
                let metadata = promise.map_or_else(Json::object, |id| self.settled_metadata(id));
                self.outlet.reply(channel, &address, Outgoing { metadata, ..message });
            }
            Effect::Send { generation, frame, payloads, lane } => {
                let is_work = matches!(*frame, Frame::Execute(_));
                if is_work {
                    crash_point!("start_committed");
                } else if matches!(*frame, Frame::Answer(_)) {
                    crash_point!("answer_committed");
                }
                if let WorkerState::Live(worker) = &mut self.worker
                    && generation == self.generation
                    && let Err(error) = worker.send(&frame, payloads, lane)
                {
                    self.not_sent(&frame, error.to_string());
                }
                if is_work {
                    crash_point!("frame_sent");
                }
            }
            Effect::Acknowledge { generation, progress } => {
                if let WorkerState::Live(worker) = &mut self.worker
                    && generation == self.generation
                {
                    worker.record(progress);
                }
            }
            Effect::Forget { secret } => {
                if let Some(kept) = &self.kept {
                    kept.forget(&secret);
                }
            }
            Effect::Finish(finishing) => {
                crash_point!("settled_before_reply");
                self.finish_when_flushed(finishing);
            }
            Effect::Report(report) => report(Ok(())),
            Effect::Item(sent) => self.item_settled(*sent, Ok(())),
            Effect::Owed(_) | Effect::Started(_) | Effect::Unrecorded { .. } => {}
        }
    }

    /// A frame was not taken: what waits for its answer has failed.
    fn not_sent(&mut self, frame: &Frame, why: String) {
        match (frame, self.current.take()) {
            (Frame::Execute(_) | Frame::Comm(_), Some(Current::Run(running))) => {
                self.fail(running, ErrorCode::RequestTooLarge, why);
            }
            (
                Frame::Complete(_) | Frame::Inspect(_) | Frame::IsComplete(_),
                Some(Current::Ask { request, .. }),
            ) => {
                self.reply_error(&request, ErrorCode::RequestTooLarge, &why, SessionState::Kept);
                self.status(ExecutionState::Idle, &request);
            }
            (Frame::Namespace(_), Some(Current::Look { asked, .. })) => {
                let _ = asked.send(Err(Refusal::new(ErrorCode::WorkerLost, why)));
            }
            (Frame::Answer(answer), current) => {
                self.current = current;
                // The code waits for it. A refusal this small always fits, unless nothing does.
                if !matches!(answer.outcome, Outcome::Declined(_)) {
                    self.answer_call(answer.request, Outcome::Declined(why));
                }
            }
            (_, current) => {
                tracing::warn!(frame = frame.kind().name(), why, "a frame was not taken by the worker");
                self.current = current;
            }
        }
    }

    /// What is said beside the reply of a promise that was settled by the last group.
    pub(crate) fn settled_metadata(&self, id: PromiseId) -> Json {
        let settled = self.settled.iter().find(|settled| settled.id == id);
        settled.map_or_else(Json::object, crate::replies::metadata)
    }

    fn recorded(&mut self, outcomes: Outcomes) {
        // Whoever was to hear of the group before has.
        self.settled.clear();
        for outcome in outcomes {
            match outcome {
                Ok(Written::Settled(promise)) if promise.id.call.is_none() => self.settled.push(*promise),
                Ok(_) => {}
                Err(error @ BridgeError::Misnumbered { id, .. }) => self.not_in_order(id.execution, &error),
                Err(error @ BridgeError::Incomplete { id, recorded, .. }) => {
                    // The reply says that, and the end that is owed claims what is there.
                    if let Some(context) = self.contexts.get_mut(id.execution) {
                        context.next_event = recorded + 1;
                    }
                    self.not_in_order(id.execution, &error);
                }
                Err(error) => tracing::error!(%error, "a record was refused"),
            }
        }
    }

    /// What came before this event is not recorded, so it is not either.
    fn not_in_order(&mut self, execution: ExecutionNumber, error: &BridgeError) {
        tracing::warn!(%error, "not recorded: what came before it is missing");
        let reason = StoreError::Failed { store: "the journal".to_owned(), what: error.to_string() };
        self.mark_unrecorded(execution, &reason);
        let effects = self.records.take_behind().into_iter().filter_map(|effect| match effect {
            Effect::Show(_) => None,
            Effect::Item(sent) if sent.promise.execution == execution => {
                self.item_settled(*sent, Err(&reason));
                None
            }
            Effect::Finish(finishing) if finishing.running.promise.execution == execution => {
                Some(Effect::Finish(self.finish_unrecorded(finishing, &reason)))
            }
            other => Some(other),
        });
        let effects = effects.collect();
        self.records.put_back(effects);
    }

    fn mark_unrecorded(&mut self, execution: ExecutionNumber, error: &StoreError) {
        if let Some(Current::Run(running)) = &mut self.current
            && running.promise.execution == execution
        {
            running.unrecorded.get_or_insert_with(|| error.clone());
        }
    }

    /// The store failed. What would have been told is not; who waits for an answer gets the reason.
    fn not_recorded(&mut self, error: &StoreError, touched: &[Touched]) {
        tracing::error!(%error, "not recorded");
        for Touched { execution, first_event } in touched {
            self.mark_unrecorded(*execution, error);
            // The numbers of events that are not there are given again.
            if let (Some(first), Some(context)) = (first_event, self.contexts.get_mut(*execution)) {
                context.next_event = context.next_event.min(*first);
            }
        }
        let effects = self.records.take_behind();
        let effects = effects.into_iter().filter_map(|effect| self.unrecorded_effect(effect, error));
        let effects = effects.collect();
        self.records.put_back(effects);
    }

    /// What happens instead of an effect whose records are missing.
    fn unrecorded_effect(&mut self, effect: Effect, error: &StoreError) -> Option<Effect> {
        match effect {
            // The old secret is all that another server could find.
            Effect::Show(_) | Effect::Forget { .. } => return None,
            Effect::Send { frame, .. } if matches!(*frame, Frame::Execute(_) | Frame::Comm(_)) => {
                if let Some(Current::Run(mut running)) = self.current.take() {
                    running.unrecorded.get_or_insert_with(|| error.clone());
                    self.fail(running, store_code(error), format!("{error}; nothing was run"));
                }
            }
            Effect::Finish(finishing) => {
                return Some(Effect::Finish(self.finish_unrecorded(finishing, error)));
            }
            Effect::Owed(write) => self.owed.push(*write),
            Effect::Report(report) => report(Err(error)),
            Effect::Item(sent) => self.item_settled(*sent, Err(error)),
            Effect::Unrecorded { promise, reply } => self.outlet.unrecorded(promise, &reply),
            Effect::Started(id) => {
                let promises = self.queue.iter_mut().filter_map(|queued| queued.promised.as_mut());
                promises
                    .filter(|promised| promised.id == id)
                    .for_each(|promised| promised.is_started = false);
            }
            other => return Some(other),
        }
        None
    }

    /// The outcome of an execution is not recorded, so it is not told: the reply says what happened instead, and so
    /// will the record as soon as there can be one.
    fn finish_unrecorded(&mut self, mut finishing: Box<Finishing>, error: &StoreError) -> Box<Finishing> {
        let evalue = format!("{error}; the code has ended, but its outcome is not recorded");
        let text = ErrorText::coded(store_code(error), evalue);
        let mut reply = ErrorReply::coded(&text, store_code(error), SessionState::Kept);
        reply.execution_count = finishing.running.cell.map(|cell| cell.count);
        let content = Json::of(&reply).unwrap_or_default();
        let mut settlement = Settlement::silent(State::Rejected, content.clone(), SessionState::Kept);
        if let Some(context) = self.contexts.get_mut(finishing.running.promise.execution) {
            settlement.last_event = context.next_event - 1;
            settlement.tally = context.budget.tally();
        }
        self.owed.push(Write::Settle { id: finishing.running.promise, settlement });
        self.outlet.unrecorded(finishing.running.promise, &content);
        finishing.reply = finishing.reply.map(|_| content);
        finishing.failed = true;
        finishing
    }

    /// Writes what must be recorded in the end: when the store does not take it, it is offered again.
    pub(crate) fn write_surely(&mut self, durability: Durability, write: Write) {
        self.records.write(durability, write.clone());
        self.records.then(Effect::Owed(Box::new(write)));
    }

    /// Offers the store what it did not take, before anything new.
    pub(crate) fn pay_debts(&mut self) {
        for write in std::mem::take(&mut self.owed) {
            self.write_surely(self.config.durability, write);
        }
    }
}

pub(crate) fn status(state: ExecutionState, parent: Json) -> Outgoing {
    let content = Json::of(&StatusContent { execution_state: state }).unwrap_or_default();
    Outgoing::new("status", parent, content)
}

/// The write that ends a promise: one that timed out ends at its deadline, whenever that was noticed.
pub(crate) fn end_of(id: PromiseId, settlement: Settlement) -> Write {
    match settlement.state {
        State::RejectedTimedOut => Write::Expire { id, settlement },
        _ => Write::Settle { id, settlement },
    }
}

/// What clients are told of a store that fails.
pub(crate) fn store_code(error: &StoreError) -> ErrorCode {
    match error {
        StoreError::Full { .. } => ErrorCode::StoreFull,
        StoreError::Busy { .. } => ErrorCode::StoreBusy,
        _ => ErrorCode::StoreFailed,
    }
}

/// What clients are told of a refusal.
pub(crate) fn refusal_code(error: &BridgeError) -> ErrorCode {
    match error {
        BridgeError::KeyReused { .. } => ErrorCode::KeyReused,
        BridgeError::Full(_) => ErrorCode::Busy,
        BridgeError::Store(error) => store_code(error),
        _ => ErrorCode::StoreFailed,
    }
}
