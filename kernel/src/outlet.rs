//! The way out of a session: replies to one client, broadcasts to all, with back-pressure.

use std::time::Duration;

use bytes::Bytes;
use cob_clients::notebook::NotebookOutlet;
use cob_protocol::message::{Channel, Outgoing};
use tokio::sync::mpsc;

/// Messages a local client may leave unread before the code it runs has to wait.
const LOCAL_QUEUE: usize = 1024;

/// Where a session's messages go.
#[derive(Clone, Debug)]
pub enum Outlet {
    /// To the clients of the five Jupyter channels.
    Notebook(NotebookOutlet),
    /// To the command line in the same process, which reads at its own pace.
    Local(mpsc::Sender<LocalMessage>),
}

/// What a local client gets.
#[derive(Debug)]
pub struct LocalMessage {
    /// On which channel.
    pub channel: Channel,
    /// The message.
    pub message: Outgoing,
}

impl Outlet {
    /// An outlet to the same process.
    #[must_use]
    pub fn local() -> (Self, mpsc::Receiver<LocalMessage>) {
        let (sender, receiver) = mpsc::channel(LOCAL_QUEUE);
        (Self::Local(sender), receiver)
    }

    /// Sends to one client, at once.
    pub fn reply(&self, channel: Channel, identity: &Bytes, message: Outgoing) {
        match self {
            Self::Notebook(outlet) => outlet.reply(channel, identity, message),
            Self::Local(sender) => send(sender, channel, message),
        }
    }

    /// Queues a broadcast; [`Outlet::flush`] writes it.
    pub fn publish(&self, message: Outgoing) {
        match self {
            Self::Notebook(outlet) => outlet.publish(message),
            Self::Local(sender) => send(sender, Channel::Iopub, message),
        }
    }

    /// Writes what was published as far as it is taken now.
    pub fn flush(&self) {
        if let Self::Notebook(outlet) = self {
            outlet.flush();
        }
    }

    /// Whether more output may be published now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        match self {
            Self::Notebook(outlet) => outlet.has_room(),
            // Half of the queue is for messages that are sent whatever the room: replies, status.
            Self::Local(sender) => sender.is_closed() || sender.capacity() > LOCAL_QUEUE / 2,
        }
    }

    /// Waits until more output may be published. Cancel-safe.
    pub async fn room(&self) {
        match self {
            Self::Notebook(outlet) => outlet.room().await,
            Self::Local(sender) => {
                // The reserved places are given back at once: what counts is that they were free.
                let _ = sender.reserve_many(LOCAL_QUEUE / 2 + 1).await;
            }
        }
    }

    /// Whether everything published is on the wire.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        match self {
            Self::Notebook(outlet) => outlet.is_flushed(),
            Self::Local(_) => true,
        }
    }

    /// Waits until everything published is on the wire, or the deadline.
    pub async fn flushed(&self, deadline: Duration) {
        if let Self::Notebook(outlet) = self {
            outlet.flushed(deadline).await;
        }
    }

    /// Waits until everything sent on any channel is on the wire, or the deadline.
    pub async fn finish(&self, deadline: Duration) {
        if let Self::Notebook(outlet) = self {
            outlet.finish(deadline).await;
        }
    }
}

fn send(sender: &mpsc::Sender<LocalMessage>, channel: Channel, message: Outgoing) {
    // It fails only when the client has gone, since output waits for room long before the queue is full.
    if let Err(error) = sender.try_send(LocalMessage { channel, message }) {
        tracing::debug!(%error, "message to the local client not delivered");
    }
}
