//! ROUTER: requests from many clients come in one stream, replies go out by identity (RFC 28).

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use dashmap::DashMap;
use tokio::sync::OwnedSemaphorePermit;

use super::codec::{Encoded, Message};
use super::command::Ready;
use super::counters::Counters;
use super::endpoint::Endpoint;
use super::fault::Fault;
use super::hub::Arrival;
use super::inbox::{Inbox, Inlet, inbox};
use super::limits::Limits;
use super::mailbox::Mailbox;
use super::outbox::Lane;
use super::peer::{Peer, PeerId, SendError};
use super::security::Security;
use super::shared::Shared;
use super::socket::{Event, Pattern, Socket};
use super::socket_type::SocketType;

/// A message from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The connection it came by.
    pub peer: PeerId,
    /// Where replies go.
    pub identity: Bytes,
    /// Who it is, where its connection proves that: the name of its key.
    pub principal: Option<Arc<str>>,
    /// All parts that the peer sent; a REQ puts an empty one first.
    pub message: Message,
}

/// A bound ROUTER. Dropping it closes the listener and all connections.
#[derive(Debug)]
pub struct Router {
    bound: Bound,
    inbox: Inbox<Incoming>,
}

impl Router {
    /// Binds with the limits of the table.
    ///
    /// # Errors
    /// What the system says, with the endpoint; `AddrInUse` when somebody listens there.
    pub async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        Self::bind_with(endpoint, Limits::default()).await
    }

    /// Binds with other limits.
    ///
    /// # Errors
    /// As [`Router::bind`].
    pub async fn bind_with(endpoint: &Endpoint, limits: Limits) -> io::Result<Self> {
        let (inlet, inbox) = inbox(&limits, 0);
        let bound = Bound::new(endpoint, limits, Security::Open, Owner::Router(inlet)).await?;
        Ok(Router { bound, inbox })
    }

    /// Where it is bound, with the real port.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        self.bound.endpoint()
    }

    /// The next message of any peer; the order of each peer is kept. Cancel-safe. While nobody calls this,
    /// peers are read until the inbox is full and then no further.
    pub async fn recv(&mut self) -> Incoming {
        self.inbox.pop().await
    }

    /// The next message if one is there: an owner that has taken a message takes what came with it before it
    /// flushes, so that one write carries all replies.
    pub fn try_recv(&mut self) -> Option<Incoming> {
        self.inbox.try_pop()
    }

    /// A handle that sends.
    #[must_use]
    pub fn sender(&self) -> RouterSender {
        self.bound.sender()
    }

    /// What happened to the peers so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.bound.counters()
    }
}

/// A ROUTER whose messages go to somebody else's inbox.
#[derive(Debug)]
pub(super) struct Bound {
    socket: Socket,
    routes: Arc<Routes>,
}

impl Bound {
    pub(super) async fn new(
        endpoint: &Endpoint,
        limits: Limits,
        security: Security,
        owner: Owner,
    ) -> io::Result<Self> {
        let routes = Arc::new(Routes::default());
        let pattern = Arc::new(Routing { routes: Arc::clone(&routes), owner });
        Ok(Bound { socket: Socket::bind(endpoint, limits, security, pattern).await?, routes })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.socket.endpoint
    }

    pub(super) fn sender(&self) -> RouterSender {
        RouterSender { shared: Arc::clone(&self.socket.shared), routes: Arc::clone(&self.routes) }
    }

    pub(super) fn counters(&self) -> Counters {
        self.socket.shared.counters()
    }
}

/// Sends to the peers of a [`Router`], from any thread.
#[derive(Clone, Debug)]
pub struct RouterSender {
    shared: Arc<Shared>,
    routes: Arc<Routes>,
}

impl RouterSender {
    /// Queues a message for the peer with that identity; [`RouterSender::flush`] writes it.
    ///
    /// # Errors
    /// [`SendError::NoPeer`] when nobody of that name is connected; [`SendError::Full`] when it does not read.
    pub fn send(&self, identity: &[u8], message: &[Bytes], lane: Lane) -> Result<(), SendError> {
        self.routes.find(identity).ok_or(SendError::NoPeer)?.enqueue(&Encoded::message(message), lane)
    }

    /// As [`RouterSender::send`]; for a peer that is not connected the message is kept until it comes back under its
    /// identity, for as long as there is room.
    ///
    /// # Errors
    /// [`SendError::NoPeer`] when nobody can come back under that identity, since it was ours; [`SendError::Full`].
    pub fn send_or_keep(&self, identity: &Bytes, message: &[Bytes], lane: Lane) -> Result<(), SendError> {
        match self.send(identity, message, lane) {
            Err(SendError::NoPeer) if identity.first().is_some_and(|byte| *byte != 0) => {
                self.routes.mailbox.keep(identity.clone(), Encoded::message(message), lane);
                Ok(())
            }
            sent => sent,
        }
    }

