//! Record, then tell: what a session writes down, and what may leave it only once that is committed.
//!
//! The session never waits for the store. It says what to write and what is to happen *behind* that: a broadcast, a
//! reply, a frame for the worker. Both are put into one queue, and an effect leaves it when every group of writes
//! before it is recorded. So nobody is ever told what a crash could take back, and order is kept by construction.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use cob_bridge::{Bridge, Outcomes, StoreError, Submitted, Write};
use cob_pool::{Lane, Progress};
use cob_protocol::event::EventNumber;
use cob_protocol::frame::{ExecutionNumber, Frame};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::EFFECTS_BYTES_MAX;
use cob_protocol::message::{Channel, Outgoing};
use cob_protocol::promise::Durability;

use crate::request::Address;
use crate::session::Finishing;
use crate::streams::Sent;

/// Tells somebody whether what they asked for is recorded.
pub(crate) type Report = Box<dyn FnOnce(Result<(), &StoreError>) + Send>;

/// What happens once everything before it is recorded.
pub(crate) enum Effect {
    /// Broadcast an output: what is not recorded is not shown.
    Show(Outgoing),
    /// Broadcast something that is no output.
    Publish(Outgoing),
    /// Send to one client.
    Reply { channel: Channel, address: Address, message: Outgoing },
    /// The same, about a promise that was settled just now: the metadata say what is recorded of it.
    Answer { promise: Option<PromiseId>, channel: Channel, address: Address, message: Outgoing },
    /// Hand a frame to the worker of this generation.
    Send { generation: u64, frame: Box<Frame>, payloads: Vec<Bytes>, lane: Lane },
    /// Tell the worker of this generation how far it is recorded.
    Acknowledge { generation: u64, progress: Progress },
    /// The worker's custodian need not know this secret any more.
    Forget { secret: String },
    /// An execution is settled: what is left is its reply.
    Finish(Box<Finishing>),
    /// Nothing, if this is recorded; if not, it is offered again.
    Owed(Box<Write>),
    /// Nothing, if the end of this execution is recorded; if not, agents that wait for it get this reply.
    Unrecorded { promise: PromiseId, reply: Json },
    /// An item of a channel can be taken, if it is recorded.
    Item(Box<Sent>),
    /// Say whether everything before it is recorded.
    Report(Report),
    /// Nothing, if the start of this execution, which waits in the queue, is recorded; if not, it is not started.
    Started(PromiseId),
}

/// An execution that a group of writes is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) execution: ExecutionNumber,
    /// The first of its events in the group.
    pub(crate) first_event: Option<EventNumber>,
}

impl Effect {
    fn bytes(&self) -> usize {
        match self {
            Self::Show(message)
            | Self::Publish(message)
            | Self::Reply { message, .. }
            | Self::Answer { message, .. } => {
                message.content.as_str().len() + message.buffers.iter().map(Bytes::len).sum::<usize>()
            }
            Self::Send { payloads, .. } => payloads.iter().map(Bytes::len).sum(),
            Self::Acknowledge { .. }
            | Self::Forget { .. }
            | Self::Finish(_)
            | Self::Owed(_)
            | Self::Unrecorded { .. }
            | Self::Report(_)
            | Self::Item(_)
            | Self::Started(_) => 0,
        }
    }
}

/// What leaves the queue.
pub(crate) enum Released {
    Effect(Effect),
    /// A group is recorded.
    Recorded(Outcomes),
    /// A group that was about these executions is not recorded.
    Failed(StoreError, Vec<Touched>),
}

enum Entry {
    Group { submitted: Submitted, outcome: Option<Result<Outcomes, StoreError>>, touched: Vec<Touched> },
    Effect(Effect),
}

/// See the module.
pub(crate) struct Records {
    bridge: Bridge,
    /// The group that is being put together, and how safe it must be.
    writes: Vec<Write>,
    durability: Durability,
    touched: Vec<Touched>,
    /// It ends an execution, whose reply says what is recorded of that.
    is_end: bool,
    /// Effects behind that group.
    staged: Vec<Effect>,
    queue: VecDeque<Entry>,
    queued_bytes: usize,
}

impl Records {
    pub(crate) fn new(bridge: Bridge) -> Self {
        Self {
            bridge,
            writes: Vec::new(),
            durability: Durability::None,
            touched: Vec::new(),
            is_end: false,
            staged: Vec::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
        }
    }

    /// Adds to the group that is being put together.
    pub(crate) fn write(&mut self, durability: Durability, write: Write) {
        self.durability = self.durability.max(durability);
        self.touch(&write);
        self.writes.push(write);
    }

