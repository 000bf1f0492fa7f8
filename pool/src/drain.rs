//! One output pipe of a worker: bytes to chunks.
//!
//! The first bytes after silence are given [`FIRST_LOOK_MS`] to become a whole line. While a program goes on to
//! print, the pipe is emptied and then left alone for up to [`STREAM_COALESCE_MS`]: as long as the program, at its
//! present rate, does not fill it. So neither side wakes for every line, and no writer has to wait for a reader
//! that naps. A frame never waits for any of this: it says how far the pipe has to be read, and that is read at
//! once.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use cob_protocol::frame::StreamName;
use cob_protocol::limits::{OUTPUT_PIPE_BYTES, STREAM_COALESCE_MS, STREAM_EVENT_BYTES_MAX};
use cob_protocol::page::Page;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::readiness::watch;
use crate::scratch;

/// Bytes taken in one read.
const READ_BYTES: usize = STREAM_EVENT_BYTES_MAX;

/// Between the first byte after silence and the first look.
const FIRST_LOOK_MS: u64 = 1;

/// How the pipe is watched.
#[derive(Debug)]
enum Watch {
    /// Readiness wakes us.
    Watched(AsyncFd<OwnedFd>),
    /// Not registered: a write does not wake us. Looked at again at the given time.
    Napping(OwnedFd, Instant),
    /// Every writer has closed.
    Ended,
}

/// The reading end of one pipe.
#[derive(Debug)]
pub(crate) struct Drain {
    stream: StreamName,
    watch: Watch,
    chunks: VecDeque<Bytes>,
    /// Bytes given out since the worker started.
    emitted: u64,
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
            active_until: Instant::now(),
            measured_bytes: 0,
            measured_since: Instant::now(),
        })
    }

    pub(crate) fn stream(&self) -> StreamName {
        self.stream
    }

    /// Waits until a look is due; for ever once the pipe has ended. Cancel-safe.
    pub(crate) async fn due(&mut self) -> io::Result<()> {
        if let Watch::Watched(fd) = &self.watch {
            drop(fd.readable().await?);
            let now = Instant::now();
            if now < self.active_until {
                return Ok(());
            }
            self.measured_bytes = 0;
            self.measured_since = now;
            self.nap(now + Duration::from_millis(FIRST_LOOK_MS));
        }
        match &self.watch {
            Watch::Napping(_, until) => tokio::time::sleep_until(*until).await,
            Watch::Watched(_) | Watch::Ended => std::future::pending().await,
        }
        self.wake()
    }

    /// Looks once and decides how to wait for more.
    pub(crate) fn take(&mut self, page: Page<'_>) -> io::Result<()> {
        let count = self.read(page, READ_BYTES)?;
        let now = Instant::now();
        self.measured_bytes += count;
        if count > 0 {
            self.active_until = now + 2 * Duration::from_millis(STREAM_COALESCE_MS);
        }
        // A full read leaves more behind; it is taken first.
        if (1..READ_BYTES).contains(&count)
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
        let milliseconds = (OUTPUT_PIPE_BYTES / 2) as f64 / rate * 1e3;
        let milliseconds = milliseconds.min(STREAM_COALESCE_MS as f64) as u64;
        (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
    }

    /// Takes up to `bytes_max` that lie in the pipe now; 0 when there is nothing.
    pub(crate) fn read(&mut self, page: Page<'_>, bytes_max: usize) -> io::Result<usize> {
        let (fd, watched) = match &self.watch {
            Watch::Watched(fd) => (fd.get_ref(), Some(fd)),
            Watch::Napping(fd, _) => (fd, None),
            Watch::Ended => return Ok(0),
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
                self.watch = Watch::Ended;
                Ok(0)
            }
            Ok(bytes) => {
                let count = bytes.len();
                self.chunks.push_back(bytes);
                Ok(count)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(0)
            }
            Err(error) => Err(error),
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
        match std::mem::replace(&mut self.watch, Watch::Ended) {
            Watch::Napping(fd, _) => self.watch = Watch::Watched(watch(fd)?),
            other => self.watch = other,
        }
        Ok(())
    }

    fn nap(&mut self, until: Instant) {
        self.watch = match std::mem::replace(&mut self.watch, Watch::Ended) {
            Watch::Watched(fd) => Watch::Napping(fd.into_inner(), until),
            other => other,
        };
    }
}
