//! The third recorder: a store as it is at one moment.

use std::path::Path;
use std::sync::Arc;

use cob_bridge::{BridgeError, Filter, Read, SessionRecord, SqliteReader};
use cob_protocol::event::{Event, EventNumber};
use cob_protocol::promise::Promise;

/// Promises and events that are read at once: so few that pages are tested too.
const PAGE: usize = 100;

/// Everything in a store that clients can find out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Executions and their events, in the order of their names.
    pub executions: Vec<Stored>,
    /// Questions that code asked.
    pub calls: Vec<Promise>,
    /// Sessions, oldest first.
    pub sessions: Vec<SessionRecord>,
    /// What the database says against itself.
    pub damage: Vec<String>,
}

/// An execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its promise.
    pub promise: Promise,
    /// Its events.
    pub events: Vec<(EventNumber, Arc<Event>)>,
}

impl Snapshot {
    /// Reads the store in a folder, which a kernel may be using, and lets it look for damage.
    ///
    /// # Panics
    /// When there is none, or it cannot be read.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let mut reader = SqliteReader::open(folder).expect("a store that can be opened");
        let mut snapshot = Self::read(&mut reader).expect("a store that can be read");
        snapshot.damage.extend(reader.verify().err().map(|error| error.to_string()));
        match reader.verify_audit() {
            Ok(Ok(_)) => {}
            broken => snapshot.damage.push(format!("the audit trail: {broken:?}")),
        }
        snapshot.damage.extend(complaints(folder).expect("a database that can be asked"));
        snapshot
    }

    /// Reads everything.
    ///
    /// # Errors
    /// When something that the store knows of cannot be read.
    pub fn read(store: &mut dyn Read) -> Result<Self, BridgeError> {
        let mut snapshot = Self { sessions: store.sessions()?, ..Self::default() };
        let mut filter = Filter { count_max: PAGE, ..Filter::default() };
        loop {
            let page = store.promises(&filter)?;
            let Some(last) = page.last() else { return Ok(snapshot) };
            filter.after = Some(last.id);
            for promise in page {
                if promise.id.call.is_some() {
                    snapshot.calls.push(promise);
                } else {
                    let events = events(store, &promise)?;
                    snapshot.executions.push(Stored { promise, events });
                }
            }
        }
    }

    /// Every promise.
    pub fn promises(&self) -> impl Iterator<Item = &Promise> {
        self.executions.iter().map(|stored| &stored.promise).chain(&self.calls)
    }
}

/// What SQLite itself finds.
fn complaints(folder: &Path) -> rusqlite::Result<Vec<String>> {
    let how = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(folder.join("cob.db"), how)?;
    let mut complaints = Vec::new();
    for check in ["pragma integrity_check", "pragma foreign_key_check"] {
        let mut statement = database.prepare(check)?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
        complaints
            .extend(lines.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().filter(|line| line != "ok"));
    }
    Ok(complaints)
}

fn events(store: &mut dyn Read, promise: &Promise) -> Result<Vec<(EventNumber, Arc<Event>)>, BridgeError> {
    let mut events: Vec<(EventNumber, Arc<Event>)> = Vec::new();
    loop {
        let from = events.last().map_or(1, |(number, _)| number + 1);
        let page = store.events(promise.id, from, PAGE, 1 << 20)?;
        if page.is_empty() {
            return Ok(events);
        }
        events.extend(page.into_iter().map(|recorded| (recorded.number, recorded.event)));
    }
}

impl Stored {
    /// The client's name for the request.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.promise.key.as_ref().map(|key| key.key.as_str())
    }

    /// Its event `done`.
    #[must_use]
    pub fn done(&self) -> Option<(EventNumber, &Event)> {
        let done = self.events.iter().find(|(_, event)| matches!(**event, Event::Done { .. }));
        done.map(|(number, event)| (*number, &**event))
    }

    /// What it printed, both streams in their order.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.events.iter().filter_map(|(_, event)| match &**event {
            Event::Stream { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }
}

#[cfg(test)]
mod tests {
    use cob_bridge::{Group, MemoryStore, NewExecution, Store, Write};
    use cob_protocol::ids::{PromiseId, SessionId};
    use cob_protocol::json::Json;
    use cob_protocol::promise::Durability;
    use cob_protocol::time::{Clock, SystemClock};

    use super::*;

    #[test]
    fn a_snapshot_has_every_promise_and_every_event_however_many_there_are() {
        let session = SessionId(1);
        let mut writes = vec![Write::OpenSession { session, about: Json::object() }];
        for execution in 1..=250 {
            writes.push(Write::CreateExecution(NewExecution {
                session,
                key: None,
                durability: Durability::Process,
                deadline: None,
                request: None,
                start: Some(1),
            }));
            let id = PromiseId::execution(session, execution);
            writes.push(Write::CreateCall { id: id.with_call(1), request: Json::object(), deadline: None });
        }
        let id = PromiseId::execution(session, 250);
        for number in 1..=350 {
            let event = Arc::new(Event::ClearOutput { wait: false });
            writes.push(Write::Append { id, number, event });
        }
        let mut store = MemoryStore::default();
        let outcomes =
            store.commit(&[Group { now: SystemClock.now(), durability: Durability::None, writes }]).unwrap();
        assert!(outcomes.iter().flatten().all(Result::is_ok), "{outcomes:?}");
        let snapshot = Snapshot::read(&mut store).unwrap();
        assert_eq!((snapshot.executions.len(), snapshot.calls.len()), (250, 250));
        let numbers: Vec<_> = snapshot.executions[249].events.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (1..=350).collect::<Vec<_>>());
    }
}
