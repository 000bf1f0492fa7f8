//! The server's side: verified requests of all places come in one stream, with the connection they came by; messages go
//! out signed, by connection.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cob_protocol::message::{HeaderWriter, Incoming, Outgoing};
use cob_protocol::registry::Lane;
use cob_protocol::signing::Signer;
use cob_protocol::time::Clock;
use cob_protocol::wire;

use crate::verifier::Verifier;
use crate::zmtp::curve::{Authorized, CurveServer, SecretKey};
use crate::zmtp::{self, Endpoint, Hub, HubPeer, HubSender, Limits, Security, SendError};

/// Where to listen, and how those who come are known.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address.
    pub endpoint: Endpoint,
    /// How peers prove who they are.
    pub trust: Trust,
}

/// How the peers of one place prove who they are.
#[derive(Clone)]
pub enum Trust {
    /// They are processes of this user, on a Unix socket.
    SameUser,
    /// They sign with this key, on a Unix socket or the loopback.
    Key(String),
    /// They have one of the keys in a folder of files `NAME.pub`, and everything is encrypted. `NAME` is the principal.
    /// The folder is read anew for each who comes.
    Curve {
        /// The server's identity.
        secret_key: SecretKey,
        /// The folder.
        authorized: PathBuf,
    },
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Trust::SameUser => "SameUser",
            Trust::Key(_) => "Key(…)",
            Trust::Curve { .. } => "Curve { … }",
        })
    }
}

/// One connection. Never reused.
pub type AgentPeer = HubPeer;

/// What happens at the endpoint.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are requests")]
pub enum AgentEvent {
    /// A peer has sent a message that is signed well.
    Request {
        /// Who.
        peer: AgentPeer,
        /// Its routing identity: the address of replies.
        identity: Bytes,
        /// Its principal, where its connection proves that: the name of its key.
        principal: Option<Arc<str>>,
        /// The message.
        message: Incoming,
    },
    /// A connection has ended: told once for each whose handshake was done, after its last request.
    Left(AgentPeer),
}

/// What happened at an endpoint so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentCounters {
    /// Of the connections of all places.
    pub connections: zmtp::Counters,
    /// Messages that were no messages of ours, signed badly, or replayed.
    pub dropped: u64,
}

/// All places of a server, bound. Dropping it closes them.
#[derive(Debug)]
pub struct AgentEndpoint {
    hub: Hub,
    verifiers: Vec<Verifier>,
    sender: AgentSender,
}

/// Sends to the peers of an [`AgentEndpoint`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AgentSender {
    hub: HubSender,
    places: Arc<[Signing]>,
    writer: Arc<Mutex<HeaderWriter>>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Signing {
    signer: Signer,
    dropped: Arc<AtomicU64>,
}

impl AgentEndpoint {
    /// Binds every place. `name` is the server's in its messages.
    ///
    /// # Errors
    /// What the system says of the place that cannot be bound; `InvalidInput` when a place would trust whom it must not.
    pub async fn bind(places: Vec<Place>, name: String, clock: Arc<dyn Clock>) -> io::Result<Self> {
        Self::bind_with(places, name, clock, &Limits::agents()).await
    }

    /// Binds with other limits.
    ///
    /// # Errors
    /// As [`AgentEndpoint::bind`].
    pub async fn bind_with(
        places: Vec<Place>,
        name: String,
        clock: Arc<dyn Clock>,
        limits: &Limits,
    ) -> io::Result<Self> {
        let (mut bound, mut verifiers, mut signing) = (Vec::new(), Vec::new(), Vec::new());
        for Place { endpoint, trust } in places {
            let (security, key) = admit(&endpoint, &trust).map_err(|why| refused(&endpoint, why))?;
            let signer = Signer::new("hmac-sha256", key.as_bytes()).map_err(io::Error::other)?;
            let verifier = Verifier::new(endpoint.to_string(), signer.clone(), Arc::default());
            signing.push(Signing { signer, dropped: verifier.dropped() });
            verifiers.push(verifier);
            bound.push((endpoint, security));
        }
        let hub = Hub::bind(&bound, limits).await?;
        let writer = Arc::new(Mutex::new(HeaderWriter::new(name)));
        let sender = AgentSender { hub: hub.sender(), places: signing.into(), writer, clock };
        Ok(Self { hub, verifiers, sender })
    }

