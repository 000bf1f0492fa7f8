//! The native half of a Python worker: the extension module `_cob`.
//!
//! [`main`] is called by the bootstrap and keeps the main thread until the session ends. The functions of the
//! module are for `cob.engine` and its siblings, not for users.

mod buffer;
mod bundle;
mod executor;
mod frames;
mod gil;
mod origin;
mod print;
mod signal;
mod sources;
mod streams;
mod zygote;

use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use cob_protocol::frame::{ExecutionNumber, StreamName};
use cob_worker::descriptors::Role;
use cob_worker::output::write_plainly;
use cob_worker::process::give_up;
use cob_worker::run::{Ending, run};
use cob_worker::{Worker, process};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use executor::PythonExecutor;
use gil::{Gil, raised};

static WORKER: OnceLock<Worker> = OnceLock::new();

/// The native half of a Python worker.
#[pymodule]
mod _cob {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::executor::set_idle_hook;
    #[pymodule_export]
    use super::frames::{call, clear_output, comm, display, error, log, result};
    #[pymodule_export]
    use super::origin::{origin, parent, running, set_origin_var};
    #[pymodule_export]
    use super::print::{print, set_streams};
    #[pymodule_export]
    use super::streams::{stderr_write, stdout_write};
    #[pymodule_export]
    use super::{is_child, main};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("version", env!("CARGO_PKG_VERSION"))
    }
}

/// Serves the host until the session ends; as a zygote, the host of each forked worker. `in_folder`: whether modules of the working folder can be imported.
#[pyfunction]
fn main(py: Python<'_>, in_folder: bool, sources: Option<PathBuf>) -> PyResult<()> {
    if WORKER.get().is_some() {
        return Err(PyRuntimeError::new_err("this process is a worker already"));
    }
    sources::install(py, sources)?;
    let (descriptors, is_forked) = match Role::take().unwrap_or_else(|error| no_worker(&error)) {
        Role::Worker(descriptors) => (descriptors, false),
        // From here on this is one of its workers.
        Role::Zygote(control) => (zygote::serve(py, control).unwrap_or_else(|ending| ending.exit()), true),
    };
    let new = Worker::new(descriptors, signal::interrupt).unwrap_or_else(|error| no_worker(&error));
    let worker = WORKER.get_or_init(|| new);
    let mut executor = PythonExecutor::new(py, worker, in_folder);
    if is_forked {
        executor.warm_up().unwrap_or_else(|reason| give_up(&reason));
    }
    match run(worker, &Gil(py), &mut executor) {
        Ending::Shutdown => Ok(()),
        ending => ending.exit(),
    }
}

/// Whether this process was forked off a worker by user code.
#[pyfunction]
fn is_child() -> bool {
    process::is_child()
}

/// The worker, for the functions that need one.
fn worker() -> PyResult<&'static Worker> {
    WORKER.get().ok_or_else(|| PyRuntimeError::new_err("this process is no worker"))
}

/// Writes text where the calling code's output goes: in a zygote, where nobody's code runs, as it is.
fn write(
    py: Python<'_>,
    stream: StreamName,
    origin: impl FnOnce() -> ExecutionNumber,
    text: &str,
) -> PyResult<()> {
    match WORKER.get() {
        Some(worker) => worker.print(&Gil(py), stream, origin(), text).map_err(raised),
        None => {
            write_plainly(stream, text);
            Ok(())
        }
    }
}

fn no_worker(error: &io::Error) -> ! {
    give_up(&format!("not started as a worker: {error}"))
}
