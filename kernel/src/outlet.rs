//! The way out of a session: replies to one client, broadcasts to all, with back-pressure.

use std::sync::Arc;
use std::time::Duration;

use cob_clients::notebook::NotebookOutlet;
use cob_protocol::checkpoint::Restoration;
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::message::{Channel, Outgoing};
use cob_protocol::promise::{Durability, Promise};
use tokio::sync::mpsc;

use crate::request::{Address, ClientRequest};
use crate::server::{Holding, ServerOutlet, SessionStatus};

/// Messages a local client may leave unread before the code it runs has to wait.
const LOCAL_QUEUE: usize = 1024;

/// Where a session's messages go.
#[derive(Clone, Debug)]
pub enum Outlet {
    /// To the clients of the five Jupyter channels.
    Notebook(NotebookOutlet),
    /// To the agents and the front ends of a session of a server.
    Server(Arc<ServerOutlet>),
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
    pub fn reply(&self, channel: Channel, address: &Address, message: Outgoing) {
        match self {
            Self::Notebook(outlet) => outlet.reply(channel, &address.identity, message),
            Self::Server(outlet) => outlet.reply(channel, address, message),
            Self::Local(sender) => send(sender, channel, message),
        }
    }

    /// The request of an agent has its promise: see [`ServerOutlet::accepted`].
    pub(crate) fn accepted(
        &self,
        request: &ClientRequest,
        promise: PromiseId,
        durability: Durability,
        known: Option<&Promise>,
    ) {
        if let Self::Server(outlet) = self {
            outlet.accepted(request, promise, durability, known);
        }
    }

    /// The end of an execution could not be recorded: agents get this reply instead of what is recorded.
    pub(crate) fn unrecorded(&self, promise: PromiseId, reply: &Json) {
        if let Self::Server(outlet) = self {
            outlet.unrecorded(promise, reply);
        }
    }

    /// Whether somebody may want to know how the session stands.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// The session stands otherwise now.
    pub(crate) fn set_status(&self, status: SessionStatus) {
        if let Self::Server(outlet) = self {
            outlet.set_status(status);
        }
    }

    /// It holds this of checkpoints now: see [`ServerOutlet::holds`].
    pub(crate) fn holds(&self, holding: Holding) {
        if let Self::Server(outlet) = self {
            outlet.holds(holding);
        }
    }

    /// A checkpoint was taken: see [`ServerOutlet::took`].
    pub(crate) fn took(&self, automatic: bool) {
        if let Self::Server(outlet) = self {
            outlet.took(automatic);
        }
    }

    /// Its variables are those of a checkpoint now: see [`ServerOutlet::restored`].
    pub(crate) fn restored(&self, restoration: &Restoration) {
        if let Self::Server(outlet) = self {
            outlet.restored(restoration);
        }
    }

    /// It is in the store, and has no worker: see [`ServerOutlet::hibernated`].
    pub(crate) fn hibernated(&self) {
        if let Self::Server(outlet) = self {
            outlet.hibernated();
        }
    }

    /// Whether there is anybody for a broadcast: whoever comes later hears what comes later.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        match self {
            Self::Notebook(_) | Self::Local(_) => true,
            Self::Server(outlet) => outlet.is_heard(),
        }
    }

    /// Queues a broadcast; [`Outlet::flush`] writes it.
    pub fn publish(&self, message: Outgoing) {
        match self {
            Self::Notebook(outlet) => outlet.publish(message),
            Self::Server(outlet) => outlet.publish(message),
            Self::Local(sender) => send(sender, Channel::Iopub, message),
        }
    }

    /// Writes what was published as far as it is taken now.
    pub fn flush(&self) {
        match self {
            Self::Notebook(outlet) => outlet.flush(),
            Self::Server(outlet) => outlet.flush(),
            Self::Local(_) => {}
        }
    }

    /// Whether the server of the session ends, and not the session alone.
    #[must_use]
    pub fn is_server_ending(&self) -> bool {
        matches!(self, Self::Server(outlet) if outlet.is_server_ending())
    }

    /// Whether more output may be published now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        match self {
            Self::Notebook(outlet) => outlet.has_room(),
            Self::Server(outlet) => outlet.has_room(),
            // Half of the queue is for messages that are sent whatever the room: replies, status.
            Self::Local(sender) => sender.is_closed() || sender.capacity() > LOCAL_QUEUE / 2,
        }
    }

    /// Waits until more output may be published. Cancel-safe.
    pub async fn room(&self) {
        match self {
            Self::Notebook(outlet) => outlet.room().await,
            Self::Server(outlet) => outlet.room().await,
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
            Self::Server(outlet) => outlet.is_flushed(),
            Self::Local(_) => true,
        }
    }

    /// Waits until everything published is on the wire, or the deadline.
    pub async fn flushed(&self, deadline: Duration) {
        match self {
            Self::Notebook(outlet) => {
                outlet.flushed(deadline).await;
            }
            Self::Server(outlet) => outlet.flushed(deadline).await,
            Self::Local(_) => {}
        }
    }

    /// Waits until everything sent on any channel is on the wire, or the deadline.
    pub async fn finish(&self, deadline: Duration) {
        match self {
            Self::Notebook(outlet) => outlet.finish(deadline).await,
            Self::Server(outlet) => outlet.finish(deadline).await,
            Self::Local(_) => {}
        }
    }
}

fn send(sender: &mpsc::Sender<LocalMessage>, channel: Channel, message: Outgoing) {
    // It fails only when the client has gone, since output waits for room long before the queue is full.
    if let Err(error) = sender.try_send(LocalMessage { channel, message }) {
        tracing::debug!(%error, "message to the local client not delivered");
    }
}
