//! Limits that the system keeps for each process, set from outside on a process that runs already.
//!
//! They are inherited by what it starts from then on. They are the only ones where there is no cgroup.

use std::io;

use cob_protocol::limits::CPU_LIMIT_GRACE_S;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::processes::{self, Stat};

/// Sets `resource` of process `pid`. A process that is held tighter already stays so: only the system's
/// administrator may loosen.
pub(crate) fn set(pid: u32, resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let limit = |most: u64| Rlimit { current: Some(soft.min(most)), maximum: Some(hard.min(most)) };
    match prlimit(Some(target), resource, limit(u64::MAX)) {
        Ok(_) => Ok(()),
        Err(Errno::PERM) => {
            let most = hard_limit(pid, resource).ok_or(Errno::PERM)?;
            prlimit(Some(target), resource, limit(most))?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// The hard limit that process `pid` has, from `/proc/<pid>/limits`. There is no other way to ask without setting.
fn hard_limit(pid: u32, resource: Resource) -> Option<u64> {
    let name = match resource {
        Resource::Cpu => "Max cpu time",
        Resource::Nofile => "Max open files",
        Resource::Fsize => "Max file size",
        Resource::Nproc => "Max processes",
        Resource::Core => "Max core file size",
        Resource::Data => "Max data size",
        _ => return None,
    };
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let values = text.lines().find_map(|line| line.strip_prefix(name))?;
    values.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Gives the process `seconds` more of processor time. At the end comes SIGXCPU, which ends a process that does not
/// catch it, and [`CPU_LIMIT_GRACE_S`] later SIGKILL. Returns what it may have used in all, in seconds.
///
/// A worker that waited for its session has used some time already; that is not the session's.
pub(crate) fn set_cpu(pid: u32, seconds: u64) -> io::Result<u64> {
    let used = cpu_ms(pid).ok_or(io::ErrorKind::NotFound)?.div_ceil(1000);
    let end = used.saturating_add(seconds);
    set(pid, Resource::Cpu, end, end.saturating_add(CPU_LIMIT_GRACE_S))?;
    Ok(end)
}

/// Processor time that a process has used, in milliseconds; also of one that ended and was not waited for.
#[must_use]
pub fn cpu_ms(pid: u32) -> Option<u64> {
    Some(Stat::of(pid)?.cpu_ms())
}

/// Limits processes and threads by what the user of `pid` may have in all: what it has now, and `count` more.
///
/// # Errors
/// For the superuser, whom the system does not limit.
pub(crate) fn set_processes(pid: u32, count: u64) -> io::Result<()> {
    let user = processes::user_of(pid).ok_or(io::ErrorKind::NotFound)?;
    if user == 0 {
        return Err(io::Error::other(ROOT_IS_NOT_LIMITED));
    }
    let most = tasks_of(user).saturating_add(count);
    set(pid, Resource::Nproc, most, most)
}

pub(crate) const ROOT_IS_NOT_LIMITED: &str = "the system does not count the processes of root";

/// Processes and threads of a user.
fn tasks_of(user: u32) -> u64 {
    let theirs = Stat::all().into_iter().map(|stat| stat.process.pid);
    let theirs = theirs.filter(|pid| processes::user_of(*pid) == Some(user));
    theirs.filter_map(|pid| processes::status_field(pid, "Threads:")?.parse::<u64>().ok()).sum()
}
