//! A circuit breaker on something that fails: how long to leave it alone, and when to try once more.
//!
//! Pure: time is a parameter, and nothing is started here. Used by [`crate::slots`] for four things that can fail:
//! cold starts, forks, zygotes, and workers that die while nobody has leased them.
//!
//! Closed: all may try. Open: nobody, until a pause is over. Half-open: the pause is over and the next verdict decides.
//! Half-open is no state of its own but a moment of `Open`: a trial that is abandoned (its asker went away, its
//! environment was retired) can therefore not leave the breaker waiting for a verdict that never comes.
//!
//! The pause has no jitter. Jitter spreads many clients that do not know of each other; here one process decides for
//! the whole host and lets one trial through.
//!
//! **Invariant:** while open, the pause is between the policy's least and greatest, and doubles with each failed trial.

use std::sync::Arc;
use std::time::Duration;

use cob_protocol::limits::{RETRY_PAUSE_MS_MAX, RETRY_PAUSE_MS_MIN, START_FAILURES_MAX};

/// Why something failed, in one sentence; shared by all who are told.
pub(crate) type Reason = Arc<str>;

/// How much is forgiven, and how long the pauses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Consecutive failures that open it.
    pub(crate) failures_max: u32,
    /// The first pause.
    pub(crate) pause_min: Duration,
    /// The longest pause.
    pub(crate) pause_max: Duration,
}

impl Policy {
    /// For what many ask for at once: a few failures are forgiven ([`START_FAILURES_MAX`] says why so many).
    pub(crate) const FORGIVING: Self = Self { failures_max: START_FAILURES_MAX, ..Self::STRICT };
    /// For what has a substitute (a zygote, a fork: start cold instead): one failure is enough to leave it alone.
    pub(crate) const STRICT: Self = Self {
        failures_max: 1,
        pause_min: Duration::from_millis(RETRY_PAUSE_MS_MIN),
        pause_max: Duration::from_millis(RETRY_PAUSE_MS_MAX),
    };
}

/// May it be tried now?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// Yes, by all.
    Free,
    /// Yes, by one: its verdict is waited for.
    Trial,
    /// Not now: a trial is under way.
    Busy,
    /// No, with the last failure and the time that is left.
    Shut {
        /// The last failure.
        error: Reason,
        /// When it makes sense to ask again.
        retry_after: Duration,
    },
}

/// The breaker.
#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    policy: Policy,
    state: State,
}

/// What a breaker remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The last try succeeded, or there was none.
    Closed,
    /// The last tries failed, fewer than are forgiven.
    Failing {
        /// How many, in a row.
        failures: u32,
        /// The last failure.
        error: Reason,
    },
    /// Nobody may try until then.
    Open {
        /// The end of the pause.
        until: Duration,
        /// Its length.
        pause: Duration,
        /// The last failure.
        error: Reason,
    },
}

impl Breaker {
    /// A closed one.
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, state: State::Closed }
    }

    /// May it be tried, while `under_way` earlier tries have no verdict yet? A trial begins only when there is none,
    /// so that the verdict that decides is its own.
    pub(crate) fn permit(&self, now: Duration, under_way: usize) -> Permit {
        match &self.state {
            State::Closed | State::Failing { .. } => Permit::Free,
            State::Open { until, error, .. } if now < *until => {
                Permit::Shut { error: error.clone(), retry_after: *until - now }
            }
            State::Open { .. } if under_way == 0 => Permit::Trial,
            State::Open { .. } => Permit::Busy,
        }
    }

    /// Is there no pause now? For things that need no trial, because they are not asked for by many at once.
    pub(crate) fn rests(&self, now: Duration) -> bool {
        self.until().is_some_and(|until| now < until)
    }

    /// A try failed. Failures of tries that began before it opened do not make the pause longer.
    pub(crate) fn failed(&mut self, now: Duration, error: Reason) {
        self.state = match &self.state {
            State::Closed => self.counted(now, 1, error),
            State::Failing { failures, .. } => self.counted(now, failures.saturating_add(1), error),
            State::Open { until, pause, .. } if now < *until => {
                State::Open { until: *until, pause: *pause, error }
            }
            State::Open { pause, .. } => self.open(now, pause.saturating_mul(2), error),
        };
    }

    /// A try succeeded: whatever was wrong is over.
    pub(crate) fn succeeded(&mut self) {
        self.state = State::Closed;
    }

    /// The end of the pause of an open one.
    pub(crate) fn until(&self) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed | State::Failing { .. } => None,
        }
    }

    /// Has the pause reached its greatest length?
    pub(crate) fn is_hopeless(&self) -> bool {
        matches!(self.state, State::Open { pause, .. } if pause >= self.policy.pause_max)
    }

    /// For those who look.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    fn counted(&self, now: Duration, failures: u32, error: Reason) -> State {
        if failures >= self.policy.failures_max {
            self.open(now, self.policy.pause_min, error)
        } else {
            State::Failing { failures, error }
        }
    }

    fn open(&self, now: Duration, pause: Duration, error: Reason) -> State {
        let pause = pause.min(self.policy.pause_max);
        State::Open { until: now.saturating_add(pause), pause, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy =
        Policy { failures_max: 3, pause_min: Duration::from_secs(1), pause_max: Duration::from_secs(5) };

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(POLICY);
        for _ in 0..POLICY.failures_max {
            breaker.failed(seconds(0), "no".into());
        }
        breaker
    }

    #[test]
    fn a_first_failure_does_not_punish() {
        let mut breaker = Breaker::new(POLICY);
        breaker.failed(seconds(0), "no".into());
        breaker.failed(seconds(0), "no".into());
        assert_eq!(breaker.permit(seconds(0), 9), Permit::Free);
        breaker.succeeded();
        assert_eq!(*breaker.state(), State::Closed);
    }

    #[test]
    fn an_open_one_says_why_and_how_long() {
        let breaker = opened();
        let shut = Permit::Shut { error: "no".into(), retry_after: Duration::from_millis(600) };
        assert_eq!(breaker.permit(Duration::from_millis(400), 0), shut);
    }

    #[test]
    fn after_the_pause_one_is_let_through() {
        let mut breaker = opened();
        assert_eq!(breaker.permit(seconds(1), 0), Permit::Trial);
        assert_eq!(breaker.permit(seconds(1), 1), Permit::Busy);
        breaker.succeeded();
        assert_eq!(breaker.permit(seconds(1), 1), Permit::Free);
    }

    #[test]
    fn pauses_double_up_to_the_greatest() {
        let mut breaker = opened();
        let mut now = seconds(0);
        let mut pauses = Vec::new();
        while !breaker.is_hopeless() {
            let until = breaker.until().unwrap();
            pauses.push((until - now).as_secs());
            now = until;
            breaker.failed(now, "still".into());
        }
        pauses.push((breaker.until().unwrap() - now).as_secs());
        assert_eq!(pauses, [1, 2, 4, 5]);
    }

    #[test]
    fn failures_from_before_it_opened_do_not_lengthen_the_pause() {
        let mut breaker = opened();
        breaker.failed(Duration::from_millis(900), "late".into());
        assert_eq!(breaker.until(), Some(seconds(1)));
    }
}
