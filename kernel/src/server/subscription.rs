//! Subscriptions, from their beginning to their end: to the events of one promise, and to a whole session.

use std::sync::Arc;

use cob_bridge::{Feed, SessionFollower};
use cob_protocol::checkpoint::Restoration;
use cob_protocol::ids::SessionId;
use serde_json::json;
use tokio::sync::watch;

use super::line::Line;
use super::outlet::SessionStatus;
use super::reading::{Pause, Reader};
use super::views;

/// Sends everything of a promise until there is nothing more, or nobody who wants it.
pub(crate) async fn read(mut reader: Reader) {
    loop {
        match reader.read_on().await {
            // The rest follows when there is credit for it.
            Pause::Settled(_) => {}
            Pause::Complete(promise) => {
                return reader.line.end("settled", Some(views::promise(&promise, None)), None).await;
            }
            Pause::Stopped => return reader.line.end("unsubscribed", None, None).await,
            Pause::Failed(error) => return reader.line.fail(error).await,
            Pause::Gone => return,
        }
    }
}

/// One who reads a whole session.
pub(crate) struct SessionReader {
    pub(crate) line: Line,
    pub(crate) session: SessionId,
    pub(crate) follower: SessionFollower,
    /// How the session stands, while it is open.
    pub(crate) status: Option<watch::Receiver<SessionStatus>>,
    /// How it goes back to checkpoints, while it is open.
    pub(crate) restored: Option<Restorations>,
}

/// The last time that a session went back to a checkpoint.
pub(crate) type Restorations = watch::Receiver<Option<Arc<Restoration>>>;

impl SessionReader {
    /// Sends everything of the session until it is closed, or nobody wants it.
    pub(crate) async fn read(mut self) {
        if let Some(status) = &mut self.status {
            status.mark_changed();
        }
        loop {
            if self.line.flow.is_stopped() {
                return self.line.end("unsubscribed", None, None).await;
            }
            let credit = usize::try_from(self.line.flow.credit()).unwrap_or(usize::MAX);
            let is_sent = tokio::select! {
                biased;
                () = self.line.flow.changed() => true,
                status = changed(&mut self.status) => self.send_status(status).await,
                restored = changed(&mut self.restored) => self.send_restored(restored.flatten()).await,
                found = self.follower.next(credit) => match found {
                    Ok(items) if items.is_empty() => {
                        return self.line.end("session_closed", None, None).await;
                    }
                    Ok(items) => self.send(items).await,
                    Err(error) => return self.line.fail(error).await,
                },
            };
            if !is_sent {
                return;
            }
        }
    }

    async fn send(&self, items: Vec<Feed>) -> bool {
        for item in items {
            if self.line.flow.is_stopped() {
                return true;
            }
            if !self.send_one(item).await {
                return false;
            }
        }
        true
    }

    async fn send_one(&self, item: Feed) -> bool {
        let subscription = &self.line.name;
        match item {
            Feed::Event { promise, recorded } => self.line.event(promise, &recorded).await,
            Feed::Gap { promise, from, next } => self.line.gap(promise, from, next).await,
            Feed::Began { promise, code, count, principal } => {
                let mut content = json!({ "subscription": subscription, "promise": promise });
                for (name, value) in [
                    ("code", json!(code)),
                    ("execution_count", json!(count)),
                    ("principal", json!(principal)),
                ] {
                    if !value.is_null() {
                        content[name] = value;
                    }
                }
                self.line.send("execution_began", &content).await
            }
            Feed::Ended(promise) => {
                let promise = views::promise(&promise, None);
                let content = json!({ "subscription": subscription, "promise": promise });
                self.line.send("execution_ended", &content).await
            }
        }
    }

    async fn send_status(&mut self, status: Option<SessionStatus>) -> bool {
        let Some(status) = status else {
            // Its end is in the records.
            self.status = None;
            return true;
        };
        let session = self.session.to_string();
        let content = json!({ "subscription": self.line.name, "session_id": session, "state": status.state });
        self.line.send("session_status", &content).await
    }

    async fn send_restored(&mut self, restored: Option<Arc<Restoration>>) -> bool {
        let Some(restored) = restored else {
            self.restored = None;
            return true;
        };
        let session = self.session.to_string();
        let content = json!({ "subscription": self.line.name, "session_id": session, "restored": *restored });
        self.line.send("session_restored", &content).await
    }
}

/// The next change of something; `None` when it has ended, for ever when there is nothing. Cancel-safe.
async fn changed<T: Clone>(watched: &mut Option<watch::Receiver<T>>) -> Option<T> {
    match watched {
        None => std::future::pending().await,
        Some(watched) => watched.changed().await.ok().map(|()| watched.borrow_and_update().clone()),
    }
}
