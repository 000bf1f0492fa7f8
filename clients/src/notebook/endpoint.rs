//! The kernel's side of the five channels: requests come in verified, replies and broadcasts go out signed.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cob_protocol::content::ConnectReply;
use cob_protocol::json::Json;
use cob_protocol::message::{Channel, HeaderWriter, Incoming, Outgoing};
use cob_protocol::signing::{ReplayWindow, Signer, UnknownScheme};
use cob_protocol::time::Clock;
use cob_protocol::wire;
use thiserror::Error;

use super::connection_file::{ConnectionError, ConnectionFile};
use crate::verifier::Verifier;
use crate::zmtp::{Endpoint, Heartbeat, Lane, Limits, Publisher, Router, RouterSender, Welcome, Xpub};

/// Why the channels could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The connection file is at fault.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// Its signature scheme is not ours.
    #[error(transparent)]
    Scheme(#[from] UnknownScheme),
    /// An address cannot be bound to.
    #[error("cannot bind the {channel} channel to {endpoint}: {source}")]
    Bind {
        /// `shell`, `control`, `stdin`, `iopub` or `heartbeat`.
        channel: &'static str,
        /// Where.
        endpoint: Endpoint,
        /// Why not.
        source: io::Error,
    },
}

/// All five channels, bound. Dropping it closes them.
#[derive(Debug)]
pub struct NotebookEndpoint {
    /// Requests that run or ask about code.
    pub shell: Intake,
    /// Requests that must not wait behind code.
    pub control: Intake,
    /// Answers to the kernel's questions.
    pub stdin: Intake,
    /// Must be awaited by someone: see [`Subscriptions::serve`].
    pub subscriptions: Subscriptions,
    outlet: NotebookOutlet,
    heartbeat: Heartbeat,
}

/// A request that was verified, and where its reply goes.
#[derive(Debug)]
pub struct Received {
    /// The client's routing identity.
    pub identity: Bytes,
    /// The message.
    pub message: Incoming,
}

impl NotebookEndpoint {
    /// Binds every channel of a connection file. `session` names this kernel in its messages.
    ///
    /// # Errors
    /// [`BindError`] says which channel could not be bound where, and why.
    pub async fn bind(
        file: &ConnectionFile,
        session: String,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BindError> {
        let signer = Signer::new(&file.signature_scheme, file.key.as_bytes())?;
        let writer = Arc::new(Writer {
            signer: signer.clone(),
            headers: Mutex::new(HeaderWriter::new(session)),
            clock,
        });
        let window = Arc::<Mutex<ReplayWindow>>::default();

        let shell = router("shell", file.endpoint(file.shell_port)?).await?;
        let control = router("control", file.endpoint(file.control_port)?).await?;
        let stdin = router("stdin", file.endpoint(file.stdin_port)?).await?;
        let endpoint = file.endpoint(file.iopub_port)?;
        let iopub = Xpub::bind_with(&endpoint, Limits::default(), Some(welcome(Arc::clone(&writer))))
            .await
            .map_err(|source| BindError::Bind { channel: "iopub", endpoint, source })?;
        let endpoint = file.endpoint(file.hb_port)?;
        let heartbeat = Heartbeat::bind(&endpoint).await.map_err(|source| BindError::Bind {
            channel: "heartbeat",
            endpoint,
            source,
        })?;

        let outlet = NotebookOutlet {
            shell: shell.sender(),
            control: control.sender(),
            stdin: stdin.sender(),
            iopub: iopub.publisher(),
            writer,
        };
        let intake = |router, channel: Channel| {
            let channel = channel.as_str().to_owned();
            Intake { router, verifier: Verifier::new(channel, signer.clone(), Arc::clone(&window)) }
        };
        Ok(Self {
            shell: intake(shell, Channel::Shell),
            control: intake(control, Channel::Control),
            stdin: intake(stdin, Channel::Stdin),
            subscriptions: Subscriptions(iopub),
            outlet,
            heartbeat,
        })
    }

    /// The handle that sends.
    #[must_use]
    pub fn outlet(&self) -> NotebookOutlet {
        self.outlet.clone()
    }

    /// The ports it is bound to; 0 for a channel that has none.
    #[must_use]
    pub fn ports(&self) -> ConnectReply {
        let port = |endpoint: &Endpoint| match endpoint {
            Endpoint::Tcp(address) => address.port(),
            Endpoint::Ipc(path) => {
                path.to_string_lossy().rsplit('-').next().and_then(|p| p.parse().ok()).unwrap_or(0)
            }
        };
        ConnectReply {
            status: "ok",
            shell_port: port(self.shell.router.endpoint()),
            iopub_port: port(self.subscriptions.0.endpoint()),
            stdin_port: port(self.stdin.router.endpoint()),
            control_port: port(self.control.router.endpoint()),
            hb_port: port(self.heartbeat.endpoint()),
        }
    }
}

async fn router(channel: &'static str, endpoint: Endpoint) -> Result<Router, BindError> {
    Router::bind(&endpoint).await.map_err(|source| BindError::Bind { channel, endpoint, source })
}

/// JEP 65: every new subscription is greeted, alone, before anything else of its topic.
fn welcome(writer: Arc<Writer>) -> Welcome {
    Arc::new(move |topic| {
        let subscription =
            Json::of(&serde_json::json!({ "subscription": String::from_utf8_lossy(topic) })).ok()?;
        let message = Outgoing::new("iopub_welcome", Json::object(), subscription);
        let mut parts = writer.write(message);
        parts.insert(0, Bytes::copy_from_slice(topic));
        Some(parts)
    })
}

/// The subscribers of the iopub channel.
#[derive(Debug)]
pub struct Subscriptions(Xpub);

impl Subscriptions {
    /// Takes notice of subscriptions, for ever; they would not be read otherwise.
    pub async fn serve(mut self) {
        loop {
            let event = self.0.recv().await;
            tracing::debug!(?event, "iopub");
        }
    }
}

/// Signs and numbers what goes out.
#[derive(Debug)]
struct Writer {
    signer: Signer,
    headers: Mutex<HeaderWriter>,
    clock: Arc<dyn Clock>,
}

impl Writer {
    fn write(&self, message: Outgoing) -> Vec<Bytes> {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        wire::write(message, &self.signer, &mut headers, self.clock.now())
    }
}

/// One channel on which requests come in.
#[derive(Debug)]
pub struct Intake {
    router: Router,
    verifier: Verifier,
}

impl Intake {
    /// The next request that is signed with our key. Others are dropped and counted. Cancel-safe.
    pub async fn recv(&mut self) -> Received {
        loop {
            let incoming = self.router.recv().await;
            if let Some(message) = self.verifier.read(&incoming.message) {
                return Received { identity: incoming.identity, message };
            }
        }
    }
}

/// Sends: replies to one client, broadcasts to all. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NotebookOutlet {
    shell: RouterSender,
    control: RouterSender,
    stdin: RouterSender,
    iopub: Publisher,
    writer: Arc<Writer>,
}

