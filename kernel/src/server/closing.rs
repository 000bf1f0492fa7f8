//! The end of a server: nothing new is taken, what runs may come to its end, and then everything is settled and closed.

use std::time::Duration;

use cob_protocol::content::agent::CloseMode;
use tokio::sync::oneshot;

use super::life::Sessions;
use crate::request::Command;

impl Sessions {
    /// Closes every session: what runs goes on for at most `drain`, then it is interrupted. Returns when all of it is
    /// settled and recorded.
    pub async fn close(&self, drain: Duration) {
        self.stop_opening();
        self.directory().end();
        self.all_open().await;
        if !drain.is_zero() {
            self.tell_all(CloseMode::Drain);
            tracing::info!(open = self.directory().len(), ?drain, "the server ends when its sessions have");
            if tokio::time::timeout(drain, self.all_ended()).await.is_ok() {
                return;
            }
        }
        self.tell_all(CloseMode::Now);
        self.all_ended().await;
    }

    /// Records what was submitted so far. What comes later is not told to anybody as long as it is not recorded.
    pub async fn settle_records(&self) {
        self.stop_opening();
        let durability = self.settings().durability;
        if let Err(error) = self.bridge().submit(durability, Vec::new()).await {
            tracing::error!(%error, "not everything is recorded");
        }
    }

    fn tell_all(&self, mode: CloseMode) {
        for handle in self.directory().list() {
            let commands = handle.senders.commands.clone();
            // Each in its own time: one that has ended already does not take it, and that is all right.
            tokio::spawn(async move { commands.send(Command::Close(mode, oneshot::channel().0)).await });
        }
    }
}
