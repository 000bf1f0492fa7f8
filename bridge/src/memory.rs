//! The store in memory: bounded, gone with the process. It is also the plain second implementation that a
//! durable store is compared with.
//!
//! Bounds: settled promises beyond [`MEMORY_SETTLED_MAX`] are forgotten, oldest first; so are the oldest events
//! once the journal weighs more than [`MEMORY_JOURNAL_BYTES_MAX`], and a reader who asks for them is told.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cob_protocol::event::{Event, EventNumber};
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::limits::{MEMORY_JOURNAL_BYTES_MAX, MEMORY_SETTLED_MAX, PENDING_PROMISES_MAX};
use cob_protocol::promise::{Key, Operation, Promise, State};
use cob_protocol::time::Timestamp;

use crate::store::{BridgeError, Created, Store};

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: HashMap<PromiseId, Record>,
    keys: HashMap<(SessionId, String, String), PromiseId>,
    executions: HashMap<SessionId, u64>,
    pending: usize,
    /// Settled promises, oldest first.
    settled: VecDeque<PromiseId>,
    /// Executions whose events are kept, one entry per event, oldest first.
    journal: VecDeque<PromiseId>,
    journal_bytes: usize,
}

#[derive(Debug)]
struct Record {
    promise: Promise,
    calls: u64,
    events: VecDeque<Arc<Event>>,
    /// Number of the first event in `events`.
    first: EventNumber,
}

impl Record {
    fn next(&self) -> EventNumber {
        self.first + self.events.len() as EventNumber
    }
}

impl MemoryStore {
    fn insert(&mut self, id: PromiseId, key: Option<Key>, now: Timestamp) -> Result<(), BridgeError> {
        if self.pending >= PENDING_PROMISES_MAX {
            return Err(BridgeError::Full(self.pending));
        }
        self.pending += 1;
        let promise = Promise {
            id,
            state: State::Pending,
            key,
            created_at: now,
            settled_at: None,
            last_event: 0,
            value: None,
            session_state: None,
        };
        self.records.insert(id, Record { promise, calls: 0, events: VecDeque::new(), first: 1 });
        Ok(())
    }

    fn record(&mut self, id: PromiseId) -> Result<&mut Record, BridgeError> {
        self.records.get_mut(&id).ok_or(BridgeError::Unknown(id))
    }

    fn forget_oldest_settled(&mut self) {
        while self.settled.len() > MEMORY_SETTLED_MAX {
            let Some(id) = self.settled.pop_front() else { return };
            let Some(record) = self.records.remove(&id) else { continue };
            self.journal_bytes -= record.events.iter().map(|event| event.bytes()).sum::<usize>();
            if let Some(key) = record.promise.key {
                self.keys.remove(&(id.session, key.principal, key.key));
            }
        }
    }

    fn forget_oldest_events(&mut self) {
        while self.journal_bytes > MEMORY_JOURNAL_BYTES_MAX {
            let Some(id) = self.journal.pop_front() else { return };
            // The promise itself may have been forgotten with its events.
            let Some(record) = self.records.get_mut(&id) else { continue };
            if let Some(event) = record.events.pop_front() {
                record.first += 1;
                self.journal_bytes -= event.bytes();
            }
        }
        // Entries of forgotten promises do not pile up.
        while let Some(id) = self.journal.front()
            && !self.records.contains_key(id)
        {
            self.journal.pop_front();
        }
    }
}

impl Store for MemoryStore {
    fn create_execution(
        &mut self,
        session: SessionId,
        key: Option<Key>,
        now: Timestamp,
    ) -> Result<Created, BridgeError> {
        let scope = key.as_ref().map(|k| (session, k.principal.clone(), k.key.clone()));
        let known = scope.as_ref().and_then(|scope| self.keys.get(scope));
        if let (Some(id), Some(key)) = (known, &key)
            && let Some(record) = self.records.get(id)
        {
            let same = record.promise.key.as_ref().is_some_and(|k| k.body == key.body);
            return if same {
                Ok(Created::Joined(record.promise.clone()))
            } else {
                Err(BridgeError::KeyReused { key: key.key.clone(), id: *id })
            };
        }
        let number = self.executions.get(&session).copied().unwrap_or_default() + 1;
        let id = PromiseId::execution(session, number);
        self.insert(id, key, now)?;
        self.executions.insert(session, number);
        if let Some(scope) = scope {
            self.keys.insert(scope, id);
        }
        Ok(Created::New(id))
    }

    fn create_call(&mut self, execution: PromiseId, now: Timestamp) -> Result<PromiseId, BridgeError> {
        let record = self.record(execution)?;
        let id = execution.with_call(record.calls + 1);
        record.calls += 1;
        self.insert(id, None, now)?;
        Ok(id)
    }

