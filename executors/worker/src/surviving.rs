//! The way out of a session that outlives its server.
//!
//! A frame counts as sent once its first byte is out, as always. From then on it is kept, and written again to every
//! new socket, until the shared page says that it was recorded. What is kept is bounded: at the bound, code waits.
//!
//! **Invariant:** nothing is written to a socket before what the kernel behind it lacks. Who waits for the host to read
//! has the turn and nothing else; who waits for the host to record has nothing at all.

use std::os::fd::OwnedFd;
use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use cob_protocol::codec::{CodecError, encode};
use cob_protocol::frame::Frame;
use rustix::event::PollFlags;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::executor::Interpreter;
use crate::inbox::{Filled, Inbox};
use crate::link::Link;
use crate::message::Message;
use crate::outbox::{Outbox, Pushed, SendError, give_up};
use crate::output::Output;
use crate::process::{self, EXIT_QUIETLY};
use crate::retained::Retained;

/// What became of an attempt to send a frame without waiting.
enum Attempt {
    Sent,
    /// It will be sent: a part of it is out.
    Begun,
    /// The socket takes nothing.
    Blocked,
    /// As much is kept as may be.
    Full,
    /// There is another socket, or something else must be written to this one first.
    Behind,
    /// Nobody is at the other end: either another socket has come, or it is the end.
    Lost,
}

/// Whether a wait ends when a signal comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    UntilSignal,
    Endless,
}

impl Outbox {
    pub(crate) fn send_kept<I: Interpreter>(
        &self,
        interpreter: &I,
        output: &Output,
        mut frame: Frame,
        payloads: &[Bytes],
    ) -> Result<(), SendError<I::Interrupt>> {
        // The usual case first, without letting the interpreter go: that would hand it to another thread.
        if let Some(_held) = self.turn.try_take() {
            match self.attempt(output, &mut frame, payloads)? {
                Attempt::Sent => return Ok(()),
                Attempt::Begun => {
                    interpreter.unlocked(|| self.write(Patience::Endless));
                    return Ok(());
                }
                Attempt::Blocked | Attempt::Full | Attempt::Behind | Attempt::Lost => {}
            }
        }
        loop {
            // Before signals are looked at: one that comes later rings it.
            let heard = self.link.page().bell();
            interpreter.signals().map_err(SendError::Interrupted)?;
            if interpreter.unlocked(|| self.wait_and_send(output, &mut frame, payloads, heard))? {
                return Ok(());
            }
        }
    }

    /// Waits for what is in the way, or sends. Whether it was sent.
    fn wait_and_send(
        &self,
        output: &Output,
        frame: &mut Frame,
        payloads: &[Bytes],
        heard: u32,
    ) -> Result<bool, CodecError> {
        let held = self.turn.take();
        let mut watch = None;
        loop {
            let goes_on = match self.attempt(output, frame, payloads)? {
                Attempt::Sent => return Ok(true),
                Attempt::Begun => return Ok(self.write(Patience::Endless)),
                Attempt::Blocked => watch.get_or_insert_with(|| Watch::new(&self.link)).wait(&self.link),
                Attempt::Behind => {
                    watch = None;
                    self.write(Patience::UntilSignal)
                }
                Attempt::Lost => {
                    watch = None;
                    self.replace_socket(&mut self.retained(), Patience::UntilSignal)
                }
                Attempt::Full => {
                    drop(held);
                    self.link.wait_for_bell(heard);
                    return Ok(false);
                }
            };
            if !goes_on {
                return Ok(false);
            }
        }
    }

    fn attempt(&self, output: &Output, frame: &mut Frame, payloads: &[Bytes]) -> Result<Attempt, CodecError> {
        let mut retained = self.retained();
        if self.link.is_stale() || self.link.is_behind() {
            return Ok(Attempt::Behind);
        }
        retained.release(self.link.page().acknowledged());
        // Before the frame has a place: until it is sent, others may print.
        if !retained.has_room(payloads.iter().map(Bytes::len).sum()) {
            return Ok(Attempt::Full);
        }
        let head = self.compose(output, frame, payloads)?;
        let message = Message { head: &head, payloads };
        if !retained.has_room(message.bytes()) {
            return Ok(Attempt::Full);
        }
        let sent = match self.push(message, 0, SendFlags::DONTWAIT) {
            Pushed::Sent(count) => count,
            Pushed::Blocked => return Ok(Attempt::Blocked),
            Pushed::Lost => return Ok(Attempt::Lost),
        };
        let sequence = self.count();
        // Before anything is printed behind it: the next kernel waits for it then.
        self.link.page().set_sent(sequence);
        retained.push(sequence, head, payloads);
        retained.advance(sent);
        Ok(if retained.is_written() { Attempt::Sent } else { Attempt::Begun })
    }

