//! What was to be sent to peers that are not connected at the moment. A client that comes back under its identity finds
//! its replies; one that never does costs a bounded amount of memory, and the oldest messages go first.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cob_protocol::limits::{ZMTP_MAILBOX_BYTES_MAX, ZMTP_MAILBOX_MESSAGES_MAX};

use super::codec::Encoded;
use super::outbox::{self, Lane};

#[derive(Debug)]
struct Letter {
    identity: Bytes,
    message: Encoded,
    lane: Lane,
}

#[derive(Debug, Default)]
struct Letters {
    queue: VecDeque<Letter>,
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    letters: Mutex<Letters>,
}

impl Mailbox {
    /// Keeps a message for `identity`.
    pub(super) fn keep(&self, identity: Bytes, message: Encoded, lane: Lane) {
        let mut letters = self.letters();
        letters.bytes += outbox::cost(&message);
        letters.queue.push_back(Letter { identity, message, lane });
        while letters.queue.len() > ZMTP_MAILBOX_MESSAGES_MAX || letters.bytes > ZMTP_MAILBOX_BYTES_MAX {
            let Some(oldest) = letters.queue.pop_front() else { return };
            letters.bytes -= outbox::cost(&oldest.message);
        }
    }

    /// Everything that is kept for `identity`, in order.
    pub(super) fn take(&self, identity: &[u8]) -> Vec<(Encoded, Lane)> {
        let mut letters = self.letters();
        let (theirs, others): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut letters.queue).into_iter().partition(|letter| letter.identity == identity);
        letters.queue = others;
        letters.bytes -= theirs.iter().map(|letter| outbox::cost(&letter.message)).sum::<usize>();
        theirs.into_iter().map(|letter| (letter.message, letter.lane)).collect()
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Encoded {
        Encoded::message(&[Bytes::from(vec![0; bytes])])
    }

    fn keep(mailbox: &Mailbox, identity: &'static str, bytes: usize) {
        mailbox.keep(Bytes::from(identity), message(bytes), Lane::Data);
    }

    #[test]
    fn each_gets_what_is_theirs_once() {
        let mailbox = Mailbox::default();
        keep(&mailbox, "a", 1);
        keep(&mailbox, "b", 2);
        keep(&mailbox, "a", 3);
        let costs: Vec<_> = mailbox.take(b"a").iter().map(|(message, _)| outbox::cost(message)).collect();
        assert_eq!(costs, [outbox::cost(&message(1)), outbox::cost(&message(3))]);
        assert!(mailbox.take(b"a").is_empty());
        assert_eq!(mailbox.take(b"b").len(), 1);
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_bytes() {
        let mailbox = Mailbox::default();
        for _ in 0..ZMTP_MAILBOX_MESSAGES_MAX + 10 {
            keep(&mailbox, "a", 1);
        }
        assert_eq!(mailbox.take(b"a").len(), ZMTP_MAILBOX_MESSAGES_MAX);
        for _ in 0..3 {
            keep(&mailbox, "a", ZMTP_MAILBOX_BYTES_MAX / 2);
        }
        assert_eq!(mailbox.take(b"a").len(), 1);
        keep(&mailbox, "a", ZMTP_MAILBOX_BYTES_MAX + 1);
        assert!(mailbox.take(b"a").is_empty());
    }
}
