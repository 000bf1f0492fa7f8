//! Maps the page that kernel and worker share.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;

use cob_protocol::page::{PAGE_BYTES, PAGE_WORDS, Page};
use memmap2::MmapOptions;

/// Maps the page for the rest of the process's life: a signal handler reads it.
pub(crate) fn map(memory: impl AsFd) -> io::Result<Page<'static>> {
    let memory = memory.as_fd().try_clone_to_owned()?;
    let file = std::fs::File::from(memory);
    if file.metadata()?.len() < PAGE_BYTES as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the shared page is too small"));
    }
    let mapping = Box::leak(Box::new(MmapOptions::new().len(PAGE_BYTES).map_raw(&file)?));
    let words = mapping.as_mut_ptr().cast::<[AtomicU64; PAGE_WORDS]>();
    // SAFETY: the mapping is page-aligned, PAGE_BYTES long, never unmapped (leaked above), and only ever
    // accessed through atomics, here and in the kernel.
    Ok(Page::new(unsafe { &*words }))
}
