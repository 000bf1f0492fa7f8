//! The main thread waits for the frame socket while another thread puts a new one under its number: it has to be told.
//!
//! A wait holds on to the file that had the number when it began, and when that one's other end is closed, the system
//! looks at the number again, finds a socket where nothing is to be read, and goes on waiting for the old one. So the
//! wait has to begin anew, which a signal makes it do.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Programs hardly use it, and without a handler it is ignored.
const NUDGE: c_int = libc::SIGURG;

/// The main thread, and whether it waits for the socket.
#[derive(Debug)]
pub(crate) struct MainThread {
    thread: libc::pthread_t,
    is_waiting: AtomicBool,
}

/// The main thread waits until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a AtomicBool);

impl MainThread {
    /// The calling thread.
    pub(crate) fn current() -> Self {
        // SAFETY: `pthread_self` has no precondition.
        Self { thread: unsafe { libc::pthread_self() }, is_waiting: AtomicBool::new(false) }
    }

    /// It is about to wait. Whatever it looks at first, it looks at after this.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.is_waiting.store(true, Ordering::SeqCst);
        Waiting(&self.is_waiting)
    }

    /// In a forked process, where it is the only thread: it does not wait.
    pub(crate) fn renew(&self) {
        self.is_waiting.store(false, Ordering::SeqCst);
    }

    /// The socket was replaced. A wait that began before begins anew; one that begins later sees the new socket.
    pub(crate) fn nudge(&self) {
        // SAFETY: as above. The main thread lives as long as the process.
        unsafe {
            if self.is_waiting.load(Ordering::SeqCst) && libc::pthread_self() != self.thread {
                libc::pthread_kill(self.thread, NUDGE);
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Makes the signal end waits, and do nothing else.
///
/// # Errors
/// When the system refuses the handler.
pub(crate) fn install() -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a zeroed `sigaction` is valid, and the handler does nothing. No SA_RESTART: a wait must end.
    let result = unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = on_nudge as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(NUDGE, action, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_nudge(_signal: c_int) {}
