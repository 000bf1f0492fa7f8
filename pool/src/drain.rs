//! One output pipe of a worker: bytes to chunks.
//!
//! The first bytes after silence are given [`FIRST_LOOK_MS`] to become a whole line. While a program goes on to
//! print, the pipe is emptied and then left alone for up to [`STREAM_COALESCE_MS`]: as long as the program, at its
//! present rate, does not fill it. So neither side wakes for every line, and no writer has to wait for a reader
//! that naps. A frame never waits for any of this: it says how far the pipe has to be read, and that is read at
//! once.
//!
//! The pipes of a session that survives its kernel are *staged*: bytes are given out from a copy, and stay in the pipe
//! until [`Drain::record`] says that they are recorded. The rest is the same; only the system's word that there is
//! something to read must be doubted, since it is so as long as anything waits to be recorded.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cob_protocol::frame::StreamName;
use cob_protocol::limits::{
    OUTPUT_PIPE_BYTES, STREAM_COALESCE_MS, STREAM_EVENT_BYTES_MAX, SURVIVING_PIPE_BYTES,
};
use cob_protocol::page::Page;
use rustix::pipe::fcntl_setpipe_size;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::readiness::watch;
use crate::scratch;
use crate::staging::{Peek, Receipt, Source, peek, unread};

/// Bytes taken in one read.
const READ_BYTES: usize = STREAM_EVENT_BYTES_MAX;

/// Bytes looked at in one look into a staged pipe: each look passes over what is known already.
const PEEK_BYTES: usize = 4 * READ_BYTES;

/// Between the first byte after silence and the first look.
const FIRST_LOOK_MS: u64 = 1;

/// How the pipe is watched.
#[derive(Debug)]
enum Watch {
    /// Readiness wakes us.
    Watched(AsyncFd<OwnedFd>),
    /// Not registered: a write does not wake us. Looked at again at the given time.
    Napping(OwnedFd, Instant),
    /// Every writer has closed, and everything was seen. What is to be recorded may still lie in it.
    Ended(Option<OwnedFd>),
}

/// What a staged pipe needs besides.
#[derive(Debug)]
struct Staging {
    receipt: Arc<Receipt>,
    /// Bytes that have left the pipe since the worker started.
    consumed: u64,
    /// There is more than can be looked at before something is recorded.
    is_starved: bool,
    /// Bytes have left the pipe since it was last looked at. A writer that waited for room goes on then, and when it
    /// has to wait again in the middle of the same write, the system tells nobody of what it wrote, unless the pipe
    /// was empty in between.
    is_to_be_looked_at: bool,
    /// The pipe was widened, and is to be made narrow again as soon as what lies in it allows that.
    is_wide: bool,
}

/// The reading end of one pipe.
#[derive(Debug)]
pub(crate) struct Drain {
    stream: StreamName,
    watch: Watch,
    chunks: VecDeque<Bytes>,
    /// Bytes given out since the worker started.
    emitted: u64,
    /// Bytes seen since then.
    seen: u64,
    staging: Option<Staging>,
    /// Until then the program counts as printing.
    active_until: Instant,
    /// Bytes taken since the present measurement of the rate began.
    measured_bytes: usize,
    measured_since: Instant,
}

