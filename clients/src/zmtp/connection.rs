//! One connection from its first byte to its last: handshake, then reading and writing side by side until
//! something ends it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use cob_protocol::limits::{READ_AHEAD_BYTES_MAX, ZMTP_UNREAD_PONG_BYTES_MAX};

use super::codec::{Encoded, Item};
use super::command::{Command, Ready, encode_ping, encode_pong};
use super::fault::Fault;
use super::frames::Frames;
use super::handshake::{self, Shaken};
use super::outbox::Lane;
use super::peer::{Known, Peer, PeerId};
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
    frames: Frames,
    silence: Option<Duration>,
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
        let (Shaken { ready, decoder, can_ping, curve }, seat) = shaken?;
        let (principal, opener, sealer) = match curve {
            Some((name, session)) => (Some(name), Some(session.opener), Some(session.sealer)),
            None => (None, None, None),
        };
        let frames = Frames::new(decoder, opener, P::caps(&self.shared.limits));
        let identity = self.pattern.identity(&ready);
        let known = Known { id: self.id, identity, principal };
        let is_ready = sealer.is_some();
        let peer = Peer::new(known, Arc::clone(&self.write), sealer, Arc::clone(&self.shared));
        if !is_ready {
            // Before anybody knows the peer and can send to it.
            peer.enqueue(&Encoded::command(&Ready::encode(P::KIND, b"")), Lane::Control).ok();
        }
        let membership = Membership::join(peer, self.pattern, self.shared, seat);
        membership.peer.flush();
        let silence = membership.shared.limits.silence.filter(|_| can_ping);
        Ok(Admitted { read: self.read, write: self.write, frames, silence, membership })
    }

    async fn shake(&mut self) -> Result<(Shaken, OwnedSemaphorePermit), Fault> {
        let mut shaken =
            handshake::shake(&mut self.read, &self.write, P::KIND, &self.shared.security).await?;
        let Ok(seat) = Arc::clone(&self.shared.seats).try_acquire_owned() else {
            return Err(handshake::refuse(&self.write, "too many peers").await);
        };
        if let Some((_, session)) = &mut shaken.curve {
            // Its box has another form than what is queued.
            let ready = session.sealer.ready(&Ready::properties(P::KIND, b""))?;
            self.write.write_all(&Encoded::command(&ready).to_vec()).await?;
        }
        Ok((shaken, seat))
    }
}

impl<P: Pattern> Admitted<P> {
    /// Reads and writes until the connection ends.
    pub(super) async fn run(self) -> Fault {
        let Admitted { mut read, write, frames, silence, membership } = self;
        let Membership { peer, pattern, shared, .. } = &membership;
        let mut reader = Reader {
            peer,
            pattern: pattern.as_ref(),
            shared,
            hold: Hold::new(Arc::clone(&shared.inbound)),
            frames,
            silence,
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
    /// Taken once, when it leaves.
    seat: Option<OwnedSemaphorePermit>,
}

impl<P: Pattern> Membership<P> {
    fn join(peer: Arc<Peer>, pattern: Arc<P>, shared: Arc<Shared>, seat: OwnedSemaphorePermit) -> Self {
        shared.tally.admitted();
        shared.join(Arc::clone(&peer));
        pattern.joined(&peer);
        Membership { peer, pattern, shared, seat: Some(seat) }
    }
}

impl<P: Pattern> Drop for Membership<P> {
    fn drop(&mut self) {
        self.peer.close(Fault::Ended);
        self.shared.leave(self.peer.id);
        if let Some(seat) = self.seat.take() {
            self.pattern.left(&self.peer, seat);
        }
    }
}

/// The reading side of a connection.
struct Reader<'a, P> {
    peer: &'a Arc<Peer>,
    pattern: &'a P,
    shared: &'a Shared,
    hold: Hold,
    frames: Frames,
    /// How long the peer may say nothing before it is asked; `None` when it could not answer.
    silence: Option<Duration>,
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
            while let Some(item) = self.frames.pull()? {
                if let Item::Message(_) = item {
                    progress = None;
                }
                self.take(item).await?;
            }
            let more = if self.frames.is_mid_message() {
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
        let held = self.frames.held();
        let proof = progress.filter(|(_, then)| held < then + READ_AHEAD_BYTES_MAX);
        let (since, _) = *progress.insert(proof.unwrap_or_else(|| (Instant::now(), held)));
        since + self.shared.limits.message_stall
    }

    async fn read(&mut self, read: &mut ReadHalf) -> Result<bool, Fault> {
        let unfinished = if self.frames.is_mid_message() { self.frames.allocated() } else { 0 };
        self.hold.set(unfinished).await;
        let frames = &mut self.frames;
        let mut arrives = std::pin::pin!(read.read(|arrived| frames.push(arrived)));
        let Some(silence) = self.silence else { return Ok(arrives.await?) };
        if let Ok(arrived) = timeout(silence, arrives.as_mut()).await {
            return Ok(arrived?);
        }
        // Perhaps the peer is gone without a word. Any byte from it shows the opposite.
        self.peer.enqueue(&Encoded::command(&encode_ping()), Lane::Control).ok();
        self.peer.flush();
        loop {
            let backlog = self.peer.backlog();
            match timeout(silence, arrives.as_mut()).await {
                Ok(arrived) => return Ok(arrived?),
                // The question waited behind a large message, or still does, and somebody takes that.
                Err(_) if backlog.is_some() && backlog != self.peer.backlog() => {}
                Err(_) => return Err(Fault::Silent),
            }
        }
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
