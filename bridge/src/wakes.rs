//! Who waits for which promise: woken by commits, never by time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cob_protocol::ids::PromiseId;
use tokio::sync::Notify;

/// One bell for each promise that somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    bells: Mutex<HashMap<PromiseId, Bell>>,
}

#[derive(Debug, Default)]
struct Bell {
    notify: Arc<Notify>,
    listeners: usize,
}

impl Wakes {
    /// Listens for changes of a promise. A change that is committed after this returned rings the bell.
    pub(crate) fn listen(self: &Arc<Self>, id: PromiseId) -> Listener {
        let mut bells = self.lock();
        let bell = bells.entry(id).or_default();
        bell.listeners += 1;
        Listener { id, notify: Arc::clone(&bell.notify), wakes: Arc::clone(self) }
    }

    /// Wakes those who wait for any of these; to be called after the commit.
    pub(crate) fn ring(&self, ids: impl Iterator<Item = PromiseId>) {
        let bells = self.lock();
        if bells.is_empty() {
            return;
        }
        for id in ids {
            if let Some(bell) = bells.get(&id) {
                bell.notify.notify_waiters();
            }
        }
    }

    /// Wakes everybody: the store will not change any more.
    pub(crate) fn ring_all(&self) {
        for bell in self.lock().values() {
            bell.notify.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PromiseId, Bell>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct Listener {
    id: PromiseId,
    notify: Arc<Notify>,
    wakes: Arc<Wakes>,
}

impl Listener {
    /// The bell. Its future must be enabled before the store is read, so that no ring falls in between.
    pub(crate) fn bell(&self) -> &Notify {
        &self.notify
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut bells = self.wakes.lock();
        if let Some(bell) = bells.get_mut(&self.id) {
            bell.listeners -= 1;
            if bell.listeners == 0 {
                bells.remove(&self.id);
            }
        }
    }
}