impl Drain {
    /// `fd` must be non-blocking.
    pub(crate) fn new(stream: StreamName, fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            stream,
            watch: Watch::Watched(watch(fd)?),
            chunks: VecDeque::new(),
            emitted: 0,
            seen: 0,
            staging: None,
            active_until: Instant::now(),
            measured_bytes: 0,
            measured_since: Instant::now(),
        })
    }

    /// One whose bytes stay until they are recorded, of which `consumed` have left the pipe. One that was taken over is
    /// widened: its writer may be blocked, and can tell nobody what it has to tell before it is not.
    pub(crate) fn staged(
        stream: StreamName,
        fd: OwnedFd,
        receipt: Arc<Receipt>,
        consumed: u64,
        is_wide: bool,
    ) -> io::Result<Self> {
        let capacity = if is_wide { OUTPUT_PIPE_BYTES } else { SURVIVING_PIPE_BYTES };
        // Without it there is more to wait for.
        let _ = fcntl_setpipe_size(&fd, capacity);
        let staging =
            Some(Staging { receipt, consumed, is_starved: false, is_to_be_looked_at: false, is_wide });
        Ok(Self { emitted: consumed, seen: consumed, staging, ..Self::new(stream, fd)? })
    }

    pub(crate) fn stream(&self) -> StreamName {
        self.stream
    }

    /// The pipe; nothing when it was closed.
    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        match &self.watch {
            Watch::Watched(fd) => Some(fd.get_ref().as_fd()),
            Watch::Napping(fd, _) => Some(fd.as_fd()),
            Watch::Ended(fd) => fd.as_ref().map(AsFd::as_fd),
        }
    }

    /// Waits until a look is due; for ever once the pipe has ended. Cancel-safe.
    pub(crate) async fn due(&mut self) -> io::Result<()> {
        if self.is_starved() {
            return std::future::pending().await;
        }
        loop {
            if self.has_unannounced()? {
                return Ok(());
            }
            match &self.watch {
                Watch::Watched(fd) => {
                    let mut ready = fd.readable().await?;
                    if self.staging.is_some() && self.unseen(fd.get_ref().as_fd())? == 0 {
                        // What was there was seen. The end of a pipe is not taken back.
                        if ready.ready().is_read_closed() {
                            drop(ready);
                            self.end();
                        } else {
                            ready.clear_ready();
                        }
                        continue;
                    }
                    drop(ready);
                    let now = Instant::now();
                    if now < self.active_until {
                        return Ok(());
                    }
                    self.measured_bytes = 0;
                    self.measured_since = now;
                    self.nap(now + Duration::from_millis(FIRST_LOOK_MS));
                }
                Watch::Napping(fd, until) => {
                    tokio::time::sleep_until(*until).await;
                    let is_new = self.staging.is_none() || self.unseen(fd.as_fd())? > 0;
                    self.wake()?;
                    if is_new {
                        return Ok(());
                    }
                }
                Watch::Ended(_) => std::future::pending().await,
            }
        }
    }

    /// Looks once and decides how to wait for more.
    pub(crate) fn take(&mut self, page: Page<'_>) -> io::Result<()> {
        let wanted = if self.staging.is_some() { PEEK_BYTES } else { READ_BYTES };
        let count = self.read(page, wanted)?;
        let now = Instant::now();
        self.measured_bytes += count;
        if count > 0 {
            self.active_until = now + 2 * Duration::from_millis(STREAM_COALESCE_MS);
        }
        // A full read leaves more behind; it is taken first.
        if (1..wanted).contains(&count)
            && let Some(pause) = self.pause(now)
        {
            self.measured_bytes = 0;
            self.measured_since = now;
            self.nap(now + pause);
        }
        Ok(())
    }

    /// How long the pipe may be left alone, if it is worth a nap: until it is half full at the present rate.
    fn pause(&self, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.measured_since).as_secs_f64();
        let rate = self.measured_bytes as f64 / elapsed.max(1e-4);
        let capacity = if self.staging.is_some() { SURVIVING_PIPE_BYTES } else { OUTPUT_PIPE_BYTES };
        let milliseconds = (capacity / 2) as f64 / rate * 1e3;
        let milliseconds = milliseconds.min(STREAM_COALESCE_MS as f64) as u64;
        (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
    }

    /// Takes up to `bytes_max` that lie in the pipe now; 0 when there is nothing.
    pub(crate) fn read(&mut self, page: Page<'_>, bytes_max: usize) -> io::Result<usize> {
        if self.staging.is_some() {
            return self.peek(bytes_max);
        }
        let (fd, watched) = match &self.watch {
            Watch::Watched(fd) => (fd.get_ref(), Some(fd)),
            Watch::Napping(fd, _) => (fd, None),
            Watch::Ended(_) => return Ok(0),
        };
        let wanted = bytes_max.min(READ_BYTES);
        let stream = self.stream;
        let result = scratch::with(|scratch| -> io::Result<Bytes> {
            let scratch = &mut scratch[..wanted];
            let mut look =
                || page.consume(stream, || rustix::io::read(fd, &mut *scratch)).map_err(io::Error::from);
            let count = match (look(), watched) {
                // Readiness that was used up is taken back, by a second look that the event loop knows of.
                (Err(error), Some(fd)) if error.kind() == io::ErrorKind::WouldBlock => {
                    fd.try_io(Interest::READABLE, |_| look())
                }
                (result, _) => result,
            }?;
            Ok(Bytes::copy_from_slice(&scratch[..count]))
        });
        match result {
            Ok(bytes) if bytes.is_empty() => {
                self.watch = Watch::Ended(None);
                Ok(0)
            }
            Ok(bytes) => {
                let count = bytes.len();
                self.seen += count as u64;
                self.chunks.push_back(bytes);
                Ok(count)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Looks at up to `bytes_max` that were not seen before, and leaves them where they are.
    fn peek(&mut self, bytes_max: usize) -> io::Result<usize> {
        let (Some(pipe), Some(staging)) = (self.pipe(), &self.staging) else { return Ok(0) };
        let (known, before) = (self.seen - staging.consumed, self.seen);
        let is_starved = match peek(pipe, known, bytes_max.min(PEEK_BYTES))? {
            Peek::Nothing => false,
            Peek::OutOfReach => true,
            Peek::New(chunks) => {
                self.seen += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                self.chunks.extend(chunks);
                false
            }
        };
        if let Some(staging) = &mut self.staging {
            staging.is_starved = is_starved;
        }
        Ok(usize::try_from(self.seen - before).unwrap_or(usize::MAX))
    }

    /// Bytes in a staged `pipe` that were not seen yet.
    fn unseen(&self, pipe: BorrowedFd<'_>) -> io::Result<u64> {
        let known = self.staging.as_ref().map_or(0, |staging| self.seen - staging.consumed);
        Ok(unread(pipe)?.saturating_sub(known))
    }

    /// Whether there is something new in a pipe that bytes have left: of that the system may have told nobody.
    ///
    /// What was seen is recorded sooner or later, and then looked at again, so in the end the pipe is either empty,
    /// which the system does tell of, or something new was found in it.
    fn has_unannounced(&mut self) -> io::Result<bool> {
        let Some(staging) = &mut self.staging else { return Ok(false) };
        if !std::mem::take(&mut staging.is_to_be_looked_at) {
            return Ok(false);
        }
        let Some(pipe) = self.pipe() else { return Ok(false) };
        Ok(self.unseen(pipe)? > 0)
    }

    /// Whether nothing more can be seen before something is recorded, though it is there.
    pub(crate) fn is_starved(&self) -> bool {
        self.staging.as_ref().is_some_and(|staging| staging.is_starved)
    }

    /// The bytes of the stream up to `total` are recorded: they may leave the pipe. Never more than were given out.
    pub(crate) fn record(&mut self, page: Page<'_>, total: u64) -> io::Result<()> {
        let (Some(pipe), Some(staging)) = (self.pipe(), &self.staging) else { return Ok(()) };
        let count = total.min(self.emitted).saturating_sub(staging.consumed);
        if count == 0 {
            return Ok(());
        }
        let source = Source { stream: self.stream, pipe, receipt: &staging.receipt, page };
        let consumed = source.consume(count)?;
        if let Some(staging) = &mut self.staging {
            staging.consumed += consumed;
            staging.is_starved = false;
            staging.is_to_be_looked_at = true;
        }
        self.narrow();
        if consumed < count {
            // Only somebody else who reads the pipe can have them.
            return Err(io::Error::other("bytes of an output pipe are gone that were seen in it"));
        }
        Ok(())
    }

    /// Makes a pipe that was widened narrow again, if what lies in it fits.
    fn narrow(&mut self) {
        let Some(pipe) = self.pipe() else { return };
        let is_wide = self.staging.as_ref().is_some_and(|staging| staging.is_wide);
        if is_wide
            && fcntl_setpipe_size(pipe, SURVIVING_PIPE_BYTES).is_ok()
            && let Some(staging) = &mut self.staging
        {
            staging.is_wide = false;
        }
    }

    /// Bytes given out so far.
    pub(crate) fn emitted(&self) -> u64 {
        self.emitted
    }

    /// The next bytes that were taken from the pipe, at most `bytes_max` of them.
    pub(crate) fn pop(&mut self, bytes_max: u64) -> Option<Bytes> {
        let front = self.chunks.front_mut()?;
        let count = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(front.len());
        let bytes = if count == front.len() { self.chunks.pop_front()? } else { front.split_to(count) };
        self.emitted += count as u64;
        Some(bytes).filter(|bytes| !bytes.is_empty())
    }

    /// Whether bytes were taken and not given out.
    pub(crate) fn is_holding(&self) -> bool {
        !self.chunks.is_empty()
    }

    fn wake(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.watch, Watch::Ended(None)) {
            Watch::Napping(fd, _) => self.watch = Watch::Watched(watch(fd)?),
            other => self.watch = other,
        }
        Ok(())
    }

    fn end(&mut self) {
        self.watch = match std::mem::replace(&mut self.watch, Watch::Ended(None)) {
            Watch::Watched(fd) => Watch::Ended(Some(fd.into_inner())),
            other => other,
        };
    }

    fn nap(&mut self, until: Instant) {
        self.watch = match std::mem::replace(&mut self.watch, Watch::Ended(None)) {
            Watch::Watched(fd) => Watch::Napping(fd.into_inner(), until),
            other => other,
        };
    }
}
