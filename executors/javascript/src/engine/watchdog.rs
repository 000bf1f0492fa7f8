//! Stops code that runs between executions and does not come to an end: nobody could reach the session.
//!
//! The system counts the processor time of one turn, and its signal stops the code as an interrupt does.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use cob_protocol::limits::BACKGROUND_TURN_MS_MAX;

use crate::interrupt;

static IS_LATE: AtomicBool = AtomicBool::new(false);

/// Runs `work`, and stops the code in it after a while.
pub(super) fn watch<T>(work: impl FnOnce() -> T) -> T {
    arm(BACKGROUND_TURN_MS_MAX);
    let outcome = work();
    arm(0);
    outcome
}

/// Whether code was stopped since this was asked last.
pub(super) fn take() -> bool {
    IS_LATE.swap(false, Ordering::SeqCst)
}

/// Makes its signal known.
///
/// # Errors
/// When the system refuses the handler.
pub(crate) fn install() -> std::io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a zeroed `sigaction` is valid, and the handler calls only async-signal-safe functions.
    let result = unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = on_late as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, action, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The signal comes after that much processor time; 0: it does not.
fn arm(milliseconds: u64) {
    let after = libc::timeval {
        tv_sec: (milliseconds / 1000) as libc::time_t,
        tv_usec: (milliseconds % 1000 * 1000) as libc::suseconds_t,
    };
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: never, it_value: after };
    // SAFETY: the timer is valid, and the former one is not asked for.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, ptr::null_mut()) };
}

extern "C" fn on_late(_: c_int) {
    IS_LATE.store(true, Ordering::SeqCst);
    interrupt::stop();
}
