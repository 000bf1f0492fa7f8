//! The memory page shared with one worker. The layout and its rules are in [`cob_protocol::page`].
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;

use cob_protocol::page::{PAGE_BYTES, PAGE_WORDS, Page};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

/// A mapping that lives as long as the worker's handle.
#[derive(Debug)]
pub(crate) struct SharedPage {
    map: MmapRaw,
}

/// The memory of a page, for both sides to map.
pub(crate) fn create() -> io::Result<OwnedFd> {
    let fd = memfd_create("cob-page", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, PAGE_BYTES as u64)?;
    // A worker that could shrink the file would make the kernel fault on it.
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

impl SharedPage {
    /// Maps a page that [`create`] made.
    pub(crate) fn map(fd: &OwnedFd) -> io::Result<Self> {
        let map = MmapOptions::new().len(PAGE_BYTES).map_raw(fd)?;
        Ok(Self { map })
    }

    pub(crate) fn get(&self) -> Page<'_> {
        // SAFETY: the mapping is PAGE_BYTES long and page-aligned, lives as long as `self`, and its file is sealed
        // at that size. Both processes touch it only through atomics.
        let words = unsafe { &*self.map.as_ptr().cast::<[AtomicU64; PAGE_WORDS]>() };
        Page::new(words)
    }
}
