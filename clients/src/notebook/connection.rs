//! The client's side of the five channels: signed requests out, verified replies and broadcasts in.
//!
//! For Rust programs that use a kernel, and for the tests. It faces a kernel that it trusts, so the connecting
//! sockets are those of the `zeromq` crate; what a kernel binds for strangers is in [`crate::zmtp`].
//!
//! **Invariant:** all channels carry one routing identity, because a kernel asks on stdin under the identity
//! that it was sent the request with.

use std::sync::Arc;

use bytes::Bytes;
use cob_protocol::message::{Channel, Header, HeaderWriter, Incoming, Outgoing};
use cob_protocol::signing::{ReplayWindow, Signer, UnknownScheme};
use cob_protocol::time::Clock;
use cob_protocol::wire::{self, WireError};
use thiserror::Error;
use zeromq::util::PeerIdentity;
use zeromq::{
    DealerSocket, ReqSocket, Socket, SocketOptions, SocketRecv, SocketSend, SubSocket, ZmqError, ZmqMessage,
};

use super::connection_file::{ConnectionError, ConnectionFile};

/// Why a client and its kernel do not understand each other.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection file is at fault.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// Its signature scheme is not ours.
    #[error(transparent)]
    Scheme(#[from] UnknownScheme),
    /// The transport failed.
    #[error("the {channel} channel failed: {source}")]
    Transport {
        /// `shell`, `control`, `stdin`, `iopub` or `heartbeat`.
        channel: &'static str,
        /// How.
        source: ZmqError,
    },
    /// What arrived is no message that was signed with our key.
    #[error("a message on the {channel} channel cannot be read: {source}")]
    Message {
        /// `shell`, `control`, `stdin` or `iopub`.
        channel: &'static str,
        /// What is wrong with it.
        source: WireError,
    },
    /// Nobody sends requests on iopub.
    #[error("the iopub channel only carries broadcasts")]
    Broadcast,
}

/// A message from the kernel.
#[derive(Debug)]
pub struct Delivery {
    /// Where it came.
    pub channel: Channel,
    /// Header of the request that caused it; `None` when none did.
    pub parent: Option<Header>,
    /// The message.
    pub message: Incoming,
}

/// A client of one kernel. Dropping it closes its sockets.
pub struct Connection {
    shell: DealerSocket,
    control: DealerSocket,
    stdin: DealerSocket,
    iopub: SubSocket,
    heartbeat: ReqSocket,
    signer: Signer,
    window: ReplayWindow,
    headers: HeaderWriter,
    clock: Arc<dyn Clock>,
}

impl Connection {
    /// Connects to every channel of a kernel that runs or is about to. `session` names this client and must be
    /// unique.
    ///
    /// # Errors
    /// [`ClientError`] when the file cannot be used or the kernel does not come within the transport's patience.
    pub async fn open(
        file: &ConnectionFile,
        session: String,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        let signer = Signer::new(&file.signature_scheme, file.key.as_bytes())?;
        let dealer = async |channel, port| {
            let mut socket = DealerSocket::with_options(options(&session));
            socket.connect(&address(file, port)?).await.map_err(at(channel))?;
            Ok::<_, ClientError>(socket)
        };
        let (shell, control, stdin) = (
            dealer("shell", file.shell_port).await?,
            dealer("control", file.control_port).await?,
            dealer("stdin", file.stdin_port).await?,
        );
        let mut heartbeat = ReqSocket::new();
        heartbeat.connect(&address(file, file.hb_port)?).await.map_err(at("heartbeat"))?;
        let mut iopub = SubSocket::new();
        iopub.connect(&address(file, file.iopub_port)?).await.map_err(at("iopub"))?;
        iopub.subscribe("").await.map_err(at("iopub"))?;
        let (window, headers) = (ReplayWindow::default(), HeaderWriter::new(session));
        Ok(Self { shell, control, stdin, iopub, heartbeat, signer, window, headers, clock })
    }

    /// The name of this client.
    #[must_use]
    pub fn session(&self) -> &str {
        self.headers.session()
    }

