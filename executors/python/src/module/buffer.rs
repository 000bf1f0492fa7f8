//! The bytes of an object, without a copy.
//!
//! The stable ABI knows Python's buffers from 3.11 on only; in 3.10 they are the same, so they are declared here.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::marker::PhantomData;
use std::slice;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi::{Py_ssize_t, PyObject};
use pyo3::prelude::*;

const SIMPLE: c_int = 0;
const WRITABLE: c_int = 1;

#[repr(C)]
struct View {
    buffer: *mut c_void,
    object: *mut PyObject,
    length: Py_ssize_t,
    item_bytes: Py_ssize_t,
    readonly: c_int,
    dimensions: c_int,
    format: *mut c_char,
    shape: *mut Py_ssize_t,
    strides: *mut Py_ssize_t,
    suboffsets: *mut Py_ssize_t,
    internal: *mut c_void,
}

unsafe extern "C" {
    fn PyObject_GetBuffer(object: *mut PyObject, view: *mut View, flags: c_int) -> c_int;
    fn PyBuffer_Release(view: *mut View);
}

/// The memory of an object, which cannot go away or move meanwhile.
pub(super) struct Buffer<'py> {
    // Boxed, because the exporter may keep its address.
    view: Box<View>,
    /// It is released with the interpreter held.
    _held: PhantomData<Python<'py>>,
}

impl<'py> Buffer<'py> {
    /// To be read.
    pub(super) fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        Self::get(object, SIMPLE)
    }

    /// To be written to.
    pub(super) fn writable(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        Self::get(object, WRITABLE)
    }

    fn get(object: &Bound<'py, PyAny>, flags: c_int) -> PyResult<Self> {
        let mut view = Box::new(View {
            buffer: std::ptr::null_mut(),
            object: std::ptr::null_mut(),
            length: 0,
            item_bytes: 0,
            readonly: 0,
            dimensions: 0,
            format: std::ptr::null_mut(),
            shape: std::ptr::null_mut(),
            strides: std::ptr::null_mut(),
            suboffsets: std::ptr::null_mut(),
            internal: std::ptr::null_mut(),
        });
        // SAFETY: the interpreter is held, the object is alive, and the view is as large as CPython's `Py_buffer`.
        match unsafe { PyObject_GetBuffer(object.as_ptr(), &raw mut *view, flags) } {
            0 => Ok(Self { view, _held: PhantomData }),
            _ => Err(PyErr::take(object.py()).unwrap_or_else(|| PyBufferError::new_err("no buffer"))),
        }
    }

    /// The bytes as they are now. Nobody else may write to them while they are looked at: in a saver there
    /// is nobody else, and what a load reads into is its own.
    pub(super) fn bytes(&self) -> &[u8] {
        let length = self.length();
        if length == 0 {
            return &[];
        }
        // SAFETY: a simple buffer is so many bytes in a row, valid until it is released; and the
        // caller sees to it that nobody writes to them.
        unsafe { slice::from_raw_parts(self.view.buffer.cast::<u8>(), length) }
    }

    /// The bytes to be written to. Nobody else may look at them meanwhile.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let length = self.length();
        if length == 0 || self.view.readonly != 0 {
            return &mut [];
        }
        // SAFETY: as above; the exporter said that it may be written to.
        unsafe { slice::from_raw_parts_mut(self.view.buffer.cast::<u8>(), length) }
    }

    fn length(&self) -> usize {
        usize::try_from(self.view.length).unwrap_or(0)
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // SAFETY: it was filled by `PyObject_GetBuffer`, and is released once, with the interpreter held.
        unsafe { PyBuffer_Release(&raw mut *self.view) }
    }
}
