//! The way out: one frame after the other onto the socket, from whichever thread of the user comes.
//!
//! **Invariant:** once the first byte of a frame is out, the frame is finished, whatever signals come; before
//! that an interrupt takes it back. Sequence numbers and positions are taken in the order of the socket.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use bytes::Bytes;
use cob_protocol::codec::{CodecError, encode};
use cob_protocol::frame::Frame;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use thiserror::Error;

use crate::executor::Interpreter;
use crate::inbox::Inbox;
use crate::link::Link;
use crate::message::{Message, PIECES, place};
use crate::output::{Output, write_last_words};
use crate::process::{self, EXIT_IO, EXIT_QUIETLY};
use crate::retained::Retained;
use crate::turn::Turn;

/// Something could not be sent or written.
#[derive(Debug, Error)]
pub enum SendError<Interrupt> {
    /// A signal handler gave the wait up.
    #[error("interrupted")]
    Interrupted(Interrupt),
    /// What was to be sent is too large or malformed.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The descriptor cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The writing half of the frame socket.
#[derive(Debug)]
pub struct Outbox {
    pub(crate) link: Arc<Link>,
    /// A new socket comes by way of the old one.
    pub(crate) inbox: Arc<Mutex<Inbox>>,
    pub(crate) turn: Turn,
    sequence: AtomicU64,
    /// Locked only by who has the turn, so nobody ever waits for it.
    pub(crate) retained: Mutex<Retained>,
}

/// What became of an attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// So many bytes are out.
    Sent(usize),
    /// It would block, or a signal came.
    Blocked,
    /// Nobody is at the other end.
    Lost,
}

impl Outbox {
    /// Writes to the socket of `link`. If the session outlives its server, frames of `bytes_max` together are kept.
    pub(crate) fn new(link: Arc<Link>, inbox: Arc<Mutex<Inbox>>, bytes_max: usize) -> Self {
        Self {
            link,
            inbox,
            turn: Turn::default(),
            sequence: AtomicU64::new(0),
            retained: Mutex::new(Retained::new(bytes_max)),
        }
    }

    /// Sends a frame, with its place among the output. If the host is gone for good, the process ends here.
    ///
    /// # Errors
    /// [`SendError::Interrupted`] before anything was sent; [`SendError::Codec`] when the frame is too large.
    pub(crate) fn send<I: Interpreter>(
        &self,
        interpreter: &I,
        output: &Output,
        mut frame: Frame,
        payloads: &[Bytes],
    ) -> Result<(), SendError<I::Interrupt>> {
        if process::is_child() {
            return Ok(());
        }
        if self.link.survives() {
            return self.send_kept(interpreter, output, frame, payloads);
        }
        // The usual case first, without letting the interpreter go: that would hand it to another thread.
        if let Some(held) = self.turn.try_take() {
            let head = self.compose(output, &mut frame, payloads)?;
            let message = Message { head: &head, payloads };
            let sent = self.push_or_end(message, 0, SendFlags::DONTWAIT);
            if sent > 0 {
                self.count();
                if sent < message.bytes() {
                    interpreter.unlocked(|| self.finish(message, sent));
                }
                return Ok(());
            }
            drop(held);
        }
        loop {
            let sent = interpreter.unlocked(|| {
                let _held = self.turn.take();
                if !self.link.wait_for(PollFlags::OUT) {
                    return Ok::<_, CodecError>(false);
                }
                let head = self.compose(output, &mut frame, payloads)?;
                self.count();
                self.finish(Message { head: &head, payloads }, 0);
                Ok(true)
            })?;
            if sent {
                return Ok(());
            }
            interpreter.signals().map_err(SendError::Interrupted)?;
        }
    }

    /// In a forked process: nothing was sent. `false`: a thread that is not here has it locked.
    pub(crate) fn renew(&self) -> bool {
        let Some(mut retained) = free(&self.retained) else { return false };
        let Some(mut inbox) = free(&self.inbox) else { return false };
        retained.clear();
        inbox.renew();
        self.sequence.store(0, Ordering::Relaxed);
        self.link.renew();
        self.turn.renew()
    }

    /// The bytes of a frame before its payloads. It has the next number, but that is not used up yet.
    pub(crate) fn compose(
        &self,
        output: &Output,
        frame: &mut Frame,
        payloads: &[Bytes],
    ) -> Result<Bytes, CodecError> {
        place(frame, output);
        encode(frame, payloads, self.sequence.load(Ordering::Relaxed) + 1, self.link.received())
    }

    /// The composed frame goes out: its number is used up.
    pub(crate) fn count(&self) -> u64 {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        // Whoever takes this worker over lets nothing that is printed from here on overtake the frame.
        self.link.page().set_sent(number);
        number
    }

    /// Sends the rest of a message, however long the host takes.
    fn finish(&self, message: Message<'_>, mut sent: usize) {
        while sent < message.bytes() {
            match self.push_or_end(message, sent, SendFlags::empty()) {
                0 => drop(self.link.wait_for(PollFlags::OUT)),
                count => sent += count,
            }
        }
    }

    /// One attempt; 0 means that it would block or that a signal came.
    fn push_or_end(&self, message: Message<'_>, from: usize, flags: SendFlags) -> usize {
        match self.push(message, from, flags) {
            Pushed::Sent(count) => count,
            Pushed::Blocked => 0,
            Pushed::Lost => process::exit_now(EXIT_QUIETLY),
        }
    }

    /// One attempt to write a message from its byte `from` on.
    pub(crate) fn push(&self, message: Message<'_>, from: usize, flags: SendFlags) -> Pushed {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let count = message.pieces(from, &mut pieces);
        let mut nothing = SendAncillaryBuffer::default();
        match sendmsg(self.link.socket(), &pieces[..count], &mut nothing, flags | SendFlags::NOSIGNAL) {
            Ok(sent) => Pushed::Sent(sent),
            Err(Errno::AGAIN | Errno::INTR) => Pushed::Blocked,
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Pushed::Lost,
            // User code closed the socket (`os.closerange`), say: nobody will ever hear of anything again.
            Err(error) => give_up(&error.into()),
        }
    }
}

/// What nobody has locked.
fn free<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// The connection cannot be used, and nobody is at fault who could be told.
pub(crate) fn give_up(error: &io::Error) -> ! {
    write_last_words(&format!("cob: the connection to the kernel failed: {error}\n"));
    process::exit_now(EXIT_IO)
}
