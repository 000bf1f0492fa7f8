//! The ladder that ends what does not want to end: a first SIGINT, a second, and after the grace the worker is
//! killed. And the clock of an execution whose time is limited.
//!
//! Nothing here signals or waits: time is a parameter, and the session does what a [`Step`] says.

use std::time::Duration;

use cob_protocol::limits::{
    INTERRUPT_AGAIN_MS, INTERRUPT_GRACE_MS, LAST_LOOK_BYTES_MAX, LAST_LOOK_EVENTS_MAX,
};
use tokio::time::Instant;

/// Why something is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Somebody asked for it.
    Interrupt,
    /// It took all the time it may take.
    TimeLimit,
    /// The request wanted an end by now.
    Deadline,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Signal this target again.
    Signal(u64),
    /// Its grace is over: kill the worker, unless the target has ended.
    Kill(u64),
}

/// How far the ladder had to be climbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Climb {
    pub(crate) target: u64,
    pub(crate) cause: Cause,
    /// Signals sent.
    pub(crate) signals: u32,
    /// From the first signal to the end; never, if there is none.
    pub(crate) grace: Option<Duration>,
    again: Option<Instant>,
    kill: Option<Instant>,
}

/// One ladder: one target at a time stands on it.
#[derive(Debug)]
pub(crate) struct Ladder {
    grace: Option<Duration>,
    climb: Option<Climb>,
    looked_events: usize,
    looked_bytes: usize,
}

impl Ladder {
    /// `grace`: from an interrupt to the end by force; `None`: never.
    pub(crate) fn new(grace: Option<Duration>) -> Self {
        Self { grace, climb: None, looked_events: 0, looked_bytes: 0 }
    }

    /// `target` was signalled and is to end. Who stands on the ladder already goes on as before: impatience does
    /// not shorten anybody's grace, and does not prolong it either.
    pub(crate) fn begin(&mut self, target: u64, cause: Cause, now: Instant) {
        if let Some(climb) = &mut self.climb
            && climb.target == target
        {
            climb.signals += 1;
            if cause == Cause::Interrupt {
                return;
            }
            // An interrupt that is never followed by force would be the end of every limit.
            climb.cause = cause;
            if climb.grace.is_some() {
                return;
            }
        }
        let grace = match cause {
            Cause::Interrupt => self.grace,
            // A limit that the code can decline would be none.
            Cause::TimeLimit | Cause::Deadline => {
                Some(self.grace.unwrap_or(Duration::from_millis(INTERRUPT_GRACE_MS)))
            }
        };
        let again = Some(now + before_second(grace));
        self.clear();
        self.climb = Some(Climb { target, cause, signals: 1, grace, again, kill: None });
    }

    /// What is due, if anything; a kill is due until [`Ladder::clear`] or [`Ladder::killed`].
    pub(crate) fn step(&mut self, now: Instant) -> Option<Step> {
        let climb = self.climb.as_mut()?;
        let target = climb.target;
        if climb.again.is_some_and(|at| at <= now) {
            climb.again = None;
            climb.signals += 1;
            // Counted from here: whoever was stopped or suspended meanwhile still gives the code time to react.
            let rest = climb.grace.map(|grace| grace.saturating_sub(before_second(climb.grace)));
            // A grace beyond the end of time is none.
            climb.kill = rest.and_then(|rest| now.checked_add(rest));
            if climb.kill.is_none() {
                self.climb = None;
            }
            return Some(Step::Signal(target));
        }
        climb.kill.is_some_and(|at| at <= now).then_some(Step::Kill(target))
    }

    /// When the next signal is due.
    pub(crate) fn signal_at(&self) -> Option<Instant> {
        self.climb.and_then(|climb| climb.again)
    }

    /// When the kill is due.
    pub(crate) fn kill_at(&self) -> Option<Instant> {
        self.climb.and_then(|climb| climb.kill)
    }

    /// Who stands on it, and why.
    pub(crate) fn climb(&self) -> Option<Climb> {
        self.climb
    }

    /// The worker is killed; how it came to that is still known until its end.
    pub(crate) fn killed(&mut self) {
        if let Some(climb) = &mut self.climb {
            climb.kill = None;
        }
    }

