//! Maps the page that kernel and worker share, and waits on its bell.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64};

use cob_protocol::page::{PAGE_BYTES, PAGE_WORDS, Page};
use memmap2::MmapOptions;
use rustix::thread::futex::{Flags, wait};

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

/// Waits until the bell says something else than `heard`, or a signal comes.
pub(crate) fn wait_for_bell(page: Page<'_>, heard: u32) {
    let half = std::ptr::from_ref(page.bell_word()).cast::<AtomicU32>();
    let half = if cfg!(target_endian = "big") { half.wrapping_add(1) } else { half };
    // SAFETY: it is a half of a word that lives as long as the page, aligned for it, and only the system looks at it.
    let bell = unsafe { &*half };
    // Not private: the kernel, which rings, is another process. Every outcome means that the caller looks again.
    let _ = wait(bell, Flags::empty(), heard, None);
}
