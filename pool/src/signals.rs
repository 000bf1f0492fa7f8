//! Signals to process groups, and the last words that the system keeps of a process. The system calls that
//! libraries do not have yet.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::exit::Exit;

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
    Some(match info.exit_code & 0x7f {
        0 => Exit::Status((info.exit_code >> 8) & 0xff),
        signal => Exit::Signal(signal),
    })
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
            child.wait().unwrap();
            // Before Linux 6.15 nobody knows.
            assert!([None, Some(exit)].contains(&reaped_exit(pidfd.as_fd())));
        }
    }
}
