//! Forks of our own, as unlike those of the user as they can be: nobody here shall notice them.
//!
//! What is forked *away* has no parent in this session. A process in between forks it and ends at once, so it goes to
//! whoever looks after orphans, and neither `wait` of the user's nor a handler of SIGCHLD ever hears of it. Nor is it in
//! our process group, which ends with us.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use rustix::io::Errno;
use rustix::process::{
    Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getpid, kill_process, waitid, waitpid,
};

use crate::between::{Side, cross};
use crate::process::EXIT_QUIETLY;

/// Forks a process that is nobody's child here. `true` in it.
///
/// # Errors
/// The system's reason; the process is as it was.
pub fn fork_away() -> io::Result<bool> {
    let adopts = Adoption::suspend();
    let forked = unnoticed(|| {
        let Side::Original(between) = cross()? else { return Ok(true) };
        match wait_for(between) {
            Some(status) => how_it_went(status).map(|()| false),
            // The system was told not to keep how children end. If it failed, nobody will be heard of.
            None => Ok(false),
        }
    });
    // A fork does not pass it on, so there is nothing to do in what was forked.
    if !matches!(forked, Ok(true)) {
        adopts.resume();
    }
    forked
}

fn how_it_went(status: WaitStatus) -> io::Result<()> {
    match status.exit_status() {
        Some(EXIT_QUIETLY) => Ok(()),
        Some(reason) => Err(io::Error::from_raw_os_error(reason)),
        None => Err(io::Error::other("the process that should fork it was killed")),
    }
}

/// Runs what starts children and waits for them, without a SIGCHLD being seen for it.
pub(crate) fn unnoticed<T>(run: impl FnOnce() -> T) -> T {
    let held = HeldChildren::hold();
    let result = run();
    held.forget();
    result
}

/// Waits for a child; `None` if the system was told not to keep how they end.
fn wait_for(child: Pid) -> Option<WaitStatus> {
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            Ok(Some((_, status))) => return Some(status),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// SIGCHLD waits while this exists.
struct HeldChildren {
    before: libc::sigset_t,
    was_pending: bool,
}

impl HeldChildren {
    fn hold() -> Self {
        let children = children_only();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: every set is written by a call before it is read.
        unsafe {
            libc::sigemptyset(before.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const children, before.as_mut_ptr());
            libc::sigemptyset(pending.as_mut_ptr());
            libc::sigpending(pending.as_mut_ptr());
            let was_pending = libc::sigismember(pending.as_ptr(), libc::SIGCHLD) == 1;
            Self { before: before.assume_init(), was_pending }
        }
    }

    /// Takes back the signal that our children have set off, unless one of the user's has changed as well.
    fn forget(&self) {
        if self.was_pending {
            return;
        }
        let children = children_only();
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set is initialised, nothing is to be said about the signal, and the time is valid.
        let taken = unsafe { libc::sigtimedwait(&raw const children, ptr::null_mut(), &raw const now) };
        let any = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED;
        let look = any | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if taken == libc::SIGCHLD && matches!(waitid(WaitId::All, look), Ok(Some(_))) {
            let _ = kill_process(getpid(), rustix::process::Signal::CHILD);
        }
    }
}

impl Drop for HeldChildren {
    fn drop(&mut self) {
        // SAFETY: restores the set that `hold` initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

fn children_only() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: written before it is read; the number is valid.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        set.assume_init()
    }
}

/// Code of the user may have made this process the one that looks after orphans; ours is not for it.
struct Adoption(bool);

impl Adoption {
    fn suspend() -> Self {
        let mut adopts: libc::c_int = 0;
        // SAFETY: the system writes one integer.
        let asked = unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut adopts) };
        let adopts = asked == 0 && adopts != 0;
        if adopts {
            Self::set(0);
        }
        Self(adopts)
    }

    fn resume(self) {
        if self.0 {
            Self::set(1);
        }
    }

    fn set(adopts: libc::c_ulong) {
        let unused: libc::c_ulong = 0;
        // SAFETY: takes integers only.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, adopts, unused, unused, unused) };
    }
}
