//! Waits without the interpreter.

use cob_worker::{Interpreter, SendError};
use pyo3::exceptions::PyValueError;
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
}

/// The Python exception for what could not be sent or written.
pub(super) fn raised(error: SendError<PyErr>) -> PyErr {
    match error {
        SendError::Interrupted(error) => error,
        SendError::Codec(error) => PyValueError::new_err(error.to_string()),
        SendError::Io(error) => error.into(),
    }
}
