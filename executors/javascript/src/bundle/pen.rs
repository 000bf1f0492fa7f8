//! Both ends of the stream of a bundle, lent to the scripts while they save or load.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::ptr::NonNull;

use cob_worker::bundle::{BundleReader, BundleWriter};

thread_local! {
    static WRITER: Cell<Option<NonNull<BundleWriter>>> = const { Cell::new(None) };
    static READER: Cell<Option<NonNull<BundleReader>>> = const { Cell::new(None) };
}

/// It is lent until this is dropped.
pub(super) struct Lent<'a>(PhantomData<&'a mut ()>);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        WRITER.set(None);
        READER.set(None);
    }
}

pub(super) fn lend_writer(writer: &mut BundleWriter) -> Lent<'_> {
    WRITER.set(Some(NonNull::from(writer)));
    Lent(PhantomData)
}

pub(super) fn lend_reader(reader: &mut BundleReader) -> Lent<'_> {
    READER.set(Some(NonNull::from(reader)));
    Lent(PhantomData)
}

/// Writes a blob; its number.
///
/// # Errors
/// When nothing is being saved, or nobody takes it.
pub(crate) fn write(parts: &[&[u8]]) -> io::Result<u32> {
    let mut writer = WRITER.get().ok_or_else(|| io::Error::other("nothing is being saved"))?;
    // SAFETY: lent by a borrow that lasts until `Lent` is dropped, which takes it back; this is the only use at a time,
    // since nothing in here comes back to the scripts.
    let writer = unsafe { writer.as_mut() };
    parts.iter().try_for_each(|part| writer.write(part))?;
    writer.end_blob()
}

/// Reads the next blob, if there is one.
///
/// # Errors
/// When nothing is being loaded, or the stream is broken.
pub(crate) fn read() -> io::Result<Option<Vec<u8>>> {
    let mut reader = READER.get().ok_or_else(|| io::Error::other("nothing is being loaded"))?;
    // SAFETY: as above.
    let reader = unsafe { reader.as_mut() };
    patiently(|| reader.blob())
}

/// Reads again after a signal: what runs is told when it goes on.
pub(super) fn patiently<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && !crate::interrupt::is_asked() => {}
            other => return other,
        }
    }
}
