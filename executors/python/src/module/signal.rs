//! How a SIGINT becomes a KeyboardInterrupt.
#![allow(unsafe_code)]

use std::ffi::c_int;

use pyo3::ffi::PyErr_SetInterruptEx;

const SIGINT: c_int = 2;

/// Asks the interpreter to run its handler of SIGINT soon.
pub(super) fn interrupt() {
    // SAFETY: documented as async-signal-safe, and callable without holding the interpreter.
    unsafe { PyErr_SetInterruptEx(SIGINT) };
}