    /// Signs and sends a message; its id is what the answers name as their parent.
    ///
    /// # Errors
    /// [`ClientError::Transport`], or [`ClientError::Broadcast`] for iopub.
    pub async fn send(&mut self, channel: Channel, message: Outgoing) -> Result<String, ClientError> {
        let parts = wire::write(message, &self.signer, &mut self.headers, self.clock.now());
        // Delimiter, signature, header: what was just written can be read.
        let header = parts.get(2).and_then(|header| serde_json::from_slice::<Header>(header).ok());
        self.send_parts(channel, parts).await?;
        Ok(header.map(|header| header.msg_id).unwrap_or_default())
    }

    /// Sends a message that was written elsewhere, as it is.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub async fn send_parts(&mut self, channel: Channel, parts: Vec<Bytes>) -> Result<(), ClientError> {
        let socket = match channel {
            Channel::Shell => &mut self.shell,
            Channel::Control => &mut self.control,
            Channel::Stdin => &mut self.stdin,
            Channel::Iopub => return Err(ClientError::Broadcast),
        };
        match ZmqMessage::try_from(parts) {
            Ok(message) => socket.send(message).await.map_err(at(channel.as_str())),
            // A message without parts is nothing.
            Err(_) => Ok(()),
        }
    }

    /// The next message on any channel; for ever nothing once the kernel is gone. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Message`] for one that cannot be read; the next may be fine.
    pub async fn recv(&mut self) -> Result<Delivery, ClientError> {
        let (channel, received) = tokio::select! {
            received = self.iopub.recv() => (Channel::Iopub, received),
            received = self.shell.recv() => (Channel::Shell, received),
            received = self.control.recv() => (Channel::Control, received),
            received = self.stdin.recv() => (Channel::Stdin, received),
        };
        self.read(channel, received)
    }

    /// The next message on one channel; the others are left unread. Cancel-safe.
    ///
    /// # Errors
    /// As [`Connection::recv`].
    pub async fn recv_on(&mut self, channel: Channel) -> Result<Delivery, ClientError> {
        let received = match channel {
            Channel::Shell => self.shell.recv().await,
            Channel::Control => self.control.recv().await,
            Channel::Stdin => self.stdin.recv().await,
            Channel::Iopub => self.iopub.recv().await,
        };
        self.read(channel, received)
    }

    /// Asks the heartbeat, and says what came back. Not cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Transport`].
    pub async fn beat(&mut self, beat: &'static [u8]) -> Result<Vec<Bytes>, ClientError> {
        let message = ZmqMessage::from(Bytes::from_static(beat));
        self.heartbeat.send(message).await.map_err(at("heartbeat"))?;
        self.heartbeat.recv().await.map(ZmqMessage::into_vec).map_err(at("heartbeat"))
    }

    fn read(
        &mut self,
        channel: Channel,
        received: Result<ZmqMessage, ZmqError>,
    ) -> Result<Delivery, ClientError> {
        let name = channel.as_str();
        let parts = received.map_err(at(name))?.into_vec();
        let (message, parent) = wire::parse_answer(&parts, &self.signer, &mut self.window)
            .map_err(|source| ClientError::Message { channel: name, source })?;
        // `{}`, which is no header, stands for none.
        Ok(Delivery { channel, parent: serde_json::from_slice(&parent).ok(), message })
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("session", &self.session()).finish_non_exhaustive()
    }
}

fn options(identity: &str) -> SocketOptions {
    let mut options = SocketOptions::default();
    // An identity that is too long is left to the kernel to choose; only stdin misses it.
    if let Ok(identity) = PeerIdentity::try_from(identity.as_bytes().to_vec()) {
        options.peer_identity(identity);
    }
    options
}

fn address(file: &ConnectionFile, port: u16) -> Result<String, ClientError> {
    Ok(file.endpoint(port)?.to_string())
}

fn at(channel: &'static str) -> impl Fn(ZmqError) -> ClientError {
    move |source| ClientError::Transport { channel, source }
}
