//! What the three kinds of sockets have in common: a listener whose accept loop runs one task per connection.
//!
//! The kinds differ in a [`Pattern`]: who may connect, and what a message means.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cob_protocol::limits::ACCEPT_BACKOFF_MS;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::{JoinHandle, JoinSet};

use super::codec::{Caps, Message};
use super::command::Ready;
use super::connection::Connection;
use super::endpoint::Endpoint;
use super::fault::Fault;
use super::limits::Limits;
use super::listener::{Listener, SocketFile};
use super::peer::{Peer, PeerId, lock};
use super::security::Security;
use super::shared::Shared;
use super::socket_type::SocketType;
use super::stream::Stream;

/// What a peer sent after its handshake.
#[derive(Debug)]
pub(super) enum Event {
    Message(Message),
    Subscribe(Bytes),
    Cancel(Bytes),
}

/// The behaviour of one kind of socket.
pub(super) trait Pattern: Send + Sync + 'static {
    const KIND: SocketType;

    /// Whether peers must keep up with what is sent to them.
    fn is_paced(&self) -> bool {
        false
    }

    /// What a peer may send.
    fn caps(limits: &Limits) -> Caps {
        limits.caps
    }

    /// Under which identity a peer is known.
    fn identity(&self, ready: &Ready) -> Bytes {
        ready.identity.clone()
    }

    fn joined(&self, _peer: &Arc<Peer>) {}

    /// A peer that joined has left. Its place is free for another once `seat` is dropped.
    fn left(&self, _peer: &Peer, _seat: OwnedSemaphorePermit) {}

    /// Does what the event asks; the peer is not read meanwhile.
    fn take(&self, peer: &Arc<Peer>, event: Event) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// A bound socket. Dropping it closes the listener and every connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) endpoint: Endpoint,
    pub(super) shared: Arc<Shared>,
    accepting: JoinHandle<()>,
    _file: Option<SocketFile>,
}

impl Socket {
    pub(super) async fn bind<P: Pattern>(
        endpoint: &Endpoint,
        limits: Limits,
        security: Security,
        pattern: Arc<P>,
    ) -> io::Result<Self> {
        let (listener, endpoint, file) = Listener::bind(endpoint, limits.silence).await?;
        let shared = Shared::new(limits, security, pattern.is_paced());
        let acceptor = Acceptor {
            name: endpoint.to_string().into(),
            half_open: HalfOpen::new(shared.limits.half_open),
            shared: Arc::clone(&shared),
            pattern,
            tasks: JoinSet::new(),
            next_id: 1,
        };
        let accepting = tokio::spawn(acceptor.run(listener));
        Ok(Socket { endpoint, shared, accepting, _file: file })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Dropping the accept loop drops its set of tasks, which aborts them.
        self.accepting.abort();
        self.shared.close();
    }
}

/// The accept loop.
struct Acceptor<P> {
    name: Arc<str>,
    half_open: Arc<HalfOpen>,
    shared: Arc<Shared>,
    pattern: Arc<P>,
    tasks: JoinSet<()>,
    next_id: u64,
}

impl<P: Pattern> Acceptor<P> {
    async fn run(mut self, listener: Listener) {
        loop {
            tokio::select! {
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.spawn(stream, peer),
                    Err(error) => self.back_off(&error).await,
                },
            }
        }
    }

    fn spawn(&mut self, stream: Stream, peer: String) {
        if let Err(fault) = self.shared.security.look(&stream) {
            return self.shared.tally.ended(&self.name, &peer, &fault);
        }
        let id = PeerId(self.next_id);
        self.next_id += 1;
        let pass = self.half_open.enter(id);
        let shared = Arc::clone(&self.shared);
        let connection = Connection::new(id, stream, Arc::clone(&self.pattern), Arc::clone(&self.shared));
        let name = Arc::clone(&self.name);
        self.tasks.spawn(async move {
            let fault = serve(connection, pass).await;
            shared.tally.ended(&name, &peer, &fault);
        });
    }

    /// Out of descriptors or memory: trying again at once would only burn the processor.
    async fn back_off(&self, error: &io::Error) {
        self.shared.tally.accept_failed(&self.name, error);
        tokio::time::sleep(Duration::from_millis(ACCEPT_BACKOFF_MS)).await;
    }
}

async fn serve<P: Pattern>(connection: Connection<P>, pass: Pass) -> Fault {
    let admitted = tokio::select! {
        admitted = connection.admit() => admitted,
        () = pass.displaced.notified() => Err(Fault::Displaced),
    };
    drop(pass);
    match admitted {
        Ok(admitted) => admitted.run().await,
        Err(fault) => fault,
    }
}

/// The connections whose handshake is not done. A newcomer displaces the oldest: were it the newcomer who is
/// turned away, a handful of silent connections would keep everybody out.
#[derive(Debug)]
struct HalfOpen {
    max: usize,
    waiting: Mutex<BTreeMap<PeerId, Arc<Notify>>>,
}

/// A place among the half-open connections, left when dropped.
#[derive(Debug)]
struct Pass {
    id: PeerId,
    displaced: Arc<Notify>,
    among: Arc<HalfOpen>,
}

impl HalfOpen {
    fn new(max: usize) -> Arc<Self> {
        Arc::new(HalfOpen { max, waiting: Mutex::default() })
    }

    fn enter(self: &Arc<Self>, id: PeerId) -> Pass {
        let mut waiting = lock(&self.waiting);
        while waiting.len() >= self.max {
            let Some((_, oldest)) = waiting.pop_first() else { break };
            oldest.notify_one();
        }
        let displaced = Arc::new(Notify::new());
        waiting.insert(id, Arc::clone(&displaced));
        Pass { id, displaced, among: Arc::clone(self) }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        lock(&self.among.waiting).remove(&self.id);
    }
}
