//! A store that can be held up and told to fail, over one in memory.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::event::EventNumber;
use cob_protocol::ids::{CheckpointId, PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::limits::BALLAST_BYTES;
use cob_protocol::promise::{Durability, Promise};
use cob_protocol::time::{Clock, Timestamp};

use crate::bridge::Bridge;
use crate::history::Entry;
use crate::memory::MemoryStore;
use crate::readers::Readers;
use crate::store::{
    BridgeError, Filter, Group, Outcomes, Read, Recorded, SessionRecord, SignedManifest, Store, StoreError,
    Totals, Unsettled,
};

/// The controls of a faulty store; the store itself is with the writer.
#[derive(Clone, Default)]
pub(super) struct Controls(Arc<Inner>);

#[derive(Default)]
struct Inner {
    store: Mutex<MemoryStore>,
    /// Whether commits wait.
    held: Mutex<bool>,
    released: Condvar,
    /// A commit waits.
    waiting: tokio::sync::Notify,
    fault: Mutex<Option<Fault>>,
    /// Every commit: how many writes in each group, and the durability.
    commits: Mutex<Vec<(Vec<usize>, Durability)>>,
    attempts: AtomicUsize,
    /// Commits by those who submitted.
    claimed: AtomicUsize,
    reads: AtomicUsize,
    meanwhile: Mutex<Option<Meanwhile>>,
    free: AtomicU64,
    has_ballast: AtomicBool,
    ballast: AtomicU64,
    closed: AtomicBool,
    panics: AtomicBool,
}

type Meanwhile = Box<dyn FnOnce(&mut MemoryStore) + Send>;

/// When a commit fails, and how.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// Commits that still succeed.
    pub(super) after: usize,
    /// How often; `usize::MAX`: for ever.
    pub(super) times: usize,
    pub(super) error: StoreError,
    /// Does not fail once the ballast is out.
    pub(super) helped_by_ballast: bool,
}

struct FaultyStore(Controls);

struct Reader(Controls);

impl Controls {
    pub(super) fn new() -> Self {
        let controls = Self::default();
        controls.0.free.store(u64::MAX, Ordering::SeqCst);
        controls.0.has_ballast.store(true, Ordering::SeqCst);
        controls.set_ballast(BALLAST_BYTES);
        *controls.store() = MemoryStore::oracle(usize::MAX);
        controls
    }

    pub(super) fn bridge(&self, clock: Arc<dyn Clock>) -> Bridge {
        self.bridge_that(clock, |why| unreachable!("{why}"))
    }

    pub(super) fn bridge_that(&self, clock: Arc<dyn Clock>, abort: fn(&str)) -> Bridge {
        let controls = self.clone();
        let readers = Readers::new(Box::new(move || Ok(Box::new(Reader(controls.clone())))));
        Bridge::with_abort("here", Box::new(FaultyStore(self.clone())), readers, clock, abort).unwrap()
    }

    /// Before there is a bridge.
    pub(super) fn set_ballast(&self, bytes: u64) {
        self.0.ballast.store(bytes, Ordering::SeqCst);
    }

    /// Lets something happen to the store right before a promise is read next.
    pub(super) fn before_promise(&self, meanwhile: impl FnOnce(&mut MemoryStore) + Send + 'static) {
        *self.0.meanwhile.lock().unwrap() = Some(Box::new(meanwhile));
    }

    /// How often promises and events were read.
    pub(super) fn reads(&self) -> usize {
        self.0.reads.load(Ordering::SeqCst)
    }

    pub(super) fn store(&self) -> MutexGuard<'_, MemoryStore> {
        self.0.store.lock().unwrap()
    }

    /// Lets every further commit wait.
    pub(super) fn hold(&self) {
        *self.0.held.lock().unwrap() = true;
    }

    pub(super) fn release(&self) {
        *self.0.held.lock().unwrap() = false;
        self.0.released.notify_all();
    }

    /// Waits until a commit waits.
    pub(super) async fn is_held(&self) {
        self.0.waiting.notified().await;
    }

    pub(super) fn fail(&self, fault: Fault) {
        *self.0.fault.lock().unwrap() = Some(fault);
    }

    /// Lets the next commit panic.
    pub(super) fn panic(&self) {
        self.0.panics.store(true, Ordering::SeqCst);
    }

    pub(super) fn heal(&self) {
        *self.0.fault.lock().unwrap() = None;
    }

    pub(super) fn set_free(&self, bytes: u64) {
        self.0.free.store(bytes, Ordering::SeqCst);
    }

    pub(super) fn has_ballast(&self) -> bool {
        self.0.has_ballast.load(Ordering::SeqCst)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    pub(super) fn commits(&self) -> Vec<(Vec<usize>, Durability)> {
        self.0.commits.lock().unwrap().clone()
    }

    pub(super) fn attempts(&self) -> usize {
        self.0.attempts.load(Ordering::SeqCst)
    }

    /// Events of an execution in the store itself.
    pub(super) fn store_events(&self, id: PromiseId) -> usize {
        self.store().events(id, 1, usize::MAX, usize::MAX).unwrap().len()
    }

    pub(super) fn claimed(&self) -> usize {
        self.0.claimed.load(Ordering::SeqCst)
    }

    fn is_about_to_fail_with(&self, is_that: fn(&StoreError) -> bool) -> bool {
        let helped = |fault: &Fault| fault.helped_by_ballast && !self.has_ballast();
        let fault = self.0.fault.lock().unwrap();
        fault.as_ref().is_some_and(|fault| {
            fault.after == 0 && fault.times > 0 && is_that(&fault.error) && !helped(fault)
        })
    }

    fn fault(&self) -> Option<StoreError> {
        let mut held = self.0.fault.lock().unwrap();
        let fault = held.as_mut()?;
        if fault.helped_by_ballast && !self.has_ballast() {
            return None;
        }
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        if fault.times == 0 {
            return None;
        }
        fault.times -= 1;
        Some(fault.error.clone())
    }
}

