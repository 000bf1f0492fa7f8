//! XPUB: what is published goes to every subscriber, and the owner sees who subscribes (RFC 29).
//!
//! **Invariant:** a subscriber gets every message that matches, in order, or it is cut off, with a reason in
//! the log and a count. None is ever thinned out.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use cob_protocol::limits::ZMTP_COMMAND_BYTES_MAX;

use super::codec::{Caps, Encoded, Message};
use super::counters::Counters;
use super::endpoint::Endpoint;
use super::fault::Fault;
use super::inbox::{Inbox, Inlet, inbox};
use super::limits::Limits;
use super::outbox::Lane;
use super::peer::{Peer, PeerId, SendError, lock};
use super::security::Security;
use super::shared::Shared;
use super::socket::{Event, Pattern, Socket};
use super::socket_type::SocketType;

/// A change of what a peer wants. Nothing is told when a peer leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XpubEvent {
    /// The subscription is in force. Told for every SUBSCRIBE, also for a topic the peer has already.
    Subscribed {
        /// Who.
        peer: PeerId,
        /// Prefix of what it wants.
        topic: Bytes,
    },
    /// The subscription is no longer in force.
    Unsubscribed {
        /// Who.
        peer: PeerId,
        /// The prefix it no longer wants.
        topic: Bytes,
    },
}

/// Makes the message that greets a subscription to a topic, or none.
pub type Welcome = Arc<dyn Fn(&[u8]) -> Option<Message> + Send + Sync>;

/// A bound XPUB. Dropping it closes the listener and all connections.
#[derive(Debug)]
pub struct Xpub {
    socket: Socket,
    inbox: Inbox<XpubEvent>,
}

impl Xpub {
    /// Binds with the limits of the table.
    ///
    /// # Errors
    /// What the system says, with the endpoint; `AddrInUse` when somebody listens there.
    pub async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        Self::bind_with(endpoint, Limits::default(), None).await
    }

    /// Binds with other limits, and with a message that each subscriber gets before anything else that it
    /// subscribed to: a welcome sent with [`Publisher::send_to`] may come after what was published meanwhile.
    ///
    /// # Errors
    /// As [`Xpub::bind`].
    pub async fn bind_with(
        endpoint: &Endpoint,
        limits: Limits,
        welcome: Option<Welcome>,
    ) -> io::Result<Self> {
        let (inlet, inbox) = inbox(&limits, 0);
        let pattern = Arc::new(Publishing { inlet, welcome, limits: limits.clone() });
        Ok(Xpub { socket: Socket::bind(endpoint, limits, Security::Open, pattern).await?, inbox })
    }

    /// Where it is bound, with the real port.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.socket.endpoint
    }

    /// The next event. Cancel-safe. Somebody must call this: while the inbox is full, a peer that subscribes
    /// is not read on.
    pub async fn recv(&mut self) -> XpubEvent {
        self.inbox.pop().await
    }

    /// A handle that publishes.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher { shared: Arc::clone(&self.socket.shared) }
    }
}

/// Publishes to the subscribers of an [`Xpub`], from any thread.
#[derive(Clone, Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
}

impl Publisher {
    /// Queues a message for every subscriber that wants its first part and returns how many there were;
    /// [`Publisher::flush`] writes it. A subscriber whose queue is full, which happens only to one that does
    /// not read while the caller does not wait for [`Publisher::room`], is cut off.
    pub fn publish(&self, message: &[Bytes]) -> usize {
        let Some(subject) = message.first() else { return 0 };
        let mut encoded = None;
        self.shared.with_peers(|peers| {
            let wanting = peers.iter().filter(|peer| lock(&peer.topics).matches(subject));
            wanting
                .filter(|peer| offer(peer, encoded.get_or_insert_with(|| Encoded::message(message))))
                .count()
        })
    }

    /// Queues a message for one subscriber, whatever it subscribed to, ahead of what is published and waits.
    ///
    /// # Errors
    /// [`SendError::NoPeer`] when it has left; [`SendError::Full`] when it does not read.
    pub fn send_to(&self, peer: PeerId, message: &[Bytes]) -> Result<(), SendError> {
        self.shared.peer(peer).ok_or(SendError::NoPeer)?.enqueue(&Encoded::message(message), Lane::Control)
    }

