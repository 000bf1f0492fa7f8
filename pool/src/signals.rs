//! Signals to process groups, and the last words that the system keeps of a process. The system calls that
//! libraries do not have yet.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::exit::Exit;
use crate::limits::cpu_ms;
use crate::processes::unreaped_status;

/// `PIDFD_SIGNAL_PROCESS_GROUP` (Linux 6.9).
const TO_GROUP: libc::c_uint = 1 << 2;
/// `PIDFD_GET_INFO` for the first version of `struct pidfd_info` (Linux 6.13).
const GET_INFO: libc::c_ulong = 0xC040_FF0B;
/// `PIDFD_INFO_EXIT` (Linux 6.15).
const INFO_EXIT: u64 = 1 << 3;

/// Signals the process group that the live process `pid` leads. Fails only when the group is gone.
pub(crate) fn signal_group(pidfd: impl AsFd, pid: Pid, signal: Signal) {
    // SAFETY: plain integers and a null pointer, which asks for the usual signal information.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal.as_raw(),
            std::ptr::null::<libc::siginfo_t>(),
            TO_GROUP,
        )
    };
    if sent != 0 {
        // An older kernel. The id is that of a process which was alive a moment ago.
        let _ = kill_process_group(pid, signal);
    }
}

/// The first version of `struct pidfd_info`.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// How a process ended that somebody else has reaped, if the system still knows.
pub(crate) fn reaped_exit(pidfd: BorrowedFd<'_>) -> Option<Exit> {
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request names a structure of this size, which it fills in.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO, &raw mut info) };
    if result != 0 || info.mask & INFO_EXIT == 0 {
        return None;
    }
    Some(exit_of(info.exit_code))
}

/// What a parent learns, in words.
fn exit_of(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Status((status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}

/// How a process ended that somebody else will reap, with the processor time that it had used, in milliseconds.
pub(crate) fn unreaped_exit(pidfd: BorrowedFd<'_>, pid: u32) -> Option<(Exit, Option<u64>)> {
    let (status, cpu) = (unreaped_status(pid)?, cpu_ms(pid));
    // As long as it is not reaped, nobody else has its id.
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).ok()?;
    let is_reaped = fds[0].revents().contains(PollFlags::HUP);
    (!is_reaped).then(|| (exit_of(status), cpu))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn what_a_reaped_process_ended_with_is_known_where_the_system_tells() {
        assert_eq!(size_of::<PidfdInfo>(), 64);
        for (script, exit) in [("exit 42", Exit::Status(42)), ("kill -9 $$", Exit::Signal(9))] {
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
            // Its end, without asking for it.
            let mut end = [PollFd::new(&pidfd, PollFlags::IN)];
            poll(&mut end, None).unwrap();
            let (known, _) = unreaped_exit(pidfd.as_fd(), child.id()).unwrap();
            assert_eq!(known, exit);
            child.wait().unwrap();
            assert!(unreaped_exit(pidfd.as_fd(), child.id()).is_none());
            // Before Linux 6.15 nobody knows.
            assert!([None, Some(exit)].contains(&reaped_exit(pidfd.as_fd())));
        }
    }
}
