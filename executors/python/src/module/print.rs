//! `print`, with one write for the whole line.
//!
//! The builtin writes every argument, separator and end on its own: four system calls for `print('line', i)`, and
//! a reader may see the line in four pieces. This one composes the text first. Whatever is not a plain print to a
//! stream of the session is left to the builtin.

use std::cell::RefCell;

use cob_protocol::frame::StreamName;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule, PyString, PyTuple};

use super::origin;
use super::streams::to_utf8;

struct Streams {
    stdout: Target,
    stderr: Target,
    builtin: Py<PyAny>,
    sys: Py<PyModule>,
}

/// A stream of the session, as long as nobody has put another `write` into it.
struct Target {
    stream: Py<PyAny>,
    write: Py<PyAny>,
}

impl Target {
    fn new(stream: Bound<'_, PyAny>) -> PyResult<Self> {
        let write = stream.getattr(intern!(stream.py(), "write"))?.unbind();
        Ok(Self { stream: stream.unbind(), write })
    }

    fn is(&self, file: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(file.is(&self.stream) && file.getattr(intern!(file.py(), "write"))?.is(&self.write))
    }
}

static STREAMS: PyOnceLock<Streams> = PyOnceLock::new();

/// A line that was longer than this does not keep its memory.
const KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Names the session's own streams and the print that serves all others.
#[pyfunction]
pub(super) fn set_streams(
    stdout: Bound<'_, PyAny>,
    stderr: Bound<'_, PyAny>,
    builtin: Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = builtin.py();
    let streams = Streams {
        stdout: Target::new(stdout)?,
        stderr: Target::new(stderr)?,
        builtin: builtin.unbind(),
        sys: py.import("sys")?.unbind(),
    };
    // A second call is of no use to anybody; the first streams stay.
    let _ = STREAMS.set(py, streams);
    Ok(())
}

/// Prints the values to a stream, or to sys.stdout by default.
///
/// sep
///   string inserted between values, default a space.
/// end
///   string appended after the last value, default a newline.
/// file
///   a file-like object (stream); defaults to the current sys.stdout.
/// flush
///   whether to forcibly flush the stream.
#[pyfunction]
#[pyo3(signature = (*args, **options), text_signature = "(*args, sep=' ', end='\\n', file=None, flush=False)")]
pub(super) fn print(args: &Bound<'_, PyTuple>, options: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let py = args.py();
    let Some(streams) = STREAMS.get(py) else { return Ok(()) };
    match Plain::of(py, streams, options)? {
        Some(plain) => plain.print(args),
        None => streams.builtin.bind(py).call(args, options).map(drop),
    }
}

/// A print to one of the session's streams, with strings for separator and end.
struct Plain<'py> {
    stream: StreamName,
    separator: Option<Bound<'py, PyString>>,
    end: Option<Bound<'py, PyString>>,
}

impl<'py> Plain<'py> {
    fn of(
        py: Python<'py>,
        streams: &Streams,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Option<Self>> {
        let mut file = None;
        let (mut separator, mut end) = (None, None);
        for (name, value) in options.into_iter().flatten() {
            let is_none = value.is_none();
            let place = match name.cast::<PyString>()?.to_str()? {
                // Nothing is buffered.
                "flush" => continue,
                "file" => {
                    file = (!is_none).then_some(value);
                    continue;
                }
                "sep" => &mut separator,
                "end" => &mut end,
                _ => return Ok(None),
            };
            if !is_none {
                let Ok(text) = value.cast_into::<PyString>() else { return Ok(None) };
                *place = Some(text);
            }
        }
        let target = match file {
            Some(file) => file,
            None => streams.sys.bind(py).getattr(intern!(py, "stdout"))?,
        };
        let stream = if streams.stdout.is(&target)? {
            StreamName::Stdout
        } else if streams.stderr.is(&target)? {
            StreamName::Stderr
        } else {
            return Ok(None);
        };
        Ok(Some(Self { stream, separator, end }))
    }

    fn print(&self, args: &Bound<'py, PyTuple>) -> PyResult<()> {
        let py = args.py();
        // Taken out, because `__str__` of an argument may print itself.
        let mut line = LINE.take();
        line.clear();
        for (index, value) in args.iter().enumerate() {
            if index > 0 {
                append(&mut line, self.separator.as_ref(), " ")?;
            }
            let text = match value.cast_into::<PyString>() {
                Ok(text) => text,
                Err(other) => other.into_inner().str()?,
            };
            append(&mut line, Some(&text), "")?;
        }
        append(&mut line, self.end.as_ref(), "\n")?;
        if !line.is_empty() {
            super::write(py, self.stream, || origin::origin(py), &line)?;
        }
        if line.capacity() <= KEPT_BYTES {
            LINE.set(line);
        }
        Ok(())
    }
}

fn append(line: &mut String, text: Option<&Bound<'_, PyString>>, default: &str) -> PyResult<()> {
    match text {
        Some(text) => line.push_str(&to_utf8(text)?),
        None => line.push_str(default),
    }
    Ok(())
}
