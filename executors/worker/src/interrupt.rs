//! The interrupt gate: a SIGINT reaches user code only if it was meant for the execution that runs.
//!
//! The kernel writes the number of the execution it wants to stop into the shared page and then sends the
//! signal. A signal that arrives late, when that execution is over and another one runs, is counted and dropped.
//!
//! Code can also run between executions (timers, tasks), and keep the one that is aimed at from being read at all: then
//! the signal stops that code. Numbers only grow, so what has not begun yet can be told from what is over.
//! Signals that the process sends itself (`signal.raise_signal`), and all signals in a forked child, pass.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cob_protocol::frame::{ExecutionNumber, question_target};
use cob_protocol::page::Page;

use crate::process;

static CURRENT: AtomicU64 = AtomicU64::new(0);
/// What began last: of executions, and of questions, which are counted by themselves.
static BEGUN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// Code may run that belongs to nothing that was asked.
static BETWEEN: AtomicBool = AtomicBool::new(false);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static GATE: OnceLock<Gate> = OnceLock::new();

/// What the handler needs; nothing in it changes once a signal can arrive.
struct Gate {
    page: Page<'static>,
    deliver: fn(),
}

/// Names the page to ask and the language's way to interrupt its code, which must be async-signal-safe.
pub fn set_up(page: Page<'static>, deliver: fn()) {
    let _ = GATE.set(Gate { page, deliver });
}

/// Makes the gate the handler of SIGINT. Done before every execution: libraries of the user (asyncio) put their
/// own handler in its place.
///
/// # Errors
/// When the system refuses the handler.
pub fn install() -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a zeroed `sigaction` is valid; the fields that matter are set below. The handler has the
    // signature that SA_SIGINFO asks for and calls only async-signal-safe functions.
    let result = unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = on_interrupt as *const () as libc::sighandler_t;
        // No SA_RESTART: a wait must end, so that the language can raise.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGINT, action, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// From now on `execution` (or the [target](question_target) of a question) can be interrupted; 0: nothing can.
pub fn set_current(execution: ExecutionNumber) {
    if execution != 0 {
        begun(execution).store(execution, Ordering::SeqCst);
    }
    CURRENT.store(execution, Ordering::SeqCst);
}

/// In a forked process: nothing has begun yet, whatever its host counts from.
pub(crate) fn renew() {
    set_current(0);
    BEGUN.iter().for_each(|begun| begun.store(0, Ordering::SeqCst));
}

/// Until this is dropped, code may run between executions.
#[derive(Debug)]
pub(crate) struct Between(());

impl Between {
    pub(crate) fn begin() -> Self {
        BETWEEN.store(true, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        BETWEEN.store(false, Ordering::SeqCst);
    }
}

fn begun(target: u64) -> &'static AtomicU64 {
    let [executions, questions] = &BEGUN;
    if target < question_target(0) { executions } else { questions }
}

/// Whether what runs now is what a signal that is aimed at `target` has to stop.
fn is_meant(target: u64) -> bool {
    match CURRENT.load(Ordering::SeqCst) {
        0 => BETWEEN.load(Ordering::SeqCst) && target > begun(target).load(Ordering::SeqCst),
        current => target == current,
    }
}

/// Signals that were not meant for the code that ran.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

extern "C" fn on_interrupt(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    let Some(gate) = GATE.get() else { return };
    if is_meant(gate.page.interrupt_target()) || process::is_child() || from_ourselves(info) {
        // SAFETY: `errno` is this thread's own; a handler must leave it as it was.
        let before = unsafe { *libc::__errno_location() };
        (gate.deliver)();
        // Who is about to wait on the bell looks at signals first.
        gate.page.ring();
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = before };
    } else {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

fn from_ourselves(info: *mut libc::siginfo_t) -> bool {
    // SAFETY: with SA_SIGINFO the kernel passes a valid pointer; `si_pid` is only read for the codes that set
    // it; `getpid` is async-signal-safe.
    unsafe {
        let by_process = matches!((*info).si_code, libc::SI_USER | libc::SI_TKILL | libc::SI_QUEUE);
        by_process && (*info).si_pid() == libc::getpid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_executions_only_what_is_still_to_come_is_meant() {
        set_current(3);
        assert!(is_meant(3) && !is_meant(2) && !is_meant(4));
        set_current(0);
        assert!(!is_meant(3) && !is_meant(4), "nothing can run");
        let between = Between::begin();
        assert!(is_meant(4) && !is_meant(3) && !is_meant(0));
        // Questions are counted by themselves.
        assert!(is_meant(question_target(1)));
        set_current(question_target(1));
        set_current(0);
        assert!(!is_meant(question_target(1)) && is_meant(question_target(2)) && is_meant(4));
        renew();
        assert!(is_meant(1) && is_meant(question_target(1)) && !is_meant(0));
        drop(between);
        assert!(!is_meant(4));
    }
}