    /// Queues a message that needs no flush, for this connection only: not for one that has taken its identity over.
    pub(super) fn send_to(
        &self,
        peer: PeerId,
        identity: &[u8],
        message: &[Bytes],
        lane: Lane,
    ) -> Result<(), SendError> {
        let found = self.routes.find(identity).filter(|found| found.id == peer);
        found.ok_or(SendError::NoPeer)?.post(&Encoded::message(message), lane)
    }

    /// Writes what was queued for this connection, as far as its socket takes it now.
    pub(super) fn flush_to(&self, peer: PeerId, identity: &[u8]) {
        if let Some(found) = self.routes.find(identity).filter(|found| found.id == peer) {
            found.flush();
        }
    }

    /// Waits until the peer is not behind, or has left.
    pub(super) async fn room(&self, peer: PeerId) {
        if let Some(peer) = self.shared.peer(peer) {
            peer.room().await;
        }
    }

    /// Closes the connection of a peer that does not read what it must.
    pub(super) fn cut_off(&self, peer: PeerId) {
        if let Some(peer) = self.shared.peer(peer) {
            peer.close(Fault::QueueFull);
        }
    }

    pub(super) fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Writes what is queued, as far as the sockets take it now; the connections finish the rest.
    pub fn flush(&self) {
        self.shared.flush();
    }

    /// Flushes and waits until everything queued was handed to the system; `false` at the deadline. What was
    /// queued for a peer that left counts as done.
    pub async fn flushed(&self, deadline: Duration) -> bool {
        self.shared.flushed(deadline).await
    }
}

/// Who is connected under which identity.
#[derive(Debug, Default)]
struct Routes {
    peers: DashMap<Bytes, Arc<Peer>>,
    mailbox: Mailbox,
    generated: AtomicU64,
    secret: RandomState,
}

impl Routes {
    fn find(&self, identity: &[u8]) -> Option<Arc<Peer>> {
        self.peers.get(identity).map(|entry| Arc::clone(entry.value()))
    }

    /// An identity for a peer that brought none: reserved by its leading zero as in libzmq, but not to be
    /// guessed, since whoever connects with an identity takes it over.
    fn generate(&self) -> Bytes {
        let number = self.generated.fetch_add(1, Ordering::Relaxed);
        let mut identity = BytesMut::with_capacity(17);
        identity.put_u8(0);
        identity.put_u64(number);
        identity.put_u64(self.secret.hash_one(number));
        identity.freeze()
    }
}

/// Who gets the messages of a ROUTER.
#[derive(Debug)]
pub(super) enum Owner {
    /// Its own inbox.
    Router(Inlet<Incoming>),
    /// The inbox of a hub, in which this is the place of that number.
    Hub(usize, Inlet<Arrival>),
}

struct Routing {
    routes: Arc<Routes>,
    owner: Owner,
}

impl Pattern for Routing {
    const KIND: SocketType = SocketType::Router;

    fn identity(&self, ready: &Ready) -> Bytes {
        if ready.identity.is_empty() {
            self.routes.generate()
        } else {
            // A copy: the property is a slice of the whole command.
            Bytes::copy_from_slice(&ready.identity)
        }
    }

    fn joined(&self, peer: &Arc<Peer>) {
        if let Some(former) = self.routes.peers.insert(peer.identity.clone(), Arc::clone(peer)) {
            former.close(Fault::TakenOver);
        }
        let kept = self.routes.mailbox.take(&peer.identity);
        if !kept.is_empty() {
            for (message, lane) in kept {
                // A peer that has just come has room for what the mailbox held.
                let _ = peer.enqueue(&message, lane);
            }
            peer.flush();
        }
    }

    fn is_paced(&self) -> bool {
        matches!(self.owner, Owner::Hub(..))
    }

    fn left(&self, peer: &Peer, seat: OwnedSemaphorePermit) {
        self.routes.peers.remove_if(&peer.identity, |_, current| current.id == peer.id);
        if let Owner::Hub(place, inlet) = &self.owner {
            inlet.notify(Arrival::left(*place, peer.id, seat));
        }
    }

    async fn take(&self, peer: &Arc<Peer>, event: Event) -> Result<(), Fault> {
        // Subscriptions mean nothing to a ROUTER.
        let Event::Message(message) = event else { return Ok(()) };
        let bytes = message.iter().map(Bytes::len).sum();
        let (identity, principal) = (peer.identity.clone(), peer.principal.clone());
        let incoming = Incoming { peer: peer.id, identity, principal, message };
        let is_taken = match &self.owner {
            Owner::Router(inlet) => inlet.push(incoming, bytes).await,
            Owner::Hub(place, inlet) => inlet.push(Arrival::message(*place, incoming), bytes).await,
        };
        if is_taken { Ok(()) } else { Err(Fault::Dropped) }
    }
}
