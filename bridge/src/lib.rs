//! Keeper of promises and of the journal.
//!
//! Every execution, and every question that running code asks, is a promise: recorded before anything happens,
//! settled once. Every output is a numbered event. Whoever tells a client something asks the bridge first:
//! **nothing is acknowledged before it is recorded**, at the durability of the store.
//!
//! This crate never talks to a client or a worker. Its only store so far lives in memory (`cob kernel`, whose
//! session ends with its process); the handle is asynchronous because a durable store commits elsewhere.

mod history;
mod memory;
mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cob_protocol::event::{Event, EventNumber};
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::promise::{Key, Operation, Promise, Settlement};
use cob_protocol::time::Clock;
use tokio::sync::Notify;

pub use history::{CURRENT_SESSION, Entry, History};
pub use memory::MemoryStore;
pub use store::{BridgeError, Created, Store};

/// The handle: cheap to clone, shared by all who record or wait.
#[derive(Clone)]
pub struct Bridge {
    shared: Arc<Shared>,
}

struct Shared {
    store: Mutex<Box<dyn Store>>,
    clock: Arc<dyn Clock>,
    /// Rung after every commit that settles something.
    settled: Notify,
}

impl Bridge {
    /// A bridge over `store`; `clock` stamps what is recorded.
    #[must_use]
    pub fn new(store: impl Store + 'static, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared { store: Mutex::new(Box::new(store)), clock, settled: Notify::new() }),
        }
    }

    /// Records a promise for a new execution of `session`, or finds the one that `key` names.
    ///
    /// # Errors
    /// [`BridgeError::KeyReused`] when the key was used for another request; [`BridgeError::Full`] when too many
    /// promises are pending.
    pub async fn create_execution(
        &self,
        session: SessionId,
        key: Option<Key>,
    ) -> Result<Created, BridgeError> {
        self.store().create_execution(session, key, self.shared.clock.now())
    }

    /// Records a promise for a call that `execution` makes.
    ///
    /// # Errors
    /// [`BridgeError::Unknown`], or [`BridgeError::Full`].
    pub async fn create_call(&self, execution: PromiseId) -> Result<PromiseId, BridgeError> {
        self.store().create_call(execution, self.shared.clock.now())
    }

    /// Records that an execution was handed to a worker.
    ///
    /// # Errors
    /// [`BridgeError::Refused`] when it was started or settled before.
    pub async fn start(&self, id: PromiseId) -> Result<(), BridgeError> {
        self.store().apply(id, Operation::Start, self.shared.clock.now()).map(drop)
    }

    /// Settles a promise; those who wait are woken.
    ///
    /// # Errors
    /// [`BridgeError::Refused`] when it was settled before: the first settlement wins.
    pub async fn settle(&self, id: PromiseId, settlement: Settlement) -> Result<Promise, BridgeError> {
        let promise = self.store().apply(id, Operation::Settle(settlement), self.shared.clock.now())?;
        self.shared.settled.notify_waiters();
        Ok(promise)
    }

    /// The promise as it stands, if it is known.
    pub async fn get(&self, id: PromiseId) -> Option<Promise> {
        self.store().get(id)
    }

    /// Waits until the promise is settled.
    ///
    /// # Errors
    /// [`BridgeError::Unknown`] when there is no such promise.
    pub async fn wait(&self, id: PromiseId) -> Result<Promise, BridgeError> {
        loop {
            let woken = self.shared.settled.notified();
            tokio::pin!(woken);
            // Registered before the look, so that no settlement falls between look and wait.
            woken.as_mut().enable();
            let promise = self.get(id).await.ok_or(BridgeError::Unknown(id))?;
            if promise.state.is_settled() {
                return Ok(promise);
            }
            woken.await;
        }
    }

    /// Appends an event to the journal of an execution; returns its number.
    ///
    /// # Errors
    /// [`BridgeError::Unknown`] when there is no such execution.
    pub async fn append(&self, id: PromiseId, event: Arc<Event>) -> Result<EventNumber, BridgeError> {
        self.store().append(id, event)
    }

    /// Events of an execution from number `from` on, at most `count_max`.
    ///
    /// # Errors
    /// [`BridgeError::Unknown`]; [`BridgeError::Forgotten`] when the journal no longer has that number.
    pub async fn read_from(
        &self,
        id: PromiseId,
        from: EventNumber,
        count_max: usize,
    ) -> Result<Vec<(EventNumber, Arc<Event>)>, BridgeError> {
        self.store().read_from(id, from, count_max)
    }

    /// Promises that are not settled.
    pub async fn pending(&self) -> usize {
        self.store().pending()
    }

    fn store(&self) -> MutexGuard<'_, Box<dyn Store>> {
        // A store that panicked in the middle of a change is not to be trusted, but reading it harms nobody and
        // every change of the in-memory store is a single step.
        self.shared.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use cob_protocol::json::Json;
    use cob_protocol::promise::{SessionState, State};
    use cob_protocol::time::SystemClock;

    use super::*;

    fn bridge() -> Bridge {
        Bridge::new(MemoryStore::default(), Arc::new(SystemClock))
    }

    fn key(name: &str, body: u8) -> Option<Key> {
        Some(Key { principal: "p".into(), key: name.into(), body: [body; 32] })
    }

    fn resolved(text: &str) -> Settlement {
        Settlement {
            state: State::Resolved,
            value: Json::parse(text).unwrap(),
            session_state: SessionState::Kept,
        }
    }

    async fn create(bridge: &Bridge, key: Option<Key>) -> Result<Created, BridgeError> {
        bridge.create_execution(SessionId(1), key).await
    }

    #[tokio::test]
    async fn p10_a_retry_joins_the_same_execution_and_gets_the_stored_reply() {
        let bridge = bridge();
        let Created::New(id) = create(&bridge, key("a", 1)).await.unwrap() else { panic!("not new") };
        let Created::Joined(same) = create(&bridge, key("a", 1)).await.unwrap() else { panic!("ran twice") };
        assert_eq!(same.id, id);
        bridge.settle(id, resolved("[1]")).await.unwrap();
        let Created::Joined(done) = create(&bridge, key("a", 1)).await.unwrap() else { panic!("ran twice") };
        assert_eq!(done.value.unwrap().as_str(), "[1]");
    }

    #[tokio::test]
    async fn p09_a_key_cannot_name_two_requests() {
        let bridge = bridge();
        create(&bridge, key("a", 1)).await.unwrap();
        assert!(matches!(create(&bridge, key("a", 2)).await, Err(BridgeError::KeyReused { .. })));
        assert_eq!(bridge.pending().await, 1);
    }

    #[tokio::test]
    async fn waiters_are_woken_by_the_settlement() {
        let bridge = bridge();
        let Created::New(id) = create(&bridge, None).await.unwrap() else { panic!("not new") };
        let waiter = tokio::spawn({
            let bridge = bridge.clone();
            async move { bridge.wait(id).await }
        });
        tokio::task::yield_now().await;
        bridge.settle(id, resolved("{}")).await.unwrap();
        assert_eq!(waiter.await.unwrap().unwrap().state, State::Resolved);
        assert!(matches!(bridge.settle(id, resolved("{}")).await, Err(BridgeError::Refused { .. })));
    }

    #[tokio::test]
    async fn events_are_numbered_from_one_without_gaps() {
        let bridge = bridge();
        let Created::New(id) = create(&bridge, None).await.unwrap() else { panic!("not new") };
        for expected in 1..=5 {
            let number = bridge.append(id, Arc::new(Event::ClearOutput { wait: false })).await.unwrap();
            assert_eq!(number, expected);
        }
        let events = bridge.read_from(id, 4, 10).await.unwrap();
        assert_eq!(events.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [4, 5]);
    }

    #[tokio::test]
    async fn calls_are_promises_of_their_execution() {
        let bridge = bridge();
        let Created::New(id) = create(&bridge, None).await.unwrap() else { panic!("not new") };
        let call = bridge.create_call(id).await.unwrap();
        assert_eq!(call.to_string(), format!("{id}.c1"));
        bridge.settle(call, resolved("\"yes\"")).await.unwrap();
        assert_eq!(bridge.create_call(id).await.unwrap().call, Some(2));
    }
}
