//! The connecting socket: one task reads it, one writes it, bounded channels stand between them and the client.
//!
//! On our own codec rather than the `zeromq` crate's DEALER, which takes the PING of a server for an error, does not
//! tell when the server has gone, and tries for half a minute to reach one that does not run.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use cob_protocol::limits::{AGENT_QUEUE_MESSAGES, CONNECT_MS_MAX, READ_AHEAD_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::zmtp::codec::{Caps, Decoder, Encoded, Item};
use crate::zmtp::command::{Command, Ready, encode_pong};
use crate::zmtp::greeting::{GREETING_BYTES, Greeting, Mechanism};
use crate::zmtp::{Endpoint, Message, SocketType};

type Read = Box<dyn AsyncRead + Send + Unpin>;
type Write = Box<dyn AsyncWrite + Send + Unpin>;

/// A connected socket. Dropping it closes the connection.
pub(super) struct Dealer {
    /// What arrives; the last is why nothing more does.
    pub(super) incoming: mpsc::Receiver<Result<Message, io::Error>>,
    /// Messages to be sent, as they go on the wire.
    pub(super) outgoing: mpsc::Sender<Encoded>,
    tasks: [JoinHandle<()>; 2],
}

impl Dealer {
    /// Connects and shakes hands.
    pub(super) async fn connect(endpoint: &Endpoint, identity: &[u8]) -> io::Result<Self> {
        let patience = Duration::from_millis(CONNECT_MS_MAX);
        let shaken = timeout(patience, shake(endpoint, identity)).await;
        let (mut reader, mut write) = shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let (outgoing, mut to_write) = mpsc::channel::<Encoded>(AGENT_QUEUE_MESSAGES);
        let (arrived, incoming) = mpsc::channel(AGENT_QUEUE_MESSAGES);
        let pongs = outgoing.downgrade();
        let writer = tokio::spawn(async move {
            while let Some(message) = to_write.recv().await {
                // The reader sees the end of the connection, and says why.
                if write.write_all(&message.to_vec()).await.is_err() {
                    return;
                }
            }
        });
        let reading = tokio::spawn(async move {
            loop {
                let message = reader.message(&pongs).await;
                let is_last = message.is_err();
                if arrived.send(message).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Self { incoming, outgoing, tasks: [writer, reading] })
    }
}

impl Drop for Dealer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Reader {
    read: Read,
    decoder: Decoder,
    buffer: Vec<u8>,
}

async fn shake(endpoint: &Endpoint, identity: &[u8]) -> io::Result<(Reader, Write)> {
    let (mut read, mut write): (Read, Write) = match endpoint {
        Endpoint::Ipc(path) => {
            let (read, write) = UnixStream::connect(path).await?.into_split();
            (Box::new(read), Box::new(write))
        }
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            (Box::new(read), Box::new(write))
        }
    };
    write.write_all(&Greeting::encode(Mechanism::Null)).await?;
    let mut greeting = [0; GREETING_BYTES];
    read.read_exact(&mut greeting).await?;
    Greeting::parse(&greeting).map_err(invalid)?;
    write.write_all(&Encoded::command(&Ready::encode(SocketType::Dealer, identity)).to_vec()).await?;
    let mut reader =
        Reader { read, decoder: Decoder::new(Caps::HANDSHAKE), buffer: vec![0; READ_AHEAD_BYTES_MAX] };
    match reader.item().await? {
        Item::Command(body) => match Command::parse(&body).map_err(invalid)? {
            Command::Ready(ready) if ready.socket_type == Some(SocketType::Router) => {}
            Command::Error(reason) => return Err(invalid(refused(&reason))),
            _ => return Err(invalid("no ROUTER socket listens there")),
        },
        Item::Message(_) => return Err(invalid("a message before the handshake was over")),
    }
    reader.decoder.set_caps(Caps::default());
    Ok((reader, write))
}

impl Reader {
    /// The next message; what the transport itself says is answered on the way.
    async fn message(&mut self, pongs: &mpsc::WeakSender<Encoded>) -> io::Result<Message> {
        loop {
            let body = match self.item().await? {
                Item::Message(message) => return Ok(message),
                Item::Command(body) => body,
            };
            match Command::parse(&body).map_err(invalid)? {
                Command::Ping(context) => {
                    let Some(pongs) = pongs.upgrade() else { continue };
                    // Where so much waits to be written that there is no room, the server sees us live without it.
                    let _ = pongs.try_send(Encoded::command(&encode_pong(&context)));
                }
                Command::Error(reason) => return Err(invalid(refused(&reason))),
                _ => {}
            }
        }
    }

    async fn item(&mut self) -> io::Result<Item> {
        loop {
            if let Some(item) = self.decoder.pull().map_err(invalid)? {
                return Ok(item);
            }
            match self.read.read(&mut self.buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                arrived => self.decoder.push(self.buffer.get(..arrived).unwrap_or_default()),
            }
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn refused(reason: &Bytes) -> String {
    format!("the server refuses the connection: {}", String::from_utf8_lossy(reason))
}
