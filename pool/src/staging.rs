//! Looking into a pipe without taking anything out, and taking out what is recorded.
//!
//! A session that survives its kernel must not have bytes in the kernel's memory alone: they would be lost with it. So
//! they are read from a copy of the pipe's contents (`tee`), and leave the pipe only once they are recorded. They
//! leave it into a *receipt*, a pipe that outlives the kernel too, so that the next one can tell whether they had
//! left. The order of the steps, and what each leaves behind, is at [`Page::intend`].

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use cob_protocol::crash_point;
use cob_protocol::frame::StreamName;
use cob_protocol::limits::{OUTPUT_PIPE_BYTES, STREAM_EVENT_BYTES_MAX};
use cob_protocol::page::Page;
use rustix::io::{Errno, ioctl_fionread};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, tee};

use crate::scratch;

/// Where bytes go that leave an output pipe. Both of a worker's share it.
#[derive(Debug)]
pub(crate) struct Receipt {
    pub(crate) reader: OwnedFd,
    pub(crate) writer: OwnedFd,
}

impl Receipt {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { reader, writer })
    }

    /// Throws away what lies in it.
    fn empty(&self) -> io::Result<()> {
        let left = unread(self.reader.as_fd())?;
        with_copy(|copy| copy.skip(self.reader.as_fd(), left))
    }
}

/// What a look into a pipe brought.
#[derive(Debug)]
pub(crate) enum Peek {
    /// Bytes beyond those that were known, in order.
    New(Vec<Bytes>),
    /// There are none.
    Nothing,
    /// There are some, behind more known ones than can be looked past: some of those must be consumed first.
    OutOfReach,
}

/// Bytes that lie in a pipe.
pub(crate) fn unread(pipe: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(ioctl_fionread(pipe)?)
}

/// Looks past the `known` bytes at the beginning of what lies in `pipe`, at up to `wanted` more.
pub(crate) fn peek(pipe: BorrowedFd<'_>, known: u64, wanted: usize) -> io::Result<Peek> {
    if unread(pipe)? <= known {
        return Ok(Peek::Nothing);
    }
    with_copy(|copy| {
        let known = usize::try_from(known).map_err(io::Error::other)?;
        let flags = SpliceFlags::NONBLOCK;
        let count = tee(pipe, &copy.writer, known.saturating_add(wanted), flags)?;
        copy.skip(copy.reader.as_fd(), count.min(known) as u64)?;
        if count <= known {
            return Ok(Peek::OutOfReach);
        }
        let mut chunks = Vec::new();
        let mut left = count - known;
        while left > 0 {
            let chunk = scratch::with(|scratch| -> io::Result<Bytes> {
                let count = rustix::io::read(&copy.reader, &mut scratch[..left.min(STREAM_EVENT_BYTES_MAX)])?;
                Ok(Bytes::copy_from_slice(&scratch[..count]))
            })?;
            left -= chunk.len();
            chunks.push(chunk);
        }
        crash_point!("output_peeked");
        Ok(Peek::New(chunks))
    })
}

/// A step of the consumption of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is noted that some are about to be moved.
    Intend,
    /// They move into the receipt, and are counted.
    Move,
    /// The receipt is emptied.
    Empty,
    /// The note is taken back.
    Settle,
}

impl Step {
    /// In their order.
    pub(crate) const ALL: [Self; 4] = [Self::Intend, Self::Move, Self::Empty, Self::Settle];
}

/// One output pipe, and what is needed to take bytes out of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) stream: StreamName,
    pub(crate) pipe: BorrowedFd<'a>,
    pub(crate) receipt: &'a Receipt,
    pub(crate) page: Page<'a>,
}

impl Source<'_> {
    /// Takes `count` bytes out, or as many as there are; says how many.
    pub(crate) fn consume(self, count: u64) -> io::Result<u64> {
        let mut total = 0;
        while total < count {
            let mut moved = 0;
            crash_point!("output_committed");
            for step in Step::ALL {
                moved += self.take(step, count - total)?;
                match step {
                    Step::Intend => crash_point!("output_intended"),
                    Step::Move => crash_point!("output_moved"),
                    Step::Empty => crash_point!("output_emptied"),
                    Step::Settle => crash_point!("output_settled"),
                }
            }
            if moved == 0 {
                break;
            }
            total += moved;
        }
        Ok(total)
    }

    /// Does one step; says how many bytes it moved.
    pub(crate) fn take(self, step: Step, count: u64) -> io::Result<u64> {
        match step {
            Step::Intend => self.page.intend(self.stream),
            Step::Move => {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
                let moved = self.page.consume(self.stream, || {
                    splice(self.pipe, None, &self.receipt.writer, None, count, flags)
                });
                return match moved {
                    Ok(moved) => Ok(moved as u64),
                    Err(Errno::AGAIN) => Ok(0),
                    Err(error) => Err(error.into()),
                };
            }
            Step::Empty => self.receipt.empty()?,
            Step::Settle => self.page.settle(self.stream),
        }
        Ok(0)
    }

    /// How many bytes were consumed by a kernel that may have been killed between two steps; finishes them.
    pub(crate) fn recover(self) -> io::Result<u64> {
        let consumed = self.page.recover(self.stream, unread(self.receipt.reader.as_fd())?);
        Ok(consumed)
    }

    /// After both streams were recovered.
    pub(crate) fn recovered(self) -> io::Result<()> {
        self.take(Step::Empty, 0)?;
        self.take(Step::Settle, 0)?;
        Ok(())
    }
}

/// The pipe into which contents are copied: one for all workers of a thread. It is empty between two looks.
struct Copy {
    reader: OwnedFd,
    writer: OwnedFd,
    /// `/dev/null`, where there is one.
    null: Option<OwnedFd>,
}

thread_local! {
    static COPY: RefCell<Option<Copy>> = const { RefCell::new(None) };
}

/// Lends the pipe. After a failure it may hold anything, and the next one gets another.
fn with_copy<T>(look: impl FnOnce(&Copy) -> io::Result<T>) -> io::Result<T> {
    COPY.with(|place| {
        let copy = match place.take() {
            Some(copy) => copy,
            None => Copy::new()?,
        };
        let seen = look(&copy)?;
        place.replace(Some(copy));
        Ok(seen)
    })
}

impl Copy {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // As much as an output pipe holds. With less, more has to be consumed before more can be looked at.
        let _ = fcntl_setpipe_size(&writer, OUTPUT_PIPE_BYTES);
        let null = OpenOptions::new().write(true).open("/dev/null").map(OwnedFd::from).ok();
        Ok(Self { reader, writer, null })
    }

    /// Throws away `count` bytes that lie in `pipe`.
    fn skip(&self, pipe: BorrowedFd<'_>, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let wanted = usize::try_from(count).unwrap_or(usize::MAX);
            let skipped = match &self.null {
                Some(null) => splice(pipe, None, null, None, wanted, SpliceFlags::NONBLOCK)?,
                None => scratch::with(|scratch| {
                    let wanted = wanted.min(scratch.len());
                    rustix::io::read(pipe, &mut scratch[..wanted])
                })?,
            };
            if skipped == 0 {
                break;
            }
            count -= skipped as u64;
        }
        Ok(())
    }
}

/// As on a host whose user has used up the memory for pipes.
#[cfg(test)]
pub(crate) fn with_small_copy(act: impl FnOnce()) {
    let copy = Copy::new().unwrap();
    fcntl_setpipe_size(&copy.writer, 4 * 4096).unwrap();
    COPY.replace(Some(copy));
    act();
    COPY.take();
}
