//! `write` of `sys.stdout` and `sys.stderr`.

use std::borrow::Cow;

use cob_protocol::frame::StreamName;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::origin;

/// Writes text to standard output; returns its length.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub(super) fn stdout_write(text: &Bound<'_, PyAny>) -> PyResult<usize> {
    write(StreamName::Stdout, text)
}

/// Writes text to standard error; returns its length.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub(super) fn stderr_write(text: &Bound<'_, PyAny>) -> PyResult<usize> {
    write(StreamName::Stderr, text)
}

fn write(stream: StreamName, text: &Bound<'_, PyAny>) -> PyResult<usize> {
    let py = text.py();
    let Ok(text) = text.cast::<PyString>() else {
        let kind = text.get_type().name()?;
        return Err(PyTypeError::new_err(format!("write() argument must be str, not {kind}")));
    };
    let characters = text.len()?;
    if characters > 0 {
        let utf8 = to_utf8(text)?;
        super::write(py, stream, || origin::origin(py), &utf8)?;
    }
    Ok(characters)
}

/// The text as UTF-8; lone surrogates, which UTF-8 cannot hold, as `\udc80`.
pub(super) fn to_utf8<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, str>> {
    if let Ok(utf8) = text.to_str() {
        return Ok(Cow::Borrowed(utf8));
    }
    let py = text.py();
    let bytes = text.call_method1(intern!(py, "encode"), ("utf-8", "backslashreplace"))?;
    let bytes = bytes.cast::<PyBytes>().map_err(PyErr::from)?;
    Ok(Cow::Owned(String::from_utf8_lossy(bytes.as_bytes()).into_owned()))
}
