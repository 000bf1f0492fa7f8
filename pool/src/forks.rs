//! What a zygote and a checkpoint have in common for the host: workers are ordered from them, and come or do not.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cob_protocol::zygote::Order;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::life::{Parent, Process};
use crate::packets::Packets;
use crate::parked::Parked;
use crate::pidfd;
use crate::spawn::{Ends, WorkerEnds, transport};

/// Workers that were asked for and have not come.
#[derive(Debug, Default)]
pub(crate) struct Forks {
    /// Our ends of the transport of each, and of the pipe for its status.
    expected: HashMap<u64, (Ends, OwnedFd)>,
}

impl Forks {
    /// Asks for a worker. Cancel-safe: it was asked for or not.
    pub(crate) async fn order(&mut self, control: &Packets, number: u64) -> io::Result<()> {
        let packet = Order::Fork { number }.encode().map_err(io::Error::other)?;
        let (ends, theirs) = transport()?;
        let (status, status_writer) = status_pipe()?;
        let WorkerEnds { socket, page, lifeline, stdout, stderr } = &theirs;
        let descriptors = [socket, page, lifeline, stdout, stderr, &status_writer].map(AsFd::as_fd);
        control.send(&packet, &descriptors).await?;
        self.expected.insert(number, (ends, status));
        Ok(())
    }

    /// One was forked; nothing if it was not asked for, or is gone again. `program` is named in messages.
    ///
    /// # Errors
    /// When it comes without its process.
    pub(crate) fn forked(
        &mut self,
        program: &str,
        (number, pid): (u64, u32),
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<Option<Parked>> {
        let Some((ends, status)) = self.expected.remove(&number) else { return Ok(None) };
        let Some((pid, pidfd)) = pidfd::named(pid, descriptors)? else { return Ok(None) };
        let process = Process { pid, pidfd, parent: Parent::Zygote(status) };
        Parked::of(program.to_owned(), process, ends).map(Some)
    }

    /// One could not be forked.
    pub(crate) fn failed(&mut self, number: u64) {
        self.expected.remove(&number);
    }

    /// Whether it was asked for.
    pub(crate) fn expects(&self, number: u64) -> bool {
        self.expected.contains_key(&number)
    }
}

/// Where the parent of a process says what becomes of it: our end, and the other one.
pub(crate) fn status_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}
