//! The handle on a bridge: what can be submitted, read and waited for.

use std::fmt;
use std::sync::{Arc, Mutex};

use cob_protocol::event::EventNumber;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::limits::{READ_BYTES_MAX, READ_EVENTS_MAX};
use cob_protocol::promise::{Durability, Promise};
use cob_protocol::time::{Clock, Timestamp};

use crate::bundles::Place;
use crate::feed::SessionFollower;
use crate::follow::Follower;
use crate::health::Health;
use crate::history::Entry;
use crate::metrics::{Metrics, PendingMetrics, QueueMetrics};
use crate::pending::Pending;
use crate::readers::Readers;
use crate::shared::{Engine, Shared, lock};
use crate::store::{
    BridgeError, Filter, Group, Read, Recorded, SessionRecord, Store, StoreError, Totals, Unsettled, Write,
};
use crate::submitted::Submitted;
use crate::wakes::Wakes;
use crate::writer::{self, Abort, Writer};

/// The handle: cheap to clone, shared by all who record, read or wait.
///
/// # Durability
/// A [`Submitted`] completes once its group is as safe as it asked. Groups that wait together are committed together,
/// at the highest durability among them. A group that asks for [`Durability::None`] has its outcomes after the commit
/// like every other; it only never makes anybody wait for the disk. Whoever does not need them drops the `Submitted`.
///
/// # Runtime
/// Whatever waits for time ([`Bridge::due`]) needs a Tokio runtime with its I/O and time drivers; reads of a durable
/// store use its blocking threads. [`Bridge::submit`] needs none.
#[derive(Clone)]
pub struct Bridge {
    handle: Arc<Handle>,
}

/// When the last handle is dropped, what was submitted is still committed, and the writer ends.
struct Handle {
    shared: Arc<Shared>,
}

impl Bridge {
    /// A bridge over memory: it applies at once, has no thread, and is gone with the process.
    #[must_use]
    pub fn in_memory(clock: Arc<dyn Clock>) -> Self {
        let engine = Engine::Memory(Mutex::new(Some(Box::default())));
        Self::new(Arc::new(Shared::new(engine, clock, Pending::default())))
    }

    /// A bridge over `store`, called `name` in errors; `open_reader` opens another look into the same store. Starts
    /// the thread that writes. Blocks while it reads what is not settled.
    ///
    /// # Errors
    /// What the reader says, or [`StoreError::Failed`] when the system gives no thread.
    pub fn over(
        name: &str,
        store: impl Store + 'static,
        open_reader: impl Fn() -> Result<Box<dyn Read>, BridgeError> + Send + Sync + 'static,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BridgeError> {
        Self::with_abort(name, Box::new(store), Readers::new(Box::new(open_reader)), clock, writer::abort)
    }

    pub(crate) fn with_abort(
        name: &str,
        store: Box<dyn Store>,
        readers: Readers,
        clock: Arc<dyn Clock>,
        abort: Abort,
    ) -> Result<Self, BridgeError> {
        let pending = readers.read_now(unsettled_of_all)?;
        let writer = Mutex::new(Some(Writer::new(name, store, abort)));
        let engine = Engine::Durable { queue: Arc::default(), writer, readers: Arc::new(readers) };
        let shared = Arc::new(Shared::new(engine, clock, pending));
        writer::start(name, Arc::clone(&shared))?;
        Ok(Self::new(shared))
    }

    fn new(shared: Arc<Shared>) -> Self {
        Self { handle: Arc::new(Handle { shared }) }
    }

    /// From now on it has bundles.
    pub(crate) fn keep_bundles(&self, place: Place) {
        if let Engine::Durable { queue, .. } = &self.shared().engine {
            place.chunks().served_by(Arc::clone(queue));
        }
        let _ = self.shared().bundles.set(Arc::new(place));
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Hands a group of writes to the writer: all of it is recorded, in order, or nothing. Never waits, and never
    /// fails by itself; who submits more than there is [room](Bridge::has_room) for shall wait for room first.
    pub fn submit(&self, durability: Durability, writes: Vec<Write>) -> Submitted {
        self.hand_in(durability, writes, false)
    }

    /// As [`Bridge::submit`], for one of many that are submitted in a row: it is left to the writer's thread, which
    /// commits together what has come.
    pub fn submit_one_of_many(&self, durability: Durability, writes: Vec<Write>) -> Submitted {
        self.hand_in(durability, writes, true)
    }

    fn hand_in(&self, durability: Durability, writes: Vec<Write>, is_one_of_many: bool) -> Submitted {
        let shared = self.shared();
        let group = Group { now: shared.clock.now(), durability, writes };
        match &shared.engine {
            Engine::Memory(store) => shared.apply(store, group),
            Engine::Durable { queue, writer, .. } => {
                shared.pending().submitted(&group);
                if is_one_of_many { queue.push(group) } else { writer::submit(shared, queue, writer, group) }
            }
        }
    }

    /// Whether so little waits for the writer that more may be submitted.
    #[must_use]
    pub fn has_room(&self) -> bool {
        match &self.shared().engine {
            Engine::Memory(_) => true,
            Engine::Durable { queue, .. } => queue.has_room(),
        }
    }

    /// Waits until more may be submitted.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub async fn room(&self) {
        if let Engine::Durable { queue, .. } = &self.shared().engine {
            queue.room().await;
        }
    }

