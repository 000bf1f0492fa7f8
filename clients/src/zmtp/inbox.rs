//! What was received and waits for the owner of a socket: bounded in messages and in bytes, so that an owner
//! who does not take anything stops its peers being read rather than filling memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::limits::Limits;

/// The owner's end.
#[derive(Debug)]
pub(super) struct Inbox<T>(mpsc::Receiver<(T, OwnedSemaphorePermit)>);

/// The end of the connections.
#[derive(Debug)]
pub(super) struct Inlet<T> {
    items: mpsc::Sender<(T, OwnedSemaphorePermit)>,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
}

/// An inbox and its inlet.
pub(super) fn inbox<T>(limits: &Limits) -> (Inlet<T>, Inbox<T>) {
    let (items, taken) = mpsc::channel(limits.inbox);
    let bytes = Arc::new(Semaphore::new(limits.inbox_bytes));
    (Inlet { items, bytes, bytes_max: limits.inbox_bytes }, Inbox(taken))
}

impl<T> Inlet<T> {
    /// Waits until the item fits; `false` when the owner is gone.
    pub(super) async fn push(&self, item: T, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes.min(self.bytes_max)).unwrap_or(u32::MAX);
        match Arc::clone(&self.bytes).acquire_many_owned(bytes).await {
            Ok(permit) => self.items.send((item, permit)).await.is_ok(),
            Err(_) => false,
        }
    }
}

impl<T> Inbox<T> {
    /// The next item. Cancel-safe.
    pub(super) async fn pop(&mut self) -> T {
        match self.0.recv().await {
            Some((item, _permit)) => item,
            // The accept loop holds an inlet as long as the socket lives: only a runtime that shuts down ends it.
            None => std::future::pending().await,
        }
    }

    /// The next item if one is there.
    pub(super) fn try_pop(&mut self) -> Option<T> {
        self.0.try_recv().ok().map(|(item, _permit)| item)
    }
}
