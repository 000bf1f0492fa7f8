//! Maps the page that kernel and worker share, and waits on its bell.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64};

use cob_protocol::page::{PAGE_BYTES, PAGE_WORDS, Page};
use memmap2::MmapOptions;
use rustix::fs::fstat;
use rustix::param::page_size;
use rustix::thread::futex::{Flags, wait};

/// Maps the page for the rest of the process's life: a signal handler reads it.
pub(crate) fn map(memory: impl AsFd) -> io::Result<Page<'static>> {
    let memory = memory.as_fd().try_clone_to_owned()?;
    let file = std::fs::File::from(memory);
    if file.metadata()?.len() < PAGE_BYTES as u64 {
        return Err(too_small());
    }
    let mapping = Box::leak(Box::new(MmapOptions::new().len(PAGE_BYTES).map_raw(&file)?));
    let words = mapping.as_mut_ptr().cast::<[AtomicU64; PAGE_WORDS]>();
    // SAFETY: the mapping is page-aligned, PAGE_BYTES long, never unmapped (leaked above), and only ever
    // accessed through atomics, here and in the kernel.
    Ok(Page::new(unsafe { &*words }))
}

/// Puts other memory in the place of a mapped page: a new one, or, without one, memory that nobody shares.
pub(crate) fn replace(page: Page<'static>, memory: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let words = std::ptr::from_ref(page.bell_word()) as usize;
    let address = words - words % page_size();
    let (fd, flags) = match memory {
        Some(memory) => (memory.as_raw_fd(), libc::MAP_SHARED),
        None => (-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
    };
    if let Some(memory) = memory
        && fstat(memory)?.st_size < PAGE_BYTES as i64
    {
        return Err(too_small());
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: exactly the page that `map` has mapped for good; whoever has it holds nothing but atomics in it.
    let mapped = unsafe {
        libc::mmap(address as *mut libc::c_void, PAGE_BYTES, access, flags | libc::MAP_FIXED, fd, 0)
    };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn too_small() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the shared page is too small")
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
