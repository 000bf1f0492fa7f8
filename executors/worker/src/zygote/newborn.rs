//! From a fork of the zygote to the process that a worker is started as: its descriptors in their places, its own
//! group, its own lifeline.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use cob_protocol::handshake::LIFELINE_FD;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::setsid;

use super::hang_on;
use super::wards::StatusPipe;
use crate::descriptors::{Descriptors, PRIVATE_FD_MIN};

/// What comes with an order to fork, in the order of the contract.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) socket: OwnedFd,
    pub(crate) page: OwnedFd,
    pub(crate) lifeline: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// What comes with an order to save, in the order of the contract.
#[derive(Debug)]
pub(crate) struct Pen {
    pub(crate) bundle: OwnedFd,
    pub(crate) lifeline: OwnedFd,
}

/// What a process is forked for.
#[derive(Debug)]
pub(crate) enum Errand {
    /// To be a worker.
    Work(Transport),
    /// To write down what the session holds.
    Save(Pen),
}

/// How many descriptors come with an order to fork.
const DESCRIPTORS: usize = 6;
/// … and with one to save.
const SAVER_DESCRIPTORS: usize = 3;

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
        hang_on::lifeline(LIFELINE_FD)?;
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

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the parent prepares before it forks: errors are told to the host instead of leaving a lost child.
pub(super) struct Birth {
    pub(super) errand: Errand,
    pub(super) status: StatusPipe,
}

impl Birth {
    /// Of a worker.
    pub(super) fn of(descriptors: Vec<OwnedFd>) -> Result<io::Result<Self>, usize> {
        let (transport, status) = Transport::of(descriptors)?;
        Ok(StatusPipe::new(status).map(|status| Self { errand: Errand::Work(transport), status }))
    }

    /// Of a process that saves.
    pub(super) fn of_saver(descriptors: Vec<OwnedFd>) -> Result<io::Result<Self>, usize> {
        let all = <[OwnedFd; SAVER_DESCRIPTORS]>::try_from(descriptors).map_err(|other| other.len())?;
        let [bundle, lifeline, status] = all;
        let errand = Errand::Save(Pen { bundle, lifeline });
        Ok(StatusPipe::new(status).map(|status| Self { errand, status }))
    }
}
