//! The functions with which the Python half sends frames.

use bytes::Bytes;
use cob_protocol::frame::{
    ClearOutput, Comm, CommAction, Display, Failure, Frame, Mime, MimeEncoding, Outcome, Position,
    ResultValue, StreamName, UpdateDisplay,
};
use cob_protocol::json::Json;
use cob_worker::output::write_last_words;
use cob_worker::{SendError, process};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PyString};

use super::gil::{Gil, raised};
use super::origin::effective;
use super::streams::to_utf8;
use super::worker;

/// Filled in by the outbox.
const HERE: Position = Position { stdout: 0, stderr: 0 };
/// An error that is too large for a frame keeps this much of its text, and of each line of its traceback.
const ERROR_TEXT_BYTES: usize = 64 * 1024;
/// … and this many lines at both ends of the traceback.
const ERROR_LINES: usize = 4;

/// One representation: MIME type, encoding (`t`ext, `j`son or `b`inary) and payload.
type Item<'py> = (String, String, Bound<'py, PyAny>);

/// Shows a MIME bundle, or replaces an earlier one.
#[pyfunction]
#[pyo3(signature = (items, metadata, transient, update = false))]
pub(super) fn display(
    py: Python<'_>,
    items: Vec<Item<'_>>,
    metadata: &str,
    transient: &str,
    update: bool,
) -> PyResult<()> {
    if process::is_child() {
        return print_plain(py, &items);
    }
    let (display, payloads) = bundle(py, items, metadata, transient)?;
    let frame = if update { Frame::UpdateDisplay(UpdateDisplay(display)) } else { Frame::Display(display) };
    send(py, frame, &payloads)
}

/// Shows the value of a cell's last expression.
#[pyfunction]
pub(super) fn result(py: Python<'_>, count: u32, items: Vec<Item<'_>>, metadata: &str) -> PyResult<()> {
    if process::is_child() {
        return print_plain(py, &items);
    }
    let (display, payloads) = bundle(py, items, metadata, "{}")?;
    send(py, ResultValue { count, display }, &payloads)
}

/// Removes the output so far, or when the next one arrives.
#[pyfunction]
#[pyo3(signature = (wait = false))]
pub(super) fn clear_output(py: Python<'_>, wait: bool) -> PyResult<()> {
    send(py, ClearOutput { execution: effective(py), wait, at: HERE }, &[])
}

/// Shows an error. One too large for a frame is cut: an error must never fail to be told.
#[pyfunction]
pub(super) fn error(
    py: Python<'_>,
    ename: &Bound<'_, PyString>,
    evalue: &Bound<'_, PyString>,
    traceback: Vec<Bound<'_, PyString>>,
) -> PyResult<()> {
    let traceback =
        traceback.iter().map(|line| Ok(to_utf8(line)?.into_owned())).collect::<PyResult<Vec<_>>>()?;
    if process::is_child() {
        let text = format!("{}\n", traceback.join("\n"));
        return worker()?.print(&Gil(py), StreamName::Stderr, 0, &text).map_err(raised);
    }
    let failure = Failure {
        execution: effective(py),
        ename: to_utf8(ename)?.into_owned(),
        evalue: to_utf8(evalue)?.into_owned(),
        traceback,
        at: HERE,
    };
    send_failure(py, failure)
}

pub(super) fn send_failure(py: Python<'_>, failure: Failure) -> PyResult<()> {
    let worker = worker()?;
    match worker.send(&Gil(py), failure.clone(), &[]) {
        Err(SendError::Codec(_)) => worker.send(&Gil(py), shortened(failure), &[]).map_err(raised),
        result => result.map_err(raised),
    }
}

fn shortened(mut failure: Failure) -> Failure {
    let lines = &mut failure.traceback;
    if lines.len() > 2 * ERROR_LINES {
        let left_out = lines.len() - 2 * ERROR_LINES;
        let end = lines.len() - ERROR_LINES;
        lines.splice(ERROR_LINES..end, [format!("[... {left_out} parts are left out]")]);
    }
    lines.iter_mut().for_each(shorten);
    shorten(&mut failure.ename);
    shorten(&mut failure.evalue);
    failure
}

