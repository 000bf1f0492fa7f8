//! Which sessions a key names: the same owner who asks with it again gets the same ones.

use std::collections::{HashMap, VecDeque};

use cob_protocol::error::ErrorCode;
use cob_protocol::ids::{CheckpointId, SessionId};
use cob_protocol::limits::CLOSED_KEYS_MAX;
use tokio::sync::watch;

use crate::request::Refusal;

/// What came of a request to open sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// One; or those that were forked off together, in their order.
    pub(crate) sessions: Vec<SessionId>,
    /// Where those began.
    pub(crate) forked_from: Option<CheckpointId>,
}

/// What becomes of opening sessions; nothing as long as it is not known.
pub(crate) type Outcome = Option<Result<Opened, Refusal>>;

/// The owner and his name for it.
pub(crate) type Key = (String, String);

#[derive(Debug)]
struct Named {
    /// A hash of the request.
    body: Option<String>,
    outcome: watch::Receiver<Outcome>,
    /// How many of its sessions are not closed.
    open: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    named: HashMap<Key, Named>,
    /// Those whose sessions are all closed, oldest first.
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
        let Some(known) = self.named.get(key) else { return Ok(None) };
        if known.body.as_deref() != body {
            let why = format!("the key `{}` was used to open another kind of session", key.1);
            return Err(Refusal::new(ErrorCode::KeyReused, why));
        }
        Ok(Some(known.outcome.clone()))
    }

    /// From now on it names what comes of this, which will be so many sessions.
    pub(crate) fn insert(
        &mut self,
        key: Key,
        body: Option<String>,
        outcome: watch::Receiver<Outcome>,
        open: usize,
    ) {
        self.named.insert(key, Named { body, outcome, open });
    }

    /// It names this session, which was recorded by an earlier server; and those that were recorded with it.
    pub(crate) fn recorded(&mut self, key: Key, body: Option<String>, opened: Opened) {
        match self.named.get_mut(&key) {
            Some(known) if known.body == body => {
                let mut all = known.outcome.borrow().clone();
                if let Some(Ok(all)) = &mut all {
                    all.sessions.extend(opened.sessions);
                }
                known.open += 1;
                known.outcome = watch::channel(all).1;
            }
            _ => self.insert(key, body, watch::channel(Some(Ok(opened))).1, 1),
        }
    }

    /// What it named has not come to be.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.named.remove(key);
        self.closed.retain(|known| known != key);
    }

    /// One of those that it names is closed. It still names them, until too many others have been closed since.
    pub(crate) fn closed(&mut self, key: Key) {
        let Some(known) = self.named.get_mut(&key) else { return };
        known.open = known.open.saturating_sub(1);
        if known.open > 0 {
            return;
        }
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

    fn opened(sessions: &[u64]) -> Opened {
        Opened { sessions: sessions.iter().copied().map(SessionId).collect(), forked_from: None }
    }

    #[test]
    fn a_key_names_one_session_of_one_owner() {
        let mut keys = Keys::default();
        let (_sender, outcome) = watch::channel(Some(Ok(opened(&[7]))));
        keys.insert(key(1), Some("a".to_owned()), outcome, 1);
        let found = keys.find(&key(1), Some("a")).unwrap().unwrap();
        assert_eq!(*found.borrow(), Some(Ok(opened(&[7]))));
        assert_eq!(keys.find(&key(1), Some("b")).unwrap_err().code, ErrorCode::KeyReused);
        assert!(keys.find(&("bob".to_owned(), "1".to_owned()), Some("a")).unwrap().is_none());
        keys.forget(&key(1));
        assert!(keys.find(&key(1), Some("a")).unwrap().is_none());
    }

    #[test]
    fn keys_of_closed_sessions_are_bounded() {
        let mut keys = Keys::default();
        for number in 0..=CLOSED_KEYS_MAX {
            keys.insert(key(number), None, watch::channel(None).1, 1);
            keys.closed(key(number));
        }
        assert!(keys.find(&key(0), None).unwrap().is_none());
        assert!(keys.find(&key(1), None).unwrap().is_some());
        assert_eq!(keys.named.len(), CLOSED_KEYS_MAX);
    }

    #[test]
    fn a_key_of_several_names_all_of_them_until_the_last_is_closed() {
        let mut keys = Keys::default();
        for session in [7, 8, 9] {
            keys.recorded(key(1), Some("fork".to_owned()), opened(&[session]));
        }
        let found = keys.find(&key(1), Some("fork")).unwrap().unwrap();
        assert_eq!(*found.borrow(), Some(Ok(opened(&[7, 8, 9]))));
        keys.closed(key(1));
        keys.closed(key(1));
        assert!(keys.closed.is_empty());
        keys.closed(key(1));
        assert_eq!(keys.closed.len(), 1);
        // One that did not come to be leaves nothing that could take a later one away.
        keys.forget(&key(1));
        keys.closed(key(1));
        assert!(keys.closed.is_empty() && keys.named.is_empty());
    }
}
