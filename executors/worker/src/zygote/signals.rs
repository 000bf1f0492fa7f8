//! The signals of a waiting zygote: a child that changes makes a descriptor readable, a broken pipe is only an error.
//!
//! Modules may have changed how this process takes signals; a worker must find that as they left it.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::{fcntl_dupfd_cloexec, read};

use crate::descriptors::PRIVATE_FD_MIN;

pub(super) struct Signals {
    fd: OwnedFd,
    mask_before: libc::sigset_t,
    action_before: libc::sigaction,
}

impl Signals {
    /// Takes SIGCHLD for the zygote, and holds SIGPIPE back; every signal if `all`: then nobody's handler runs.
    pub(super) fn take(all: bool) -> io::Result<Self> {
        let mut held = MaybeUninit::<libc::sigset_t>::uninit();
        let mut ours = MaybeUninit::<libc::sigset_t>::uninit();
        let mut mask_before = MaybeUninit::<libc::sigset_t>::uninit();
        let mut action_before = MaybeUninit::<libc::sigaction>::uninit();
        let default = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: every set and action is written before it is read; a zeroed action is SIG_DFL without flags; the
        // descriptor is new and nobody else's.
        unsafe {
            libc::sigemptyset(ours.as_mut_ptr());
            libc::sigaddset(ours.as_mut_ptr(), libc::SIGCHLD);
            libc::sigemptyset(held.as_mut_ptr());
            libc::sigaddset(held.as_mut_ptr(), libc::SIGCHLD);
            libc::sigaddset(held.as_mut_ptr(), libc::SIGPIPE);
            if all {
                libc::sigfillset(held.as_mut_ptr());
            }
            libc::sigemptyset(mask_before.as_mut_ptr());
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, held.as_ptr(), mask_before.as_mut_ptr());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            // Ignored, the system would not keep how a child ended; without stops, not tell of them.
            check(libc::sigaction(libc::SIGCHLD, default.as_ptr(), action_before.as_mut_ptr()))?;
            let fd = check(libc::signalfd(-1, ours.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
            let fd = fcntl_dupfd_cloexec(OwnedFd::from_raw_fd(fd), PRIVATE_FD_MIN)?;
            Ok(Self {
                fd,
                mask_before: mask_before.assume_init(),
                action_before: action_before.assume_init(),
            })
        }
    }

    /// Readable when a child has changed.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Forgets what made the descriptor readable.
    pub(super) fn clear(&self) {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        while read(&self.fd, &mut record).is_ok() {}
    }

    /// In a forked process: everything as it was.
    pub(super) fn give_back(self) -> io::Result<()> {
        // SAFETY: both were filled by the system in `take`.
        unsafe {
            check(libc::sigaction(libc::SIGCHLD, &raw const self.action_before, ptr::null_mut()))?;
            match libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.mask_before, ptr::null_mut()) {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