impl Store for FaultyStore {
    fn commit(&mut self, groups: &[Group]) -> Result<Vec<Outcomes>, StoreError> {
        let inner = &self.0.0;
        inner.attempts.fetch_add(1, Ordering::SeqCst);
        assert!(!inner.panics.load(Ordering::SeqCst), "as it was asked to");
        let mut held = inner.held.lock().unwrap();
        if *held {
            inner.waiting.notify_one();
        }
        while *held {
            held = inner.released.wait(held).unwrap();
        }
        drop(held);
        if let Some(error) = self.0.fault() {
            return Err(error);
        }
        let durability = groups.iter().map(|group| group.durability).max().unwrap_or_default();
        let sizes = groups.iter().map(|group| group.writes.len()).collect();
        inner.commits.lock().unwrap().push((sizes, durability));
        self.0.store().commit(groups)
    }

    fn commit_now(&mut self, group: &Group) -> Result<Option<Outcomes>, StoreError> {
        let inner = &self.0.0;
        assert!(!inner.panics.load(Ordering::SeqCst), "as it was asked to");
        if self.0.is_about_to_fail_with(|error| matches!(error, StoreError::Unsynced { .. })) {
            return self.0.fault().map_or(Ok(None), Err);
        }
        if *inner.held.lock().unwrap() || self.0.is_about_to_fail_with(|_| true) {
            return Ok(None);
        }
        assert!(self.0.fault().is_none());
        inner.attempts.fetch_add(1, Ordering::SeqCst);
        inner.claimed.fetch_add(1, Ordering::SeqCst);
        inner.commits.lock().unwrap().push((vec![group.writes.len()], group.durability));
        Ok(self.0.store().commit(std::slice::from_ref(group)).unwrap().pop())
    }

    fn free_bytes(&mut self) -> Option<u64> {
        Some(self.0.0.free.load(Ordering::SeqCst))
    }

    fn ballast_bytes(&self) -> u64 {
        self.0.0.ballast.load(Ordering::SeqCst)
    }

    fn release_ballast(&mut self) {
        assert!(self.0.0.has_ballast.swap(false, Ordering::SeqCst), "it is given up once");
    }

    fn restore_ballast(&mut self) -> bool {
        assert!(!self.0.0.has_ballast.swap(true, Ordering::SeqCst), "it was given up before");
        true
    }

    fn close(&mut self) -> Result<(), StoreError> {
        assert!(!self.0.0.closed.swap(true, Ordering::SeqCst), "it is closed once");
        Ok(())
    }
}

impl Read for Reader {
    fn promise(&mut self, id: PromiseId) -> Result<Option<Promise>, BridgeError> {
        self.0.0.reads.fetch_add(1, Ordering::SeqCst);
        let meanwhile = self.0.0.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile(&mut self.0.store());
        }
        self.0.store().promise(id)
    }
    fn find(
        &mut self,
        session: SessionId,
        principal: &str,
        key: &str,
    ) -> Result<Option<Promise>, BridgeError> {
        self.0.store().find(session, principal, key)
    }
    fn request(&mut self, id: PromiseId) -> Result<Option<Json>, BridgeError> {
        self.0.store().request(id)
    }
    fn promises(&mut self, filter: &Filter) -> Result<Vec<Promise>, BridgeError> {
        self.0.store().promises(filter)
    }
    fn events(
        &mut self,
        id: PromiseId,
        from: EventNumber,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Recorded>, BridgeError> {
        self.0.0.reads.fetch_add(1, Ordering::SeqCst);
        self.0.store().events(id, from, count_max, bytes_max)
    }
    fn sessions(&mut self) -> Result<Vec<SessionRecord>, BridgeError> {
        self.0.store().sessions()
    }
    fn unsettled(&mut self, session: SessionId) -> Result<Vec<Unsettled>, BridgeError> {
        self.0.store().unsettled(session)
    }
    fn next_due(&mut self) -> Result<Option<(PromiseId, Timestamp)>, BridgeError> {
        self.0.store().next_due()
    }
    fn totals(&mut self) -> Result<Totals, BridgeError> {
        self.0.store().totals()
    }
    fn history(&mut self, count_max: usize) -> Result<Vec<(SessionId, Entry)>, BridgeError> {
        self.0.store().history(count_max)
    }
    fn history_of(&mut self, session: SessionId, count_max: usize) -> Result<Vec<Entry>, BridgeError> {
        self.0.store().history_of(session, count_max)
    }
    fn source_of(&mut self, id: PromiseId) -> Result<Option<Entry>, BridgeError> {
        self.0.store().source_of(id)
    }
    fn session(&mut self, session: SessionId) -> Result<Option<SessionRecord>, BridgeError> {
        self.0.store().session(session)
    }
    fn bundles(&mut self, session: Option<SessionId>) -> Result<Vec<CheckpointView>, BridgeError> {
        self.0.store().bundles(session)
    }
    fn bundle(&mut self, checkpoint: CheckpointId) -> Result<Option<SignedManifest>, BridgeError> {
        self.0.store().bundle(checkpoint)
    }
}
