//! This process as a whole: is it a fork of the worker, how does it end, how does it wait.
//!
//! **Invariant:** in a process that user code forked off, everything of cob is inert: it writes no frame, reads
//! none and owns no descriptor of the worker.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

pub use rustix::process::Pid;

use crate::output::write_last_words;

/// The host is gone, or user code ended in a forked child: there is nobody left to tell.
pub const EXIT_QUIETLY: i32 = 0;
/// The interpreter or the host cannot be used (EX_CONFIG).
pub const EXIT_UNUSABLE: i32 = 78;
/// The host sent what no host sends (EX_PROTOCOL).
pub const EXIT_PROTOCOL: i32 = 76;
/// The frame socket failed (EX_IOERR).
pub const EXIT_IO: i32 = 74;

static CHILD: AtomicBool = AtomicBool::new(false);
/// The thread that forks for us, while it does; 0: none.
static OURS: AtomicUsize = AtomicUsize::new(0);
/// What a forked child closes: private descriptors keep the host from seeing the end of the worker.
static PRIVATE: [AtomicI32; 3] = [const { AtomicI32::new(-1) }; 3];

/// Whether this process is a fork of the worker.
#[inline]
#[must_use]
pub fn is_child() -> bool {
    CHILD.load(Ordering::Relaxed)
}

/// From now on a fork of this process knows that it is one, and closes `private`.
///
/// # Errors
/// When the C library has no memory for the hook.
pub fn watch_forks(private: [RawFd; 3]) -> io::Result<()> {
    for (slot, fd) in PRIVATE.iter().zip(private) {
        slot.store(fd, Ordering::Relaxed);
    }
    // SAFETY: `on_fork` only stores to atomics and closes descriptors, both allowed in a forked child.
    match unsafe { libc::pthread_atfork(None, None, Some(on_fork)) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

extern "C" fn on_fork() {
    let is_ours = OURS.load(Ordering::Relaxed) == this_thread();
    // Whoever forks for us sees to the descriptors. Of a child of a child the numbers may mean something else by now.
    if CHILD.swap(true, Ordering::Relaxed) || is_ours {
        return;
    }
    for slot in &PRIVATE {
        let fd = slot.load(Ordering::Relaxed);
        if fd >= 0 {
            // SAFETY: `close` is async-signal-safe, and nothing of cob uses the descriptor in a child.
            unsafe { libc::close(fd) };
        }
    }
}

/// This process was forked off a worker for us, and is one itself from now on.
pub(crate) fn become_worker() {
    CHILD.store(false, Ordering::Relaxed);
}

/// Forks this process; `None` in the child. A language may have something to do before and after. A child of a worker
/// keeps the private descriptors, and is inert until it is made something else.
///
/// # Errors
/// The system's reason.
pub fn fork() -> io::Result<Option<Pid>> {
    OURS.store(this_thread(), Ordering::Relaxed);
    // SAFETY: the process has one thread of ours, so the child may go on like any process; the C library's own
    // handlers run on both sides.
    let forked = match unsafe { libc::fork() } {
        error if error < 0 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    };
    OURS.store(0, Ordering::Relaxed);
    forked
}

fn this_thread() -> usize {
    // SAFETY: has no precondition, and is async-signal-safe.
    unsafe { libc::pthread_self() as usize }
}

/// Ends the process at once: no exit hook, no flush, no destructor.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

/// Ends the process at once, and says why no code can run in it.
pub fn give_up(reason: &str) -> ! {
    write_last_words(&format!("cob: {reason}\n"));
    exit_now(EXIT_UNUSABLE)
}

/// Writes out what C code left in its stdio buffers.
pub fn flush_c_stdio() {
    // SAFETY: a null pointer asks for all output streams; the C library locks each one itself.
    unsafe { libc::fflush(ptr::null_mut()) };
}

/// SIGINT waits while this exists; [`HeldSignals::readable`] lets it in for as long as it blocks.
///
/// Without it, a signal between the last look at pending signals and the wait would not end the wait.
#[derive(Debug)]
pub struct HeldSignals(libc::sigset_t);

impl HeldSignals {
    /// Holds SIGINT back in this thread.
    #[must_use]
    pub fn hold() -> Self {
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        let mut interrupts = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: both sets are written by the calls before they are read, and the signal number is valid.
        unsafe {
            libc::sigemptyset(interrupts.as_mut_ptr());
            libc::sigaddset(interrupts.as_mut_ptr(), libc::SIGINT);
            libc::sigemptyset(before.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, interrupts.as_ptr(), before.as_mut_ptr());
            Self(before.assume_init())
        }
    }

    /// Waits until `fd` can be read.
    ///
    /// # Errors
    /// `Interrupted` when a signal came, be it before the wait.
    pub fn readable(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry, no timeout, and a signal set that `hold` initialised.
        let ready = unsafe { libc::ppoll(&raw mut poll, 1, ptr::null(), &raw const self.0) };
        if ready < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        // SAFETY: restores the set that `hold` initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}
