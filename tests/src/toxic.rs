//! A TCP proxy before a server that does to its connections what networks do: slow, in crumbs, broken off, silent.
//!
//! The test says what shall happen to connections made from then on, and is told when it has happened: nobody waits for
//! time to pass. All a proxy holds is one buffer per direction of each of at most [`CONNECTIONS_MAX`] connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cob_clients::zmtp::Endpoint;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::agents::Place;
use crate::seed::Seed;
use crate::within;

/// Further connections wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// What is read at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toxic {
    /// Nothing.
    Clear,
    /// Everything comes so much later.
    Latency(Duration),
    /// So many bytes come per second, in each direction.
    Bandwidth(usize),
    /// Every byte comes by itself.
    Crumbs,
    /// After so many bytes from the server the connection is closed, in the middle of whatever that is.
    Cut(usize),
    /// After so many bytes from the server it is reset.
    Reset(usize),
    /// After so many bytes from the server nothing comes through any more, and the connection stays.
    Hole(usize),
    /// After so many bytes from the client it is closed.
    CutRequest(usize),
    /// After so many bytes from the client nothing comes through any more.
    HoleRequest(usize),
}

impl Toxic {
    /// Those that end a connection, each at a place that the seed chooses.
    #[must_use]
    pub fn endings(seed: &mut Seed, bytes_max: usize) -> [Self; 5] {
        let mut at = || seed.below(bytes_max);
        [
            Self::Cut(at()),
            Self::Reset(at()),
            Self::Hole(at()),
            Self::CutRequest(at()),
            Self::HoleRequest(at()),
        ]
    }

    /// Whether the client can only find out by waiting in vain.
    #[must_use]
    pub fn is_silent(self) -> bool {
        matches!(self, Self::Hole(_) | Self::HoleRequest(_))
    }

    /// What it does to the bytes from the server, or from the client.
    fn half(self, from_server: bool) -> Half {
        let ends = |after, how| Half::Ends { after, how };
        match self {
            Self::Latency(delay) => Half::Late(delay),
            Self::Bandwidth(bytes) => Half::Slow(bytes.max(1)),
            Self::Crumbs => Half::Crumbs,
            Self::Cut(after) if from_server => ends(after, End::Closed),
            Self::Reset(after) if from_server => ends(after, End::Reset),
            Self::Hole(after) if from_server => ends(after, End::Silent),
            Self::CutRequest(after) if !from_server => ends(after, End::Closed),
            Self::HoleRequest(after) if !from_server => ends(after, End::Silent),
            _ => Half::Through,
        }
    }
}

#[derive(Clone, Copy)]
enum Half {
    Through,
    Late(Duration),
    Slow(usize),
    Crumbs,
    Ends { after: usize, how: End },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// One side closed it, or nothing more came.
    Over,
    Closed,
    Reset,
    Silent,
}

/// The proxy. Dropping it closes everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    key: String,
    toxic: watch::Sender<Toxic>,
    /// How many connections have been ended, or silenced, by what was set.
    struck: watch::Receiver<usize>,
    /// Raised to close every connection that is open.
    severed: watch::Sender<usize>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// One before this place.
    ///
    /// # Panics
    /// When there is no port for it.
    pub async fn before(place: &Place) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (toxic, toxics) = watch::channel(Toxic::Clear);
        let (strike, struck) = watch::channel(0);
        let (severed, severing) = watch::channel(0);
        let shared = Shared { server: place.endpoint.clone(), strike: Arc::new(strike), severing };
        let accepting = tokio::spawn(accept(listener, toxics, shared));
        Self { address, key: place.key.clone(), toxic, struck, severed, accepting }
    }

    /// Where clients find it.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { endpoint: Endpoint::Tcp(self.address), key: self.key.clone() }
    }

    /// What shall happen to connections that are made from now on.
    pub fn set(&self, toxic: Toxic) {
        self.toxic.send_replace(toxic);
    }

    /// How many connections were ended or silenced so far.
    #[must_use]
    pub fn struck(&self) -> usize {
        *self.struck.borrow()
    }

    /// Waits until more connections than that were ended or silenced.
    ///
    /// # Panics
    /// When none is.
    pub async fn strikes_after(&self, before: usize) {
        let mut struck = self.struck.clone();
        within("the proxy to strike", struck.wait_for(|now| *now > before)).await.expect("a running proxy");
    }

    /// Breaks off every connection that is open now.
    pub fn sever(&self) {
        self.severed.send_modify(|times| *times += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Clone)]
struct Shared {
    server: Endpoint,
    strike: Arc<watch::Sender<usize>>,
    severing: watch::Receiver<usize>,
}

async fn accept(listener: TcpListener, toxics: watch::Receiver<Toxic>, shared: Shared) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // They end with this task.
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        let (toxic, mut shared) = (*toxics.borrow(), shared.clone());
        shared.severing.mark_unchanged();
        connections.spawn(async move {
            connect(client, toxic, shared).await;
            drop(permit);
        });
    }
}

async fn connect(client: TcpStream, toxic: Toxic, shared: Shared) {
    // What comes in pieces shall leave in them.
    let _ = client.set_nodelay(true);
    match &shared.server {
        Endpoint::Tcp(address) => {
            let Ok(server) = TcpStream::connect(address).await else { return };
            let _ = server.set_nodelay(true);
            let (from_server, to_server) = server.into_split();
            carry(client, from_server, to_server, toxic, shared).await;
        }
        Endpoint::Ipc(path) => {
            let Ok(server) = UnixStream::connect(path).await else { return };
            let (from_server, to_server) = server.into_split();
            carry(client, from_server, to_server, toxic, shared).await;
        }
    }
}

