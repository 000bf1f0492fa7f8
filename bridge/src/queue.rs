//! What waits for the writer, and what came of it. One lock guards both, and it is held for a few moves only: a
//! submission costs one lock, a batch of any size costs one more.
//!
//! Waking the writer takes longer than most commits, and it must wake the one who submitted in its turn. So one who finds
//! it asleep may *claim* the store for a single small group, and the queue waits meanwhile.
//!
//! **Invariant:** groups leave in the order in which they came, and are answered in that order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use cob_protocol::limits::{CHORES_QUIET_MS, COMMIT_BYTES_MAX, COMMIT_WRITES_MAX, WRITER_QUEUE_BYTES_MAX};
use tokio::sync::Notify;

use crate::store::{Group, Outcomes, StoreError};
use crate::submitted::Submitted;
use crate::weight;

/// What came of a group.
pub(crate) type Verdict = Result<Outcomes, StoreError>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    /// Rung when the writer, who sleeps, is wanted.
    wanted: Condvar,
    /// Groups that wait.
    waiting: AtomicUsize,
    /// Bytes that wait or are being written.
    bytes: AtomicUsize,
    /// Rung when there is room again.
    room: Notify,
}

type Waiting = VecDeque<(Group, Ticket)>;

#[derive(Debug, Default)]
struct Inner {
    groups: Waiting,
    slots: Vec<Slot>,
    free: Vec<usize>,
    asleep: bool,
    /// There is something that the writer may do when nothing has been written for a while.
    chores: bool,
    /// The disk is to be looked at, at once.
    look: bool,
    /// When it will have been quiet for a while.
    quiet_from: Option<Instant>,
    closing: bool,
    /// Somebody who submits writes by himself: the writer waits.
    is_claimed: bool,
    /// The writer came meanwhile, and waits for the end of it.
    is_awaited: bool,
    /// Before that nobody writes by himself: there is much to do, or the disk is slow.
    claims_from: Option<Instant>,
}

/// Where the verdict on a group will lie.
#[derive(Debug, Default)]
struct Slot {
    verdict: Option<Verdict>,
    waker: Option<Waker>,
    /// Nobody will take the verdict.
    is_forgotten: bool,
}

/// Names the slot of a group, and what the group weighs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    slot: usize,
    bytes: usize,
}

/// Groups that are committed together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// What is written.
    pub(crate) groups: Vec<Group>,
    /// Their weight, roughly.
    pub(crate) bytes: usize,
    tickets: Vec<Ticket>,
}

/// What the writer found when it came for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// There is a batch.
    Write,
    /// Nothing to write, but somebody wants to know whether there is room on the disk again.
    Look,
    /// Nothing was written for a while: time for what can wait.
    Chores,
    /// The queue is closed and empty.
    End,
}

impl Queue {
    /// Puts a group last. After [`Queue::close`] it is answered at once.
    pub(crate) fn push(self: &Arc<Self>, group: Group) -> Submitted {
        let bytes = weight::of_group(&group);
        let mut inner = self.lock();
        if inner.closing {
            return Submitted::ready(Err(StoreError::Closed));
        }
        let slot = self.add(&mut inner, group, bytes, VecDeque::push_back);
        let asleep = std::mem::take(&mut inner.asleep);
        drop(inner);
        if asleep {
            self.wanted.notify_one();
        }
        Submitted::waiting(Arc::clone(self), slot)
    }

    fn add(
        &self,
        inner: &mut Inner,
        group: Group,
        bytes: usize,
        put: fn(&mut Waiting, (Group, Ticket)),
    ) -> usize {
        let slot = inner.free.pop().unwrap_or_else(|| {
            inner.slots.push(Slot::default());
            inner.slots.len() - 1
        });
        put(&mut inner.groups, (group, Ticket { slot, bytes }));
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        slot
    }

    /// Whether whoever asks may write one group by himself now: the writer sleeps, nothing waits, and not much was
    /// written of late. If so, [`Queue::unclaim`] or [`Queue::hand_over`] must follow.
    pub(crate) fn claim(&self, now: Instant) -> bool {
        let mut inner = self.lock();
        let is_idle = inner.asleep && !inner.is_claimed && inner.groups.is_empty() && !inner.closing;
        inner.is_claimed |= is_idle && inner.claims_from.is_none_or(|from| from <= now);
        is_idle && inner.is_claimed
    }