fn shorten(text: &mut String) {
    if text.len() > ERROR_TEXT_BYTES {
        let kept = (0..=ERROR_TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let left_out = text.len() - kept;
        text.truncate(kept);
        text.push_str(&format!("[... {left_out} bytes are left out]"));
    }
}

/// Sends a comm message to the front end.
#[pyfunction]
#[pyo3(signature = (action, comm_id, target_name, target_module, data, metadata, buffers))]
#[allow(clippy::too_many_arguments, reason = "the parts of a message, in its order")]
pub(super) fn comm(
    py: Python<'_>,
    action: &str,
    comm_id: String,
    target_name: Option<String>,
    target_module: Option<String>,
    data: &str,
    metadata: &str,
    buffers: Vec<Bound<'_, PyAny>>,
) -> PyResult<()> {
    let comm = Comm {
        action: comm_action(action)?,
        execution: effective(py),
        comm_id,
        target_name,
        target_module,
        data: json(data)?,
        metadata: json(metadata)?,
        parent: Json::object(),
        at: HERE,
    };
    let buffers = buffers.iter().map(to_bytes).collect::<PyResult<Vec<_>>>()?;
    send(py, comm, &buffers)
}

/// Asks the host and waits for its answer: `value` and JSON, or `eof`, `declined`, `timed_out` and a reason.
#[pyfunction]
pub(super) fn call(py: Python<'_>, kind: String, arguments: &str) -> PyResult<(&'static str, String)> {
    let arguments = json(arguments)?;
    Ok(match worker()?.call(&Gil(py), kind, arguments).map_err(raised)? {
        Outcome::Value(value) => ("value", value.as_str().to_owned()),
        Outcome::Eof(reason) => ("eof", reason),
        Outcome::Declined(reason) => ("declined", reason),
        Outcome::TimedOut(reason) => ("timed_out", reason),
        Outcome::Failed { ename, evalue } => ("failed", failed(&ename, &evalue)),
        Outcome::Again => ("declined", "the host does not know the question".to_owned()),
    })
}

/// How somebody failed, as JSON.
fn failed(ename: &str, evalue: &str) -> String {
    Json::of(&[ename, evalue]).unwrap_or_default().as_str().to_owned()
}

/// Says something to the operator; the level is `error`, `warn`, `info` or `debug`.
#[pyfunction]
pub(super) fn log(py: Python<'_>, level: &str, text: &Bound<'_, PyString>) -> PyResult<()> {
    let text = to_utf8(text)?;
    match worker() {
        Ok(worker) => worker.log(&Gil(py), level, &text),
        Err(_) => write_last_words(&format!("cob: {text}\n")), // a zygote's stderr is a log
    }
    Ok(())
}

fn send(py: Python<'_>, frame: impl Into<Frame>, payloads: &[Bytes]) -> PyResult<()> {
    worker()?.send(&Gil(py), frame, payloads).map_err(raised)
}

fn bundle(
    py: Python<'_>,
    items: Vec<Item<'_>>,
    metadata: &str,
    transient: &str,
) -> PyResult<(Display, Vec<Bytes>)> {
    let mut data = Vec::with_capacity(items.len());
    let mut payloads = Vec::with_capacity(items.len());
    for (mime, encoding, payload) in items {
        let (encoding, payload) = representation(&mime, &encoding, &payload)?;
        data.push(Mime { mime, encoding });
        payloads.push(payload);
    }
    let (metadata, transient) = (json(metadata)?, json(transient)?);
    Ok((Display { execution: effective(py), data, metadata, transient, at: HERE }, payloads))
}

fn representation(mime: &str, encoding: &str, payload: &Bound<'_, PyAny>) -> PyResult<(MimeEncoding, Bytes)> {
    match encoding {
        "t" => Ok((MimeEncoding::Text, text(payload)?)),
        "j" => Ok((MimeEncoding::Json, json(&to_utf8(payload.cast()?)?)?.into_bytes())),
        "b" => Ok((MimeEncoding::Binary, to_bytes(payload)?)),
        _ => Err(PyValueError::new_err(format!("{mime}: the encoding is t, j or b, not {encoding:?}"))),
    }
}

fn text(payload: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    Ok(Bytes::copy_from_slice(to_utf8(payload.cast()?)?.as_bytes()))
}

/// In a forked child nobody takes frames; what can be said in text goes to the child's own stdout.
fn print_plain(py: Python<'_>, items: &[Item<'_>]) -> PyResult<()> {
    let Some((_, _, payload)) = items.iter().find(|(mime, _, _)| mime == "text/plain") else {
        return Ok(());
    };
    let text = format!("{}\n", to_utf8(payload.cast()?)?);
    worker()?.print(&Gil(py), StreamName::Stdout, 0, &text).map_err(raised)
}

fn comm_action(name: &str) -> PyResult<CommAction> {
    match name {
        "open" => Ok(CommAction::Open),
        "msg" => Ok(CommAction::Msg),
        "close" => Ok(CommAction::Close),
        _ => Err(PyValueError::new_err(format!("the action is open, msg or close, not {name:?}"))),
    }
}

/// A copy of anything that has the buffer protocol.
fn to_bytes(object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    let view = PyMemoryView::from(object)?;
    let bytes = view.call_method0(intern!(object.py(), "tobytes"))?;
    Ok(Bytes::copy_from_slice(bytes.cast::<PyBytes>()?.as_bytes()))
}

fn json(text: &str) -> PyResult<Json> {
    Json::parse(text).map_err(|error| PyValueError::new_err(format!("not JSON: {error}")))
}
