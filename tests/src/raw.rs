//! A peer that speaks ZMTP byte by byte to a port of a running kernel, and messages written by hand.

use bytes::Bytes;
use cob_clients::notebook::ConnectionFile;
use cob_clients::zmtp::codec::{Caps, Decoder, Encoded, Item};
use cob_clients::zmtp::command::{Command, Ready};
use cob_clients::zmtp::greeting::{GREETING_BYTES, Greeting, Mechanism};
use cob_clients::zmtp::{Endpoint, Message, SocketType};
use cob_protocol::signing::Signer;
use cob_protocol::wire::DELIMITER;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// The five ports of a kernel: name, port, the kind of socket that may connect.
#[must_use]
pub fn ports(file: &ConnectionFile) -> [(&'static str, u16, SocketType); 5] {
    [
        ("shell", file.shell_port, SocketType::Dealer),
        ("control", file.control_port, SocketType::Dealer),
        ("stdin", file.stdin_port, SocketType::Dealer),
        ("iopub", file.iopub_port, SocketType::Sub),
        ("heartbeat", file.hb_port, SocketType::Req),
    ]
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection to one port.
pub struct Raw {
    stream: Box<dyn Stream>,
    decoder: Decoder,
}

impl Raw {
    /// Connects and says nothing.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn silent(file: &ConnectionFile, port: u16) -> Self {
        Self::at(&file.endpoint(port).expect("an address")).await
    }

    /// Connects to any place and says nothing.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn at(endpoint: &Endpoint) -> Self {
        let stream: Box<dyn Stream> = match endpoint {
            Endpoint::Tcp(address) => {
                Box::new(TcpStream::connect(address).await.expect("a listening socket"))
            }
            Endpoint::Ipc(path) => Box::new(UnixStream::connect(path).await.expect("a listening socket")),
        };
        Self { stream, decoder: Decoder::new(Caps::default()) }
    }

    /// Connects and exchanges greetings.
    ///
    /// # Panics
    /// When the kernel does not greet.
    pub async fn greeted(file: &ConnectionFile, port: u16) -> Self {
        let mut raw = Self::silent(file, port).await;
        raw.send(&Greeting::encode(Mechanism::Null)).await;
        let mut greeting = [0; GREETING_BYTES];
        raw.stream.read_exact(&mut greeting).await.expect("a greeting");
        raw
    }

    /// Connects and finishes the handshake under an identity; `None` when nobody listens, or the kernel goes away
    /// meanwhile.
    pub async fn try_ready(
        file: &ConnectionFile,
        port: u16,
        kind: SocketType,
        identity: &[u8],
    ) -> Option<Self> {
        let stream: Box<dyn Stream> = match file.endpoint(port).ok()? {
            Endpoint::Tcp(address) => Box::new(TcpStream::connect(address).await.ok()?),
            Endpoint::Ipc(path) => Box::new(UnixStream::connect(path).await.ok()?),
        };
        let mut raw = Self { stream, decoder: Decoder::new(Caps::default()) };
        raw.send(&Greeting::encode(Mechanism::Null)).await;
        let mut greeting = [0; GREETING_BYTES];
        raw.stream.read_exact(&mut greeting).await.ok()?;
        raw.send(&Encoded::command(&Ready::encode(kind, identity)).to_vec()).await;
        matches!(raw.next().await, Some(Item::Command(_))).then_some(raw)
    }

    /// Connects and finishes the handshake.
    ///
    /// # Panics
    /// When the kernel does not take part in it.
    pub async fn ready(file: &ConnectionFile, port: u16, kind: SocketType) -> Self {
        let mut raw = Self::greeted(file, port).await;
        raw.send(&Encoded::command(&Ready::encode(kind, b"")).to_vec()).await;
        let Some(Item::Command(body)) = raw.next().await else { unreachable!("no READY came back") };
        assert!(matches!(Command::parse(&body), Ok(Command::Ready(_))));
        raw
    }

    /// Connects to iopub and subscribes to everything.
    ///
    /// # Panics
    /// As [`Raw::ready`].
    pub async fn subscriber(file: &ConnectionFile) -> Self {
        let mut raw = Self::ready(file, file.iopub_port, SocketType::Sub).await;
        raw.send(&[0, 1, 1]).await;
        raw
    }

    /// Sends bytes. An error is fine: the other side may have hung up already.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.ok();
    }

    /// Sends a message.
    pub async fn message(&mut self, parts: &[Bytes]) {
        self.send(&Encoded::message(parts).to_vec()).await;
    }

    /// The next thing that arrives; `None` when the connection is closed.
    ///
    /// # Panics
    /// When what arrives is not ZMTP.
    pub async fn next(&mut self) -> Option<Item> {
        crate::within("bytes from the kernel", self.next_now()).await
    }

    /// The same, however long it takes. Cancel-safe.
    ///
    /// # Panics
    /// When what arrives is not ZMTP.
    pub async fn next_now(&mut self) -> Option<Item> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some(item) = self.decoder.pull().expect("valid frames") {
                return Some(item);
            }
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(arrived) => self.decoder.push(buffer.get(..arrived).unwrap_or_default()),
            }
        }
    }

    /// The next message; `None` when the connection is closed.
    ///
    /// # Panics
    /// When a command comes instead.
    pub async fn next_message(&mut self) -> Option<Message> {
        match self.next().await? {
            Item::Message(message) => Some(message),
            Item::Command(body) => unreachable!("a command instead of a message: {body:?}"),
        }
    }

    /// Closes the sending half, then reads until the kernel closes too, whatever it says until then.
    pub async fn hang_up(mut self) {
        self.stream.shutdown().await.ok();
        self.closed().await;
    }

    /// Reads until the kernel closes the connection, whatever it says until then.
    pub async fn closed(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(1..) = crate::within("the end of the connection", self.stream.read(&mut buffer)).await {}
    }
}

/// A signed message whose header and content are the test's own.
///
/// # Panics
/// When the connection file names a scheme that does not exist.
#[must_use]
pub fn signed(file: &ConnectionFile, header: &Value, content: &Value) -> Vec<Bytes> {
    let text = |value: &Value| Bytes::from(value.to_string());
    signed_parts(file, [text(header), "{}".into(), "{}".into(), text(content)])
}

/// A signed message whose four parts need not be JSON.
///
/// # Panics
/// When the connection file names a scheme that does not exist.
#[must_use]
pub fn signed_parts(file: &ConnectionFile, parts: [Bytes; 4]) -> Vec<Bytes> {
    let signer = Signer::new(&file.signature_scheme, file.key.as_bytes()).expect("a scheme that exists");
    let [header, parent, metadata, content] = &parts;
    let signature = signer.sign(&[header, parent, metadata, content]);
    [Bytes::from_static(DELIMITER), signature.into()].into_iter().chain(parts).collect()
}