impl NotebookOutlet {
    /// Sends a reply, or a question on the stdin channel, to one client and writes it at once. A client that has
    /// gone, or does not read, loses it, which is logged.
    pub fn reply(&self, channel: Channel, identity: &Bytes, message: Outgoing) {
        let sender = match channel {
            Channel::Shell => &self.shell,
            Channel::Control => &self.control,
            Channel::Stdin => &self.stdin,
            Channel::Iopub => return self.publish(message),
        };
        let msg_type = message.msg_type;
        if let Err(error) = sender.send_or_keep(identity, &self.writer.write(message), Lane::Data) {
            tracing::debug!(channel = channel.as_str(), msg_type, %error, "reply not delivered");
        }
        sender.flush();
    }

    /// Queues a broadcast; [`NotebookOutlet::flush`] writes it.
    pub fn publish(&self, message: Outgoing) {
        let topic = Bytes::from_static(message.msg_type.as_bytes());
        let mut parts = self.writer.write(message);
        parts.insert(0, topic);
        self.iopub.publish(&parts);
    }

    /// Writes what was published as far as the subscribers' sockets take it now.
    pub fn flush(&self) {
        self.iopub.flush();
    }

    /// Whether more output may be published now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.iopub.has_room()
    }

    /// Waits until more output may be published; a subscriber that does not read is cut off in time. Cancel-safe.
    pub async fn room(&self) {
        self.iopub.room().await;
    }

    /// Whether everything published is on the wire.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.iopub.is_flushed()
    }

    /// Waits until everything published is on the wire, or the deadline.
    pub async fn flushed(&self, deadline: Duration) -> bool {
        self.iopub.flushed(deadline).await
    }

    /// Waits until everything sent on any channel is on the wire, or the deadline: for the end of the process.
    pub async fn finish(&self, deadline: Duration) {
        tokio::join!(
            self.iopub.flushed(deadline),
            self.shell.flushed(deadline),
            self.control.flushed(deadline),
            self.stdin.flushed(deadline),
        );
    }
}
