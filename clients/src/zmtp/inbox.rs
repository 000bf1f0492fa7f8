//! What was received and waits for the owner of a socket: bounded in messages and in bytes, so that an owner
//! who does not take anything stops its peers being read rather than filling memory.
//!
//! Whoever waits to put something in is served in the order of asking, and each connection asks for one message at a
//! time: however much one peer sends, the others get their turn.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::limits::Limits;

/// The owner's end.
#[derive(Debug)]
pub(super) struct Inbox<T>(mpsc::Receiver<(T, Option<Load>)>);

/// The end of the connections.
#[derive(Debug)]
pub(super) struct Inlet<T> {
    items: mpsc::Sender<(T, Option<Load>)>,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
}

/// What an item takes of the bounds until the owner takes it.
#[derive(Debug)]
struct Load {
    _slot: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// An inbox and its inlet, with room for so many notices beside what the limits allow.
pub(super) fn inbox<T>(limits: &Limits, notices: usize) -> (Inlet<T>, Inbox<T>) {
    let (items, taken) = mpsc::channel(limits.inbox + notices);
    let slots = Arc::new(Semaphore::new(limits.inbox));
    let bytes = Arc::new(Semaphore::new(limits.inbox_bytes));
    (Inlet { items, slots, bytes, bytes_max: limits.inbox_bytes }, Inbox(taken))
}

impl<T> Clone for Inlet<T> {
    fn clone(&self) -> Self {
        Inlet {
            items: self.items.clone(),
            slots: Arc::clone(&self.slots),
            bytes: Arc::clone(&self.bytes),
            bytes_max: self.bytes_max,
        }
    }
}

impl<T> Inlet<T> {
    /// Waits until the item fits; `false` when the owner is gone.
    pub(super) async fn push(&self, item: T, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes.min(self.bytes_max)).unwrap_or(u32::MAX);
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return false };
        let Ok(bytes) = Arc::clone(&self.bytes).acquire_many_owned(bytes).await else { return false };
        // Who has a slot finds room.
        self.items.try_send((item, Some(Load { _slot: slot, _bytes: bytes }))).is_ok()
    }

    /// Puts in a notice, at once. Its sender sees to it that there are never more than there is room for.
    pub(super) fn notify(&self, notice: T) {
        // It fails when the owner is gone.
        let _ = self.items.try_send((notice, None));
    }
}

impl<T> Inbox<T> {
    /// The next item. Cancel-safe.
    pub(super) async fn pop(&mut self) -> T {
        match self.0.recv().await {
            Some((item, _load)) => item,
            // The accept loop holds an inlet as long as the socket lives: only a runtime that shuts down ends it.
            None => std::future::pending().await,
        }
    }

    /// The next item if one is there.
    pub(super) fn try_pop(&mut self) -> Option<T> {
        self.0.try_recv().ok().map(|(item, _load)| item)
    }
}
