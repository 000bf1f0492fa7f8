//! What one interceptor has not looked at yet: a bounded queue that wakes its thread once for many, since to wake a
//! thread takes longer than most of what there is to see.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cob_protocol::limits::{INTERCEPTOR_GATHER_MS, INTERCEPTOR_QUEUE_MAX};
use tokio::sync::oneshot;

use super::interceptors::Observation;

pub(crate) enum Sighting {
    Shown(Arc<Observation>),
    /// Everything before this was seen.
    Seen(oneshot::Sender<()>),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Sightings {
    inner: Mutex<Inner>,
    /// Rung when the thread, who rests, is wanted.
    wanted: Condvar,
}

#[derive(Default)]
struct Inner {
    waiting: Vec<Sighting>,
    /// Taken by the thread the last time: they count until it comes again.
    taken: usize,
    rests: Rest,
    is_closed: bool,
}

/// What the thread waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    /// It does not wait.
    #[default]
    No,
    /// For anything.
    Asleep,
    /// For more than there is, or for what cannot wait; but not for long.
    Gathering,
}

impl Sightings {
    /// Puts it last; `false` when there is no room.
    pub(crate) fn push(&self, sighting: Sighting) -> bool {
        let mut inner = self.lock();
        if inner.is_closed || inner.waiting.len() + inner.taken >= INTERCEPTOR_QUEUE_MAX {
            return false;
        }
        let cannot_wait = matches!(sighting, Sighting::Seen(_));
        inner.waiting.push(sighting);
        let is_wanted = match inner.rests {
            Rest::No => false,
            Rest::Asleep => true,
            Rest::Gathering => cannot_wait || inner.waiting.len() >= INTERCEPTOR_QUEUE_MAX / 2,
        };
        if is_wanted {
            inner.rests = Rest::No;
            drop(inner);
            self.wanted.notify_one();
        }
        true
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.wanted.notify_one();
    }

    /// Waits until there is something, and a moment for what follows it. Nothing: it is closed. What it brought before
    /// has been seen, and must be empty.
    pub(crate) fn take(&self, seen: &mut Vec<Sighting>) {
        let mut inner = self.lock();
        inner.taken = 0;
        while inner.waiting.is_empty() && !inner.is_closed {
            inner.rests = Rest::Asleep;
            inner = self.wanted.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let cannot_wait = inner.waiting.iter().any(|sighting| matches!(sighting, Sighting::Seen(_)));
        if !cannot_wait && !inner.is_closed && inner.waiting.len() < INTERCEPTOR_QUEUE_MAX / 2 {
            inner.rests = Rest::Gathering;
            let is_resting = |inner: &mut Inner| inner.rests == Rest::Gathering && !inner.is_closed;
            let pause = Duration::from_millis(INTERCEPTOR_GATHER_MS);
            let woken = self.wanted.wait_timeout_while(inner, pause, is_resting);
            inner = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.rests = Rest::No;
        inner.taken = inner.waiting.len();
        std::mem::swap(&mut inner.waiting, seen);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    fn shown() -> Sighting {
        Sighting::Shown(Arc::new(Observation::Answered { name: "ping", code: None, took: Duration::ZERO }))
    }

    #[test]
    fn what_was_taken_counts_until_the_thread_comes_again() {
        let queue = Sightings::default();
        (0..INTERCEPTOR_QUEUE_MAX).for_each(|_| assert!(queue.push(shown())));
        assert!(!queue.push(shown()));
        let mut seen = Vec::new();
        queue.take(&mut seen);
        assert_eq!(seen.len(), INTERCEPTOR_QUEUE_MAX);
        assert!(!queue.push(shown()), "nobody has looked at them yet");
        seen.clear();
        queue.close();
        queue.take(&mut seen);
        assert!(seen.is_empty() && !queue.push(shown()));
    }

    #[test]
    fn a_thread_that_rests_is_woken_for_what_cannot_wait_and_by_the_end() {
        let queue = Arc::new(Sightings::default());
        let (tell, told) = channel();
        let theirs = Arc::clone(&queue);
        let thread = thread::spawn(move || {
            let mut seen = Vec::new();
            loop {
                theirs.take(&mut seen);
                if seen.is_empty() {
                    return;
                }
                tell.send(seen.len()).unwrap();
                seen.clear();
            }
        });
        let (asked, answer) = oneshot::channel();
        assert!(queue.push(shown()) && queue.push(Sighting::Seen(asked)));
        let mut count = 0;
        while count < 2 {
            count += told.recv().unwrap();
        }
        // Whoever takes the question answers it or lets it go.
        assert!(answer.blocking_recv().is_err());
        queue.close();
        thread.join().unwrap();
    }
}