    fn touch(&mut self, write: &Write) {
        let (id, number) = match write {
            Write::Append { id, number, .. } => (*id, Some(*number)),
            Write::Output { id, .. } | Write::CreateCall { id, .. } => (*id, None),
            Write::Settle { id, .. } | Write::Expire { id, .. } => {
                self.is_end |= id.call.is_none();
                (*id, None)
            }
            _ => return,
        };
        match self.touched.iter_mut().find(|touched| touched.execution == id.execution) {
            Some(touched) => touched.first_event = touched.first_event.or(number),
            None => self.touched.push(Touched { execution: id.execution, first_event: number }),
        }
    }

    /// Lets something happen once everything written so far is recorded.
    pub(crate) fn then(&mut self, effect: Effect) {
        self.queued_bytes += effect.bytes();
        self.staged.push(effect);
    }

    /// Whether something was said that is not on its way.
    pub(crate) fn has_unsubmitted(&self) -> bool {
        !self.writes.is_empty() || !self.staged.is_empty()
    }

    /// Hands the group to the store.
    pub(crate) fn submit(&mut self) {
        if !self.writes.is_empty() {
            let writes = std::mem::take(&mut self.writes);
            let durability = std::mem::take(&mut self.durability);
            let touched = std::mem::take(&mut self.touched);
            let submitted = self.bridge.submit(durability, writes);
            // Of what nobody needs to wait for, nobody waits for the outcome either.
            if durability != Durability::None || self.is_end {
                self.queue.push_back(Entry::Group { submitted, outcome: None, touched });
            }
            self.is_end = false;
        }
        self.durability = Durability::None;
        self.queue.extend(self.staged.drain(..).map(Entry::Effect));
    }

    /// The next thing that is due.
    pub(crate) fn release(&mut self) -> Option<Released> {
        match self.queue.front_mut()? {
            Entry::Effect(_) => {}
            Entry::Group { submitted, outcome, touched } => {
                let outcome = outcome.take().or_else(|| submitted.try_take())?;
                let touched = std::mem::take(touched);
                self.queue.pop_front();
                return Some(match outcome {
                    Ok(outcomes) => Released::Recorded(outcomes),
                    Err(error) => Released::Failed(error, touched),
                });
            }
        }
        let Some(Entry::Effect(effect)) = self.queue.pop_front() else { return None };
        self.queued_bytes = self.queued_bytes.saturating_sub(effect.bytes());
        Some(Released::Effect(effect))
    }

    /// Takes the effects up to the next group; those that shall happen all the same are put back.
    pub(crate) fn take_behind(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(Entry::Effect(_)) = self.queue.front()
            && let Some(Entry::Effect(effect)) = self.queue.pop_front()
        {
            self.queued_bytes = self.queued_bytes.saturating_sub(effect.bytes());
            effects.push(effect);
        }
        effects
    }

    /// Puts effects before everything else.
    pub(crate) fn put_back(&mut self, effects: Vec<Effect>) {
        for effect in effects.into_iter().rev() {
            self.queued_bytes += effect.bytes();
            self.queue.push_front(Entry::Effect(effect));
        }
    }

    /// Waits until something is due; for ever when nothing is queued. Cancel-safe.
    pub(crate) async fn due(&mut self) {
        poll_fn(|context| self.poll_due(context)).await;
    }

    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.queue.front_mut() {
            None => Poll::Pending,
            Some(Entry::Effect(_)) => Poll::Ready(()),
            Some(Entry::Group { outcome: Some(_), .. }) => Poll::Ready(()),
            Some(Entry::Group { submitted, outcome, .. }) => {
                Pin::new(submitted).poll(context).map(|recorded| *outcome = Some(recorded))
            }
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.staged.is_empty() && self.writes.is_empty()
    }

