//! How a SIGINT stops code: loops of the engine by its flag, waits by a descriptor.
//!
//! With QuickJS the flag is one store into memory, which a signal handler may do.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};

use deno_core::v8;
use rustix::event::{EventfdFlags, eventfd};

use crate::epoll::take_place;

static ASKED: AtomicBool = AtomicBool::new(false);
static BELL: AtomicI32 = AtomicI32::new(-1);
/// The isolate of the one runtime of this process.
static ISOLATE: AtomicPtr<v8::Isolate> = AtomicPtr::new(std::ptr::null_mut());

/// Names the isolate whose code is to be stopped. It must live as long as the process.
pub(crate) fn set_up(isolate: &v8::Isolate) {
    // SAFETY: a second handle to an isolate that is never disposed of; the first one may be moved.
    let handle = unsafe { v8::Isolate::from_raw_isolate_ptr(isolate.as_raw_isolate_ptr()) };
    ISOLATE.store(Box::into_raw(Box::new(handle)), Ordering::Release);
    #[cfg(not(feature = "quickjs"))]
    stopper::start(isolate.thread_safe_handle());
}

/// Stops what runs. Async-signal-safe.
pub(crate) fn deliver() {
    ASKED.store(true, Ordering::SeqCst);
    stop();
    ring(BELL.load(Ordering::Relaxed));
}

fn ring(bell: i32) {
    if bell >= 0 {
        let one = 1u64.to_ne_bytes();
        // SAFETY: `write` is async-signal-safe, and reads the eight bytes of `one`.
        unsafe { libc::write(bell, one.as_ptr().cast(), one.len()) };
    }
}

/// Stops what runs, with whatever flag was set before. Async-signal-safe.
#[cfg(feature = "quickjs")]
pub(crate) fn stop() {
    if let Some(isolate) = isolate() {
        isolate.terminate_execution();
    }
}

/// Stops what runs, with whatever flag was set before. Async-signal-safe.
#[cfg(not(feature = "quickjs"))]
pub(crate) fn stop() {
    ring(stopper::BELL.load(Ordering::Relaxed));
}

/// Stops what runs, from within it: no signal handler may.
#[cfg(not(feature = "quickjs"))]
pub(crate) fn stop_at_once() {
    if let Some(isolate) = isolate() {
        isolate.terminate_execution();
    }
}

/// Whether code was told to stop and has not been told so yet.
pub(crate) fn is_asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// The same, and from now on it was told: code can run again.
pub(crate) fn take() -> bool {
    if !ASKED.swap(false, Ordering::SeqCst) {
        return false;
    }
    resume();
    if is_asked() {
        // Another one came in between, and what it has stopped was let go.
        stop();
    }
    true
}

/// Lets code run again after it was stopped, by whatever.
pub(crate) fn resume() {
    if let Some(isolate) = isolate() {
        isolate.cancel_terminate_execution();
    }
}

fn isolate() -> Option<&'static v8::Isolate> {
    // SAFETY: leaked by `set_up`; the calls on it only touch atomics.
    unsafe { ISOLATE.load(Ordering::Acquire).as_ref() }
}

/// What can be read once code was told to stop; of this process alone.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> std::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        BELL.store(fd.as_raw_fd(), Ordering::Relaxed);
        Ok(Self(fd))
    }

    /// In a process that was just forked: it rings here alone.
    pub(crate) fn renew(&self) -> std::io::Result<()> {
        let own = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        take_place(&own, self.0.as_raw_fd())
    }

    /// Makes it quiet again.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// V8 takes locks to stop code, which a signal handler may not do: a thread does it.
#[cfg(not(feature = "quickjs"))]
mod stopper {
    use super::*;

    /// What wakes the thread.
    pub(super) static BELL: AtomicI32 = AtomicI32::new(-1);

    pub(super) fn start(isolate: v8::IsolateHandle) {
        let bell = eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
        BELL.store(bell.as_raw_fd(), Ordering::Relaxed);
        std::thread::Builder::new()
            .name("cob-stopper".to_owned())
            .spawn(move || {
                while rustix::io::retry_on_intr(|| rustix::io::read(&bell, &mut [0u8; 8])).is_ok() {
                    isolate.terminate_execution();
                }
            })
            .expect("a thread");
    }
}