    fn apply(&mut self, id: PromiseId, operation: Operation, now: Timestamp) -> Result<Promise, BridgeError> {
        let record = self.record(id)?;
        record.promise.last_event = record.next() - 1;
        record.promise.apply(operation, now).map_err(|refused| BridgeError::Refused { id, refused })?;
        let promise = record.promise.clone();
        if promise.state.is_settled() {
            self.pending -= 1;
            self.settled.push_back(id);
            self.forget_oldest_settled();
        }
        Ok(promise)
    }

    fn get(&self, id: PromiseId) -> Option<Promise> {
        self.records.get(&id).map(|record| record.promise.clone())
    }

    fn append(&mut self, id: PromiseId, event: Arc<Event>) -> Result<EventNumber, BridgeError> {
        let bytes = event.bytes();
        let record = self.record(id)?;
        let number = record.next();
        record.events.push_back(event);
        self.journal.push_back(id);
        self.journal_bytes += bytes;
        self.forget_oldest_events();
        Ok(number)
    }

    fn read_from(
        &self,
        id: PromiseId,
        from: EventNumber,
        count_max: usize,
    ) -> Result<Vec<(EventNumber, Arc<Event>)>, BridgeError> {
        let record = self.records.get(&id).ok_or(BridgeError::Unknown(id))?;
        let from = from.max(1);
        if from < record.first {
            return Err(BridgeError::Forgotten { id, first: record.first });
        }
        let skip = usize::try_from(from - record.first).unwrap_or(usize::MAX);
        Ok((from..).zip(record.events.iter().skip(skip).take(count_max).cloned()).collect())
    }

    fn pending(&self) -> usize {
        self.pending
    }
}

#[cfg(test)]
mod tests {
    use cob_protocol::frame::StreamName;
    use cob_protocol::json::Json;
    use cob_protocol::promise::{SessionState, Settlement};
    use cob_protocol::time::{Clock, SystemClock};
    use proptest::prelude::*;

    use super::*;

    const SESSION: SessionId = SessionId(1);

    fn new(store: &mut MemoryStore) -> PromiseId {
        match store.create_execution(SESSION, None, SystemClock.now()).unwrap() {
            Created::New(id) => id,
            Created::Joined(_) => panic!("no key was given"),
        }
    }

    fn settle(store: &mut MemoryStore, id: PromiseId) {
        let end =
            Settlement { state: State::Resolved, value: Json::object(), session_state: SessionState::Kept };
        store.apply(id, Operation::Settle(end), SystemClock.now()).unwrap();
    }

    fn text(bytes: usize) -> Arc<Event> {
        Arc::new(Event::Stream { name: StreamName::Stdout, text: "x".repeat(bytes) })
    }

    #[test]
    fn the_journal_forgets_its_oldest_events_and_says_so() {
        let mut store = MemoryStore::default();
        let id = new(&mut store);
        let count = 40;
        for _ in 0..count {
            store.append(id, text(MEMORY_JOURNAL_BYTES_MAX / 20)).unwrap();
        }
        assert!(store.journal_bytes <= MEMORY_JOURNAL_BYTES_MAX);
        let Err(BridgeError::Forgotten { first, .. }) = store.read_from(id, 1, 10) else {
            panic!("kept all")
        };
        assert!(first > 1);
        assert_eq!(store.read_from(id, count, 10).unwrap().len(), 1);
    }

    #[test]
    fn settled_promises_are_forgotten_oldest_first_and_never_pending_ones() {
        let mut store = MemoryStore::default();
        let pending = new(&mut store);
        let oldest = new(&mut store);
        settle(&mut store, oldest);
        for _ in 0..MEMORY_SETTLED_MAX {
            let id = new(&mut store);
            store.append(id, text(10)).unwrap();
            settle(&mut store, id);
        }
        assert!(store.get(oldest).is_none());
        assert!(store.get(pending).is_some());
        assert_eq!(store.pending(), 1);
    }

    proptest! {
        #[test]
        fn weights_and_counts_stay_true_whatever_happens(steps in prop::collection::vec((0u8..4, 0usize..5, 0usize..200_000), 1..120)) {
            let mut store = MemoryStore::default();
            let mut ids = vec![new(&mut store)];
            for (what, which, size) in steps {
                let id = ids[which % ids.len()];
                match what {
                    0 => ids.push(new(&mut store)),
                    1 => { let _ = store.append(id, text(size)); }
                    2 => { let _ = store.create_call(id, SystemClock.now()); }
                    _ => {
                        let end = Settlement { state: State::Rejected, value: Json::object(), session_state: SessionState::Lost };
                        let _ = store.apply(id, Operation::Settle(end), SystemClock.now());
                    }
                }
                let weight: usize = store.records.values().flat_map(|r| &r.events).map(|e| e.bytes()).sum();
                prop_assert_eq!(weight, store.journal_bytes);
                let pending = store.records.values().filter(|r| !r.promise.state.is_settled()).count();
                prop_assert_eq!(pending, store.pending());
            }
        }
    }
}
