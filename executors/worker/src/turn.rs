//! Whose turn it is to write: a lock whose holder may let the interpreter go.
//!
//! A `MutexGuard` cannot travel into the closure that runs without the interpreter; a turn can.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

#[derive(Debug, Default)]
pub(crate) struct Turn {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_taken: bool,
    /// So many wait. Where nobody does, giving the turn back is no call of the system.
    waiting: usize,
}

/// It is the holder's turn until this is dropped.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Turn);

impl Turn {
    /// Takes the turn if nobody has it. Safe while the interpreter is held.
    pub(crate) fn try_take(&self) -> Option<Held<'_>> {
        let mut state = self.lock();
        if state.is_taken {
            return None;
        }
        state.is_taken = true;
        Some(Held(self))
    }

    /// Waits for the turn. Only without the interpreter: the holder may need it to finish.
    pub(crate) fn take(&self) -> Held<'_> {
        let mut state = self.lock();
        while state.is_taken {
            state.waiting += 1;
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.is_taken = true;
        Held(self)
    }

    /// In a forked process, where nobody else is left: it is free. `false`: a thread that is not here was about to
    /// take it or give it back, and will never end that.
    pub(crate) fn renew(&self) -> bool {
        match self.state.try_lock() {
            Ok(mut state) => *state = State::default(),
            Err(TryLockError::Poisoned(state)) => *state.into_inner() = State::default(),
            Err(TryLockError::WouldBlock) => return false,
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_taken = false;
        if state.waiting > 0 {
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_held_by_one_and_freed_when_dropped() {
        let turn = Turn::default();
        let held = turn.try_take().unwrap();
        assert!(turn.try_take().is_none());
        drop(held);
        assert!(turn.try_take().is_some());
    }

    #[test]
    fn who_waits_gets_the_turn() {
        let turn = Turn::default();
        let held = turn.take();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(turn.take()));
            drop(held);
            waiting.join().unwrap();
        });
    }
}
