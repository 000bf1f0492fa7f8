//! Looking into the store in memory.

use std::ops::Bound;

use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::event::EventNumber;
use cob_protocol::ids::{CheckpointId, PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{Kind, Promise};
use cob_protocol::time::Timestamp;

use super::{MemoryStore, Record};
use crate::history::Entry;
use crate::rules::kind as kind_of;
use crate::store::{BridgeError, Filter, Read, Recorded, SessionRecord, SignedManifest, Totals, Unsettled};

impl MemoryStore {
    fn pending_records(&self) -> impl Iterator<Item = &Record> {
        self.records.values().filter(|record| !record.promise.state.is_settled())
    }
}

#[cfg(any(test, feature = "testing"))]
impl MemoryStore {
    /// The number that the next event of an execution will have.
    pub(crate) fn next_event(&self, id: PromiseId) -> Option<EventNumber> {
        self.records.get(&id).map(|record| record.next_event)
    }

    /// Forgets the events of an execution before number `first`, as a durable store did.
    #[cfg(test)]
    pub(crate) fn forget_before(&mut self, id: PromiseId, first: EventNumber) {
        let Some(record) = self.records.get_mut(&id) else { return };
        while let Some(recorded) = record.events.pop_front_if(|recorded| recorded.number < first) {
            self.journal_bytes -= recorded.event.bytes();
        }
    }
}

impl Read for MemoryStore {
    fn promise(&mut self, id: PromiseId) -> Result<Option<Promise>, BridgeError> {
        Ok(self.records.get(&id).map(|record| record.promise.clone()))
    }

    fn find(
        &mut self,
        session: SessionId,
        principal: &str,
        key: &str,
    ) -> Result<Option<Promise>, BridgeError> {
        let id = self.keys.get(&(session, principal.to_owned(), key.to_owned()));
        Ok(id.and_then(|id| self.records.get(id)).map(|record| record.promise.clone()))
    }

    fn request(&mut self, id: PromiseId) -> Result<Option<Json>, BridgeError> {
        Ok(self.records.get(&id).and_then(|record| record.request.clone()))
    }

    fn promises(&mut self, filter: &Filter) -> Result<Vec<Promise>, BridgeError> {
        let after = filter.after.map_or(Bound::Unbounded, Bound::Excluded);
        let promises = self.records.range((after, Bound::Unbounded)).map(|(_, record)| &record.promise);
        let matching = promises.filter(|promise| filter.matches(promise)).cloned();
        let count_max = if filter.count_max == 0 { usize::MAX } else { filter.count_max };
        Ok(matching.take(count_max).collect())
    }

    fn events(
        &mut self,
        id: PromiseId,
        from: EventNumber,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Recorded>, BridgeError> {
        let record = self.records.get(&id).filter(|_| id.call.is_none()).ok_or(BridgeError::Unknown(id))?;
        let from = from.max(1);
        let first = record.next_event - record.events.len() as EventNumber;
        if from < first {
            return Err(BridgeError::Forgotten { id, first });
        }
        let mut bytes = 0;
        let mut events = Vec::new();
        for recorded in record.events.iter().filter(|recorded| recorded.number >= from) {
            bytes += recorded.event.bytes();
            if !events.is_empty() && (events.len() >= count_max || bytes > bytes_max) {
                break;
            }
            events.push(recorded.clone());
        }
        Ok(events)
    }

    fn sessions(&mut self) -> Result<Vec<SessionRecord>, BridgeError> {
        Ok(self.session_order.iter().filter_map(|session| self.sessions.get(session).cloned()).collect())
    }

    fn session(&mut self, session: SessionId) -> Result<Option<SessionRecord>, BridgeError> {
        Ok(self.sessions.get(&session).cloned())
    }

    fn unsettled(&mut self, session: SessionId) -> Result<Vec<Unsettled>, BridgeError> {
        let mut records: Vec<_> =
            self.pending_records().filter(|record| record.promise.id.session == session).collect();
        records.sort_by_key(|record| record.order);
        Ok(records.into_iter().map(Record::unsettled).collect())
    }

    fn next_due(&mut self) -> Result<Option<(PromiseId, Timestamp)>, BridgeError> {
        let due = |record: &Record| record.promise.deadline.map(|deadline| (deadline, record.promise.id));
        Ok(self.pending_records().filter_map(due).min().map(|(deadline, id)| (id, deadline)))
    }

    fn totals(&mut self) -> Result<Totals, BridgeError> {
        let of =
            |kind| self.pending_records().filter(|record| kind_of(record.promise.id) == kind).count() as u64;
        Ok(Totals {
            executions: of(Kind::Execution),
            calls: of(Kind::Call),
            oldest_micros: self.pending_records().map(|record| record.promise.created_at.micros()).min(),
            promises: self.records.len() as u64,
            events: self.records.values().map(|record| record.events.len() as u64).sum(),
            event_bytes: self.journal_bytes as u64,
        })
    }

    fn history(&mut self, count_max: usize) -> Result<Vec<(SessionId, Entry)>, BridgeError> {
        let skipped = self.history.len().saturating_sub(count_max);
        let entries = self.history.iter().skip(skipped);
        Ok(entries.map(|(session, _, entry)| (*session, entry.clone())).collect())
    }

    fn history_of(&mut self, session: SessionId, count_max: usize) -> Result<Vec<Entry>, BridgeError> {
        let entries = self.history.iter().rev().filter(|(of, ..)| *of == session).take(count_max);
        let mut entries: Vec<_> = entries.map(|(.., entry)| entry.clone()).collect();
        entries.reverse();
        Ok(entries)
    }

    fn source_of(&mut self, id: PromiseId) -> Result<Option<Entry>, BridgeError> {
        if id.call.is_some() || id.execution == 0 {
            return Ok(None);
        }
        let is_it = |(session, execution, _): &&_| (*session, *execution) == (id.session, id.execution);
        Ok(self.history.iter().rev().find(is_it).map(|(.., entry)| entry.clone()))
    }

    fn bundles(&mut self, session: Option<SessionId>) -> Result<Vec<CheckpointView>, BridgeError> {
        let of_it = |id: &CheckpointId| session.is_none_or(|session| session == id.session);
        Ok(self.bundles.iter().filter(|(id, _)| of_it(id)).map(|(_, (view, _))| view.clone()).collect())
    }

    fn bundle(&mut self, checkpoint: CheckpointId) -> Result<Option<SignedManifest>, BridgeError> {
        Ok(self.bundles.get(&checkpoint).map(|(_, signed)| signed.clone()))
    }
}

impl Record {
    fn unsettled(&self) -> Unsettled {
        Unsettled {
            promise: self.promise.clone(),
            request: self.request.clone(),
            next_event: self.next_event,
            output: self.output.clone(),
        }
    }
}