    /// The code asks its user something: it has reacted, and the session is back in a person's hands. (A debugger
    /// that is interrupted at its prompt shows the prompt again.) A limit of time does not care.
    pub(crate) fn asks(&mut self) {
        if self.climb.is_some_and(|climb| climb.cause == Cause::Interrupt) {
            self.clear();
        }
    }

    /// The target has ended.
    pub(crate) fn clear(&mut self) {
        (self.climb, self.looked_events, self.looked_bytes) = (None, 0, 0);
    }

    /// Something was looked at that had arrived before the kill.
    pub(crate) fn looked_at(&mut self, bytes: usize) {
        self.looked_events += 1;
        self.looked_bytes += bytes;
    }

    /// Whether an end may still lie behind what was looked at. Code that floods would be looked at for ever.
    pub(crate) fn may_look(&self) -> bool {
        self.looked_events < LAST_LOOK_EVENTS_MAX && self.looked_bytes < LAST_LOOK_BYTES_MAX
    }
}

/// Between the first signal and the second: both come before the end, however short the grace is.
fn before_second(grace: Option<Duration>) -> Duration {
    let usual = Duration::from_millis(INTERRUPT_AGAIN_MS);
    grace.map_or(usual, |grace| usual.min(grace / 2))
}

/// The time that an execution may still take. It stands still while a person is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLeft {
    left: Duration,
    since: Option<Instant>,
}

impl TimeLeft {
    /// The clock runs from `now`.
    pub(crate) fn start(limit: Duration, now: Instant) -> Self {
        Self { left: limit, since: Some(now) }
    }

