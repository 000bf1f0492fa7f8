//! The descriptors that a worker is started with, moved out of the user's way.
//!
//! Code of the user may close, reuse or pass on any descriptor it can guess; ours live at 64 and above and are
//! closed by `exec`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use cob_protocol::handshake::{FRAME_FD, IMAGE_FD, LIFELINE_FD, PAGE_FD};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

/// No private descriptor is below this number.
pub const PRIVATE_FD_MIN: RawFd = 64;

/// Everything a worker gets from its host.
#[derive(Debug)]
pub struct Descriptors {
    /// The frame socket.
    pub socket: OwnedFd,
    /// The memory of the shared page.
    pub page: OwnedFd,
    /// A second handle on the stdout pipe: stays on it when user code redirects descriptor 1.
    pub stdout: OwnedFd,
    /// A second handle on the stderr pipe.
    pub stderr: OwnedFd,
}

/// What this process was started to be.
#[derive(Debug)]
pub enum Role {
    /// A worker.
    Worker(Descriptors),
    /// A zygote, to be ordered about through this socket of packets.
    Zygote(OwnedFd),
}

impl Role {
    /// Looks at the socket that the process was started with, and takes over what it was given.
    ///
    /// # Errors
    /// See [`Descriptors::take`].
    pub fn take() -> io::Result<Self> {
        if socket_type(standard(FRAME_FD)).is_ok_and(|kind| kind == SocketType::SEQPACKET) {
            let _ = take_over(IMAGE_FD);
            let _ = fcntl_setfd(standard(LIFELINE_FD), FdFlags::CLOEXEC);
            return Ok(Self::Zygote(lift(take_over(FRAME_FD)?)?));
        }
        Descriptors::take().map(Self::Worker)
    }
}

impl Descriptors {
    /// Moves the private descriptors up and closes their first numbers, the program image's as well.
    ///
    /// Must be called once, before anything else may have opened a descriptor.
    ///
    /// # Errors
    /// When the process was not started by the contract: a descriptor is missing.
    pub fn take() -> io::Result<Self> {
        let _ = take_over(IMAGE_FD);
        // It stays where it is, since it must stay open for life, but is not for the programs that code starts. A
        // host without lifelines has not opened it.
        let _ = fcntl_setfd(standard(LIFELINE_FD), FdFlags::CLOEXEC);
        Ok(Self {
            socket: lift(take_over(FRAME_FD)?)?,
            page: lift(take_over(PAGE_FD)?)?,
            stdout: lift(standard(1))?,
            stderr: lift(standard(2))?,
        })
    }
}

/// A second handle, out of the user's way.
pub(crate) fn lift(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd, PRIVATE_FD_MIN)?)
}

/// Makes the number of `old` stand for what `new` stands for.
pub(crate) fn put_in_place(new: &OwnedFd, old: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        // SAFETY: both are open, and no others: one is owned and the other borrowed. What `old` stood for is closed,
        // and whoever owns the number goes on owning it.
        let result = unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) {
            return Err(error);
        }
    }
}

fn take_over(fd: RawFd) -> io::Result<OwnedFd> {
    let open = rustix::io::fcntl_getfd(standard(fd)).is_ok();
    if !open {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("descriptor {fd} is not open")));
    }
    // SAFETY: the descriptor is open (checked above), and the start contract gives it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One of the descriptors that every process has.
#[must_use]
pub fn standard(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the number is not -1. If user code closed it, calls on it fail with EBADF, which is what a write
    // of the user's own would do.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
