//! The two output pipes: writing to them, and how much was written.
//!
//! `write` of the language's streams is one `write(2)`, straight to descriptor 1 or 2. Nothing waits in a
//! buffer: order among the language, C code and child processes is that of the pipe, and what was written
//! before a crash is kept.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use cob_protocol::frame::{Position, StreamName};
use cob_protocol::page::Page;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ReadWriteFlags, ioctl_fionread, pwritev2, write};

use crate::descriptors::standard;
use crate::executor::Interpreter;
use crate::outbox::SendError;
use crate::process;
use crate::turn::Turn;

/// "At the file position": what turns `pwritev2` into a `writev` with flags.
const NO_OFFSET: u64 = u64::MAX;

/// No stream was written since the last frame that has a place.
const NEITHER: u8 = 0;

/// The output side of a worker.
#[derive(Debug)]
pub struct Output {
    page: Page<'static>,
    stdout: Pipe,
    stderr: Pipe,
    /// Which stream was written last.
    active: AtomicU8,
}

#[derive(Debug)]
struct Pipe {
    /// Asked for its fill level; stays on the pipe when user code redirects the descriptor.
    own: OwnedFd,
    turn: Turn,
}

impl Output {
    /// Counts with `page`; `stdout` and `stderr` are private handles on the two pipes.
    #[must_use]
    pub fn new(page: Page<'static>, stdout: OwnedFd, stderr: OwnedFd) -> Self {
        Self {
            page,
            stdout: Pipe { own: stdout, turn: Turn::default() },
            stderr: Pipe { own: stderr, turn: Turn::default() },
            active: AtomicU8::new(NEITHER),
        }
    }

    /// The private handles on the two pipes.
    pub(crate) fn own(&self) -> [BorrowedFd<'_>; 2] {
        [&self.stdout, &self.stderr].map(|pipe| pipe.own.as_fd())
    }

    /// In a forked process: nothing was written. `false`: a thread that is not here has it locked.
    pub(crate) fn renew(&self) -> bool {
        self.active.store(NEITHER, Ordering::Relaxed);
        self.stdout.turn.renew() && self.stderr.turn.renew()
    }

    /// How much was written to both pipes; a frame with this place is about to be sent.
    #[must_use]
    pub fn position(&self) -> Position {
        self.active.store(NEITHER, Ordering::Relaxed);
        Position {
            stdout: self.page.written(StreamName::Stdout, || self.stdout.unread()),
            stderr: self.page.written(StreamName::Stderr, || self.stderr.unread()),
        }
    }

    /// Whether a mark must say that `stream` is written now: the other one was, or none since the last frame that
    /// has a place and `stream` is not the one that leads then.
    #[must_use]
    pub fn needs_mark(&self, stream: StreamName) -> bool {
        match self.active.load(Ordering::Relaxed) {
            NEITHER => stream == StreamName::Stderr,
            active => active != code(stream),
        }
    }

    /// `stream` is written now.
    pub fn set_active(&self, stream: StreamName) {
        self.active.store(code(stream), Ordering::Relaxed);
    }

    /// Writes all of `bytes` to descriptor 1 or 2.
    ///
    /// # Errors
    /// [`SendError::Interrupted`] with a part written, as every write of an interpreter; [`SendError::Io`] when
    /// user code closed or replaced the descriptor. If the host is gone, the process ends here.
    pub fn write<I: Interpreter>(
        &self,
        interpreter: &I,
        stream: StreamName,
        mut bytes: &[u8],
    ) -> Result<(), SendError<I::Interrupt>> {
        let (fd, turn) = match stream {
            StreamName::Stdout => (standard(1), &self.stdout.turn),
            StreamName::Stderr => (standard(2), &self.stderr.turn),
        };
        // A forked child may have inherited a turn that nobody will give back.
        let alone = process::is_child();
        let mut held = if alone { None } else { turn.try_take() };
        if held.is_some() {
            bytes = bytes.get(try_write(fd, bytes)..).unwrap_or_default();
        }
        while !bytes.is_empty() {
            // The turn is kept from one write to the next, so that no other thread's text comes in between; it
            // is given back only when a signal asks for attention.
            let kept = held.take();
            let written = interpreter.unlocked(|| {
                let _held = kept.or_else(|| (!alone).then(|| turn.take()));
                write_once(fd, bytes)
            });
            match written {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(SendError::Io(error.into())),
            }
            if !bytes.is_empty() {
                interpreter.signals().map_err(SendError::Interrupted)?;
            }
        }
        Ok(())
    }
}

impl Pipe {
    fn unread(&self) -> u64 {
        ioctl_fionread(self.own.as_fd()).unwrap_or(0)
    }
}

fn code(stream: StreamName) -> u8 {
    match stream {
        StreamName::Stdout => 1,
        StreamName::Stderr => 2,
    }
}

/// Writes what goes in at once, although the descriptor blocks (for pipes: Linux 6.4). Errors are left to the
/// write that may block.
fn try_write(fd: BorrowedFd<'_>, bytes: &[u8]) -> usize {
    pwritev2(fd, &[IoSlice::new(bytes)], NO_OFFSET, ReadWriteFlags::NOWAIT).unwrap_or(0)
}

/// One write. A short one means that a signal came: the caller must look at it before it goes on.
fn write_once(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    match write(fd, bytes) {
        // Somebody made the descriptor non-blocking, as asyncio does to pipes it is given.
        Err(Errno::AGAIN) => poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None).map(|_| 0),
        result => result,
    }
}

/// A write outside of any interpreter, for the last words of a process. What cannot be written is lost.
pub fn write_last_words(text: &str) {
    write_plainly(StreamName::Stderr, text);
}

/// A write of a process that is no worker. What cannot be written is lost.
pub fn write_plainly(stream: StreamName, text: &str) {
    let fd = match stream {
        StreamName::Stdout => standard(1),
        StreamName::Stderr => standard(2),
    };
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match write(fd, rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