    /// Writes what is queued, as far as the sockets take it now; the connections finish the rest.
    pub fn flush(&self) {
        self.shared.flush();
    }

    /// Whether no subscriber is over half its queue.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.shared.has_room()
    }

    /// Flushes and waits until no subscriber is over half its queue. One that stays there and reads next to
    /// nothing is cut off in time, so this resolves. Cancel-safe.
    pub async fn room(&self) {
        self.shared.room().await;
    }

    /// Whether everything queued was handed to the system.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.shared.is_flushed()
    }

    /// Flushes and waits until everything queued was handed to the system; `false` at the deadline. What was
    /// queued for a peer that left counts as done.
    pub async fn flushed(&self, deadline: Duration) -> bool {
        self.shared.flushed(deadline).await
    }

    /// What happened to the peers so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }
}

/// Queues for one subscriber, or cuts it off.
fn offer(peer: &Arc<Peer>, message: &Encoded) -> bool {
    let queued = peer.enqueue(message, Lane::Data).or_else(|error| {
        // Perhaps the caller has only not flushed yet.
        peer.flush();
        if error == SendError::Full { peer.enqueue(message, Lane::Data) } else { Err(error) }
    });
    if queued == Err(SendError::Full) {
        peer.close(Fault::QueueFull);
    }
    queued.is_ok()
}

struct Publishing {
    inlet: Inlet<XpubEvent>,
    welcome: Option<Welcome>,
    limits: Limits,
}

impl fmt::Debug for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publishing").finish_non_exhaustive()
    }
}

impl Publishing {
    async fn subscribe(&self, peer: &Arc<Peer>, topic: Bytes) -> Result<(), Fault> {
        // Queued before the subscription is in force: nothing that is published can come first.
        if let Some(message) = self.welcome.as_ref().and_then(|welcome| welcome(&topic)) {
            peer.enqueue(&Encoded::message(&message), Lane::Data).map_err(|_| Fault::QueueFull)?;
            peer.flush();
        }
        let added =
            lock(&peer.topics).add(topic.clone(), self.limits.subscriptions, self.limits.subscription_bytes);
        added.map_err(|_| Fault::Subscriptions)?;
        self.tell(XpubEvent::Subscribed { peer: peer.id, topic }).await
    }

    async fn cancel(&self, peer: &Arc<Peer>, topic: Bytes) -> Result<(), Fault> {
        let was_there = lock(&peer.topics).remove(&topic);
        if was_there { self.tell(XpubEvent::Unsubscribed { peer: peer.id, topic }).await } else { Ok(()) }
    }

    async fn tell(&self, event: XpubEvent) -> Result<(), Fault> {
        let (XpubEvent::Subscribed { topic, .. } | XpubEvent::Unsubscribed { topic, .. }) = &event;
        let bytes = topic.len();
        if self.inlet.push(event, bytes).await { Ok(()) } else { Err(Fault::Dropped) }
    }
}

impl Pattern for Publishing {
    const KIND: SocketType = SocketType::Xpub;
    fn is_paced(&self) -> bool {
        true
    }

    /// A subscriber has nothing large to say.
    fn caps(limits: &Limits) -> Caps {
        Caps { message_bytes: limits.caps.message_bytes.min(ZMTP_COMMAND_BYTES_MAX), ..limits.caps }
    }

    async fn take(&self, peer: &Arc<Peer>, event: Event) -> Result<(), Fault> {
        match event {
            Event::Subscribe(topic) => self.subscribe(peer, topic).await,
            Event::Cancel(topic) => self.cancel(peer, topic).await,
            Event::Message(mut message) => {
                // ZMTP 3.0: a single part that begins with 1 or 0. Anything else an XSUB may send is not for us.
                let Some(mut topic) = message.pop().filter(|_| message.is_empty()) else { return Ok(()) };
                match topic.first() {
                    Some(1) => {
                        topic.advance(1);
                        self.subscribe(peer, topic).await
                    }
                    Some(0) => {
                        topic.advance(1);
                        self.cancel(peer, topic).await
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}