async fn carry(
    mut client: TcpStream,
    mut from_server: impl AsyncRead + Unpin,
    mut to_server: impl AsyncWrite + Unpin,
    toxic: Toxic,
    mut shared: Shared,
) {
    let end = {
        let (mut from_client, mut to_client) = client.split();
        tokio::select! {
            end = carry_half(&mut from_server, &mut to_client, toxic.half(true)) => end,
            end = carry_half(&mut from_client, &mut to_server, toxic.half(false)) => end,
            _ = shared.severing.changed() => End::Reset,
        }
    };
    if end == End::Reset {
        let _ = client.set_zero_linger();
    }
    if matches!(end, End::Closed | End::Reset | End::Silent) {
        shared.strike.send_modify(|struck| *struck += 1);
    }
    if end == End::Silent {
        // Both ends stay open, and what they say is swallowed, until one of them closes.
        let mut sink = tokio::io::sink();
        let _ = tokio::select! {
            swallowed = tokio::io::copy(&mut client, &mut sink) => swallowed,
            swallowed = async { tokio::io::copy(&mut from_server, &mut tokio::io::sink()).await } => swallowed,
        };
    }
}

async fn carry_half(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    half: Half,
) -> End {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut carried = 0;
    loop {
        let room = match half {
            // A turn is a tenth of a second.
            Half::Slow(bytes) => (bytes / 10).clamp(1, BUFFER_BYTES),
            _ => BUFFER_BYTES,
        };
        let window = buffer.get_mut(..room).unwrap_or_default();
        let Ok(count @ 1..) = from.read(window).await else { return End::Over };
        let bytes = buffer.get(..count).unwrap_or_default();
        match half {
            Half::Late(delay) => pass(delay).await,
            Half::Slow(_) => pass(Duration::from_millis(100)).await,
            Half::Ends { after, how } if carried + count > after => {
                let last = bytes.get(..after - carried).unwrap_or_default();
                let _ = to.write_all(last).await;
                return how;
            }
            _ => {}
        }
        carried += count;
        let step = if matches!(half, Half::Crumbs) { 1 } else { count };
        for piece in bytes.chunks(step) {
            if to.write_all(piece).await.is_err() {
                return End::Over;
            }
            if step == 1 {
                // The other side gets to see them one by one.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Lets time pass: that is what this network does, and nothing is waited for.
async fn pass(delay: Duration) {
    let _ = tokio::time::timeout(delay, std::future::pending::<()>()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> (Place, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                all.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (Place { endpoint, key: String::new() }, task)
    }

    async fn through(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address).await.unwrap()
    }

    #[tokio::test]
    async fn what_only_slows_a_connection_changes_no_byte() {
        let (place, server) = echo().await;
        let proxy = Proxy::before(&place).await;
        let sent = Seed::new(1).bytes(4000);
        for toxic in
            [Toxic::Clear, Toxic::Latency(Duration::from_millis(5)), Toxic::Bandwidth(100_000), Toxic::Crumbs]
        {
            proxy.set(toxic);
            let mut stream = through(&proxy).await;
            stream.write_all(&sent).await.unwrap();
            let mut came = vec![0; sent.len()];
            within("the echo", stream.read_exact(&mut came)).await.unwrap();
            assert_eq!(came, sent, "{toxic:?}");
        }
        assert_eq!(proxy.struck(), 0);
        server.abort();
    }

    #[tokio::test]
    async fn what_ends_a_connection_does_so_at_its_byte() {
        let (place, server) = echo().await;
        let proxy = Proxy::before(&place).await;
        for toxic in [Toxic::Cut(100), Toxic::Hole(100), Toxic::CutRequest(100), Toxic::HoleRequest(100)] {
            proxy.set(toxic);
            let struck = proxy.struck();
            let mut stream = through(&proxy).await;
            stream.write_all(&[7; 1000]).await.unwrap();
            let mut came = vec![0; 1000];
            let mut count = 0;
            if toxic.is_silent() {
                proxy.strikes_after(struck).await;
                if toxic == Toxic::Hole(100) {
                    within("the first bytes", stream.read_exact(&mut came[..100])).await.unwrap();
                }
                // Nothing more comes, and the connection is open: there is nothing that could be read.
                assert!(
                    matches!(stream.try_read(&mut came), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
                );
            } else {
                while let Ok(more @ 1..) = within("the end", stream.read(&mut came)).await {
                    count += more;
                }
                assert!(count <= 100, "{toxic:?}: {count} bytes came");
                assert!(toxic != Toxic::Cut(100) || count == 100, "{count} bytes came");
                proxy.strikes_after(struck).await;
            }
        }
        proxy.set(Toxic::Reset(10));
        let mut stream = through(&proxy).await;
        stream.write_all(&[7; 1000]).await.unwrap();
        let mut came = Vec::new();
        assert!(within("the reset", stream.read_to_end(&mut came)).await.is_err());
        server.abort();
    }

    #[tokio::test]
    async fn all_connections_are_severed_at_once_and_new_ones_are_not() {
        let (place, server) = echo().await;
        let proxy = Proxy::before(&place).await;
        let mut streams = Vec::new();
        for _ in 0..5 {
            let mut stream = through(&proxy).await;
            stream.write_all(b"a").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'a');
            streams.push(stream);
        }
        proxy.sever();
        for mut stream in streams {
            assert!(!matches!(within("the end", stream.read(&mut [0; 9])).await, Ok(1..)));
        }
        let mut stream = through(&proxy).await;
        stream.write_all(b"b").await.unwrap();
        assert_eq!(within("the echo", stream.read_u8()).await.unwrap(), b'b');
        server.abort();
    }
}
