//! The answer to a submission, as a future.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::queue::{Queue, Verdict};

/// What [`Bridge::submit`](crate::Bridge::submit) gives: a future with the outcomes of the group once it is committed
/// at its durability, or the reason why nothing of it was recorded. Dropping it changes nothing: the group is
/// recorded all the same.
///
/// Submissions of one bridge complete in the order in which they were made.
pub struct Submitted {
    state: State,
}

enum State {
    Ready(Verdict),
    Waiting { queue: Arc<Queue>, slot: usize },
    Taken,
}

impl Submitted {
    pub(crate) fn ready(verdict: Verdict) -> Self {
        Self { state: State::Ready(verdict) }
    }

    pub(crate) fn waiting(queue: Arc<Queue>, slot: usize) -> Self {
        Self { state: State::Waiting { queue, slot } }
    }

    /// The answer, if it is there and was not taken before.
    pub fn try_take(&mut self) -> Option<Verdict> {
        self.take(None)
    }

    fn take(&mut self, context: Option<&Context<'_>>) -> Option<Verdict> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Ready(verdict) => Some(verdict),
            State::Waiting { queue, slot } => {
                let verdict = queue.poll(slot, context.map(Context::waker));
                if verdict.is_none() {
                    self.state = State::Waiting { queue, slot };
                }
                verdict
            }
            State::Taken => None,
        }
    }
}

/// # Cancel safety
/// Whoever polls it by reference loses nothing. Once it has given its answer it waits for ever.
impl Future for Submitted {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.take(Some(context)).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        if let State::Waiting { queue, slot } = &self.state {
            queue.forget(*slot);
        }
    }
}

impl fmt::Debug for Submitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Ready(_) => "Submitted(ready)",
            State::Waiting { .. } => "Submitted(waiting)",
            State::Taken => "Submitted(taken)",
        })
    }
}
