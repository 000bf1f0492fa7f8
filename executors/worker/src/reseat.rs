//! How a forked copy of a worker gives up what connects it with its host, and how a worker that comes of the copy is
//! connected anew.
//!
//! Code of the user, the language and the C library may have noted the number of a descriptor, and a signal handler the
//! address of the page. So the numbers and the address stay taken, and what they stand for changes.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;

use cob_protocol::checkpoint::Finding;
use cob_protocol::handshake::LIFELINE_FD;
use rustix::fs::{OFlags, fcntl_getfl, fstat};
use rustix::io::{FdFlags, fcntl_getfd};

use crate::descriptors::{lift, put_in_place, standard};
use crate::findings::{self, open_descriptors};
use crate::interrupt;
use crate::page;
use crate::worker::Worker;
use crate::zygote::{Control, Transport, hang_on};

/// What the numbers of a copy stand for until it is connected: it can be written to, and nothing is read from it.
///
/// Opened before the fork: what cannot be had is told then.
pub(crate) struct Nothing(OwnedFd);

impl Nothing {
    pub(crate) fn open() -> io::Result<Self> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        Ok(Self(lift(&null)?))
    }
}

/// The numbers that stand for the session's output, wherever code has made them do so, and for the lifeline.
pub(crate) struct Seats {
    stdout: Vec<RawFd>,
    stderr: Vec<RawFd>,
    has_lifeline: bool,
}

impl Seats {
    fn none() -> Self {
        Self { stdout: Vec::new(), stderr: Vec::new(), has_lifeline: false }
    }

    fn of(worker: &Worker) -> io::Result<Self> {
        let [stdout, stderr] = worker.output.own();
        let (out, err) = (identity(stdout)?, identity(stderr)?);
        let mut seats =
            Self { stdout: Vec::new(), stderr: Vec::new(), has_lifeline: hang_on::is_lifeline(LIFELINE_FD) };
        // Without /proc, those that everybody knows.
        let numbers =
            open_descriptors().unwrap_or_else(|_| vec![1, 2, stdout.as_raw_fd(), stderr.as_raw_fd()]);
        for number in numbers {
            match identity(standard(number)) {
                Ok(found) if found == out && can_write(number) => seats.stdout.push(number),
                Ok(found) if found == err && can_write(number) => seats.stderr.push(number),
                _ => {}
            }
        }
        Ok(seats)
    }
}

impl Worker {
    /// Descriptors and memory that a copy would share, but for what is the worker's own.
    pub(crate) fn shared_with_a_copy(&self, control: &Control, renewed: &[RawFd]) -> Vec<Finding> {
        let seats = Seats::of(self).unwrap_or_else(|_| Seats::none());
        let inbox = self.inbox();
        let socket = self.socket().as_raw_fd();
        let is_ours = |number| {
            number == socket
                || number == control.socket().as_raw_fd()
                || (number == LIFELINE_FD && seats.has_lifeline)
                || seats.stdout.contains(&number)
                || seats.stderr.contains(&number)
                || inbox.owns(number)
                || renewed.contains(&number)
        };
        findings::shared(is_ours)
    }

    /// In a forked process: nothing came, went or runs. `false`: a thread that is not here has something locked.
    fn renew(&self) -> bool {
        self.running.store(0, Ordering::Relaxed);
        interrupt::renew();
        self.output.renew() && self.outbox.renew()
    }

    /// In a process that was just forked off a worker: gives up everything that the worker has of its host. Nothing of
    /// what came or went is left.
    pub(crate) fn leave_host(&self, nothing: &Nothing) -> io::Result<Seats> {
        if !self.renew() {
            let reason = "another thread was about to send or to print something just then";
            return Err(io::Error::other(reason));
        }
        let seats = Seats::of(self)?;
        page::replace(self.link.page(), None)?;
        put_in_place(&nothing.0, self.socket())?;
        for number in seats.stdout.iter().chain(&seats.stderr) {
            seat(&nothing.0, *number)?;
        }
        if seats.has_lifeline {
            seat(&nothing.0, LIFELINE_FD)?;
        }
        Ok(seats)
    }

    /// In a worker that was forked off such a process: puts what came from its host in the places that were given up.
    pub(crate) fn join_host(&self, seats: &Seats, transport: Transport) -> io::Result<()> {
        let Transport { socket, page, lifeline, stdout, stderr } = transport;
        // They may have come under numbers below those of ours, where nobody else looks for one.
        page::replace(self.link.page(), Some(page.as_fd()))?;
        put_in_place(&socket, self.socket())?;
        seat_all(&stdout, &seats.stdout)?;
        seat_all(&stderr, &seats.stderr)?;
        if seats.has_lifeline {
            seat(&lifeline, LIFELINE_FD)?;
            return hang_on::lifeline(LIFELINE_FD);
        }
        // The number is the user's. It stays open for life.
        hang_on::lifeline(lift(&lifeline)?.into_raw_fd())
    }
}

fn seat_all(new: &OwnedFd, numbers: &[RawFd]) -> io::Result<()> {
    numbers.iter().try_for_each(|number| seat(new, *number))
}

/// Makes a number stand for `new`, and be passed on to programs or not as it was before.
fn seat(new: &OwnedFd, number: RawFd) -> io::Result<()> {
    let number = standard(number);
    let flags = fcntl_getfd(number).unwrap_or(FdFlags::CLOEXEC);
    put_in_place(new, number)?;
    Ok(rustix::io::fcntl_setfd(number, flags)?)
}

fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn can_write(number: RawFd) -> bool {
    let access = fcntl_getfl(standard(number)).map(|flags| flags & OFlags::RWMODE);
    access.is_ok_and(|access| access == OFlags::WRONLY || access == OFlags::RDWR)
}
