//! The heartbeat: a REP that gives back what it gets, each connection for itself, so that nothing the rest of
//! the kernel does can delay an answer.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use cob_protocol::limits::ZMTP_HEARTBEAT_BYTES_MAX;

use super::codec::{Caps, Encoded};
use super::counters::Counters;
use super::endpoint::Endpoint;
use super::fault::Fault;
use super::limits::Limits;
use super::outbox::Lane;
use super::peer::Peer;
use super::security::Security;
use super::socket::{Event, Pattern, Socket};
use super::socket_type::SocketType;

/// A bound heartbeat. Dropping it closes the listener and all connections.
#[derive(Debug)]
pub struct Heartbeat {
    socket: Socket,
}

impl Heartbeat {
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
    /// As [`Heartbeat::bind`].
    pub async fn bind_with(endpoint: &Endpoint, limits: Limits) -> io::Result<Self> {
        Ok(Heartbeat { socket: Socket::bind(endpoint, limits, Security::Open, Arc::new(Echo)).await? })
    }

    /// Where it is bound, with the real port.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.socket.endpoint
    }

    /// What happened to the peers so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.socket.shared.counters()
    }
}

struct Echo;

impl Pattern for Echo {
    const KIND: SocketType = SocketType::Rep;

    fn caps(limits: &Limits) -> Caps {
        Caps { message_bytes: limits.caps.message_bytes.min(ZMTP_HEARTBEAT_BYTES_MAX), ..limits.caps }
    }

    async fn take(&self, peer: &Arc<Peer>, event: Event) -> Result<(), Fault> {
        let Event::Message(message) = event else { return Ok(()) };
        // As in libzmq, a request without the empty part that ends its envelope is dropped.
        if !message.iter().any(Bytes::is_empty) {
            return Ok(());
        }
        if peer.enqueue(&Encoded::message(&message), Lane::Data).is_ok() {
            peer.flush();
            // A peer that asks and does not read waits for itself.
            peer.emptied().await;
        }
        Ok(())
    }
}
