//! Who waits for which promise or session: told of commits and woken by them, never by time.
//!
//! Commits are told in their order, by one thread at a time. Those of promises that nobody listens to cost one look into
//! a table.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use cob_protocol::ids::{PromiseId, SessionId};
use tokio::sync::Notify;

use crate::news::{News, Tidings, tidings};
use crate::queue::Verdict;
use crate::rules::whole_micros;
use crate::shared::lock;
use crate::store::{Group, Recorded, Write, Written};
use crate::tail::Tail;

/// One ear for each who waits.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    promises: Arc<Ears<PromiseId, Tail>>,
    sessions: Arc<Ears<SessionId, News>>,
}

/// Waits for a promise.
pub(crate) type Listener = Ear<PromiseId, Tail>;
/// Waits for whatever happens in a session.
pub(crate) type SessionListener = Ear<SessionId, News>;

impl Wakes {
    /// Listens for changes of a promise: a change that is committed after this returned comes into the tail.
    pub(crate) fn listen(&self, id: PromiseId, tail: Tail) -> Listener {
        self.promises.listen(id, tail)
    }

    /// Listens for changes in a session.
    pub(crate) fn listen_to_session(&self, session: SessionId) -> SessionListener {
        self.sessions.listen(session, News::default())
    }

    /// Tells everybody what was committed, in its order.
    pub(crate) fn tell(&self, groups: &[Group], verdicts: &[Verdict]) {
        let each = groups.iter().zip(verdicts).flat_map(|(group, verdict)| {
            let outcomes = verdict.as_ref().map(Vec::as_slice).unwrap_or_default();
            let written = group.writes.iter().zip(outcomes);
            written.filter_map(move |(write, outcome)| Some((group, write, outcome.as_ref().ok()?)))
        });
        let of_promises = each.clone().filter_map(|(group, write, written)| match (write, written) {
            (Write::Append { id, .. }, _) | (Write::Settle { id, .. } | Write::Expire { id, .. }, _) => {
                Some((*id, (group, write, written)))
            }
            _ => None,
        });
        self.promises.tell(of_promises, |tail, (group, write, written)| match (write, written) {
            (Write::Append { number, event, .. }, _) => {
                let event = Arc::clone(event);
                tail.push(Recorded { number: *number, at: whole_micros(group.now), event })
            }
            (_, Written::Settled(promise)) => tail.settle(promise),
            _ => false,
        });
        let of_sessions = each.filter_map(|(_, write, written)| tidings(write, written));
        self.sessions.tell(of_sessions, |news, tidings: Tidings| news.hear(tidings));
    }

    /// Wakes everybody: the store will not change any more.
    pub(crate) fn ring_all(&self) {
        self.promises.ring_all();
        self.sessions.ring_all();
    }
}

/// Those who listen, by what they listen to.
struct Ears<K, T> {
    by_key: Mutex<HashMap<K, Vec<Arc<Held<T>>>>>,
}

/// What one who listens was told and has not taken yet.
struct Held<T> {
    bell: Notify,
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    what: T,
    /// Something was put in since the bell rang.
    is_new: bool,
}

impl<K, T> Default for Ears<K, T> {
    fn default() -> Self {
        Self { by_key: Mutex::default() }
    }
}

impl<K: Copy + Eq + Hash, T> Ears<K, T> {
    fn listen(self: &Arc<Self>, key: K, what: T) -> Ear<K, T> {
        let inner = Mutex::new(Inner { what, is_new: false });
        let held = Arc::new(Held { bell: Notify::new(), inner });
        lock(&self.by_key).entry(key).or_default().push(Arc::clone(&held));
        Ear { key, held, ears: Arc::clone(self) }
    }

    /// Puts all of it where it belongs, and only then wakes those who wait: once each. `put` says whether it is news.
    fn tell<N>(&self, each: impl Iterator<Item = (K, N)> + Clone, put: impl Fn(&mut T, N) -> bool)
    where
        N: Copy,
    {
        let by_key = lock(&self.by_key);
        if by_key.is_empty() {
            return;
        }
        for (key, news) in each.clone() {
            for held in by_key.get(&key).into_iter().flatten() {
                let mut inner = lock(&held.inner);
                inner.is_new |= put(&mut inner.what, news);
            }
        }
        for (key, _) in each {
            for held in by_key.get(&key).into_iter().flatten() {
                if std::mem::take(&mut lock(&held.inner).is_new) {
                    held.bell.notify_one();
                }
            }
        }
    }

    fn ring_all(&self) {
        for held in lock(&self.by_key).values().flatten() {
            held.bell.notify_one();
        }
    }
}

/// One who listens.
pub(crate) struct Ear<K: Copy + Eq + Hash, T> {
    key: K,
    held: Arc<Held<T>>,
    ears: Arc<Ears<K, T>>,
}

/// What was told, to be taken.
pub(crate) struct Told<'a, T>(MutexGuard<'a, Inner<T>>);

impl<T> std::ops::Deref for Told<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.what
    }
}

impl<T> std::ops::DerefMut for Told<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.what
    }
}

impl<K: Copy + Eq + Hash, T> Ear<K, T> {
    /// What was told so far.
    pub(crate) fn told(&self) -> Told<'_, T> {
        Told(lock(&self.held.inner))
    }

    /// Waits until there was something new since this last returned: perhaps it is known already, so whoever is woken
    /// looks again.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub(crate) async fn rung(&self) {
        self.held.bell.notified().await;
    }
}

impl<K: Copy + Eq + Hash, T> Drop for Ear<K, T> {
    fn drop(&mut self) {
        let mut by_key = lock(&self.ears.by_key);
        if let Some(ears) = by_key.get_mut(&self.key) {
            ears.retain(|held| !Arc::ptr_eq(held, &self.held));
            if ears.is_empty() {
                by_key.remove(&self.key);
            }
        }
    }
}

impl<K, T> fmt::Debug for Ears<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ears")
    }
}

impl<K: Copy + Eq + Hash, T> fmt::Debug for Ear<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ear")
    }
}
