//! The store in memory: gone with the process. It keeps the promises of throw-away kernels, and it is the plain
//! second implementation that a durable store is compared with, so it is written to be obviously right.
//!
//! Bounds, when it has some: settled promises beyond [`MEMORY_SETTLED_MAX`] are forgotten, oldest first; so are the
//! oldest events once the journal weighs more than [`MEMORY_JOURNAL_BYTES_MAX`], and a reader who asks for them is
//! told. In every store the request for an execution is kept until it is settled, that of a call with its answer, and history
//! is bounded.

mod reading;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::event::{Event, EventNumber};
use cob_protocol::ids::{CheckpointId, PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::limits::{
    BUNDLES_MAX, HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX, MEMORY_JOURNAL_BYTES_MAX, MEMORY_SETTLED_MAX,
    PENDING_PROMISES_MAX,
};
use cob_protocol::promise::{Operation, Promise};
use cob_protocol::time::Timestamp;

use crate::history::Entry;
use crate::rules::{
    execution_of, join, must_be_complete, must_be_execution, must_be_open, pending, whole_micros,
};
use crate::store::{
    BridgeError, BundleRecord, Created, Group, NewExecution, Outcomes, OutputState, Recorded, SessionRecord,
    SignedManifest, Store, StoreError, Write, Written,
};

/// See the module.
#[derive(Debug)]
pub struct MemoryStore {
    bounds: Bounds,
    sessions: BTreeMap<SessionId, SessionRecord>,
    /// In the order of their beginning.
    session_order: Vec<SessionId>,
    records: BTreeMap<PromiseId, Record>,
    keys: HashMap<(SessionId, String, String), PromiseId>,
    /// Promises that were ever created.
    created: u64,
    pending: usize,
    /// Settled promises, oldest first.
    settled: VecDeque<PromiseId>,
    /// Executions whose events are kept, one entry per event, oldest first.
    journal: VecDeque<PromiseId>,
    journal_bytes: usize,
    /// With the number of the execution.
    history: VecDeque<(SessionId, u64, Entry)>,
    history_bytes: usize,
    bundles: BTreeMap<CheckpointId, (CheckpointView, SignedManifest)>,
}

#[derive(Debug)]
struct Bounds {
    pending: usize,
    settled: usize,
    journal_bytes: usize,
}

#[derive(Debug)]
struct Record {
    promise: Promise,
    request: Option<Json>,
    /// Its place in the order of creation.
    order: u64,
    output: OutputState,
    events: VecDeque<Recorded>,
    next_event: EventNumber,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_bounds(Bounds {
            pending: PENDING_PROMISES_MAX,
            settled: MEMORY_SETTLED_MAX,
            journal_bytes: MEMORY_JOURNAL_BYTES_MAX,
        })
    }
}

impl MemoryStore {
    /// A store that forgets nothing, as a durable one does, with room for so many pending promises.
    #[must_use]
    pub fn oracle(pending_max: usize) -> Self {
        Self::with_bounds(Bounds { pending: pending_max, settled: usize::MAX, journal_bytes: usize::MAX })
    }

    fn with_bounds(bounds: Bounds) -> Self {
        Self {
            bounds,
            sessions: BTreeMap::new(),
            session_order: Vec::new(),
            records: BTreeMap::new(),
            keys: HashMap::new(),
            created: 0,
            pending: 0,
            settled: VecDeque::new(),
            journal: VecDeque::new(),
            journal_bytes: 0,
            history: VecDeque::new(),
            history_bytes: 0,
            bundles: BTreeMap::new(),
        }
    }

