//! Numbers and places of sessions that are about to be opened, and the keys that name them from then on.

use cob_protocol::error::ErrorCode;
use cob_protocol::ids::SessionId;
use tokio::sync::watch;

use super::Sessions;
use crate::request::Refusal;
use crate::server::keys::{Key, Opened, Outcome};

impl Sessions {
    /// Reserves the numbers of sessions, and lets `work` open them in its own time, unless the key names some that are
    /// open, or will be. If they cannot all be opened, the key is free again.
    pub(in crate::server) fn reserve<F>(
        &self,
        named: Named,
        count: usize,
        work: impl FnOnce(Self, Vec<SessionId>) -> F,
    ) -> Result<watch::Receiver<Outcome>, Refusal>
    where
        F: Future<Output = Result<Opened, Refusal>> + Send + 'static,
    {
        let Named { key, body } = named;
        let mut state = self.lock();
        if let Some(key) = &key
            && let Some(known) = state.keys.find(key, body.as_deref())?
        {
            return Ok(known);
        }
        if state.is_closing {
            return Err(ends());
        }
        let most = self.0.settings.sessions_max;
        if self.0.directory.len() + state.opening + count > most {
            let why = format!("of {most} sessions not {count} are free; close some first");
            return Err(Refusal::new(ErrorCode::Busy, why));
        }
        let numbers: Vec<_> = (state.next..).take(count).map(SessionId).collect();
        state.next += count as u64;
        state.opening += count;
        let (sender, outcome) = watch::channel(None);
        if let Some(key) = key.clone() {
            state.keys.insert(key, body, outcome.clone(), count);
        }
        drop(state);
        let (sessions, work) = (self.clone(), work(self.clone(), numbers));
        // Nobody has to wait for it: what was begun comes to an end.
        tokio::spawn(async move {
            let opened = work.await;
            let mut state = sessions.lock();
            state.opening -= count;
            if let (Err(_), Some(key)) = (&opened, &key) {
                state.keys.forget(key);
            }
            drop(state);
            sessions.0.ended.notify_waiters();
            sender.send_replace(Some(opened));
        });
        Ok(outcome)
    }

    /// What the key names already, if it names something.
    pub(in crate::server) fn named(
        &self,
        named: &Named,
    ) -> Result<Option<watch::Receiver<Outcome>>, Refusal> {
        let Some(key) = &named.key else { return Ok(None) };
        self.lock().keys.find(key, named.body.as_deref())
    }
}

/// What names a request to open sessions.
pub(in crate::server) struct Named {
    pub(in crate::server) key: Option<Key>,
    /// A hash of it.
    pub(in crate::server) body: Option<String>,
}

/// Waits for what comes of a request to open sessions.
pub(in crate::server) async fn outcome(mut outcome: watch::Receiver<Outcome>) -> Result<Opened, Refusal> {
    // The task that opens them always says how that ended.
    match outcome.wait_for(Option::is_some).await.map(|known| known.clone()) {
        Ok(Some(outcome)) => outcome,
        _ => Err(not_opened()),
    }
}

pub(super) fn not_opened() -> Refusal {
    Refusal::new(ErrorCode::WorkerStartFailed, "the session could not be opened")
}

pub(in crate::server) fn ends() -> Refusal {
    Refusal::new(ErrorCode::ShuttingDown, "the server ends")
}