    /// Gives a new kernel what the one before has not recorded. `false`: a signal came before the end.
    pub(crate) fn catch_up(&self) -> bool {
        let has_replacement = self.inbox().has_replacement();
        // Whoever has the turn sees to the rest, but a socket that is shut down must not be waited for.
        let held = if has_replacement { Some(self.turn.take()) } else { self.turn.try_take() };
        held.is_none() || self.write(Patience::UntilSignal)
    }

    /// Writes what the socket has not taken, to whichever socket there is then. Only with the turn, and without the
    /// interpreter. `false`: a signal came before the end.
    fn write(&self, patience: Patience) -> bool {
        let mut retained = self.retained();
        let mut watch = None;
        loop {
            if self.link.is_stale() || self.inbox().has_replacement() {
                watch = None;
                if !self.replace_socket(&mut retained, patience) {
                    return false;
                }
                continue;
            }
            let Some((message, part)) = retained.next() else {
                self.link.set_behind(false);
                // A socket may have come just now.
                if !self.inbox().has_replacement() {
                    return true;
                }
                self.link.set_behind(true);
                continue;
            };
            match self.push(message, part, SendFlags::DONTWAIT) {
                Pushed::Sent(count) => retained.advance(count),
                Pushed::Blocked => {
                    let waited = watch.get_or_insert_with(|| Watch::new(&self.link)).wait(&self.link);
                    if !waited && patience == Patience::UntilSignal {
                        return false;
                    }
                }
                Pushed::Lost => {
                    watch = None;
                    if !self.replace_socket(&mut retained, patience) {
                        return false;
                    }
                }
            }
        }
    }

    /// Waits for the new socket, and puts it in the place of the old one. `false`: a signal came.
    fn replace_socket(&self, retained: &mut Retained, patience: Patience) -> bool {
        loop {
            let mut inbox = self.inbox();
            match inbox.seek_replacement() {
                Filled::Replaced => {
                    self.put_in_place(&mut inbox, retained);
                    return true;
                }
                // Nobody holds the other end any more, not even for a server to come.
                Filled::End => process::exit_now(EXIT_QUIETLY),
                Filled::Some | Filled::Nothing => drop(inbox),
            }
            if !self.link.wait_for(PollFlags::IN) && patience == Patience::UntilSignal {
                return false;
            }
        }
    }

    fn put_in_place(&self, inbox: &mut Inbox, retained: &mut Retained) {
        let Some(replacement) = inbox.take_replacement() else { return };
        let introduction = encode(&inbox.introduction().into(), &[], 0, 0);
        // A frame of fixed size cannot be too large.
        retained.restart(introduction.unwrap_or_default(), self.link.page().acknowledged());
        self.link.replace(&replacement.socket, replacement.epoch).unwrap_or_else(|error| give_up(&error));
        drop(replacement);
        inbox.reserve.fill();
        self.link.set_behind(true);
    }

    fn retained(&self) -> MutexGuard<'_, Retained> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the socket can be written or something *new* comes in.
///
/// What lies in the socket unread must not end the wait, or it would be no wait: it is for the main thread, which may be
/// busy for hours. An edge-triggered watch tells of arrivals only, and a new socket is one.
struct Watch(Option<OwnedFd>);

impl Watch {
    fn new(link: &Link) -> Self {
        Self(Self::open(link).ok())
    }

    fn open(link: &Link) -> Result<OwnedFd, Errno> {
        let watch = epoll::create(CreateFlags::CLOEXEC)?;
        let events = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&watch, link.socket(), EventData::new_u64(0), events)?;
        Ok(watch)
    }

    /// Returns whether the wait came to its end; a signal cuts it short.
    fn wait(&self, link: &Link) -> bool {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        match &self.0 {
            Some(watch) => epoll::wait(watch, &mut events[..], None).is_ok(),
            // Code of the user has used up all descriptors. An end of the old socket is seen even so.
            None => link.wait_for(PollFlags::OUT | PollFlags::RDHUP),
        }
    }
}
