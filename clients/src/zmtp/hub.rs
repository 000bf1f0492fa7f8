//! Several ROUTERs, one inbox: what the peers of all of them say, and who of them left, comes in one stream.
//!
//! Messages go out by connection, not by identity: what is meant for a peer never reaches another one that has taken its
//! identity over.
//!
//! **Invariant:** every peer whose handshake was done is told to have left exactly once, after its last message. Until
//! the owner has taken that notice it keeps the peer's place in the socket, so that notices are bounded as peers are.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::counters::Counters;
use super::endpoint::Endpoint;
use super::inbox::{Inbox, inbox};
use super::limits::Limits;
use super::outbox::Lane;
use super::peer::{PeerId, SendError};
use super::router::{Bound, Incoming, Owner, RouterSender};
use super::security::Security;

/// One connection to one of the places of a hub. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HubPeer {
    place: usize,
    id: PeerId,
}

impl HubPeer {
    /// The number of the place it connected to.
    #[must_use]
    pub fn place(self) -> usize {
        self.place
    }
}

/// What comes in at a hub.
#[derive(Debug)]
pub struct Arrival {
    /// Whose it is.
    pub peer: HubPeer,
    /// The message; `None` when the peer has left.
    pub message: Option<Incoming>,
    /// The place that becomes free when the notice was taken.
    _seat: Option<OwnedSemaphorePermit>,
}

impl Arrival {
    pub(super) fn message(place: usize, incoming: Incoming) -> Self {
        Self { peer: HubPeer { place, id: incoming.peer }, message: Some(incoming), _seat: None }
    }

    pub(super) fn left(place: usize, id: PeerId, seat: OwnedSemaphorePermit) -> Self {
        Self { peer: HubPeer { place, id }, message: None, _seat: Some(seat) }
    }
}

/// Bound ROUTERs with one inbox. Dropping it closes all listeners and connections.
#[derive(Debug)]
pub struct Hub {
    places: Vec<Bound>,
    inbox: Inbox<Arrival>,
}

impl Hub {
    /// Binds every place, with limits for each of them; those of the inbox count for all together.
    ///
    /// # Errors
    /// What the system says of the place that cannot be bound, with its endpoint.
    pub async fn bind(places: &[(Endpoint, Security)], limits: &Limits) -> io::Result<Self> {
        let (inlet, inbox) = inbox(limits, limits.peers * places.len());
        let mut bound = Vec::new();
        for (number, (endpoint, security)) in places.iter().enumerate() {
            let owner = Owner::Hub(number, inlet.clone());
            bound.push(Bound::new(endpoint, limits.clone(), security.clone(), owner).await?);
        }
        Ok(Hub { places: bound, inbox })
    }

    /// Where it is bound, with real ports.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.places.iter().map(Bound::endpoint)
    }

    /// The next arrival; the order of each peer is kept. Cancel-safe. While nobody calls this, peers are read until the
    /// inbox is full and then no further.
    pub async fn recv(&mut self) -> Arrival {
        self.inbox.pop().await
    }

    /// A handle that sends.
    #[must_use]
    pub fn sender(&self) -> HubSender {
        HubSender { places: self.places.iter().map(Bound::sender).collect() }
    }

    /// What happened to the peers of all places so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.places.iter().map(Bound::counters).sum()
    }
}

/// Sends to the peers of a [`Hub`], from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HubSender {
    places: std::sync::Arc<[RouterSender]>,
}

impl HubSender {
    /// Queues a message for a connection, which writes it in its turn.
    ///
    /// # Errors
    /// [`SendError::NoPeer`] when it has ended; [`SendError::Full`] when it does not read.
    pub fn send(
        &self,
        peer: HubPeer,
        identity: &[u8],
        message: &[Bytes],
        lane: Lane,
    ) -> Result<(), SendError> {
        let place = self.place(peer).ok_or(SendError::NoPeer)?;
        place.send_to(peer.id, identity, message, lane)
    }

    /// Writes what was queued for a connection now, as far as the system takes it: for what somebody waits for.
    pub fn flush(&self, peer: HubPeer, identity: &[u8]) {
        if let Some(place) = self.place(peer) {
            place.flush_to(peer.id, identity);
        }
    }

    /// Waits until a connection is not behind with its data, or has ended. One that stays behind and reads nothing is
    /// cut off in time, so this resolves. Cancel-safe.
    pub async fn room(&self, peer: HubPeer) {
        if let Some(place) = self.place(peer) {
            place.room(peer.id).await;
        }
    }

    /// Closes a connection that does not read what it must; counted, and with a line in the log.
    pub fn cut_off(&self, peer: HubPeer) {
        if let Some(place) = self.place(peer) {
            place.cut_off(peer.id);
        }
    }

    /// Waits until everything queued was handed to the system; `false` at the deadline. What was queued for a peer that
    /// left counts as done.
    pub async fn flushed(&self, deadline: Duration) -> bool {
        let all = async {
            for place in self.places.iter() {
                place.flushed(deadline).await;
            }
        };
        tokio::time::timeout(deadline, all).await.is_ok()
    }

    /// What happened to the peers of all places so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.places.iter().map(RouterSender::counters).sum()
    }

    fn place(&self, peer: HubPeer) -> Option<&RouterSender> {
        self.places.get(peer.place)
    }
}
