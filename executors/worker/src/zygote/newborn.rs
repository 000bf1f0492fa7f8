//! From a fork of the zygote to the process that a worker is started as: its descriptors in their places, its own
//! group, its own lifeline.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use cob_protocol::handshake::LIFELINE_FD;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Signal, getpid, kill_process, setsid};

use super::wards::StatusPipe;
use crate::descriptors::{Descriptors, PRIVATE_FD_MIN, standard};

/// What comes with an order to fork, in the order of the contract.
pub(super) struct Transport {
    socket: OwnedFd,
    page: OwnedFd,
    lifeline: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// How many descriptors come with an order to fork.
const DESCRIPTORS: usize = 6;

impl Transport {
    /// The worker's descriptors, and the one that its parent keeps; the number of them if it is another one.
    pub(super) fn of(descriptors: Vec<OwnedFd>) -> Result<(Self, OwnedFd), usize> {
        let all = <[OwnedFd; DESCRIPTORS]>::try_from(descriptors).map_err(|other| other.len())?;
        let [socket, page, lifeline, stdout, stderr, status] = all;
        Ok((Self { socket, page, lifeline, stdout, stderr }, status))
    }

    /// In the forked process, once everything of its parent is closed.
    pub(super) fn settle(self) -> io::Result<Descriptors> {
        // Its own session and group, as a worker that was started has: an interrupt reaches its children.
        setsid()?;
        let descriptors = Descriptors {
            socket: lift(self.socket)?,
            page: lift(self.page)?,
            stdout: lift(self.stdout)?,
            stderr: lift(self.stderr)?,
        };
        let lifeline = lift(self.lifeline)?;
        place(&descriptors.stdout, libc::STDOUT_FILENO)?;
        place(&descriptors.stderr, libc::STDERR_FILENO)?;
        place(&lifeline, LIFELINE_FD)?;
        drop(lifeline);
        hang_on_lifeline()?;
        Ok(descriptors)
    }
}

/// Moves a descriptor up; its number may be one where another one belongs.
fn lift(fd: OwnedFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd, PRIVATE_FD_MIN)?)
}

fn place(fd: &OwnedFd, number: RawFd) -> io::Result<()> {
    // SAFETY: both numbers are valid and differ; what stood there before was the zygote's and has no owner here.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) })
}

/// From here on the system kills this process when the host is gone, whatever it is busy with.
fn hang_on_lifeline() -> io::Result<()> {
    // SAFETY: plain system calls on a descriptor of this process.
    unsafe {
        check(libc::fcntl(LIFELINE_FD, libc::F_SETFD, libc::FD_CLOEXEC))?;
        check(libc::fcntl(LIFELINE_FD, libc::F_SETOWN, libc::getpid()))?;
        check(libc::fcntl(LIFELINE_FD, F_SETSIG, libc::SIGKILL))?;
        check(libc::fcntl(LIFELINE_FD, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK))?;
    }
    // It may have been cut before it was in place.
    let mut end = [PollFd::from_borrowed_fd(standard(LIFELINE_FD), PollFlags::IN)];
    if poll(&mut end, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
        kill_process(getpid(), Signal::KILL)?;
    }
    Ok(())
}

/// `F_SETSIG` of Linux, which libc does not name for every target.
const F_SETSIG: libc::c_int = 10;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the parent prepares before it forks: errors are told to the host instead of leaving a lost child.
pub(super) struct Birth {
    pub(super) transport: Transport,
    pub(super) status: StatusPipe,
}

impl Birth {
    pub(super) fn of(descriptors: Vec<OwnedFd>) -> Result<io::Result<Self>, usize> {
        let (transport, status) = Transport::of(descriptors)?;
        Ok(StatusPipe::new(status).map(|status| Self { transport, status }))
    }
}
