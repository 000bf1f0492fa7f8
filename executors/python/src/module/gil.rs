//! Waits without the interpreter, and forks with it.
#![allow(unsafe_code)]

use std::io;

use cob_worker::fork::fork_away;
use cob_worker::process::{self, Pid};
use cob_worker::{Interpreter, SendError};
use pyo3::exceptions::PyValueError;
use pyo3::ffi::{PyOS_AfterFork_Child, PyOS_AfterFork_Parent, PyOS_BeforeFork};
use pyo3::prelude::*;

/// Proof that this thread holds the interpreter.
#[derive(Clone, Copy)]
pub(super) struct Gil<'py>(pub(super) Python<'py>);

impl Interpreter for Gil<'_> {
    type Interrupt = PyErr;

    fn unlocked<T: Send>(&self, wait: impl FnOnce() -> T + Send) -> T {
        self.0.detach(wait)
    }

    fn signals(&self) -> PyResult<()> {
        self.0.check_signals()
    }

    fn fork(&self) -> io::Result<Option<Pid>> {
        self.around(process::fork, Option::is_none)
    }

    fn fork_away(&self) -> io::Result<bool> {
        self.around(fork_away, |is_copy| *is_copy)
    }
}

impl Gil<'_> {
    /// Forks, and lets Python do before and after what it does around every fork, once each.
    fn around<T>(
        &self,
        fork: impl FnOnce() -> io::Result<T>,
        is_child: impl FnOnce(&T) -> bool,
    ) -> io::Result<T> {
        // SAFETY: this thread holds the interpreter, which is what all three ask for.
        unsafe { PyOS_BeforeFork() };
        let forked = fork();
        if forked.as_ref().is_ok_and(is_child) {
            // SAFETY: as above; this is the child's only thread.
            unsafe { PyOS_AfterFork_Child() };
        } else {
            // SAFETY: as above; also after a fork that failed.
            unsafe { PyOS_AfterFork_Parent() };
        }
        forked
    }
}

/// The Python exception for what could not be sent or written.
pub(super) fn raised(error: SendError<PyErr>) -> PyErr {
    match error {
        SendError::Interrupted(error) => error,
        SendError::Codec(error) => PyValueError::new_err(error.to_string()),
        SendError::Io(error) => error.into(),
    }
}