    /// Whether more may be recorded before what waits is gone.
    pub(crate) fn has_room(&self) -> bool {
        self.queued_bytes < EFFECTS_BYTES_MAX && self.bridge.has_room()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use cob_bridge::{BridgeError, Group, MemoryStore, Store};
    use cob_protocol::event::Event;
    use cob_protocol::ids::SessionId;
    use cob_protocol::promise::{SessionState, Settlement, State};
    use cob_protocol::time::SystemClock;

    use super::*;

    const SESSION: SessionId = SessionId(1);

    /// A store in memory whose disk is full when the test says so.
    struct Disk {
        store: MemoryStore,
        is_full: Arc<AtomicBool>,
    }

    impl Store for Disk {
        fn commit(&mut self, groups: &[Group]) -> Result<Vec<Outcomes>, StoreError> {
            if self.is_full.load(Ordering::SeqCst) {
                return Err(StoreError::Busy { store: "a test".to_owned() });
            }
            self.store.commit(groups)
        }
    }

    fn on_disk() -> (Records, Arc<AtomicBool>) {
        let is_full = Arc::new(AtomicBool::new(false));
        let store = Disk { store: MemoryStore::default(), is_full: Arc::clone(&is_full) };
        let read = || Ok::<Box<dyn cob_bridge::Read>, BridgeError>(Box::new(MemoryStore::default()));
        let bridge = Bridge::over("a test", store, read, Arc::new(SystemClock)).unwrap();
        (Records::new(bridge), is_full)
    }

    fn in_memory() -> Records {
        Records::new(Bridge::in_memory(Arc::new(SystemClock)))
    }

    fn show(text: &str) -> Effect {
        Effect::Show(Outgoing::new("stream", Json::object(), Json::from(serde_json::json!(text))))
    }

    fn open() -> Write {
        Write::OpenSession { session: SESSION, about: Json::object() }
    }

    fn append(execution: u64, number: u64) -> Write {
        let id = PromiseId::execution(SESSION, execution);
        Write::Append { id, number, event: Arc::new(Event::Done { last: 0 }) }
    }

    fn text(released: Option<Released>) -> String {
        match released {
            Some(Released::Effect(Effect::Show(message))) => message.content.read().unwrap(),
            Some(Released::Effect(_)) => "another effect".to_owned(),
            Some(Released::Recorded(outcomes)) => format!("{} recorded", outcomes.len()),
            Some(Released::Failed(_, touched)) => format!("failed {touched:?}"),
            None => "nothing".to_owned(),
        }
    }

    #[test]
    fn effects_without_records_are_due_at_once_and_only_when_submitted() {
        let mut records = in_memory();
        records.then(show("a"));
        assert!(records.has_unsubmitted());
        assert_eq!(text(records.release()), "nothing");
        records.submit();
        assert!(!records.has_unsubmitted());
        assert_eq!(text(records.release()), "a");
        assert_eq!(text(records.release()), "nothing");
        assert!(records.is_empty());
    }

    #[tokio::test]
    async fn an_effect_comes_after_every_group_before_it() {
        let (mut records, _) = on_disk();
        records.then(show("before"));
        records.write(Durability::Process, open());
        records.then(show("after one"));
        records.submit();
        // Both wait: what is said in one breath is told in one.
        records.write(Durability::Process, Write::Recover { session: SESSION });
        records.submit();
        records.then(show("after both"));
        records.submit();
        let mut told = Vec::new();
        while told.last().is_none_or(|last| last != "after both") {
            records.due().await;
            told.push(text(records.release()));
        }
        assert_eq!(told, ["1 recorded", "before", "after one", "1 recorded", "after both"]);
        assert!(records.is_empty());
    }

    #[tokio::test]
    async fn a_group_that_fails_says_what_it_was_about_and_keeps_what_stood_behind_it_apart() {
        let (mut records, is_full) = on_disk();
        is_full.store(true, Ordering::SeqCst);
        records.write(Durability::Process, append(3, 7));
        records.write(Durability::Process, append(3, 8));
        records.write(Durability::Process, append(2, 1));
        records.then(show("not told"));
        records.then(show("told all the same"));
        records.submit();
        records.due().await;
        let touched = match records.release() {
            Some(Released::Failed(StoreError::Busy { .. }, touched)) => touched,
            other => unreachable!("{}", text(other)),
        };
        let about = |execution, first| Touched { execution, first_event: Some(first) };
        assert_eq!(touched, [about(3, 7), about(2, 1)]);
        is_full.store(false, Ordering::SeqCst);
        records.write(Durability::Process, open());
        records.then(show("next"));
        records.submit();
        let mut behind = records.take_behind();
        assert_eq!(behind.len(), 2);
        behind.remove(0);
        records.put_back(behind);
        assert_eq!(text(records.release()), "told all the same");
        records.due().await;
        assert_eq!(text(records.release()), "1 recorded");
        assert_eq!(text(records.release()), "next");
    }

    #[test]
    fn the_end_of_an_execution_is_waited_for_whatever_its_durability() {
        let mut records = in_memory();
        records.write(Durability::None, open());
        records.submit();
        assert!(records.is_empty());
        let settlement = Settlement::silent(State::Resolved, Json::object(), SessionState::Kept);
        let id = PromiseId::execution(SESSION, 1);
        records.write(Durability::None, Write::Settle { id, settlement });
        records.submit();
        assert_eq!(text(records.release()), "1 recorded");
        assert!(records.is_empty());
    }

    #[test]
    fn what_waits_fills_the_queue_and_what_leaves_makes_room() {
        let mut records = in_memory();
        records.then(show(&"x".repeat(EFFECTS_BYTES_MAX)));
        assert!(!records.has_room());
        records.submit();
        assert!(!records.has_room());
        let effects = records.take_behind();
        assert!(records.has_room());
        records.put_back(effects);
        assert!(!records.has_room());
        assert!(records.release().is_some());
        assert!(records.has_room());
    }
}
