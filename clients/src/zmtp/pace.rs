//! Whether one peer keeps up: it may be further behind than [`Limits::behind`] only while it reads.
//!
//! Sans-IO, with the time as a parameter.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::Limits;

/// How one peer reads.
#[derive(Debug, Default)]
pub(super) struct Pace {
    over: bool,
    /// Bytes it has read since it connected, as far as its socket took them.
    read: u64,
    /// When it last proved that it reads, and [`Pace::read`] then. Kept until the queue is nearly drained: a
    /// reader at the edge would otherwise get a new chance with every message.
    proof: Option<(Instant, u64)>,
}

/// What a change of the queue means to those who fill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    /// The peer is now behind.
    Rose,
    /// It no longer is.
    Fell,
}

impl Pace {
    /// The queue grew to `cost`.
    pub(super) fn grew(
        &mut self,
        cost: usize,
        limits: &Limits,
        now: impl FnOnce() -> Instant,
    ) -> Option<Edge> {
        if self.over || cost <= limits.behind() {
            return None;
        }
        self.over = true;
        if self.proof.is_none() {
            self.proof = Some((now(), self.read));
        }
        Some(Edge::Rose)
    }

    /// The socket took `written` bytes, which left `cost` in the queue.
    pub(super) fn shrank(
        &mut self,
        written: usize,
        cost: usize,
        limits: &Limits,
        now: impl FnOnce() -> Instant,
    ) -> Option<Edge> {
        self.read += written as u64;
        if cost <= limits.behind() / 2 {
            self.proof = None;
        } else if let Some((_, read)) = self.proof
            && self.read - read >= limits.subscriber_progress_bytes as u64
        {
            self.proof = Some((now(), self.read));
        }
        if !self.over || cost > limits.behind() {
            return None;
        }
        self.over = false;
        Some(Edge::Fell)
    }

    /// Bytes it has read since it connected, as far as its socket took them.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Whether the peer is behind.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// When the peer is to be cut off if nothing changes.
    pub(super) fn deadline(&self, stall: Duration) -> Option<Instant> {
        self.proof.filter(|_| self.over).map(|(at, _)| at + stall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { queue_bytes: 100, subscriber_progress_bytes: 10, ..Limits::default() }
    }

    const STALL: Duration = Duration::from_secs(2);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_a_queue_over_half_has_a_deadline_and_reading_moves_it() {
        let (limits, start, mut pace) = (limits(), Instant::now(), Pace::default());
        assert_eq!(pace.grew(50, &limits, || start), None);
        assert_eq!(pace.deadline(STALL), None);
        assert_eq!(pace.grew(51, &limits, || start), Some(Edge::Rose));
        assert_eq!(pace.grew(90, &limits, || start + SECOND), None, "the edge is told once");
        assert_eq!(pace.deadline(STALL), Some(start + STALL));
        assert_eq!(pace.shrank(10, 80, &limits, || start + SECOND), None);
        assert_eq!(pace.deadline(STALL), Some(start + SECOND + STALL));
        assert_eq!(pace.shrank(30, 50, &limits, || start + SECOND), Some(Edge::Fell));
        assert_eq!(pace.deadline(STALL), None);
    }

    #[test]
    fn a_byte_now_and_then_is_no_progress() {
        let (limits, start, mut pace) = (limits(), Instant::now(), Pace::default());
        pace.grew(51, &limits, || start);
        assert_eq!(pace.shrank(1, 50, &limits, || start + SECOND), Some(Edge::Fell));
        pace.grew(51, &limits, || start + SECOND);
        assert_eq!(pace.deadline(STALL), Some(start + STALL));
    }

    #[test]
    fn a_queue_that_was_drained_starts_afresh() {
        let (limits, start, mut pace) = (limits(), Instant::now(), Pace::default());
        pace.grew(51, &limits, || start);
        pace.shrank(1, 25, &limits, || start);
        pace.grew(51, &limits, || start + SECOND);
        assert_eq!(pace.deadline(STALL), Some(start + SECOND + STALL));
    }
}
