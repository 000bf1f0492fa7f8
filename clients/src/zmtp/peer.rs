//! One connected peer as the rest of the socket sees it: who it is, what waits for it, how to be rid of it.
//!
//! Whoever sends only queues. Whoever flushes writes inline what the socket takes at once: in the usual case the
//! bytes are with the system before anything is scheduled. What is left is written by [`Peer::write_loop`],
//! which the connection of the peer runs; so is what was posted by many who know nothing of each other.
//!
//! **Invariant:** the queue and the writes from it stand under one lock, so that no two writers can interleave.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cob_protocol::limits::{ZMTP_GATHERED_BYTES_MAX, ZMTP_WRITE_TURN_BYTES};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::codec::Encoded;
use super::curve::Sealer;
use super::fault::Fault;
use super::outbox::{self, Lane, Outbox};
use super::pace::{Edge, Pace};
use super::shared::Shared;
use super::stream::WriteHalf;
use super::topics::Topics;

/// Chunks given to the system in one call.
const SLICES: usize = 64;

/// Names one connection; never reused within a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub(super) u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nobody with that identity is connected.
    #[error("no such peer is connected")]
    NoPeer,
    /// The peer does not read and its queue is full.
    #[error("the queue of the peer is full")]
    Full,
}

/// Locks; the state behind a lock of this module is valid at every point where a panic could happen.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who a peer is.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: PeerId,
    pub(super) identity: Bytes,
    pub(super) principal: Option<Arc<str>>,
}

/// One connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) identity: Bytes,
    /// Who it is, where its connection proves that.
    pub(super) principal: Option<Arc<str>>,
    pub(super) topics: Mutex<Topics>,
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// Wakes the write loop.
    wake: Notify,
    /// Told whenever the queue becomes empty.
    emptied: Notify,
    /// Told whenever the peer is no longer behind.
    caught_up: Notify,
    /// Told when somebody closes the peer.
    closing: Notify,
}

#[derive(Debug)]
struct State {
    outbox: Outbox,
    pace: Pace,
    /// `None` once the peer is closed.
    half: Option<Arc<WriteHalf>>,
    /// Under CURVE: seals each message when its turn to be written comes, since nonces must grow on the wire.
    sealer: Option<Sealer>,
    fault: Option<Fault>,
    /// In the list of peers to flush.
    is_dirty: bool,
    /// The write loop has work: the socket did not take everything.
    is_armed: bool,
}

/// What a turn at writing left behind.
enum Turn {
    Empty,
    Blocked,
    More,
    Broken(io::Error),
}

impl Peer {
    pub(super) fn new(
        known: Known,
        half: Arc<WriteHalf>,
        sealer: Option<Sealer>,
        shared: Arc<Shared>,
    ) -> Arc<Self> {
        let Known { id, identity, principal } = known;
        let state = State {
            outbox: Outbox::default(),
            pace: Pace::default(),
            half: Some(half),
            sealer,
            fault: None,
            is_dirty: false,
            is_armed: false,
        };
        Arc::new(Peer {
            id,
            identity,
            principal,
            topics: Mutex::default(),
            shared,
            state: Mutex::new(state),
            wake: Notify::new(),
            emptied: Notify::new(),
            caught_up: Notify::new(),
            closing: Notify::new(),
        })
    }

    /// Queues a message; it is written by the next flush.
    pub(super) fn enqueue(self: &Arc<Self>, message: &Encoded, lane: Lane) -> Result<(), SendError> {
        let mut state = lock(&self.state);
        self.put(&mut state, message, lane)?;
        if !state.is_dirty {
            state.is_dirty = true;
            drop(state);
            self.shared.mark_dirty(Arc::clone(self));
        }
        Ok(())
    }

    /// Queues a message that the write loop writes when its turn comes, with whatever was queued until then; what is
    /// much is written at once.
    pub(super) fn post(&self, message: &Encoded, lane: Lane) -> Result<(), SendError> {
        let mut state = lock(&self.state);
        self.put(&mut state, message, lane)?;
        let (is_armed, is_much) = (state.is_armed, state.outbox.cost() >= ZMTP_GATHERED_BYTES_MAX);
        drop(state);
        if is_much {
            self.flush();
        } else if !is_armed {
            self.wake.notify_one();
        }
        Ok(())
    }

    fn put(&self, state: &mut State, message: &Encoded, lane: Lane) -> Result<(), SendError> {
        let cost = outbox::cost(message);
        if state.half.is_none() {
            return Err(SendError::NoPeer);
        }
        if !state.has_room(cost, lane, &self.shared) {
            return Err(SendError::Full);
        }
        state.outbox.push(message, lane);
        self.shared.queued(cost);
        if self.shared.is_paced {
            let State { outbox, pace, .. } = state;
            let edge = pace.grew(outbox.lane_cost(Lane::Data), &self.shared.limits, Instant::now);
            self.paced(edge);
            if edge.is_some() {
                // The write loop judges how long this peer may be behind.
                self.wake.notify_one();
            }
        }
        Ok(())
    }

    /// Bytes and overhead queued in one lane.
    pub(super) fn lane_cost(&self, lane: Lane) -> usize {
        lock(&self.state).outbox.lane_cost(lane)
    }

    /// Writes what the socket takes now and leaves the rest to the write loop.
    pub(super) fn flush(&self) {
        let mut state = lock(&self.state);
        state.is_dirty = false;
        if state.is_armed {
            return;
        }
        match self.write(&mut state) {
            Turn::Empty => {}
            Turn::Blocked | Turn::More => {
                state.is_armed = true;
                self.wake.notify_one();
            }
            Turn::Broken(error) => {
                drop(state);
                self.close(error.into());
            }
        }
    }

