//! How a new kernel gets hold of a worker that goes on: a new frame socket comes over the old one.
//!
//! Nobody writes to the new socket before it stands in the place of the old one and was introduced, and only who has
//! the turn to write may put it there. Whoever finds it first, a reader or a writer, shuts the old one down, so that
//! nothing can be sent there any more. Who still waits for the old one to be readable wakes when the kernel closes or
//! shuts down its end of it, which it does once it was told `attached`.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use cob_protocol::frame::Attached;
use cob_protocol::page::epoch_of_byte;
use rustix::cmsg_space;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, Shutdown, SocketType, recvmsg,
    shutdown,
};

use crate::beside::Beside;
use crate::descriptors::lift;
use crate::inbox::{Filled, Inbox};

/// Room for more descriptors than ever come: those that do not fit are closed by the system.
const DESCRIPTORS: usize = 4;

/// A socket that shall take the place of the old one.
#[derive(Debug)]
pub(crate) struct Replacement {
    pub(crate) socket: OwnedFd,
    pub(crate) epoch: u64,
}

/// A descriptor that is given up so that another one can come in when code of the user has used up all.
#[derive(Debug)]
pub(crate) struct Reserve(Option<OwnedFd>);

impl Reserve {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn fill(&mut self) {
        if self.0.is_none() {
            let fd = eventfd(0, EventfdFlags::CLOEXEC).ok();
            // Out of the user's way, if there is room for two.
            self.0 = fd.map(|fd| lift(&fd).unwrap_or(fd));
        }
    }

    pub(crate) fn is(&self, number: RawFd) -> bool {
        self.0.as_ref().is_some_and(|fd| fd.as_raw_fd() == number)
    }

    fn give_up(&mut self) {
        self.0 = None;
    }
}

impl Inbox {
    /// Reads from a socket over which its successor may come.
    pub(crate) fn read_or_replace(&mut self) -> Result<Filled, Errno> {
        if self.replacement.is_some() {
            return Ok(Filled::Replaced);
        }
        if self.link.is_stale() {
            self.reserve.give_up();
        }
        match receive(self.link.socket(), &mut self.scratch, RecvFlags::DONTWAIT, &mut self.beside) {
            Ok((0, None)) => Ok(Filled::End),
            Ok((count, None)) => {
                if !self.is_discarding {
                    self.decoder.push(self.scratch.get(..count).unwrap_or_default());
                }
                Ok(Filled::Some)
            }
            Ok((count, Some(socket))) => {
                self.replace(socket, count);
                Ok(Filled::Replaced)
            }
            Err(Errno::AGAIN) => Ok(Filled::Nothing),
            Err(Errno::INTR) => Err(Errno::INTR),
            Err(_) => Ok(Filled::End),
        }
    }

    /// Reads until the successor comes, and throws away what comes before it.
    pub(crate) fn seek_replacement(&mut self) -> Filled {
        // From here on the rest of a frame would not find its beginning.
        self.is_discarding = true;
        loop {
            match self.read_or_replace() {
                Ok(Filled::Some) | Err(_) => {}
                Ok(filled) => return filled,
            }
        }
    }

    /// `socket` came beside the last of the bytes just read. A kernel may have died after it sent one, and another may
    /// have sent the next: the last one counts.
    fn replace(&mut self, mut socket: OwnedFd, count: usize) {
        let byte =
            |scratch: &[u8], count: usize| count.checked_sub(1).and_then(|at| scratch.get(at).copied());
        let mut last = byte(&self.scratch, count);
        if !self.is_greeted {
            self.keep_greeting(count);
        }
        let mut is_shut = false;
        loop {
            match receive(self.link.socket(), &mut self.scratch, RecvFlags::DONTWAIT, &mut self.beside) {
                Ok((count, Some(next))) => (socket, last) = (next, byte(&self.scratch, count)),
                Ok((count, None)) if count > 0 => {}
                Err(Errno::INTR) => {}
                _ if is_shut => break,
                // Nothing can be sent here any more: what is found now is all there ever will be.
                _ => {
                    let _ = shutdown(self.link.socket(), Shutdown::Both);
                    is_shut = true;
                }
            }
        }
        let epoch = epoch_of_byte(last.unwrap_or_default(), self.link.epoch(), self.link.page().epoch());
        self.decoder.reset();
        // The kernel that waited for what was to come of them is gone.
        self.beside.clear();
        self.link.set_behind(true);
        self.replacement = Some(Replacement { socket, epoch });
    }

    /// The kernel died right after its greeting: the next one takes the worker for greeted, so it must not be lost.
    fn keep_greeting(&mut self, count: usize) {
        self.decoder.push(self.scratch.get(..count.saturating_sub(1)).unwrap_or_default());
        if let Ok(Some(greeting)) = self.next_arrived() {
            // An empty queue has room for any frame.
            let _ = self.put_back(greeting);
        }
    }

    pub(crate) fn has_replacement(&self) -> bool {
        self.replacement.is_some()
    }

    pub(crate) fn take_replacement(&mut self) -> Option<Replacement> {
        self.is_discarding = false;
        self.replacement.take()
    }

    /// What a new kernel must know first.
    pub(crate) fn introduction(&self) -> Attached {
        Attached { received: self.link.received(), execution: self.execution, call: self.awaited }
    }

    /// Whether the other end is closed, and nothing lies in between.
    pub(crate) fn is_at_end(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = rustix::net::recv(self.link.socket(), &mut byte[..], flags);
        self.replacement.is_none() && matches!(peeked, Ok((0, _)))
    }
}

/// One read, and the socket that came with it to take the place of this one. Any other descriptor belongs to a frame.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: RecvFlags,
    beside: &mut Beside,
) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)?;
    let mut found = None;
    for part in ancillary.drain() {
        let RecvAncillaryMessage::ScmRights(descriptors) = part else { continue };
        for descriptor in descriptors {
            // Out of the user's way, if there is room.
            let descriptor = lift(&descriptor).unwrap_or(descriptor);
            if is_stream_socket(&descriptor) { found = Some(descriptor) } else { beside.keep(descriptor) }
        }
    }
    Ok((message.bytes, found))
}

fn is_stream_socket(fd: &OwnedFd) -> bool {
    socket_type(fd).is_ok_and(|kind| kind == SocketType::STREAM)
        && socket_domain(fd).is_ok_and(|domain| domain == AddressFamily::UNIX)
}