    /// The group is written; the next claim is good from `claims_from` on.
    pub(crate) fn unclaim(&self, claims_from: Instant, chores: bool) {
        let mut inner = self.lock();
        inner.written(claims_from);
        let is_wanted = chores && !std::mem::replace(&mut inner.chores, true);
        self.let_writer_go_on(inner, is_wanted);
    }

    /// The group is not written: the writer shall do it, before all that came meanwhile.
    pub(crate) fn hand_over(self: &Arc<Self>, group: Group) -> Submitted {
        let bytes = weight::of_group(&group);
        let mut inner = self.lock();
        let slot = self.add(&mut inner, group, bytes, VecDeque::push_front);
        self.let_writer_go_on(inner, true);
        Submitted::waiting(Arc::clone(self), slot)
    }

    fn let_writer_go_on(&self, mut inner: MutexGuard<'_, Inner>, is_wanted: bool) {
        inner.is_claimed = false;
        // Perhaps it came for chores, and set itself no time to come again.
        let is_wanted = std::mem::take(&mut inner.is_awaited)
            || is_wanted
            || !inner.groups.is_empty()
            || inner.look
            || inner.closing;
        inner.asleep &= !is_wanted;
        drop(inner);
        if is_wanted {
            self.wanted.notify_one();
        }
    }