    fn write(&mut self, write: &Write, now: Timestamp) -> Result<Written, BridgeError> {
        match write {
            Write::OpenSession { session, about } => self.open_session(*session, about.clone(), now)?,
            Write::Custody { session, custody } => {
                let session = self.open(*session)?;
                session.custody = custody.clone();
                if custody.is_none() {
                    // Its next worker counts from 0.
                    session.progress = Default::default();
                }
            }
            Write::Progress { session, progress } => self.open(*session)?.progress = *progress,
            Write::Recover { session } => {
                self.open(*session)?;
            }
            Write::NumberCheckpoints { session, up_to } => {
                let session = self.open(*session)?;
                session.checkpoints = session.checkpoints.max(*up_to);
            }
            Write::KeepBundle(bundle) => self.keep_bundle(bundle)?,
            Write::RemoveBundle { checkpoint } => {
                let removed = self.bundles.remove(checkpoint);
                removed.ok_or(BridgeError::UnknownBundle(*checkpoint))?;
            }
            Write::CloseSession { session } => self.open(*session)?.closed_at = Some(now),
            Write::CreateExecution(new) => return self.create_execution(new, now).map(Written::Created),
            Write::CreateCall { id, request, deadline } => {
                self.create_call(*id, request.clone(), *deadline, now)?;
            }
            Write::Start { id, count } => {
                self.execution(*id)?;
                self.apply(*id, Operation::Start, now)?;
                self.count(id.session, *count);
            }
            Write::Append { id, number, event } => self.append(*id, *number, event.clone(), now)?,
            Write::Output { id, output } => {
                let record = self.execution(*id)?;
                must_be_open(*id, record.promise.state)?;
                record.output = output.clone();
            }
            Write::Settle { id, settlement } => {
                return self.settle(*id, Operation::Settle(settlement.clone()), now);
            }
            Write::Expire { id, settlement } => {
                return self.settle(*id, Operation::Expire(settlement.clone()), now);
            }
            Write::HistoryInput { session, execution, line, source } => {
                self.open(*session)?;
                self.history_bytes += source.len();
                let entry = Entry { line: *line, source: source.clone(), output: None };
                self.history.push_back((*session, *execution, entry));
                self.forget_oldest_history();
            }
            Write::HistoryOutput { session, line, text } => {
                self.open(*session)?;
                let mut entries = self.history.iter_mut().rev();
                if let Some((_, _, entry)) =
                    entries.find(|(of, _, entry)| of == session && entry.line == *line)
                {
                    self.history_bytes += text.len();
                    self.history_bytes -= entry.output.replace(text.clone()).map_or(0, |old| old.len());
                }
                self.forget_oldest_history();
            }
        }
        Ok(Written::Done)
    }

    /// A bridge over memory offers no bundles: this is for the comparison with a durable store.
    fn keep_bundle(&mut self, bundle: &BundleRecord) -> Result<(), BridgeError> {
        let checkpoint = bundle.view.checkpoint;
        self.open(checkpoint.session)?;
        if self.bundles.contains_key(&checkpoint) {
            return Err(BridgeError::Exists(checkpoint.to_string()));
        }
        let of_session = |known: &&CheckpointId| known.session == checkpoint.session;
        if self.bundles.keys().filter(of_session).count() >= BUNDLES_MAX {
            return Err(BridgeError::BundlesFull(checkpoint.session));
        }
        self.bundles.insert(checkpoint, (bundle.view.clone(), bundle.signed.clone()));
        Ok(())
    }

    fn open_session(&mut self, session: SessionId, about: Json, now: Timestamp) -> Result<(), BridgeError> {
        if self.sessions.contains_key(&session) {
            return Err(BridgeError::Exists(session.to_string()));
        }
        self.session_order.push(session);
        self.sessions.insert(session, SessionRecord::new(session, about, now));
        Ok(())
    }

    fn open(&mut self, session: SessionId) -> Result<&mut SessionRecord, BridgeError> {
        let record = self.sessions.get_mut(&session);
        record.filter(|record| record.closed_at.is_none()).ok_or(BridgeError::UnknownSession(session))
    }

    fn record(&mut self, id: PromiseId) -> Result<&mut Record, BridgeError> {
        self.records.get_mut(&id).ok_or(BridgeError::Unknown(id))
    }

    fn execution(&mut self, id: PromiseId) -> Result<&mut Record, BridgeError> {
        must_be_execution(id)?;
        self.record(id)
    }

    fn create_execution(&mut self, new: &NewExecution, now: Timestamp) -> Result<Created, BridgeError> {
        let number = self.open(new.session)?.executions + 1;
        let scope = new.key.as_ref().map(|key| (new.session, key.principal.clone(), key.key.clone()));
        if let Some(known) = scope.as_ref().and_then(|scope| self.keys.get(scope)).copied() {
            return join(self.record(known)?.promise.clone(), new);
        }
        let id = PromiseId::execution(new.session, number);
        let mut promise = pending(id, new.durability, now);
        promise.key = new.key.clone();
        promise.deadline = new.deadline.map(whole_micros);
        self.insert(promise, new.request.clone())?;
        self.open(new.session)?.executions = number;
        if let Some(scope) = scope {
            self.keys.insert(scope, id);
        }
        if let Some(count) = new.start {
            self.apply(id, Operation::Start, now)?;
            self.count(new.session, count);
        }
        Ok(Created::New(id))
    }