    /// How many bytes its socket has taken so far, while there are more to write.
    pub(super) fn backlog(&self) -> Option<u64> {
        let state = lock(&self.state);
        (!state.outbox.is_empty()).then(|| state.pace.read())
    }

    /// Resolves when the queue is empty.
    pub(super) async fn emptied(&self) {
        while !lock(&self.state).outbox.is_empty() {
            self.emptied.notified().await;
        }
    }

    /// Resolves when the peer is not behind, or closed. Gives way from time to time even if it is not.
    pub(super) async fn room(&self) {
        tokio::task::coop::consume_budget().await;
        loop {
            let mut caught_up = std::pin::pin!(self.caught_up.notified());
            // Before the look, so that a change after it is not missed.
            caught_up.as_mut().enable();
            if !lock(&self.state).pace.is_over() {
                return;
            }
            self.flush();
            if !lock(&self.state).pace.is_over() {
                return;
            }
            caught_up.await;
        }
    }

    fn paced(&self, edge: Option<Edge>) {
        self.shared.paced(edge);
        if edge == Some(Edge::Fell) {
            self.caught_up.notify_waiters();
        }
    }

    /// Ends the connection; what waits is forgotten. Only the first fault counts.
    pub(super) fn close(&self, fault: Fault) {
        let mut state = lock(&self.state);
        if state.half.take().is_none() {
            return;
        }
        state.fault = Some(fault);
        let freed = state.outbox.clear();
        let edge = state.pace.shrank(0, 0, &self.shared.limits, Instant::now);
        drop(state);
        self.paced(edge);
        self.caught_up.notify_waiters();
        self.shared.dequeued(freed);
        self.closing.notify_one();
    }

    /// Resolves when somebody closed the peer.
    pub(super) async fn closed(&self) -> Fault {
        loop {
            let fault = lock(&self.state).fault.take();
            if let Some(fault) = fault {
                return fault;
            }
            self.closing.notified().await;
        }
    }

    /// Finishes what a flush had to leave; cuts off a subscriber that does not read.
    pub(super) async fn write_loop(&self, half: &WriteHalf) -> Fault {
        loop {
            self.wake.notified().await;
            if let Err(fault) = self.drain(half).await {
                return fault;
            }
        }
    }

    async fn drain(&self, half: &WriteHalf) -> Result<(), Fault> {
        loop {
            match self.write_turn() {
                Turn::Empty => return Ok(()),
                Turn::More => tokio::task::yield_now().await,
                Turn::Blocked => self.wait(half).await?,
                Turn::Broken(error) => return Err(error.into()),
            }
        }
    }

    fn write_turn(&self) -> Turn {
        let mut state = lock(&self.state);
        let turn = self.write(&mut state);
        state.is_armed = !matches!(turn, Turn::Empty);
        turn
    }

    /// Waits until the socket takes more, or the peer was behind for too long.
    async fn wait(&self, half: &WriteHalf) -> Result<(), Fault> {
        let stall = self.shared.limits.subscriber_stall;
        let deadline = lock(&self.state).pace.deadline(stall);
        let stalled = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            writable = half.writable() => writable.map_err(Fault::from),
            () = self.wake.notified() => Ok(()),
            () = stalled => self.judge(),
        }
    }

    /// The deadline seen before the wait may have moved: a flush may have written meanwhile.
    fn judge(&self) -> Result<(), Fault> {
        let deadline = lock(&self.state).pace.deadline(self.shared.limits.subscriber_stall);
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            Err(Fault::SubscriberStalled)
        } else {
            Ok(())
        }
    }

    /// Writes until nothing is left, the socket is full or the turn is over.
    fn write(&self, state: &mut State) -> Turn {
        let Some(half) = state.half.clone() else { return Turn::Empty };
        let limits = &self.shared.limits;
        let mut written = 0;
        while !state.outbox.is_empty() {
            if written >= ZMTP_WRITE_TURN_BYTES {
                return Turn::More;
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let State { outbox, sealer, .. } = &mut *state;
            let filled = match sealer {
                None => outbox.gather(&mut slices),
                Some(sealer) => match outbox.seal(|message| sealer.seal(message)) {
                    Ok((before, after)) => {
                        self.shared.queued(after);
                        self.shared.dequeued(before);
                        slices[0] = IoSlice::new(outbox.sealed());
                        1
                    }
                    Err(error) => return Turn::Broken(io::Error::other(error)),
                },
            };
            match half.try_write_vectored(slices.get(..filled).unwrap_or_default()) {
                Ok(0) => return Turn::Broken(io::ErrorKind::WriteZero.into()),
                Ok(now) => {
                    written += now;
                    let freed = state.outbox.advance(now);
                    let edge =
                        state.pace.shrank(now, state.outbox.lane_cost(Lane::Data), limits, Instant::now);
                    self.paced(edge);
                    self.shared.dequeued(freed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Blocked,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Turn::Broken(error),
            }
        }
        self.emptied.notify_one();
        Turn::Empty
    }
}

impl State {
    /// One message always fits in an empty lane, however large: nobody could ever send it otherwise.
    fn has_room(&self, cost: usize, lane: Lane, shared: &Shared) -> bool {
        let budget = match lane {
            Lane::Control => shared.limits.control_queue_bytes,
            Lane::Data => shared.limits.queue_bytes,
        };
        let queued = self.outbox.lane_cost(lane);
        queued == 0 || queued + cost <= budget
    }
}
