//! A peer that speaks ZMTP byte by byte, so that tests can say exactly what arrives, and what does not.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use bytes::Bytes;
use cob_clients::zmtp::codec::{Caps, Decoder, Encoded, Item};
use cob_clients::zmtp::command::{Command, Ready};
use cob_clients::zmtp::greeting::{GREETING_BYTES, Greeting, Mechanism};
use cob_clients::zmtp::{Endpoint, Message, SocketType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A free port on the loopback.
pub(crate) fn loopback() -> Endpoint {
    "tcp://127.0.0.1:0".parse().expect("an endpoint")
}

/// One part.
pub(crate) fn part(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A connection to one of our sockets.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    decoder: Decoder,
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) async fn silent(endpoint: &Endpoint) -> Raw {
        let Endpoint::Tcp(address) = endpoint else { unreachable!("only TCP is raw") };
        let stream = TcpStream::connect(address).await.expect("the socket listens");
        stream.set_nodelay(true).expect("nodelay");
        Raw { stream, decoder: Decoder::new(Caps::default()) }
    }

    /// Connects and exchanges greetings.
    pub(crate) async fn greeted(endpoint: &Endpoint) -> Raw {
        let mut raw = Raw::silent(endpoint).await;
        raw.send(&Greeting::encode(Mechanism::Null)).await;
        let mut greeting = [0; GREETING_BYTES];
        raw.stream.read_exact(&mut greeting).await.expect("a greeting");
        raw
    }

    /// Connects and finishes the handshake.
    pub(crate) async fn ready(endpoint: &Endpoint, kind: SocketType, identity: &[u8]) -> Raw {
        let mut raw = Raw::greeted(endpoint).await;
        raw.command(&Ready::encode(kind, identity)).await;
        assert!(matches!(raw.next_command().await, Some(Command::Ready(_))));
        raw
    }

    /// Connects a subscriber that wants everything.
    pub(crate) async fn subscriber(endpoint: &Endpoint) -> Raw {
        let mut raw = Raw::ready(endpoint, SocketType::Sub, b"").await;
        raw.send(&[0, 1, 1]).await;
        raw
    }

    /// Sends bytes. An error is fine: the other side may have hung up already.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.ok();
    }

    pub(crate) async fn message(&mut self, parts: &[Bytes]) {
        self.send(&Encoded::message(parts).to_vec()).await;
    }

    pub(crate) async fn command(&mut self, body: &[u8]) {
        self.send(&Encoded::command(body).to_vec()).await;
    }

    /// The next thing that arrives, `None` when the connection is closed.
    pub(crate) async fn next(&mut self) -> Option<Item> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some(item) = self.decoder.pull().expect("our own frames are valid") {
                return Some(item);
            }
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(arrived) => self.decoder.push(&buffer[..arrived]),
            }
        }
    }

    pub(crate) async fn next_message(&mut self) -> Option<Message> {
        match self.next().await {
            Some(Item::Message(message)) => Some(message),
            Some(item) => unreachable!("expected a message, not {item:?}"),
            None => None,
        }
    }

    pub(crate) async fn next_command(&mut self) -> Option<Command> {
        match self.next().await {
            Some(Item::Command(body)) => Some(Command::parse(&body).expect("our own commands are valid")),
            Some(item) => unreachable!("expected a command, not {item:?}"),
            None => None,
        }
    }

    /// Reads until the connection is closed, whatever arrives.
    pub(crate) async fn closed(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(1..) = self.stream.read(&mut buffer).await {}
    }
}