    /// Whether less waits than may.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < WRITER_QUEUE_BYTES_MAX
    }

    /// Waits until less waits than may.
    pub(crate) async fn room(&self) {
        loop {
            let rung = self.room.notified();
            tokio::pin!(rung);
            // Registered before the look, so that no ring falls between look and wait.
            rung.as_mut().enable();
            if self.has_room() {
                return;
            }
            rung.await;
        }
    }

    /// Groups and bytes that wait or are being written.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.waiting.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Lets the writer do what can wait when it has been quiet for a while.
    pub(crate) fn ask_for_chores(&self) {
        self.ask(|inner| !std::mem::replace(&mut inner.chores, true));
    }

    /// Lets the writer look at the disk.
    pub(crate) fn ask_for_look(&self) {
        self.ask(|inner| !std::mem::replace(&mut inner.look, true));
    }

    /// Wakes the writer if what is asked is new.
    fn ask(&self, is_new: impl FnOnce(&mut Inner) -> bool) {
        let mut inner = self.lock();
        let is_wanted = is_new(&mut inner) && std::mem::take(&mut inner.asleep);
        drop(inner);
        if is_wanted {
            self.wanted.notify_one();
        }
    }

    /// Takes no more groups. Those that wait are still written.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closing = true;
        inner.asleep = false;
        drop(inner);
        self.wanted.notify_one();
    }

    /// For the writer: sleeps until there is something to do. The batch it brings must be empty.
    pub(crate) fn take(&self, batch: &mut Batch) -> Work {
        let mut inner = self.lock();
        loop {
            // Also when time alone has woken it: nobody may claim what it is about to use.
            inner.asleep = false;
            inner.is_awaited = inner.is_claimed;
            if inner.is_claimed {
                // Whoever claimed it rings when he is done.
            } else if !inner.groups.is_empty() {
                inner.fill(batch);
                self.waiting.fetch_sub(batch.groups.len(), Ordering::Relaxed);
                return Work::Write;
            } else if inner.closing {
                return Work::End;
            } else if std::mem::take(&mut inner.look) {
                return Work::Look;
            }
            let mut pause = None;
            if inner.chores && !inner.is_claimed {
                let now = Instant::now();
                pause = inner.quiet_from.map(|from| from.saturating_duration_since(now));
                if pause.is_none_or(|pause| pause.is_zero()) {
                    inner.chores = false;
                    return Work::Chores;
                }
            }
            inner.asleep = true;
            inner = match pause {
                None => self.wanted.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(pause) => {
                    let woken = self.wanted.wait_timeout(inner, pause);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// For the writer: hands out the verdicts, one for each group of the batch, and empties it.
    pub(crate) fn answer(
        &self,
        batch: &mut Batch,
        verdicts: Vec<Verdict>,
        wakers: &mut Vec<Waker>,
        claims_from: Instant,
    ) {
        debug_assert_eq!(batch.tickets.len(), verdicts.len(), "one verdict for each group");
        let mut bytes = 0;
        let mut inner = self.lock();
        inner.written(claims_from);
        for (ticket, verdict) in batch.tickets.drain(..).zip(verdicts) {
            bytes += ticket.bytes;
            let Some(slot) = inner.slots.get_mut(ticket.slot) else { continue };
            if slot.is_forgotten {
                *slot = Slot::default();
                inner.free.push(ticket.slot);
                continue;
            }
            slot.verdict = Some(verdict);
            if let Some(waker) = slot.waker.take()
                && !wakers.last().is_some_and(|last: &Waker| last.will_wake(&waker))
            {
                wakers.push(waker);
            }
        }
        drop(inner);
        let was = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if was >= WRITER_QUEUE_BYTES_MAX {
            self.room.notify_waiters();
        }
        batch.groups.clear();
        batch.bytes = 0;
        for waker in wakers.drain(..) {
            waker.wake();
        }
    }

    /// For [`Submitted`]: the verdict, or a waker to be woken with it.
    pub(crate) fn poll(&self, slot: usize, waker: Option<&Waker>) -> Option<Verdict> {
        let mut inner = self.lock();
        let found = inner.slots.get_mut(slot)?;
        match found.verdict.take() {
            Some(verdict) => {
                *found = Slot::default();
                inner.free.push(slot);
                Some(verdict)
            }
            None => {
                if let Some(waker) = waker
                    && !found.waker.as_ref().is_some_and(|known| known.will_wake(waker))
                {
                    found.waker = Some(waker.clone());
                }
                None
            }
        }
    }

    /// For [`Submitted`]: nobody will ask for the verdict.
    pub(crate) fn forget(&self, slot: usize) {
        let mut inner = self.lock();
        let Some(found) = inner.slots.get_mut(slot) else { return };
        if found.verdict.is_some() {
            *found = Slot::default();
            inner.free.push(slot);
        } else {
            found.waker = None;
            found.is_forgotten = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Something was written just now.
    fn written(&mut self, claims_from: Instant) {
        self.claims_from = Some(claims_from);
        self.quiet_from = Some(claims_from + Duration::from_millis(CHORES_QUIET_MS));
    }

    /// Moves to `batch` what one commit may take: at least one group, never a part of one.
    fn fill(&mut self, batch: &mut Batch) {
        let mut writes = 0;
        while let Some((group, ticket)) = self.groups.front() {
            writes += group.writes.len();
            let fits = writes <= COMMIT_WRITES_MAX && batch.bytes + ticket.bytes <= COMMIT_BYTES_MAX;
            if !fits && !batch.groups.is_empty() {
                return;
            }
            let Some((group, ticket)) = self.groups.pop_front() else { return };
            batch.bytes += ticket.bytes;
            batch.groups.push(group);
            batch.tickets.push(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const QUIET: Duration = Duration::from_millis(CHORES_QUIET_MS);

    #[test]
    fn whoever_comes_while_chores_are_done_does_not_wait_for_them() {
        let queue = Queue::default();
        queue.ask_for_chores();
        // Quiet in a moment: the writer sleeps until then, and is woken by nobody.
        let begin = Instant::now();
        queue.lock().quiet_from = Some(begin + Duration::from_millis(5));
        assert_eq!(queue.take(&mut Batch::default()), Work::Chores);
        assert!(begin.elapsed() >= Duration::from_millis(5));
        assert!(!queue.claim(Instant::now()), "the writer is awake and has the store");
    }

    #[test]
    fn chores_that_came_due_during_a_claim_are_done_after_it() {
        let queue = Arc::new(Queue::default());
        queue.ask_for_chores();
        queue.lock().is_claimed = true;
        let (done, took) = channel();
        let writer = Arc::clone(&queue);
        std::thread::spawn(move || done.send(writer.take(&mut Batch::default())));
        while !queue.lock().asleep {
            std::thread::yield_now();
        }
        queue.unclaim(Instant::now() - 2 * QUIET, false);
        assert_eq!(took.recv_timeout(Duration::from_secs(10)), Ok(Work::Chores));
    }
}
