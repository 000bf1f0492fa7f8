//! One connection from its first byte to its last: handshake, then reading and writing side by side until
//! something ends it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use cob_protocol::limits::{READ_AHEAD_BYTES_MAX, ZMTP_UNREAD_PONG_BYTES_MAX};

use super::codec::{Decoder, Encoded, Item};
use super::command::{Command, Ready, encode_pong};
use super::fault::Fault;
use super::handshake;
use super::outbox::Lane;
use super::peer::{Peer, PeerId};
use super::shared::Shared;
use super::socket::{Event, Pattern};
use super::stream::{ReadHalf, Stream, WriteHalf};

/// One accepted connection of a socket with the pattern `P`.
pub(super) struct Connection<P> {
    pub(super) id: PeerId,
    pub(super) pattern: Arc<P>,
    pub(super) shared: Arc<Shared>,
    read: ReadHalf,
    write: Arc<WriteHalf>,
}

/// A peer whose handshake is done.
pub(super) struct Admitted<P: Pattern> {
    read: ReadHalf,
    write: Arc<WriteHalf>,
    decoder: Decoder,
    membership: Membership<P>,
}

impl<P: Pattern> Connection<P> {
    pub(super) fn new(id: PeerId, stream: Stream, pattern: Arc<P>, shared: Arc<Shared>) -> Self {
        let (read, write) = stream.split();
        Connection { id, pattern, shared, read, write: Arc::new(write) }
    }

    /// Shakes hands and makes the peer known to the socket.
    pub(super) async fn admit(mut self) -> Result<Admitted<P>, Fault> {
        let deadline = self.shared.limits.handshake;
        let shaken = timeout(deadline, self.shake()).await.map_err(|_| Fault::HandshakeDeadline)?;
        let (ready, mut decoder, seat) = shaken?;
        decoder.set_caps(P::caps(&self.shared.limits));
        let identity = self.pattern.identity(&ready);
        let peer = Peer::new(self.id, identity, Arc::clone(&self.write), Arc::clone(&self.shared));
        // Before anybody knows the peer and can send to it.
        peer.enqueue(&Encoded::command(&Ready::encode(P::KIND, b"")), Lane::Control).ok();
        let membership = Membership::join(peer, self.pattern, self.shared, seat);
        membership.peer.flush();
        Ok(Admitted { read: self.read, write: self.write, decoder, membership })
    }

    async fn shake(&mut self) -> Result<(Ready, Decoder, OwnedSemaphorePermit), Fault> {
        let (ready, decoder) = handshake::shake(&mut self.read, &self.write, P::KIND).await?;
        match Arc::clone(&self.shared.seats).try_acquire_owned() {
            Ok(seat) => Ok((ready, decoder, seat)),
            Err(_) => Err(handshake::refuse(&self.write, "too many peers").await),
        }
    }
}

impl<P: Pattern> Admitted<P> {
    /// Reads and writes until the connection ends.
    pub(super) async fn run(self) -> Fault {
        let Admitted { mut read, write, decoder, membership } = self;
        let Membership { peer, pattern, shared, .. } = &membership;
        let mut reader = Reader {
            peer,
            pattern: pattern.as_ref(),
            shared,
            hold: Hold::new(Arc::clone(&shared.inbound)),
            decoder,
        };
        tokio::select! {
            biased;
            fault = peer.closed() => fault,
            fault = peer.write_loop(&write) => fault,
            fault = reader.run(&mut read) => fault,
        }
    }
}

/// That a peer is known to its socket; leaving is dropping this, so that an aborted task leaves too.
struct Membership<P: Pattern> {
    peer: Arc<Peer>,
    pattern: Arc<P>,
    shared: Arc<Shared>,
    _seat: OwnedSemaphorePermit,
}

impl<P: Pattern> Membership<P> {
    fn join(peer: Arc<Peer>, pattern: Arc<P>, shared: Arc<Shared>, seat: OwnedSemaphorePermit) -> Self {
        shared.tally.admitted();
        shared.join(Arc::clone(&peer));
        pattern.joined(&peer);
        Membership { peer, pattern, shared, _seat: seat }
    }
}

