//! The memory page shared with one worker. The layout and its rules are in [`cob_protocol::page`].
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;

use cob_protocol::page::{PAGE_BYTES, PAGE_WORDS, Page};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};

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
    /// Wakes a worker that waits for a word of this process.
    pub(crate) fn wake(&self) {
        let bell = self.get().bell_word().as_ptr().cast::<u32>();
        // The system knows words of 32 bits: the low half.
        let low = if cfg!(target_endian = "big") { 1 } else { 0 };
        // SAFETY: the address of a word in a live mapping, which the system only looks up; nobody is woken by mistake
        // but by himself.
        unsafe { libc::syscall(libc::SYS_futex, bell.add(low), libc::FUTEX_WAKE, i32::MAX) };
    }

    /// Maps a page that [`create`] made.
    pub(crate) fn map(fd: &OwnedFd) -> io::Result<Self> {
        // One that came from another process may be none.
        if fstat(fd)?.st_size != PAGE_BYTES as i64 || !fcntl_get_seals(fd)?.contains(SealFlags::SHRINK) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no page of a worker"));
        }
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
