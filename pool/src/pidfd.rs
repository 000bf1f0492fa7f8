//! Descriptors of processes that came from somebody else: are they what he says they are?

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::process::Pid;

/// The process `pid`, whose pidfd is the only one of `descriptors`; nothing if it is gone already.
///
/// # Errors
/// When there is none, or it is that of another process: whoever may not signal others must not have us do it.
pub(crate) fn named(pid: u32, descriptors: Vec<OwnedFd>) -> io::Result<Option<(Pid, OwnedFd)>> {
    let Named { pid, pidfd, is_gone } = named_at_any_time(pid, descriptors)?;
    Ok((!is_gone).then_some((pid, pidfd)))
}

/// What [`named_at_any_time`] has found.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// It was reaped: nobody may be signalled by its id.
    pub(crate) is_gone: bool,
}

/// The same of a process that may have done all that it had to do.
///
/// # Errors
/// See [`named`].
pub(crate) fn named_at_any_time(pid: u32, descriptors: Vec<OwnedFd>) -> io::Result<Named> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "a process without its descriptor");
    let pidfd = descriptors.into_iter().next().ok_or_else(invalid)?;
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(invalid)?;
    match process_of(&pidfd).ok_or_else(invalid)? {
        GONE => Ok(Named { pid, pidfd, is_gone: true }),
        it if it == pid.as_raw_pid() => Ok(Named { pid, pidfd, is_gone: false }),
        _ => Err(invalid()),
    }
}

/// What stands in place of the id of a process that was reaped.
const GONE: i32 = -1;

/// The id of the process that a descriptor stands for; nothing if it stands for something else.
fn process_of(pidfd: impl AsFd) -> Option<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    #[test]
    fn a_descriptor_stands_for_the_process_that_is_named_or_for_none() {
        let me = || pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        assert!(named(std::process::id(), vec![me()]).unwrap().is_some());
        assert!(named(1, vec![me()]).is_err());
        assert!(named(std::process::id(), vec![rustix::pipe::pipe().unwrap().0]).is_err());
        assert!(named(std::process::id(), Vec::new()).is_err());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let its = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        let at_any_time = named_at_any_time(1, vec![its.try_clone().unwrap()]).unwrap();
        assert!(
            at_any_time.is_gone
                && named_at_any_time(std::process::id(), vec![me()]).is_ok_and(|it| !it.is_gone)
        );
        assert!(named(1, vec![its]).unwrap().is_none(), "nobody has its id any more, whatever is said");
    }
}
