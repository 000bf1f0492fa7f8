//! What the peers of one socket have in common: its limits, its counters, who is connected, who has something
//! to write, and how much of it there is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::counters::{Counters, Tally};
use super::fault::Fault;
use super::limits::Limits;
use super::pace::Edge;
use super::peer::{Peer, PeerId, lock};
use super::security::Security;

/// The common part of one socket.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: Limits,
    /// How its peers prove who they are.
    pub(super) security: Security,
    /// Whether its peers must keep up.
    pub(super) is_paced: bool,
    pub(super) tally: Tally,
    /// Bytes of incomplete messages that may still be read.
    pub(super) inbound: Arc<Semaphore>,
    /// Places for peers.
    pub(super) seats: Arc<Semaphore>,
    peers: RwLock<Vec<Arc<Peer>>>,
    /// Peers with messages that nobody has tried to write yet.
    dirty: Mutex<Vec<Arc<Peer>>>,
    /// Cost of everything queued for any peer.
    pending: AtomicUsize,
    drained: Notify,
    /// Peers that are over half their queue.
    over: AtomicUsize,
    room: Notify,
}

impl Shared {
    pub(super) fn new(limits: Limits, security: Security, is_paced: bool) -> Arc<Self> {
        Arc::new(Shared {
            tally: Tally::default(),
            inbound: Arc::new(Semaphore::new(limits.inbound_bytes)),
            seats: Arc::new(Semaphore::new(limits.peers)),
            limits,
            security,
            is_paced,
            peers: RwLock::default(),
            dirty: Mutex::default(),
            pending: AtomicUsize::new(0),
            drained: Notify::new(),
            over: AtomicUsize::new(0),
            room: Notify::new(),
        })
    }

    pub(super) fn counters(&self) -> Counters {
        self.tally.snapshot(self.with_peers(<[_]>::len))
    }

    pub(super) fn with_peers<T>(&self, look: impl FnOnce(&[Arc<Peer>]) -> T) -> T {
        look(&self.peers.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn peer(&self, id: PeerId) -> Option<Arc<Peer>> {
        self.with_peers(|peers| peers.iter().find(|peer| peer.id == id).cloned())
    }

    pub(super) fn join(&self, peer: Arc<Peer>) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).push(peer);
    }

    pub(super) fn leave(&self, id: PeerId) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).retain(|peer| peer.id != id);
    }

    /// Closes every peer: the socket is going away.
    pub(super) fn close(&self) {
        let peers = std::mem::take(&mut *self.peers.write().unwrap_or_else(PoisonError::into_inner));
        for peer in peers {
            peer.close(Fault::Dropped);
        }
        lock(&self.dirty).clear();
    }

    /// Remembers a peer for the next [`Shared::flush`].
    pub(super) fn mark_dirty(&self, peer: Arc<Peer>) {
        lock(&self.dirty).push(peer);
    }

    /// Writes what the sockets take now; the connections finish the rest.
    pub(super) fn flush(&self) {
        let dirty = std::mem::take(&mut *lock(&self.dirty));
        for peer in dirty {
            peer.flush();
        }
    }

    pub(super) fn queued(&self, cost: usize) {
        self.pending.fetch_add(cost, Ordering::AcqRel);
    }

    pub(super) fn dequeued(&self, cost: usize) {
        if cost > 0 && self.pending.fetch_sub(cost, Ordering::AcqRel) == cost {
            self.drained.notify_waiters();
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0
    }

    /// Whether all that was queued was handed to the system, or belonged to peers that are gone, in time.
    pub(super) async fn flushed(&self, deadline: Duration) -> bool {
        timeout(deadline, self.until(&self.drained, Self::is_flushed)).await.is_ok()
    }

    pub(super) fn paced(&self, edge: Option<Edge>) {
        match edge {
            Some(Edge::Rose) => {
                self.over.fetch_add(1, Ordering::AcqRel);
            }
            Some(Edge::Fell) if self.over.fetch_sub(1, Ordering::AcqRel) == 1 => self.room.notify_waiters(),
            Some(Edge::Fell) | None => {}
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.over.load(Ordering::Acquire) == 0
    }

    /// Waits until no peer is over half its queue. Gives way from time to time even if none is: a loop that
    /// only publishes must not starve the tasks that read for the peers.
    pub(super) async fn room(&self) {
        tokio::task::coop::consume_budget().await;
        self.until(&self.room, Self::has_room).await;
    }

    async fn until(&self, changed: &Notify, is_met: impl Fn(&Self) -> bool) {
        loop {
            let mut notified = std::pin::pin!(changed.notified());
            // Before the look, so that a change after it is not missed.
            notified.as_mut().enable();
            if is_met(self) {
                return;
            }
            self.flush();
            if is_met(self) {
                return;
            }
            notified.await;
        }
    }
}
