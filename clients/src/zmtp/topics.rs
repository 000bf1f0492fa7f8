//! What one subscriber wants: a bounded set of topic prefixes.

use std::collections::BTreeSet;
use std::ops::Bound::{Included, Unbounded};

use bytes::Bytes;

/// The subscriptions of one peer. As in libzmq's XPUB a topic is in the set or not: the subscriber counts.
#[derive(Debug, Default)]
pub(super) struct Topics {
    set: BTreeSet<Bytes>,
    bytes: usize,
}

/// There are too many subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Topics {
    pub(super) fn add(&mut self, topic: Bytes, count_max: usize, bytes_max: usize) -> Result<(), TooMany> {
        if self.set.contains(&topic) {
            return Ok(());
        }
        if self.set.len() >= count_max || self.bytes + topic.len() > bytes_max {
            return Err(TooMany);
        }
        self.bytes += topic.len();
        // A copy: the topic may be a slice of a larger buffer.
        self.set.insert(Bytes::copy_from_slice(&topic));
        Ok(())
    }

    /// Whether the topic was there.
    pub(super) fn remove(&mut self, topic: &[u8]) -> bool {
        let was_there = self.set.remove(topic);
        if was_there {
            self.bytes -= topic.len();
        }
        was_there
    }

    /// Whether some topic is a prefix of `subject`. A prefix of `subject` that is in the set is also one of
    /// what `subject` has in common with the greatest topic not above it, so few steps decide, however many
    /// topics a stranger has subscribed.
    pub(super) fn matches(&self, subject: &[u8]) -> bool {
        let mut subject = subject;
        while let Some(topic) = self.set.range::<[u8], _>((Unbounded, Included(subject))).next_back() {
            let common = subject.iter().zip(topic).take_while(|(a, b)| a == b).count();
            if common == topic.len() {
                return true;
            }
            subject = subject.get(..common).unwrap_or_default();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn matching_is_what_a_scan_would_find(
            topics in proptest::collection::vec("[ab]{0,4}", 0..12),
            gone in proptest::collection::btree_set("[ab]{0,4}", 0..6),
            subject in "[ab]{0,6}",
        ) {
            let mut set = Topics::default();
            for topic in &topics {
                prop_assert_eq!(set.add(Bytes::from(topic.clone()), 100, 1000), Ok(()));
            }
            for topic in &gone {
                prop_assert_eq!(set.remove(topic.as_bytes()), topics.contains(topic));
            }
            let left = topics.iter().filter(|topic| !gone.contains(*topic));
            let expected = left.into_iter().any(|topic| subject.starts_with(topic.as_str()));
            prop_assert_eq!(set.matches(subject.as_bytes()), expected);
        }
    }

    #[test]
    fn a_peer_has_bounded_subscriptions() {
        let mut set = Topics::default();
        assert_eq!(set.add(Bytes::from_static(b"abc"), 2, 4), Ok(()));
        assert_eq!(set.add(Bytes::from_static(b"abc"), 2, 4), Ok(()), "again is not more");
        assert_eq!(set.add(Bytes::from_static(b"ab"), 2, 4), Err(TooMany), "bytes");
        assert_eq!(set.add(Bytes::from_static(b"a"), 2, 4), Ok(()));
        assert_eq!(set.add(Bytes::new(), 2, 4), Err(TooMany), "count");
        assert!(set.remove(b"abc"));
        assert_eq!(set.add(Bytes::new(), 2, 4), Ok(()));
    }
}
