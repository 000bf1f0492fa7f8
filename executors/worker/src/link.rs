//! The frame socket, and what both of its halves know about it.
//!
//! The socket of a session that outlives its server is replaced from time to time; its descriptor keeps its number, so
//! nobody has to learn a new one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cob_protocol::page::Page;
use rustix::event::{PollFd, PollFlags, poll};

use crate::descriptors::put_in_place;
use crate::nudge::{self, MainThread, Waiting};
use crate::output::write_last_words;
use crate::page;

/// The connection of a worker with its kernel.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    page: Page<'static>,
    /// Number of the last frame that came from the kernel at the other end.
    received: AtomicU64,
    survives: AtomicBool,
    /// How often the socket was replaced, if it is the newest.
    epoch: AtomicU64,
    /// A new socket has come, or is in place, and the kernel behind it may lack frames.
    behind: AtomicBool,
    main: MainThread,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd, page: Page<'static>) -> Self {
        Self {
            socket,
            page,
            received: AtomicU64::new(0),
            survives: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            behind: AtomicBool::new(false),
            main: MainThread::current(),
        }
    }

    /// The main thread is about to wait for the socket.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        self.main.wait()
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn page(&self) -> Page<'static> {
        self.page
    }

    /// The session outlives its server from now on.
    pub(crate) fn survive(&self) {
        if let Err(error) = nudge::install() {
            write_last_words(&format!("cob: the session may hang when its server was replaced: {error}\n"));
        }
        self.survives.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn survives(&self) -> bool {
        self.survives.load(Ordering::Acquire)
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn set_received(&self, sequence: u64) {
        self.received.store(sequence, Ordering::Relaxed);
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether the kernel has made another socket.
    pub(crate) fn is_stale(&self) -> bool {
        self.page.epoch() != self.epoch()
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    pub(crate) fn set_behind(&self, behind: bool) {
        self.behind.store(behind, Ordering::Release);
    }

    /// Puts the socket of `epoch` in the place of the one before. Only for who may write, and with the inbox locked:
    /// nobody else uses the descriptor meanwhile but to wait.
    pub(crate) fn replace(&self, socket: &OwnedFd, epoch: u64) -> io::Result<()> {
        put_in_place(socket, self.socket())?;
        self.epoch.store(epoch, Ordering::Relaxed);
        self.set_received(0);
        self.main.nudge();
        Ok(())
    }

    /// In a forked process: nothing came, and nobody waits.
    pub(crate) fn renew(&self) {
        self.set_received(0);
        self.survives.store(false, Ordering::Release);
        self.epoch.store(0, Ordering::Relaxed);
        self.set_behind(false);
        self.main.renew();
    }

    /// Returns whether the wait came to its end; a signal cuts it short.
    pub(crate) fn wait_for(&self, what: PollFlags) -> bool {
        poll(&mut [PollFd::from_borrowed_fd(self.socket(), what)], None).is_ok()
    }

    /// Waits until the bell says something else than `heard`, or a signal comes.
    pub(crate) fn wait_for_bell(&self, heard: u32) {
        let _listening = self.page.listen();
        page::wait_for_bell(self.page, heard);
    }
}
