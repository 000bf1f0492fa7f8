//! Which execution the calling code belongs to.
//!
//! A context variable of Python holds its number: threads and tasks that an execution starts inherit it, and
//! what they print later is still theirs.

use cob_protocol::frame::ExecutionNumber;
use cob_worker::Worker;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::worker;

struct OriginVar {
    var: Py<PyAny>,
    /// Its bound method, to be called on every write.
    get: Py<PyAny>,
}

static ORIGIN: PyOnceLock<OriginVar> = PyOnceLock::new();

/// Names the `ContextVar` (with a default) that holds the number of the execution.
#[pyfunction]
pub(super) fn set_origin_var(var: Bound<'_, PyAny>) -> PyResult<()> {
    let py = var.py();
    let get = var.getattr("get")?.unbind();
    // A second call is of no use to anybody; the first variable stays.
    let _ = ORIGIN.set(py, OriginVar { var: var.unbind(), get });
    Ok(())
}

/// The execution that the calling code belongs to; 0 if that is not known.
#[pyfunction]
pub(super) fn origin(py: Python<'_>) -> ExecutionNumber {
    let Some(origin) = ORIGIN.get(py) else { return 0 };
    origin.get.bind(py).call0().and_then(|number| number.extract()).unwrap_or(0)
}

/// The execution that runs; 0 if none does.
#[pyfunction]
pub(super) fn running() -> ExecutionNumber {
    worker().map_or(0, Worker::running)
}

/// The client's header of an execution (of the calling code's own, if none is named), as JSON.
#[pyfunction]
#[pyo3(signature = (execution = None))]
pub(super) fn parent(py: Python<'_>, execution: Option<ExecutionNumber>) -> PyResult<String> {
    let worker = worker()?;
    let execution = execution.unwrap_or_else(|| effective(py));
    Ok(worker.parent(execution).map_or_else(|| "{}".to_owned(), |json| json.as_str().to_owned()))
}

/// The execution that a frame of the calling code names: its own, or else the one that runs.
pub(super) fn effective(py: Python<'_>) -> ExecutionNumber {
    match origin(py) {
        0 => running(),
        number => number,
    }
}

/// The main thread's code belongs to `execution` now.
pub(super) fn enter(py: Python<'_>, execution: ExecutionNumber) -> PyResult<()> {
    let Some(origin) = ORIGIN.get(py) else { return Ok(()) };
    origin.var.bind(py).call_method1(intern!(py, "set"), (execution,)).map(drop)
}
