//! What handles, followers and the writer share, and what happens after every commit: those who wait are woken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cob_protocol::time::Clock;
use tokio::sync::Notify;

use crate::bundles::Place;
use crate::health::HealthCell;
use crate::memory::MemoryStore;
use crate::metrics::Counters;
use crate::pending::Pending;
use crate::queue::{Queue, Verdict};
use crate::readers::Readers;
use crate::store::{BridgeError, Group, Read, Store, StoreError};
use crate::submitted::Submitted;
use crate::timers::WallTimer;
use crate::wakes::Wakes;
use crate::writer::Writer;

/// What handles, followers and the writer share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<dyn Clock>,
    pending: Mutex<Pending>,
    pub(crate) wakes: Wakes,
    /// Rung when another deadline is the next.
    pub(crate) due_changed: Notify,
    pub(crate) timer: WallTimer,
    pub(crate) health: HealthCell,
    pub(crate) counters: Counters,
    /// Set once, if there is a place for bundles.
    pub(crate) bundles: OnceLock<Arc<Place>>,
    has_ended: AtomicBool,
    /// Rung when the writer has ended.
    ended: Notify,
}

pub(crate) enum Engine {
    /// Applied by whoever submits; `None` once closed.
    Memory(Mutex<Option<Box<MemoryStore>>>),
    /// Written by a thread, read by others.
    Durable { queue: Arc<Queue>, writer: Mutex<Option<Writer>>, readers: Arc<Readers> },
}

impl Shared {
    pub(crate) fn new(engine: Engine, clock: Arc<dyn Clock>, pending: Pending) -> Self {
        Self {
            engine,
            clock,
            pending: Mutex::new(pending),
            wakes: Wakes::default(),
            due_changed: Notify::new(),
            timer: WallTimer::default(),
            health: HealthCell::default(),
            counters: Counters::default(),
            bundles: OnceLock::new(),
            has_ended: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    /// What the writer's thread works with.
    pub(crate) fn durable(&self) -> Option<(&Queue, &Mutex<Option<Writer>>)> {
        match &self.engine {
            Engine::Memory(_) => None,
            Engine::Durable { queue, writer, .. } => Some((queue, writer)),
        }
    }

    pub(crate) fn pending(&self) -> MutexGuard<'_, Pending> {
        lock(&self.pending)
    }

    /// Applies a group to the store in memory.
    pub(crate) fn apply(&self, store: &Mutex<Option<Box<MemoryStore>>>, group: Group) -> Submitted {
        let mut held = lock(store);
        let Some(store) = held.as_mut() else { return Submitted::ready(Err(StoreError::Closed)) };
        let groups = [group];
        let verdict = store.commit(&groups).map(|mut outcomes| outcomes.pop().unwrap_or_default());
        let writes = groups.iter().map(|group| group.writes.len()).sum();
        self.counters.committed(1, writes, 0);
        let verdicts = [verdict];
        // Under the lock: two who submit must not be followed in another order than they were applied.
        self.follow(&groups, &verdicts);
        drop(held);
        let [verdict] = verdicts;
        Submitted::ready(verdict)
    }

    /// Takes notice of what was recorded, or was not, and wakes those who wait for it. Called in the order of the
    /// commits, by one thread at a time: whoever may write now calls it before the next one may.
    pub(crate) fn follow(&self, groups: &[Group], verdicts: &[Verdict]) {
        let mut is_next_due_new = false;
        let mut pending = self.pending();
        for (group, verdict) in groups.iter().zip(verdicts) {
            is_next_due_new |= pending.follow(group, verdict);
        }
        drop(pending);
        if is_next_due_new {
            self.due_changed.notify_waiters();
        }
        self.wakes.tell(groups, verdicts);
    }

    /// Everybody who waits shall look again: nothing more will be recorded.
    pub(crate) fn wake_all(&self) {
        self.wakes.ring_all();
        self.due_changed.notify_waiters();
    }

    /// Why nothing more will be recorded, if that is so: what was recorded before has been told to all who listen.
    pub(crate) fn why_over(&self) -> Option<StoreError> {
        let has_ended = self.has_ended.load(Ordering::Acquire);
        self.health.read_only().or_else(|| has_ended.then_some(StoreError::Closed))
    }

    /// Waits until the writer has ended.
    pub(crate) async fn ended(&self) {
        let rung = self.ended.notified();
        tokio::pin!(rung);
        rung.as_mut().enable();
        if !self.has_ended.load(Ordering::Acquire) {
            rung.await;
        }
    }

    /// The writer has ended.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.ended.notify_waiters();
        self.wake_all();
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut dyn Read) -> Result<T, BridgeError> + Send + 'static,
    ) -> Result<T, BridgeError> {
        match &self.engine {
            Engine::Memory(store) => ask(&mut **lock(store).as_mut().ok_or(StoreError::Closed)?),
            Engine::Durable { readers, .. } => readers.read(ask).await,
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked with the lock has left every table in a state that was true at some time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