    fn create_call(
        &mut self,
        id: PromiseId,
        request: Json,
        deadline: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), BridgeError> {
        let of = &self.record(execution_of(id)?)?.promise;
        must_be_open(of.id, of.state)?;
        let durability = of.durability;
        if self.records.contains_key(&id) {
            return Err(BridgeError::Exists(id.to_string()));
        }
        let mut promise = pending(id, durability, now);
        promise.deadline = deadline.map(whole_micros);
        self.insert(promise, Some(request))
    }

    fn insert(&mut self, promise: Promise, request: Option<Json>) -> Result<(), BridgeError> {
        if self.pending >= self.bounds.pending {
            return Err(BridgeError::Full(self.pending));
        }
        self.pending += 1;
        self.created += 1;
        let record = Record {
            order: self.created,
            request,
            output: OutputState::default(),
            events: VecDeque::new(),
            next_event: 1,
            promise,
        };
        self.records.insert(record.promise.id, record);
        Ok(())
    }

    fn apply(&mut self, id: PromiseId, operation: Operation, now: Timestamp) -> Result<Promise, BridgeError> {
        let promise = &mut self.record(id)?.promise;
        promise.apply(operation, now).map_err(|refused| BridgeError::Refused { id, refused })?;
        Ok(promise.clone())
    }

    fn settle(
        &mut self,
        id: PromiseId,
        operation: Operation,
        now: Timestamp,
    ) -> Result<Written, BridgeError> {
        let record = self.record(id)?;
        must_be_complete(&record.promise, &operation, record.next_event)?;
        let promise = self.apply(id, operation, now)?;
        let record = self.record(id)?;
        // Nobody goes on with it; an answer may have to be given again.
        if id.call.is_none() {
            record.request = None;
        }
        record.output = OutputState::default();
        self.pending -= 1;
        self.settled.push_back(id);
        self.forget_oldest_settled();
        Ok(Written::Settled(Box::new(promise)))
    }

    /// Also after the settlement: what children of the code still print.
    fn append(
        &mut self,
        id: PromiseId,
        number: EventNumber,
        event: Arc<Event>,
        now: Timestamp,
    ) -> Result<(), BridgeError> {
        let bytes = event.bytes();
        let record = self.execution(id)?;
        if number != record.next_event {
            return Err(BridgeError::Misnumbered { id, expected: record.next_event, given: number });
        }
        record.next_event += 1;
        record.events.push_back(Recorded { number, at: now, event });
        self.journal.push_back(id);
        self.journal_bytes += bytes;
        self.forget_oldest_events();
        Ok(())
    }

    fn count(&mut self, session: SessionId, count: u32) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.count = session.count.max(count);
        }
    }

    fn forget_oldest_settled(&mut self) {
        while self.settled.len() > self.bounds.settled {
            let Some(id) = self.settled.pop_front() else { return };
            let Some(record) = self.records.remove(&id) else { continue };
            self.journal_bytes -= record.events.iter().map(|recorded| recorded.event.bytes()).sum::<usize>();
            if let Some(key) = record.promise.key {
                self.keys.remove(&(id.session, key.principal, key.key));
            }
        }
    }

    fn forget_oldest_events(&mut self) {
        while self.journal_bytes > self.bounds.journal_bytes {
            let Some(id) = self.journal.pop_front() else { return };
            // The promise itself may have been forgotten with its events.
            let Some(record) = self.records.get_mut(&id) else { continue };
            if let Some(recorded) = record.events.pop_front() {
                self.journal_bytes -= recorded.event.bytes();
            }
        }
        // Entries of forgotten promises do not pile up.
        while let Some(id) = self.journal.front()
            && !self.records.contains_key(id)
        {
            self.journal.pop_front();
        }
    }

    fn forget_oldest_history(&mut self) {
        while self.history.len() > HISTORY_ENTRIES_MAX
            || (self.history_bytes > HISTORY_BYTES_MAX && self.history.len() > 1)
        {
            let Some((_, _, entry)) = self.history.pop_front() else { return };
            self.history_bytes -= entry.source.len() + entry.output.map_or(0, |text| text.len());
        }
    }
}

impl Store for MemoryStore {
    fn commit(&mut self, groups: &[Group]) -> Result<Vec<Outcomes>, StoreError> {
        let group = |group: &Group| {
            let now = whole_micros(group.now);
            group.writes.iter().map(|write| self.write(write, now)).collect()
        };
        Ok(groups.iter().map(group).collect())
    }
}
