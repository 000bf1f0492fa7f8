//! Which session a key names: the same owner who asks with it again gets the same one.

use std::collections::{HashMap, VecDeque};

use cob_protocol::error::ErrorCode;
use cob_protocol::ids::SessionId;
use cob_protocol::limits::CLOSED_KEYS_MAX;
use tokio::sync::watch;

use crate::request::Refusal;

/// What becomes of opening a session; nothing as long as it is not known.
pub(crate) type Outcome = Option<Result<SessionId, Refusal>>;

/// The owner and his name for it.
pub(crate) type Key = (String, String);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    named: HashMap<Key, (Option<String>, watch::Receiver<Outcome>)>,
    /// Those of sessions that are closed, oldest first.
    closed: VecDeque<Key>,
}

impl Keys {
    /// What the key names, if it names something.
    ///
    /// # Errors
    /// [`ErrorCode::KeyReused`] when that was asked for in other words.
    pub(crate) fn find(
        &self,
        key: &Key,
        body: Option<&str>,
    ) -> Result<Option<watch::Receiver<Outcome>>, Refusal> {
        let Some((known, outcome)) = self.named.get(key) else { return Ok(None) };
        if known.as_deref() != body {
            let why = format!("the key `{}` was used to open another kind of session", key.1);
            return Err(Refusal::new(ErrorCode::KeyReused, why));
        }
        Ok(Some(outcome.clone()))
    }

    /// From now on it names this.
    pub(crate) fn insert(&mut self, key: Key, body: Option<String>, outcome: watch::Receiver<Outcome>) {
        self.named.insert(key, (body, outcome));
    }

    /// What it named has not come to be.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.named.remove(key);
    }

    /// What it names is closed. It still names it, until too many others have been closed since.
    pub(crate) fn closed(&mut self, key: Key) {
        self.closed.push_back(key);
        if self.closed.len() > CLOSED_KEYS_MAX
            && let Some(oldest) = self.closed.pop_front()
        {
            self.named.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        ("ann".to_owned(), number.to_string())
    }

    #[test]
    fn a_key_names_one_session_of_one_owner() {
        let mut keys = Keys::default();
        let (_sender, outcome) = watch::channel(Some(Ok(SessionId(7))));
        keys.insert(key(1), Some("a".to_owned()), outcome);
        let found = keys.find(&key(1), Some("a")).unwrap().unwrap();
        assert_eq!(*found.borrow(), Some(Ok(SessionId(7))));
        assert_eq!(keys.find(&key(1), Some("b")).unwrap_err().code, ErrorCode::KeyReused);
        assert!(keys.find(&("bob".to_owned(), "1".to_owned()), Some("a")).unwrap().is_none());
        keys.forget(&key(1));
        assert!(keys.find(&key(1), Some("a")).unwrap().is_none());
    }

    #[test]
    fn keys_of_closed_sessions_are_bounded() {
        let mut keys = Keys::default();
        for number in 0..=CLOSED_KEYS_MAX {
            keys.insert(key(number), None, watch::channel(None).1);
            keys.closed(key(number));
        }
        assert!(keys.find(&key(0), None).unwrap().is_none());
        assert!(keys.find(&key(1), None).unwrap().is_some());
        assert_eq!(keys.named.len(), CLOSED_KEYS_MAX);
    }
}