impl<P: Pattern> Drop for Membership<P> {
    fn drop(&mut self) {
        self.peer.close(Fault::Ended);
        self.pattern.left(&self.peer);
        self.shared.leave(self.peer.id);
    }
}

/// The reading side of a connection.
struct Reader<'a, P> {
    peer: &'a Arc<Peer>,
    pattern: &'a P,
    shared: &'a Shared,
    hold: Hold,
    decoder: Decoder,
}

impl<P: Pattern> Reader<'_, P> {
    async fn run(&mut self, read: &mut ReadHalf) -> Fault {
        match self.read_on(read).await {
            Ok(()) => Fault::Ended,
            Err(fault) => fault,
        }
    }

    async fn read_on(&mut self, read: &mut ReadHalf) -> Result<(), Fault> {
        let mut progress = None;
        loop {
            while let Some(item) = self.decoder.pull()? {
                if let Item::Message(_) = item {
                    progress = None;
                }
                self.take(item).await?;
            }
            let more = if self.decoder.is_mid_message() {
                let deadline = self.message_deadline(&mut progress);
                timeout_at(deadline, self.read(read)).await.map_err(|_| Fault::MessageStalled)??
            } else {
                progress = None;
                self.read(read).await?
            };
            if !more {
                return Ok(());
            }
        }
    }

    /// Until when the unfinished message must move on. A byte now and then does not count: each of many peers
    /// could hold memory for ever with it.
    fn message_deadline(&self, progress: &mut Option<(Instant, usize)>) -> Instant {
        let held = self.decoder.held();
        let proof = progress.filter(|(_, then)| held < then + READ_AHEAD_BYTES_MAX);
        let (since, _) = *progress.insert(proof.unwrap_or_else(|| (Instant::now(), held)));
        since + self.shared.limits.message_stall
    }

    async fn read(&mut self, read: &mut ReadHalf) -> Result<bool, Fault> {
        let unfinished = if self.decoder.is_mid_message() { self.decoder.allocated() } else { 0 };
        self.hold.set(unfinished).await;
        let decoder = &mut self.decoder;
        Ok(read.read(|arrived| decoder.push(arrived)).await?)
    }

    async fn take(&mut self, item: Item) -> Result<(), Fault> {
        let event = match item {
            Item::Message(message) => Event::Message(message),
            Item::Command(body) => match Command::parse(&body)? {
                Command::Subscribe(topic) => Event::Subscribe(topic),
                Command::Cancel(topic) => Event::Cancel(topic),
                Command::Ping(context) => {
                    self.pong(&context);
                    return Ok(());
                }
                Command::Error(reason) => return Err(Fault::Reported(reason)),
                Command::Ready(_) => return Err(Fault::Grammar("READY for a second time")),
                Command::Pong | Command::Unknown => return Ok(()),
            },
        };
        self.pattern.take(self.peer, event).await
    }

    fn pong(&self, context: &Bytes) {
        if self.peer.lane_cost(Lane::Control) < ZMTP_UNREAD_PONG_BYTES_MAX {
            self.peer.enqueue(&Encoded::command(&encode_pong(context)), Lane::Control).ok();
            self.peer.flush();
        }
    }
}

/// What one peer holds of the budget for incomplete messages.
struct Hold {
    budget: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Hold {
    fn new(budget: Arc<Semaphore>) -> Self {
        Hold { budget, permit: None }
    }

    /// Makes the hold that large; waits while the budget is used up. Cancel-safe.
    async fn set(&mut self, bytes: usize) {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if bytes == 0 {
            self.permit = None;
        } else if bytes < held {
            drop(self.permit.as_mut().and_then(|permit| permit.split(held - bytes)));
        } else if let Ok(missing @ 1..) = u32::try_from(bytes - held) {
            // The budget is never closed.
            if let Ok(more) = Arc::clone(&self.budget).acquire_many_owned(missing).await {
                match &mut self.permit {
                    Some(permit) => permit.merge(more),
                    None => self.permit = Some(more),
                }
            }
        }
    }
}