    /// Whether the store can do its work. One load while it can.
    #[must_use]
    pub fn health(&self) -> Health {
        let shared = self.shared();
        let health = shared.health.get();
        if let (Health::Full(_), Engine::Durable { queue, .. }) = (&health, &shared.engine) {
            // Somebody cares: the writer shall see whether there is room again.
            queue.ask_for_look();
        }
        health
    }

    /// The promise as it stands, if it is known.
    ///
    /// # Errors
    /// [`BridgeError::Store`]; so do all that read.
    pub async fn promise(&self, id: PromiseId) -> Result<Option<Promise>, BridgeError> {
        self.shared().read(move |store| store.promise(id)).await
    }

    /// The promise that a key names.
    ///
    /// # Errors
    /// As above.
    pub async fn find(
        &self,
        session: SessionId,
        principal: &str,
        key: &str,
    ) -> Result<Option<Promise>, BridgeError> {
        let (principal, key) = (principal.to_owned(), key.to_owned());
        self.shared().read(move |store| store.find(session, &principal, &key)).await
    }

    /// What was asked for, as it was recorded.
    ///
    /// # Errors
    /// As above.
    pub async fn request(&self, id: PromiseId) -> Result<Option<Json>, BridgeError> {
        self.shared().read(move |store| store.request(id)).await
    }

    /// Promises in the order of their names.
    ///
    /// # Errors
    /// As above.
    pub async fn promises(&self, filter: &Filter) -> Result<Vec<Promise>, BridgeError> {
        let filter = filter.clone();
        self.shared().read(move |store| store.promises(&filter)).await
    }

    /// Every session, oldest first.
    ///
    /// # Errors
    /// As above.
    pub async fn sessions(&self) -> Result<Vec<SessionRecord>, BridgeError> {
        self.shared().read(|store| store.sessions()).await
    }

    /// One session, if there ever was one with this number.
    ///
    /// # Errors
    /// As above.
    pub async fn session(&self, session: SessionId) -> Result<Option<SessionRecord>, BridgeError> {
        self.shared().read(move |store| store.session(session)).await
    }

    /// What is not settled, in the order of its creation; with what is needed to go on.
    ///
    /// # Errors
    /// As above.
    pub async fn unsettled(&self, session: SessionId) -> Result<Vec<Unsettled>, BridgeError> {
        self.shared().read(move |store| store.unsettled(session)).await
    }

    /// The last cells that were typed, at most so many, oldest first.
    ///
    /// # Errors
    /// As above.
    pub async fn history(&self, count_max: usize) -> Result<Vec<(SessionId, Entry)>, BridgeError> {
        self.shared().read(move |store| store.history(count_max)).await
    }

    /// The same of one session.
    ///
    /// # Errors
    /// As above.
    pub async fn history_of(&self, session: SessionId, count_max: usize) -> Result<Vec<Entry>, BridgeError> {
        self.shared().read(move |store| store.history_of(session, count_max)).await
    }

    /// What an execution ran, if that is in the history.
    ///
    /// # Errors
    /// As above.
    pub async fn source_of(&self, id: PromiseId) -> Result<Option<Entry>, BridgeError> {
        self.shared().read(move |store| store.source_of(id)).await
    }

    /// How much is stored.
    ///
    /// # Errors
    /// As above.
    pub async fn totals(&self) -> Result<Totals, BridgeError> {
        self.shared().read(|store| store.totals()).await
    }

    /// Events of an execution from number `from` on: at least one if there is one; at most `count_max` and
    /// [`READ_EVENTS_MAX`], and not many more bytes than `bytes_max` and [`READ_BYTES_MAX`].
    ///
    /// # Errors
    /// As above; [`BridgeError::Unknown`]; [`BridgeError::Forgotten`] when the journal no longer has that number.
    pub async fn events(
        &self,
        id: PromiseId,
        from: EventNumber,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Recorded>, BridgeError> {
        let (count_max, bytes_max) = (count_max.min(READ_EVENTS_MAX), bytes_max.min(READ_BYTES_MAX));
        self.shared().read(move |store| store.events(id, from, count_max, bytes_max)).await
    }

    /// Waits until the promise is settled.
    ///
    /// # Errors
    /// As above; [`BridgeError::Unknown`] when there is no such promise; [`StoreError::ReadOnly`] when the store can
    /// record no end any more.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub async fn wait(&self, id: PromiseId) -> Result<Promise, BridgeError> {
        Follower::of_end(self.clone(), id).wait_settled().await
    }

