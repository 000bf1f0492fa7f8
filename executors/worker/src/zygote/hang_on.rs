//! The lifeline: a pipe whose other end only the host holds.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getpid, kill_process};

use super::newborn::Pen;
use crate::descriptors::standard;

/// From here on the system kills this process when the host is gone, whatever it is busy with.
pub(crate) fn lifeline(fd: RawFd) -> io::Result<()> {
    // SAFETY: plain system calls on a descriptor of this process.
    unsafe {
        check(libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC))?;
        check(libc::fcntl(fd, libc::F_SETOWN, libc::getpid()))?;
        check(libc::fcntl(fd, F_SETSIG, libc::SIGKILL))?;
        check(libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK))?;
    }
    // It may have been cut before it was in place.
    let mut end = [PollFd::from_borrowed_fd(standard(fd), PollFlags::IN)];
    if poll(&mut end, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
        kill_process(getpid(), Signal::KILL)?;
    }
    Ok(())
}

/// The same for a process that saves.
pub(crate) fn lifeline_of(pen: &Pen) -> io::Result<()> {
    lifeline(pen.lifeline.as_raw_fd())
}

/// Whether it is one, and not something that code of the user has opened in its place.
pub(crate) fn is_lifeline(fd: RawFd) -> bool {
    // SAFETY: asks for a number; a descriptor that is not open is an error.
    unsafe { libc::fcntl(fd, F_GETSIG) == libc::SIGKILL }
}

/// `F_SETSIG` of Linux, which libc does not name for every target.
const F_SETSIG: libc::c_int = 10;
/// `F_GETSIG`
const F_GETSIG: libc::c_int = 11;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