    /// When the time is up, if nothing stops the clock.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        // A limit beyond the end of time is none.
        self.since.and_then(|since| since.checked_add(self.left))
    }

    /// Stops the clock.
    pub(crate) fn pause(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(now.saturating_duration_since(since));
        }
    }

    /// Lets the clock go on.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(INTERRUPT_GRACE_MS);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// What comes of a ladder, and when, in milliseconds from its beginning.
    fn steps(ladder: &mut Ladder, start: Instant) -> Vec<(u64, Step)> {
        let mut steps = Vec::new();
        for at in 0..10_000 {
            while let Some(step) = ladder.step(start + ms(at)) {
                steps.push((at, step));
                if let Step::Kill(_) = step {
                    ladder.killed();
                }
            }
        }
        steps
    }

    #[test]
    fn two_signals_and_then_the_end() {
        let start = Instant::now();
        let mut ladder = Ladder::new(Some(GRACE));
        ladder.begin(7, Cause::Interrupt, start);
        assert_eq!(steps(&mut ladder, start), [(1000, Step::Signal(7)), (2000, Step::Kill(7))]);
        assert_eq!(ladder.climb().map(|climb| climb.signals), Some(2));
    }

    #[test]
    fn a_short_grace_still_has_room_for_two_signals() {
        let start = Instant::now();
        let mut ladder = Ladder::new(Some(ms(300)));
        ladder.begin(7, Cause::Interrupt, start);
        assert_eq!(steps(&mut ladder, start), [(150, Step::Signal(7)), (300, Step::Kill(7))]);
    }

    #[test]
    fn an_interrupt_on_the_way_does_not_restart_the_clock() {
        let start = Instant::now();
        let mut ladder = Ladder::new(Some(GRACE));
        ladder.begin(7, Cause::Interrupt, start);
        assert_eq!(ladder.step(start + ms(1000)), Some(Step::Signal(7)));
        ladder.begin(7, Cause::Interrupt, start + ms(1900));
        assert_eq!(ladder.kill_at(), Some(start + GRACE));
        assert_eq!(ladder.climb().map(|climb| climb.signals), Some(3));
    }

    #[test]
    fn without_a_grace_nothing_is_killed_and_a_later_interrupt_begins_anew() {
        let start = Instant::now();
        let mut ladder = Ladder::new(None);
        ladder.begin(7, Cause::Interrupt, start);
        assert_eq!(steps(&mut ladder, start), [(1000, Step::Signal(7))]);
        assert_eq!(ladder.climb(), None);
        ladder.begin(7, Cause::Interrupt, start + ms(5000));
        assert_eq!(ladder.signal_at(), Some(start + ms(6000)));
    }

    #[test]
    fn a_grace_for_ever_is_none() {
        let start = Instant::now();
        let mut ladder = Ladder::new(Some(Duration::MAX));
        ladder.begin(7, Cause::Interrupt, start);
        assert_eq!(steps(&mut ladder, start), [(1000, Step::Signal(7))]);
    }

    #[test]
    fn a_limit_of_time_is_enforced_even_if_interrupts_never_kill() {
        let start = Instant::now();
        let mut ladder = Ladder::new(None);
        ladder.begin(7, Cause::TimeLimit, start);
        assert_eq!(steps(&mut ladder, start), [(1000, Step::Signal(7)), (2000, Step::Kill(7))]);
    }

    #[test]
    fn a_limit_is_enforced_even_after_an_interrupt_that_would_never_kill() {
        for grace in [None, Some(ms(2000))] {
            let start = Instant::now();
            let mut ladder = Ladder::new(grace);
            ladder.begin(7, Cause::Interrupt, start);
            ladder.begin(7, Cause::Deadline, start + ms(10));
            // Who only asks is not let off any more.
            ladder.asks();
            assert_eq!(ladder.climb().map(|climb| climb.cause), Some(Cause::Deadline));
            assert!(matches!(steps(&mut ladder, start).last(), Some((_, Step::Kill(7)))));
        }
    }

    #[test]
    fn another_target_starts_at_the_bottom() {
        let start = Instant::now();
        let mut ladder = Ladder::new(Some(GRACE));
        ladder.begin(7, Cause::Interrupt, start);
        ladder.begin(8, Cause::Interrupt, start + ms(900));
        assert_eq!(ladder.step(start + ms(1000)), None);
        assert_eq!(ladder.step(start + ms(1900)), Some(Step::Signal(8)));
    }

    /// Both steps are overdue when the kernel comes back from a suspension; the code was suspended too.
    #[test]
    fn after_a_suspension_the_code_gets_time_to_react() {
        let start = Instant::now();
        let mut ladder = Ladder::new(Some(GRACE));
        ladder.begin(7, Cause::Interrupt, start);
        let back = start + ms(60_000);
        assert_eq!(ladder.step(back), Some(Step::Signal(7)));
        assert_eq!(ladder.step(back), None);
        assert_eq!(ladder.kill_at(), Some(back + ms(1000)));
    }

    #[test]
    fn code_that_asks_has_reacted_to_an_interrupt_but_not_to_a_limit() {
        let start = Instant::now();
        for (cause, stands) in [(Cause::Interrupt, false), (Cause::TimeLimit, true)] {
            let mut ladder = Ladder::new(Some(GRACE));
            ladder.begin(7, cause, start);
            ladder.asks();
            assert_eq!(ladder.climb().is_some(), stands);
        }
    }

    #[test]
    fn a_last_look_has_an_end() {
        let mut ladder = Ladder::new(Some(GRACE));
        ladder.looked_at(LAST_LOOK_BYTES_MAX);
        assert!(!ladder.may_look());
        ladder.clear();
        (0..LAST_LOOK_EVENTS_MAX).for_each(|_| ladder.looked_at(0));
        assert!(!ladder.may_look());
        ladder.begin(7, Cause::Interrupt, Instant::now());
        assert!(ladder.may_look());
    }

    #[test]
    fn the_clock_stands_still_while_a_person_is_asked() {
        let start = Instant::now();
        let mut time = TimeLeft::start(ms(300), start);
        assert_eq!(time.deadline(), Some(start + ms(300)));
        time.pause(start + ms(100));
        assert_eq!(time.deadline(), None);
        time.pause(start + ms(50_000));
        time.resume(start + ms(100_000));
        time.resume(start + ms(100_100));
        assert_eq!(time.deadline(), Some(start + ms(100_200)));
        // What came too late to be stopped is over at once.
        time.pause(start + ms(200_000));
        time.resume(start + ms(200_000));
        assert_eq!(time.deadline(), Some(start + ms(200_000)));
    }
}