    /// Follows the events of an execution from number `from` on.
    #[must_use]
    pub fn follow(&self, id: PromiseId, from: EventNumber) -> Follower {
        Follower::new(self.clone(), id, from)
    }

    /// Follows the events of an execution that was created just now, with nothing of it recorded since: registers at
    /// once, and does not look into the store for a beginning that is not there.
    #[must_use]
    pub fn follow_new(&self, id: PromiseId) -> Follower {
        Follower::of_new(self.clone(), id)
    }

    /// Follows everything of a session, from execution number `from_execution` on.
    #[must_use]
    pub fn follow_session(&self, session: SessionId, from_execution: u64) -> SessionFollower {
        SessionFollower::new(self.clone(), session, from_execution)
    }

    pub(crate) fn wakes(&self) -> &Wakes {
        &self.shared().wakes
    }

    /// Why nothing more will be recorded, if that is so.
    pub(crate) fn why_over(&self) -> Option<StoreError> {
        self.shared().why_over()
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut dyn Read) -> Result<T, BridgeError> + Send + 'static,
    ) -> Result<T, BridgeError> {
        self.shared().read(ask).await
    }

    /// A promise whose deadline has passed and that nobody settles: it waits for one. Whoever gets it submits
    /// [`Write::Expire`]; while an end of it is on its way it is not due, and when that end could not be recorded it
    /// is due again a little later.
    ///
    /// Wall time decides, also after the clock was set or the machine slept. Woken by commits and by the timer.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped; several may wait.
    pub async fn due(&self) -> PromiseId {
        let shared = self.shared();
        loop {
            let rung = shared.due_changed.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            let next = shared.pending().next_due().filter(|_| shared.health.read_only().is_none());
            match next {
                Some((moment, id)) if moment <= shared.clock.now() => return id,
                Some((moment, _)) => {
                    tokio::select! {
                        () = &mut rung => {}
                        () = shared.timer.until(moment, &*shared.clock) => {}
                    }
                }
                None => rung.await,
            }
        }
    }

    /// Somebody sees to the end of a promise that is due: it is due again only when that end could not be recorded.
    pub fn attend(&self, id: PromiseId) {
        self.shared().pending().put_aside(id);
    }

    /// Names of what is not settled in a session, as far as it is recorded.
    pub(crate) fn pending_of(&self, session: SessionId) -> Vec<PromiseId> {
        self.shared().pending().of_session(session).collect()
    }

    /// How many executions of a session wait or run, as far as that is recorded; channels are none.
    #[must_use]
    pub fn open_in(&self, session: SessionId) -> usize {
        self.shared().pending().executions_of(session)
    }

    /// How many sessions are open, as far as that is recorded.
    #[must_use]
    pub fn sessions_open(&self) -> usize {
        self.shared().pending().sessions()
    }

    /// The time that records are stamped with.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared().clock.now()
    }

    /// What the bridge does, in figures.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let shared = self.shared();
        let kinds = shared.pending().kinds();
        let (groups, bytes) = match &shared.engine {
            Engine::Memory(_) => (0, 0),
            Engine::Durable { queue, .. } => queue.load(),
        };
        Metrics {
            pending: PendingMetrics::new(kinds, shared.clock.now()),
            commits: shared.counters.get(),
            queue: QueueMetrics { groups, bytes },
            health: shared.health.get(),
            bundles: shared.bundles.get().map(|place| place.chunks().metrics()).unwrap_or_default(),
        }
    }

    /// Ends in order: what was submitted is committed, the writer ends, the store is closed and may be opened again.
    /// What is submitted or read later fails with [`StoreError::Closed`]. Idempotent: every caller returns when it
    /// is done, and when the first goes away the next one finishes.
    pub async fn close(&self) {
        let shared = self.shared();
        match &shared.engine {
            Engine::Memory(store) => {
                lock(store).take();
                shared.end();
            }
            Engine::Durable { queue, readers, .. } => {
                if let Some(place) = shared.bundles.get() {
                    place.chunks().close().await;
                }
                // Readers first: a store that is still read cannot be tidied up.
                readers.close().await;
                queue.close();
                shared.ended().await;
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some((queue, _)) = self.shared.durable() {
            queue.close();
        }
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.shared().engine {
            Engine::Memory(_) => "in memory",
            Engine::Durable { .. } => "durable",
        };
        write!(f, "Bridge({kind})")
    }
}

/// What a store had when it was opened, read in pages.
fn unsettled_of_all(store: &mut dyn Read) -> Result<Pending, BridgeError> {
    let mut pending = Pending::default();
    for session in store.sessions()?.iter().filter(|session| session.closed_at.is_none()) {
        pending.open_session(session.session);
    }
    let mut filter = Filter { is_settled: Some(false), count_max: READ_EVENTS_MAX, ..Filter::default() };
    loop {
        let page = store.promises(&filter)?;
        pending.load(&page);
        let Some(last) = page.last() else { return Ok(pending) };
        filter.after = Some(last.id);
    }
}
