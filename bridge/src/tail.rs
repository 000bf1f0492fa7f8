//! The last events of a promise, and its end, as they were committed: for one reader who keeps up, so that he need not
//! look into the store.
//!
//! **Invariant:** what is held is contiguous, and ends with the last event that was pushed; after an overflow nothing is
//! held until the reader asks for more, but the number of the last one is known. So a reader always sees whether he has
//! missed something, and the store has it then.

use std::collections::VecDeque;
use std::sync::Arc;

use cob_protocol::event::EventNumber;
use cob_protocol::limits::{FOLLOWER_TAIL_BYTES_MAX, FOLLOWER_TAIL_EVENTS_MAX};
use cob_protocol::promise::Promise;

use crate::store::Recorded;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    listens_for: ListensFor,
    events: VecDeque<Recorded>,
    bytes: usize,
    /// The number after the last event that was pushed; 0: none was.
    next: EventNumber,
    settled: Option<Arc<Promise>>,
}

/// What the reader wants to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ListensFor {
    /// The settlement only.
    #[default]
    End,
    /// Events too, but they are not held: the reader is behind.
    Numbers,
    /// All of it.
    Events,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The next ones.
    Events(Vec<Recorded>),
    /// The next one exists, and none was asked for.
    Blocked,
    /// The next one exists, and only the store has it.
    Behind,
    /// Nothing was pushed from there on.
    Nothing,
}

impl Tail {
    /// One that holds events.
    pub(crate) fn of_events() -> Self {
        Self { listens_for: ListensFor::Events, ..Self::default() }
    }

    /// An event was committed; says whether that is news to the reader.
    pub(crate) fn push(&mut self, recorded: Recorded) -> bool {
        if self.listens_for == ListensFor::End {
            return false;
        }
        if self.listens_for == ListensFor::Events {
            self.bytes += recorded.event.bytes();
            let is_next = self.events.back().is_none_or(|last| last.number + 1 == recorded.number);
            if is_next
                && self.events.len() < FOLLOWER_TAIL_EVENTS_MAX
                && self.bytes <= FOLLOWER_TAIL_BYTES_MAX
            {
                self.next = recorded.number + 1;
                self.events.push_back(recorded);
                return true;
            }
            self.clear();
            self.listens_for = ListensFor::Numbers;
        }
        self.next = recorded.number + 1;
        true
    }

    /// The promise was settled.
    pub(crate) fn settle(&mut self, promise: &Promise) -> bool {
        self.settled = Some(Arc::new(promise.clone()));
        true
    }

    /// How it was settled, if it was since somebody listens.
    pub(crate) fn settled(&self) -> Option<&Arc<Promise>> {
        self.settled.as_ref()
    }

    /// The reader is about to look into the store: what is committed from now on is held again.
    pub(crate) fn hold(&mut self) {
        if self.listens_for == ListensFor::Numbers {
            self.listens_for = ListensFor::Events;
        }
    }

    /// Takes events from number `from` on, at most so many. Those before it are not needed any more.
    pub(crate) fn take(&mut self, from: EventNumber, count_max: usize) -> Found {
        while let Some(first) = self.events.front()
            && first.number < from
        {
            self.bytes -= first.event.bytes();
            self.events.pop_front();
        }
        if self.next <= from {
            return Found::Nothing;
        }
        if count_max == 0 {
            return Found::Blocked;
        }
        if self.events.front().is_none_or(|first| first.number > from) {
            return Found::Behind;
        }
        let count = self.events.len().min(count_max);
        let events: Vec<_> = self.events.drain(..count).collect();
        self.bytes -= events.iter().map(|recorded| recorded.event.bytes()).sum::<usize>();
        Found::Events(events)
    }

    fn clear(&mut self) {
        self.events.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use cob_protocol::event::Event;
    use cob_protocol::frame::StreamName;
    use cob_protocol::time::Timestamp;

    use super::*;

    fn event(number: EventNumber, bytes: usize) -> Recorded {
        let event = Arc::new(Event::Stream { name: StreamName::Stdout, text: "x".repeat(bytes) });
        Recorded { number, at: Timestamp::from_micros(1), event }
    }

    #[track_caller]
    fn numbers(found: Found) -> Vec<EventNumber> {
        let Found::Events(events) = found else { unreachable!("{found:?}") };
        events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn a_reader_gets_what_was_pushed_from_his_place_on() {
        let mut tail = Tail::of_events();
        assert_eq!(tail.take(1, 9), Found::Nothing);
        for number in 3..=7 {
            assert!(tail.push(event(number, 1)));
        }
        assert_eq!(tail.take(1, 9), Found::Behind, "1 and 2 are in the store");
        assert_eq!(tail.take(4, 0), Found::Blocked);
        assert_eq!(numbers(tail.take(4, 2)), [4, 5]);
        assert_eq!(numbers(tail.take(6, 9)), [6, 7]);
        assert_eq!(tail.take(8, 9), Found::Nothing);
        assert_eq!(tail.take(7, 9), Found::Behind, "one who goes back reads the store");
        assert_eq!(tail.bytes, 0);
    }

    #[test]
    fn a_tail_that_overflows_is_dropped_until_the_reader_has_looked() {
        for (count, bytes) in [(FOLLOWER_TAIL_EVENTS_MAX as u64, 1), (1, FOLLOWER_TAIL_BYTES_MAX - 100)] {
            let mut tail = Tail::of_events();
            for number in 1..=count {
                tail.push(event(number, bytes));
            }
            assert_eq!(tail.events.len() as u64, count);
            // A reader who is slow costs nothing from then on.
            for number in count + 1..count + 10 {
                assert!(tail.push(event(number, bytes)));
                assert!(tail.events.is_empty() && tail.bytes == 0);
            }
            assert_eq!(tail.take(1, 9), Found::Behind);
            tail.hold();
            tail.push(event(count + 10, 1));
            assert_eq!(tail.take(1, 9), Found::Behind);
            assert_eq!(numbers(tail.take(count + 10, 9)), [count + 10]);
        }
    }

    #[test]
    fn who_waits_for_the_end_alone_is_told_of_nothing_else() {
        let mut tail = Tail::default();
        assert!(!tail.push(event(1, 1)));
        assert!(tail.events.is_empty());
    }
}
