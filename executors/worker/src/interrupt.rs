//! The interrupt gate: a SIGINT reaches user code only if it was meant for the execution that runs.
//!
//! The kernel writes the number of the execution it wants to stop into the shared page and then sends the
//! signal. A signal that arrives late, when that execution is over and another one runs, is counted and dropped.
//! Signals that the process sends itself (`signal.raise_signal`), and all signals in a forked child, pass.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use cob_protocol::frame::ExecutionNumber;
use cob_protocol::page::Page;

use crate::process;

static CURRENT: AtomicU64 = AtomicU64::new(0);
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

/// From now on `execution` can be interrupted; 0: nothing can.
pub fn set_current(execution: ExecutionNumber) {
    CURRENT.store(execution, Ordering::SeqCst);
}

/// Signals that were not meant for the code that ran.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

extern "C" fn on_interrupt(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    let Some(gate) = GATE.get() else { return };
    let current = CURRENT.load(Ordering::SeqCst);
    let aimed = current != 0 && gate.page.interrupt_target() == current;
    if aimed || process::is_child() || from_ourselves(info) {
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
