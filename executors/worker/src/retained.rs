//! The frames of a session that outlives its server: each is kept until the kernel has recorded it.
//!
//! One queue holds what the kernel has not recorded, the part that was written first. When the socket is replaced
//! all of it is written again.
//!
//! **Invariant:** numbers only grow from the front to the back, and no frame leaves the queue before the shared page
//! says that it was recorded.

use std::collections::VecDeque;

use bytes::Bytes;
use cob_protocol::codec::stamp;

use crate::message::Message;

/// What a frame costs beside its bytes; without it, many small ones would be free.
const FRAME_BYTES: usize = 128;

/// The number of the one frame that is never recorded: it introduces a new socket.
const INTRODUCTION: u64 = 0;

#[derive(Debug)]
pub(crate) struct Retained {
    frames: VecDeque<Kept>,
    bytes: usize,
    bytes_max: usize,
    /// How many of them the socket has taken whole…
    written: usize,
    /// … and how many bytes of the next.
    part: usize,
}

#[derive(Debug)]
struct Kept {
    sequence: u64,
    head: Bytes,
    payloads: Box<[Bytes]>,
}

impl Kept {
    fn message(&self) -> Message<'_> {
        Message { head: &self.head, payloads: &self.payloads }
    }

    fn weight(&self) -> usize {
        FRAME_BYTES + self.message().bytes()
    }
}

impl Retained {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { frames: VecDeque::new(), bytes: 0, bytes_max, written: 0, part: 0 }
    }

    /// Whether a frame of so many bytes may be added. One alone always may, whatever its size.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.frames.is_empty() || self.bytes + FRAME_BYTES + bytes <= self.bytes_max
    }

    /// Adds a frame that is to be written next. The payloads are shared, not copied.
    pub(crate) fn push(&mut self, sequence: u64, head: Bytes, payloads: &[Bytes]) {
        let kept = Kept { sequence, head, payloads: payloads.into() };
        self.bytes += kept.weight();
        self.frames.push_back(kept);
    }

    /// What has yet to be written: a frame, and how many of its bytes are out already.
    pub(crate) fn next(&self) -> Option<(Message<'_>, usize)> {
        self.frames.get(self.written).map(|kept| (kept.message(), self.part))
    }

    pub(crate) fn is_written(&self) -> bool {
        self.written == self.frames.len()
    }

    /// The socket took so many bytes of the next frame.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.part += bytes;
        if self.next().is_some_and(|(message, part)| part >= message.bytes()) {
            self.written += 1;
            self.part = 0;
        }
    }

    /// Forgets what is recorded up to `acknowledged`, of what the socket has taken whole.
    pub(crate) fn release(&mut self, acknowledged: u64) {
        while self.written > 0 && self.forget_first(acknowledged) {
            self.written -= 1;
        }
    }

    /// Everything that is not recorded will be written once more, to another socket and behind `introduction`.
    pub(crate) fn restart(&mut self, introduction: Bytes, acknowledged: u64) {
        (self.written, self.part) = (0, 0);
        while self.forget_first(acknowledged) {}
        for kept in &mut self.frames {
            // Numbers of the kernel before mean nothing to the next one.
            kept.head = stamp(std::mem::take(&mut kept.head), kept.sequence, 0);
        }
        let introduction = Kept { sequence: INTRODUCTION, head: introduction, payloads: Box::default() };
        self.bytes += introduction.weight();
        self.frames.push_front(introduction);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.bytes_max);
    }

    fn forget_first(&mut self, acknowledged: u64) -> bool {
        if self.frames.front().is_none_or(|kept| kept.sequence > acknowledged) {
            return false;
        }
        self.bytes -= self.frames.pop_front().map_or(0, |kept| kept.weight());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(numbers: std::ops::RangeInclusive<u64>, bytes: usize) -> Retained {
        let mut retained = Retained::new(10 * (FRAME_BYTES + bytes));
        for number in numbers {
            retained.push(number, Bytes::from(vec![0; 30]), &[Bytes::from(vec![0; bytes - 30])]);
        }
        retained
    }

    /// Writes all; the bytes.
    fn written(retained: &mut Retained) -> usize {
        let mut total = 0;
        while let Some((message, part)) = retained.next() {
            let bytes = message.bytes() - part;
            total += bytes;
            retained.advance(bytes);
        }
        assert!(retained.is_written());
        total
    }

    #[test]
    fn only_what_is_recorded_and_written_makes_room() {
        let mut retained = frames(1..=10, 100);
        assert!(!retained.has_room(1));
        retained.release(10);
        assert!(!retained.has_room(1), "nothing was written yet");
        retained.advance(100);
        retained.advance(99);
        retained.release(10);
        assert!(retained.has_room(100) && !retained.has_room(101), "one frame was written");
        assert_eq!(written(&mut retained), 801);
        retained.release(4);
        assert!(retained.has_room(400 + 3 * FRAME_BYTES));
        retained.release(10);
        assert_eq!(retained.bytes, 0);
        assert!(retained.has_room(usize::MAX / 2), "one alone always has");
    }

    #[test]
    fn a_new_socket_gets_everything_that_is_not_recorded_from_its_first_byte() {
        let mut retained = frames(1..=5, 100);
        written(&mut retained);
        retained.push(6, Bytes::from(vec![0; 50]), &[]);
        retained.advance(20);
        for _ in 0..3 {
            retained.restart(Bytes::from(vec![0; 40]), 3);
            assert_eq!(written(&mut retained), 40 + 200 + 50, "however often");
        }
        retained.release(3);
        assert_eq!(retained.bytes, 250 + 3 * FRAME_BYTES, "the introduction is kept for nobody");
        retained.restart(Bytes::from(vec![0; 40]), u64::MAX);
        assert_eq!(written(&mut retained), 40);
    }
}
