//! The workers a zygote has forked: it is their parent, and nobody else learns how they fare.

use std::io;
use std::os::fd::OwnedFd;

use cob_protocol::zygote::Status;
use rustix::io::{Errno, fcntl_dupfd_cloexec, ioctl_fionbio, write};
use rustix::param::clock_ticks_per_second;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, kill_process_group, waitid,
};

use crate::descriptors::PRIVATE_FD_MIN;

/// All that live.
#[derive(Default)]
pub(super) struct Wards(Vec<Ward>);

struct Ward {
    pid: Pid,
    /// Where its parent writes what becomes of it.
    status: StatusPipe,
}

/// The writing end of a pipe of records.
pub(super) struct StatusPipe(OwnedFd);

impl StatusPipe {
    /// Out of the way of others, and never to be waited for.
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        let pipe = fcntl_dupfd_cloexec(pipe, PRIVATE_FD_MIN)?;
        ioctl_fionbio(&pipe, true)?;
        Ok(Self(pipe))
    }

    /// A record that does not fit is left out: the host reads too slowly, and the end of the pipe still tells it
    /// what matters.
    fn tell(&self, status: Status) {
        while write(&self.0, &status.to_bytes()) == Err(Errno::INTR) {}
    }
}

impl Wards {
    pub(super) fn add(&mut self, pid: Pid, status: StatusPipe) {
        self.0.push(Ward { pid, status });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A child has changed: finds out which, and tells. Only our own are asked for, because modules may have
    /// started processes and wait for them.
    pub(super) fn look(&mut self) {
        self.0.retain(Ward::look);
    }
}

impl Ward {
    /// Whether it still lives.
    fn look(&self) -> bool {
        while let Some(changed) = self.wait(WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED) {
            self.status.tell(match changed.stopping_signal() {
                Some(signal) => Status::Stopped(signal),
                None => Status::Continued,
            });
        }
        if self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).is_none() {
            return true;
        }
        // Before its number is free again: what it left behind in its group goes as well.
        let _ = kill_process_group(self.pid, Signal::KILL);
        if let Some(milliseconds) = processor_time(self.pid) {
            self.status.tell(Status::Used(milliseconds));
        }
        let Some(ended) = self.wait(WaitIdOptions::EXITED) else { return false };
        self.status.tell(match (ended.exit_status(), ended.terminating_signal()) {
            (Some(code), _) => Status::Exited(code),
            (None, Some(signal)) => Status::Killed(signal),
            (None, None) => Status::Killed(Signal::KILL.as_raw()),
        });
        false
    }

    fn wait(&self, options: WaitIdOptions) -> Option<WaitIdStatus> {
        loop {
            match waitid(WaitId::Pid(self.pid), options | WaitIdOptions::NOHANG) {
                Err(Errno::INTR) => {}
                // It cannot be gone: nobody else waits for it.
                result => return result.unwrap_or_default(),
            }
        }
    }
}

/// What a process has used, in milliseconds. Known as long as it was not waited for.
fn processor_time(pid: Pid) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    i32::try_from(ticks * 1000 / clock_ticks_per_second()).ok()
}

/// A child that nobody can be told of.
pub(super) fn disown(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
    while waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).is_err_and(|error| error == Errno::INTR) {}
}