    /// Where it is bound, with real ports, in the order of the places.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.hub.endpoints()
    }

    /// The handle that sends.
    #[must_use]
    pub fn sender(&self) -> AgentSender {
        self.sender.clone()
    }

    /// The next thing that happens. Cancel-safe. No peer can keep the requests of another out; while nobody calls this,
    /// peers are read until a bounded inbox is full and then no further.
    pub async fn recv(&mut self) -> AgentEvent {
        loop {
            let arrival = self.hub.recv().await;
            let peer = arrival.peer;
            let Some(zmtp::Incoming { identity, principal, message, .. }) = arrival.message else {
                return AgentEvent::Left(peer);
            };
            let verifier = self.verifiers.get(peer.place());
            if let Some(message) = verifier.and_then(|verifier| verifier.read(&message)) {
                return AgentEvent::Request { peer, identity, principal, message };
            }
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> AgentCounters {
        self.sender.counters()
    }

    /// How many peers are connected.
    #[must_use]
    pub fn peers(&self) -> u64 {
        self.counters().connections.peers
    }
}

/// What a place asks of those who connect, and the key of its signatures; or why it must not be opened.
fn admit<'a>(endpoint: &Endpoint, trust: &'a Trust) -> Result<(Security, &'a str), &'static str> {
    let is_near = match endpoint {
        Endpoint::Ipc(_) => true,
        Endpoint::Tcp(address) => address.ip().is_loopback(),
    };
    match (trust, endpoint) {
        (Trust::SameUser, Endpoint::Ipc(_)) => {
            Ok((Security::SameUser(rustix::process::geteuid().as_raw()), ""))
        }
        (Trust::SameUser, Endpoint::Tcp(_)) => Err("TCP does not say whose process connects; use a key"),
        (Trust::Key(key), _) if key.is_empty() => Err("an empty key signs nothing"),
        (Trust::Curve { secret_key, authorized }, _) => {
            let server = CurveServer::new(secret_key.clone());
            Ok((Security::Curve(server, Authorized::new(authorized.clone())), ""))
        }
        (Trust::Key(key), _) if is_near => Ok((Security::Open, key)),
        (Trust::Key(_), _) => Err(
            "what is signed can be read by anybody on the way; an address that is not loopback needs CURVE",
        ),
    }
}

fn refused(endpoint: &Endpoint, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("cannot bind {endpoint}: {why}"))
}

impl AgentSender {
    /// Queues a message for a connection, which writes it in its turn. Never waits.
    ///
    /// # Errors
    /// [`SendError::NoPeer`] when it has ended, also when another connection came under its identity;
    /// [`SendError::Full`] when it does not read: wait for [room](Self::room), or [cut it off](Self::cut_off).
    pub fn send(
        &self,
        peer: AgentPeer,
        identity: &Bytes,
        message: Outgoing,
        lane: Lane,
    ) -> Result<(), SendError> {
        let place = self.places.get(peer.place()).ok_or(SendError::NoPeer)?;
        let parts = {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            wire::write(message, &place.signer, &mut writer, self.clock.now())
        };
        let lane = match lane {
            Lane::Control => zmtp::Lane::Control,
            Lane::Data => zmtp::Lane::Data,
        };
        self.hub.send(peer, identity, &parts, lane)
    }

    /// Writes what was queued for a connection now and not in its turn: for what somebody waits for.
    pub fn flush(&self, peer: AgentPeer, identity: &Bytes) {
        self.hub.flush(peer, identity);
    }

    /// Waits until a connection has no more than [`cob_protocol::limits::AGENT_SEND_AHEAD_BYTES_MAX`] of data to read, or
    /// has ended. One that has more and reads nothing for [`cob_protocol::limits::SLOW_PEER_MS_MAX`] is closed, so this
    /// resolves. Cancel-safe.
    pub async fn room(&self, peer: AgentPeer) {
        self.hub.room(peer).await;
    }

    /// Closes a connection that does not read what it must, such as its replies.
    pub fn cut_off(&self, peer: AgentPeer) {
        self.hub.cut_off(peer);
    }

    /// Waits until everything sent is on the wire, or the deadline.
    pub async fn flushed(&self, deadline: Duration) {
        self.hub.flushed(deadline).await;
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> AgentCounters {
        let dropped = self.places.iter().map(|place| place.dropped.load(Ordering::Relaxed)).sum();
        AgentCounters { connections: self.hub.counters(), dropped }
    }
}
