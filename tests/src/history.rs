//! The first recorder: what clients asked, what they were answered, and what they saw, in the order in which it
//! happened to them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// What a test knows about a request that runs code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The code leaves a line with the request's key in the effect log, once, before it does anything else.
    pub has_effect: bool,
    /// Everything that the code prints begins its lines with this.
    pub token: Option<String>,
    /// The code prints so many bytes, if it comes to its end.
    pub prints: Option<u64>,
}

/// One thing that happened to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A request was sent, for the first time or again.
    Invoked,
    /// Its reply came.
    Replied {
        /// The content, byte for byte.
        content: String,
    },
    /// The connection ended without a reply: nobody knows.
    Unknown,
    /// A broadcast for it came.
    Saw {
        /// Its type.
        msg_type: String,
        /// Its content.
        content: Value,
        /// It is marked as output of something that outlived its execution.
        is_late: bool,
    },
}

/// An entry, to whom it happened, and about which request.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// A connection: numbered by the history, so that two lives of one client differ.
    pub connection: u64,
    /// The key of the request.
    pub key: String,
    /// What happened.
    pub entry: Entry,
}

/// The history of a test: cheap to clone, written by all its clients.
#[derive(Clone, Debug, Default)]
pub struct History {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    connections: u64,
    asked: BTreeMap<String, Asked>,
    lines: Vec<Line>,
}

impl History {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection; its number.
    #[must_use]
    pub fn connect(&self) -> u64 {
        let mut inner = self.inner();
        inner.connections += 1;
        inner.connections
    }

    /// A request is about to be sent.
    pub fn invoke(&self, connection: u64, key: &str, asked: Asked) {
        self.inner().asked.entry(key.to_owned()).or_insert(asked);
        self.add(connection, key, Entry::Invoked);
    }

    /// Something else happened.
    pub fn add(&self, connection: u64, key: &str, entry: Entry) {
        self.inner().lines.push(Line { connection, key: key.to_owned(), entry });
    }

    /// A connection ends: what it still waits for, and what it saw the beginning of, it will never know.
    pub fn disconnect(&self, connection: u64) {
        let mut open: BTreeMap<String, (u64, bool)> = BTreeMap::new();
        for line in self.lines().into_iter().filter(|line| line.connection == connection) {
            let (waiting, is_busy) = open.entry(line.key).or_default();
            match line.entry {
                Entry::Invoked => *waiting += 1,
                Entry::Replied { .. } | Entry::Unknown => *waiting = waiting.saturating_sub(1),
                Entry::Saw { msg_type, content, .. } if msg_type == "status" => {
                    *is_busy = content["execution_state"] == "busy";
                }
                Entry::Saw { .. } => {}
            }
        }
        for (key, (waiting, is_busy)) in open {
            (0..waiting.max(u64::from(is_busy))).for_each(|_| self.add(connection, &key, Entry::Unknown));
        }
    }

    /// Everything so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.inner().lines.clone()
    }

    /// Every key, and what the test knows about its code.
    #[must_use]
    pub fn asked(&self) -> BTreeMap<String, Asked> {
        self.inner().asked.clone()
    }

    /// The replies to a key, in order.
    #[must_use]
    pub fn replies(&self, key: &str) -> Vec<String> {
        let of_key = self.lines().into_iter().filter(|line| line.key == key);
        of_key
            .filter_map(|line| match line.entry {
                Entry::Replied { content } => Some(content),
                _ => None,
            })
            .collect()
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Line { connection, key, entry } in self.lines() {
            let entry: String = format!("{entry:?}").chars().take(300).collect();
            writeln!(f, "{connection} {key} {entry}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_still_waited_for_at_its_end_is_unknown() {
        let history = History::default();
        let (one, other) = (history.connect(), history.connect());
        for (connection, key) in [(one, "a"), (one, "b"), (other, "b"), (one, "b")] {
            history.invoke(connection, key, Asked::default());
        }
        history.add(one, "b", Entry::Replied { content: "{}".to_owned() });
        history.disconnect(one);
        let lines = history.lines();
        let unknown: Vec<_> = lines.iter().filter(|line| line.entry == Entry::Unknown).collect();
        assert!(unknown.iter().all(|line| line.connection == one));
        assert_eq!(unknown.iter().map(|line| line.key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(history.replies("b").len(), 1);
    }
}
