//! Bundles: hands both ends of the stream to `cob.bundle`.
//!
//! The ends are borrowed for the length of a call. An object that user code may keep is handed the borrow, so it is
//! taken back when the call is over; from then on the object refuses.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::fmt::Display;
use std::io;
use std::ptr::NonNull;

use cob_protocol::bundle::Outline;
use cob_protocol::checkpoint::Loaded;
use cob_protocol::frame::Outcome;
use cob_protocol::json::Json;
use cob_worker::bundle::{BundleReader, BundleWriter};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::buffer::Buffer;

/// What does not fit into the memory that was made for it is read in such pieces.
const SURPLUS_BYTES: usize = 64 << 10;

/// Writes down what the session holds.
pub(super) fn save(py: Python<'_>, writer: &mut BundleWriter) -> PyResult<()> {
    let object = Bound::new(py, Writer(Lent::new(writer)))?;
    let result = half(py).and_then(|half| half.call_method1("save", (&object,)));
    object.borrow().0.take_back();
    result.map(drop)
}

/// Takes a bundle in.
pub(super) fn load(py: Python<'_>, reader: &mut BundleReader, force: bool) -> PyResult<Outcome> {
    let object = Bound::new(py, Reader(Lent::new(reader)))?;
    let result = half(py).and_then(|half| half.call_method1("load", (&object, force)));
    object.borrow().0.take_back();
    let (status, text): (String, String) = result?.extract()?;
    match status.as_str() {
        "declined" => Ok(Outcome::Declined(text)),
        _ => {
            let loaded: Loaded = Json::parse(text).and_then(|json| json.read()).map_err(wrong)?;
            Ok(Outcome::Value(Json::of(&loaded).map_err(wrong)?))
        }
    }
}

fn half(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("cob.bundle")
}

/// Not what the protocol says.
fn wrong(error: impl Display) -> PyErr {
    PyValueError::new_err(format!("not what it should be: {error}"))
}

/// A borrow that ends before its object does.
struct Lent<T>(RefCell<Option<NonNull<T>>>);

impl<T> Lent<T> {
    fn new(lent: &mut T) -> Self {
        Self(RefCell::new(Some(NonNull::from(lent))))
    }

    fn take_back(&self) {
        // Nobody holds it: a call through it runs no code of Python's, so none is under way here.
        self.0.replace(None);
    }

    /// Calls again when a signal cut the work short that its handler did not make an exception of. The interpreter is
    /// let go meanwhile.
    fn with<R: Send>(
        &self,
        py: Python<'_>,
        mut work: impl FnMut(&mut T) -> io::Result<R> + Send,
    ) -> PyResult<R>
    where
        T: Send,
    {
        let lent = self.0.try_borrow_mut().map_err(|_| over())?;
        let mut place = lent.ok_or_else(over)?;
        // SAFETY: it is taken back before the borrow that it was made of ends, and the cell lets one caller in at a time;
        // the object cannot leave this thread (`unsendable`), which waits while another one has the interpreter.
        let lent_to_us = unsafe { place.as_mut() };
        loop {
            match py.detach(|| work(lent_to_us)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => py.check_signals()?,
                result => return Ok(result?),
            }
        }
    }
}

fn over() -> PyErr {
    PyRuntimeError::new_err("the bundle is closed")
}

/// The end that a bundle is written to.
#[pyclass(unsendable, module = "_cob")]
struct Writer(Lent<BundleWriter>);

#[pymethods]
impl Writer {
    /// Adds bytes to the present blob.
    fn write(&self, py: Python<'_>, bytes: &Bound<'_, PyAny>) -> PyResult<()> {
        let buffer = Buffer::new(bytes)?;
        let bytes = buffer.bytes();
        self.0.with(py, |writer| writer.write(bytes))
    }

    /// The present blob is whole; its number.
    fn end_blob(&self, py: Python<'_>) -> PyResult<u32> {
        self.0.with(py, BundleWriter::end_blob)
    }

    /// All blobs are written.
    fn finish(&self, py: Python<'_>, outline: String) -> PyResult<()> {
        let outline: Outline = Json::parse(outline).and_then(|json| json.read()).map_err(wrong)?;
        self.0.with(py, |writer| writer.finish(&outline))
    }
}

/// The end that a bundle is read from.
#[pyclass(unsendable, module = "_cob")]
struct Reader(Lent<BundleReader>);

#[pymethods]
impl Reader {
    /// What the bundle says of itself; asked for first, and once.
    fn outline(&self, py: Python<'_>) -> PyResult<String> {
        let outline = self.0.with(py, BundleReader::outline)?;
        Ok(Json::of(&outline).map_err(wrong)?.as_str().to_owned())
    }

    /// Reads the next blob into memory, as much of it as fits; the length of all of it, `None` after the last one.
    fn blob_into(&self, py: Python<'_>, memory: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let mut buffer = Buffer::writable(memory)?;
        let room = buffer.bytes_mut();
        if !self.0.with(py, BundleReader::next_blob)? {
            return Ok(None);
        }
        let (mut at, mut surplus) = (0, vec![0; SURPLUS_BYTES]);
        let mut length = 0;
        loop {
            let into = match room.get_mut(at..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => &mut surplus[..],
            };
            let count = self.0.with(py, |reader| reader.read(into))?;
            if count == 0 {
                return Ok(Some(length));
            }
            length += count as u64;
            at = (at + count).min(room.len());
        }
    }
}
