//! Reading a durable store: a few connections, each used by one blocking thread at a time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cob_protocol::limits::STORE_READERS_MAX;
use tokio::sync::Semaphore;

use crate::store::{BridgeError, Read, StoreError};

/// Opens one more connection.
pub(crate) type OpenReader = dyn Fn() -> Result<Box<dyn Read>, BridgeError> + Send + Sync;

/// See the module.
pub(crate) struct Readers {
    open: Box<OpenReader>,
    idle: Mutex<Vec<Box<dyn Read>>>,
    /// One for each connection that may be in use.
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(open: Box<OpenReader>) -> Self {
        let permits = Arc::new(Semaphore::new(STORE_READERS_MAX));
        Self { open, idle: Mutex::default(), permits }
    }

    /// Asks the store. Whoever goes away leaves a question behind that ends by itself.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&mut dyn Read) -> Result<T, BridgeError> + Send + 'static,
    ) -> Result<T, BridgeError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let readers = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || {
            let answer = readers.read_now(ask);
            drop(permit);
            answer
        });
        reading.await.unwrap_or_else(|error| {
            Err(BridgeError::Store(StoreError::Failed { store: "the store".into(), what: error.to_string() }))
        })
    }

    /// The same on the caller's own thread, without waiting for a turn.
    pub(crate) fn read_now<T>(
        &self,
        ask: impl FnOnce(&mut dyn Read) -> Result<T, BridgeError>,
    ) -> Result<T, BridgeError> {
        let idle = self.idle().pop();
        let mut reader = idle.map_or_else(|| (self.open)(), Ok)?;
        let answer = ask(&mut *reader);
        // A connection that failed is not used again.
        if !matches!(answer, Err(BridgeError::Store(_))) {
            self.idle().push(reader);
        }
        answer
    }

    /// Waits for those who read, and closes the connections. Idempotent.
    pub(crate) async fn close(&self) {
        let all = u32::try_from(STORE_READERS_MAX).unwrap_or(u32::MAX);
        if let Ok(_permits) = self.permits.acquire_many(all).await {
            self.permits.close();
            self.idle().clear();
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Read>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readers")
    }
}
