//! The way out: one frame after the other onto the socket, from whichever thread of the user comes.
//!
//! **Invariant:** once the first byte of a frame is out, the frame is finished, whatever signals come; before
//! that an interrupt takes it back. Sequence numbers and positions are taken in the order of the socket.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cob_protocol::codec::{CodecError, encode};
use cob_protocol::frame::{
    Call, ClearOutput, Comm, Display, Done, Failure, Frame, Mark, ResultValue, Stream, UpdateDisplay,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use thiserror::Error;

use crate::executor::Interpreter;
use crate::output::{Output, write_last_words};
use crate::process::{self, EXIT_IO, EXIT_QUIETLY};
use crate::turn::Turn;

/// Pieces handed to the system at once.
const PIECES: usize = 64;

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
    socket: Arc<OwnedFd>,
    turn: Turn,
    sequence: AtomicU64,
    received: AtomicU64,
}

impl Outbox {
    /// Writes to `socket`.
    #[must_use]
    pub fn new(socket: Arc<OwnedFd>) -> Self {
        Self { socket, turn: Turn::default(), sequence: AtomicU64::new(0), received: AtomicU64::new(0) }
    }

    /// Remembers the number of a frame that came in; every frame out acknowledges it.
    pub fn received(&self, sequence: u64) {
        self.received.store(sequence, Ordering::Relaxed);
    }

    /// Sends a frame, with its place among the output. If the host is gone, the process ends here.
    ///
    /// # Errors
    /// [`SendError::Interrupted`] before anything was sent; [`SendError::Codec`] when the frame is too large.
    pub fn send<I: Interpreter>(
        &self,
        interpreter: &I,
        output: &Output,
        mut frame: Frame,
        payloads: &[Bytes],
    ) -> Result<(), SendError<I::Interrupt>> {
        if process::is_child() {
            return Ok(());
        }
        // The usual case first, without letting the interpreter go: that would hand it to another thread.
        if let Some(held) = self.turn.try_take() {
            let message = self.compose(output, &mut frame, payloads)?;
            let sent = self.push(&message, 0, SendFlags::DONTWAIT);
            if sent > 0 {
                self.count();
                if sent < message.bytes() {
                    interpreter.unlocked(|| self.finish(&message, sent));
                }
                return Ok(());
            }
            drop(held);
        }
        loop {
            let sent = interpreter.unlocked(|| {
                let _held = self.turn.take();
                if !self.wait_writable() {
                    return Ok::<_, CodecError>(false);
                }
                let message = self.compose(output, &mut frame, payloads)?;
                self.count();
                self.finish(&message, 0);
                Ok(true)
            })?;
            if sent {
                return Ok(());
            }
            interpreter.signals().map_err(SendError::Interrupted)?;
        }
    }

    fn compose<'a>(
        &self,
        output: &Output,
        frame: &mut Frame,
        payloads: &'a [Bytes],
    ) -> Result<Message<'a>, CodecError> {
        place(frame, output);
        let sequence = self.sequence.load(Ordering::Relaxed) + 1;
        let head = encode(frame, payloads, sequence, self.received.load(Ordering::Relaxed))?;
        Ok(Message { head, payloads })
    }

    fn count(&self) {
        self.sequence.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends the rest of a message, however long the host takes.
    fn finish(&self, message: &Message<'_>, mut sent: usize) {
        while sent < message.bytes() {
            match self.push(message, sent, SendFlags::empty()) {
                0 => drop(self.wait_writable()),
                count => sent += count,
            }
        }
    }

    /// One attempt; 0 means that it would block or that a signal came.
    fn push(&self, message: &Message<'_>, from: usize, flags: SendFlags) -> usize {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let count = message.pieces(from, &mut pieces);
        let mut nothing = SendAncillaryBuffer::default();
        match sendmsg(self.socket(), &pieces[..count], &mut nothing, flags | SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => process::exit_now(EXIT_QUIETLY),
            // User code closed the socket (`os.closerange`), say: nobody will ever hear of anything again.
            Err(error) => {
                write_last_words(&format!("cob: the connection to the kernel failed: {error}\n"));
                process::exit_now(EXIT_IO)
            }
        }
    }

    /// Returns whether the wait came to its end; a signal cuts it short.
    fn wait_writable(&self) -> bool {
        poll(&mut [PollFd::from_borrowed_fd(self.socket(), PollFlags::OUT)], None).is_ok()
    }

    fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A frame in wire form.
struct Message<'a> {
    head: Bytes,
    payloads: &'a [Bytes],
}

impl Message<'_> {
    fn bytes(&self) -> usize {
        self.head.len() + self.payloads.iter().map(Bytes::len).sum::<usize>()
    }

    /// Fills `pieces` with what follows the first `skip` bytes; returns how many there are.
    fn pieces<'s>(&'s self, mut skip: usize, pieces: &mut [IoSlice<'s>; PIECES]) -> usize {
        let mut count = 0;
        for part in std::iter::once(&self.head).chain(self.payloads) {
            match part.get(skip..) {
                Some(rest) if !rest.is_empty() && count < PIECES => {
                    pieces[count] = IoSlice::new(rest);
                    count += 1;
                    skip = 0;
                }
                _ => skip = skip.saturating_sub(part.len()),
            }
        }
        count
    }
}

/// Writes into `frame` where it stands among the output, if it is of a kind that has a place.
fn place(frame: &mut Frame, output: &Output) {
    match frame {
        Frame::Comm(Comm { at, .. })
        | Frame::Call(Call { at, .. })
        | Frame::Mark(Mark { at, .. })
        | Frame::Stream(Stream { at, .. })
        | Frame::Display(Display { at, .. })
        | Frame::UpdateDisplay(UpdateDisplay(Display { at, .. }))
        | Frame::ClearOutput(ClearOutput { at, .. })
        | Frame::Error(Failure { at, .. })
        | Frame::Result(ResultValue { display: Display { at, .. }, .. })
        | Frame::Done(Done { at, .. }) => *at = output.position(),
        Frame::Hello(_)
        | Frame::Ready(_)
        | Frame::Execute(_)
        | Frame::Complete(_)
        | Frame::Inspect(_)
        | Frame::IsComplete(_)
        | Frame::Answer(_)
        | Frame::Shutdown(_)
        | Frame::Ping(_)
        | Frame::Pong(_)
        | Frame::Parked(_)
        | Frame::Log(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(message: &Message<'_>, skip: usize) -> Vec<u8> {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let count = message.pieces(skip, &mut pieces);
        pieces[..count].iter().flat_map(|piece| piece.to_vec()).collect()
    }

    #[test]
    fn pieces_continue_anywhere_in_a_message() {
        let payloads = [Bytes::from("cd"), Bytes::new(), Bytes::from("efg")];
        let message = Message { head: Bytes::from("ab"), payloads: &payloads };
        for skip in 0..7 {
            assert_eq!(joined(&message, skip), b"abcdefg"[skip..].to_vec(), "from {skip}");
        }
    }

    #[test]
    fn many_payloads_go_out_in_several_turns() {
        let payloads = vec![Bytes::from("x"); 3 * PIECES];
        let message = Message { head: Bytes::from("h"), payloads: &payloads };
        assert_eq!(joined(&message, 0).len(), PIECES);
        assert_eq!(joined(&message, PIECES).len(), PIECES);
        assert_eq!(joined(&message, message.bytes() - 1).len(), 1);
    }
}
