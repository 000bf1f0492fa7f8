//! Processes as `/proc` shows them: who they are, whose they are, and how to end them without hitting another.
//!
//! Nothing here decides who must end; that is `tree` and `limits::cgroup`.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process, named so that another one with the same id is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// When it started, in ticks since the host did.
    pub(crate) started: u64,
}

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) process: Process,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
    /// Processor time in ticks.
    pub(crate) cpu_ticks: u64,
    /// It ended, and only its parent has not noticed yet.
    pub(crate) is_over: bool,
}

impl Stat {
    /// Looks at a process; nothing when there is none.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Processor time in milliseconds.
    pub(crate) fn cpu_ms(&self) -> u64 {
        self.cpu_ticks * 1000 / rustix::param::clock_ticks_per_second()
    }

    fn parse(pid: u32, stat: &str) -> Option<Self> {
        // The name in parentheses may hold anything, also parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let id = |index: usize| number(index).and_then(|n| u32::try_from(n).ok());
        // A process whose first thread ended while others run looks like one that is over.
        let is_over = matches!(*fields.first()?, "Z" | "X") && number(17)? <= 1;
        Some(Self {
            process: Process { pid, started: number(19)? },
            parent: id(1)?,
            group: id(2)?,
            session: id(3)?,
            cpu_ticks: number(11)? + number(12)?,
            is_over,
        })
    }

    /// Every process of the host that has not ended.
    pub(crate) fn all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter_map(Self::of).filter(|stat| !stat.is_over).collect()
    }
}

/// What a process ended with, as its parent would learn it, if nobody has asked yet; only for processes of this user.
pub(crate) fn unreaped_status(pid: u32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    if *fields.first()? == "Z" { fields.get(49)?.parse().ok() } else { None }
}

/// The real user of a process.
pub(crate) fn user_of(pid: u32) -> Option<u32> {
    status_field(pid, "Uid:")?.split_ascii_whitespace().next()?.parse().ok()
}

/// The value of a line of `/proc/<pid>/status`.
pub(crate) fn status_field(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned())
}

/// This process and all its parents: nobody may end them.
pub(crate) fn ourselves_and_parents() -> Vec<u32> {
    let mut line = vec![std::process::id()];
    while let Some(stat) = line.last().and_then(|pid| Stat::of(*pid)) {
        if stat.parent == 0 || line.contains(&stat.parent) {
            break;
        }
        line.push(stat.parent);
    }
    line
}

/// What became of the attempt to kill a process.
pub(crate) enum Kill {
    /// The signal is on its way; the descriptor becomes readable when the process has ended.
    Sent(OwnedFd),
    /// It is gone, or another process has its id now.
    Gone,
    /// The system does not let us.
    Refused(io::Error),
}

/// Kills `process`, and no other that has its id.
pub(crate) fn kill(process: Process) -> Kill {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return Kill::Gone };
    let pidfd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Kill::Gone,
        Err(error) => return Kill::Refused(error.into()),
    };
    // The descriptor names one process for ever: if the id belongs to the right one now, so does the descriptor.
    if Stat::of(process.pid).is_none_or(|stat| stat.process != process) {
        return Kill::Gone;
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) => Kill::Sent(pidfd),
        Err(Errno::SRCH) => Kill::Gone,
        Err(error) => Kill::Refused(error.into()),
    }
}

/// Waits on this thread until all these processes have ended, or `deadline` has come. Says whether they have.
pub(crate) fn wait_for_end(mut pidfds: Vec<OwnedFd>, deadline: Instant) -> io::Result<bool> {
    while !pidfds.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return Ok(false);
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut watched: Vec<_> = pidfds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ended = watched.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
        pidfds.retain(|_| !ended.next().unwrap_or(false));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_id_and_its_start() {
        let me = Stat::of(std::process::id()).unwrap();
        assert_eq!(me.parent, rustix::process::getppid().unwrap().as_raw_nonzero().get().unsigned_abs());
        assert!(ourselves_and_parents().contains(&me.parent));
        assert_eq!(user_of(me.process.pid), Some(rustix::process::getuid().as_raw()));
        assert!(Stat::of(u32::MAX).is_none());
    }

    #[test]
    fn names_may_hold_anything() {
        let line = "7 (a) Z 1 (b) R 5 6 7 0 -1 0 0 0 0 0 10 20 0 0 20 0 1 0 999 0";
        let stat = Stat::parse(7, line).unwrap();
        assert_eq!((stat.parent, stat.group, stat.session, stat.cpu_ticks), (5, 6, 7, 30));
        assert_eq!(stat.process.started, 999);
        assert!(!stat.is_over);
    }

    #[test]
    fn a_process_that_took_the_id_of_another_is_not_killed() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Stat::of(child.id()).unwrap().process;
        let other = Process { started: process.started + 1, ..process };
        assert!(matches!(kill(other), Kill::Gone));
        assert!(child.try_wait().unwrap().is_none());
        let Kill::Sent(pidfd) = kill(process) else { unreachable!("it is ours and alive") };
        assert!(wait_for_end(vec![pidfd], Instant::now() + Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
        assert!(matches!(kill(process), Kill::Gone));
    }
}
