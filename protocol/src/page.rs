//! The small page of memory that kernel and worker share: layout and access rules.
//!
//! It carries what must be known without a message: how far the kernel has read each output pipe (under a
//! sequence lock, so that a worker can add what still lies in the pipe), which execution an interrupt is meant
//! for, and which one runs. The page is only a slice of atomics here; mapping it is the business of its users.
//! The kernel trusts nothing in it: a worker that scribbles over it can only confuse its own output.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::yield_now;

use crate::frame::StreamName;

/// Words of 64 bits in the page.
pub const PAGE_WORDS: usize = 32;
/// Size of the mapping in bytes.
pub const PAGE_BYTES: usize = PAGE_WORDS * 8;

// Words that are written together share a cache line of eight.
const INTERRUPT_TARGET: usize = 0;
const RUNNING: usize = 8;
const STDOUT: usize = 16;
const STDERR: usize = 24;

const _: () = assert!(STDERR + 1 < PAGE_WORDS);

/// Looks at a busy lock before the processor is given up between them.
const SPINS: u32 = 64;
/// After so many looks the reader goes on with its best guess: the writer may be stopped or dead. A writer that was
/// only taken off the processor, on a busy machine, comes back long before.
const LOOKS_MAX: u32 = 200_000;

/// Access to a mapped page.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a>(&'a [AtomicU64; PAGE_WORDS]);

impl<'a> Page<'a> {
    /// Wraps a mapping.
    #[must_use]
    pub fn new(words: &'a [AtomicU64; PAGE_WORDS]) -> Self {
        Self(words)
    }

    fn word(self, index: usize) -> &'a AtomicU64 {
        // Every index is a constant below PAGE_WORDS; the first word stands in for an impossible one.
        self.0.get(index).unwrap_or(&self.0[0])
    }

    /// Kernel: says that the next SIGINT is meant for `execution`.
    pub fn aim_interrupt(self, execution: u64) {
        self.word(INTERRUPT_TARGET).store(execution, Ordering::SeqCst);
    }

    /// Worker: the execution that a SIGINT is meant for.
    #[must_use]
    pub fn interrupt_target(self) -> u64 {
        self.word(INTERRUPT_TARGET).load(Ordering::SeqCst)
    }

    /// Worker: `execution` runs now (0: none does).
    pub fn set_running(self, execution: u64) {
        self.word(RUNNING).store(execution, Ordering::SeqCst);
    }

    /// The execution that runs, as the worker says.
    #[must_use]
    pub fn running(self) -> u64 {
        self.word(RUNNING).load(Ordering::SeqCst)
    }

    /// Kernel: reads a pipe through `read` and publishes how much came.
    ///
    /// # Errors
    /// What `read` returns; nothing is published then.
    pub fn consume<E>(self, stream: StreamName, read: impl FnOnce() -> Result<usize, E>) -> Result<usize, E> {
        let (sequence, consumed) = self.counter(stream);
        sequence.fetch_add(1, Ordering::SeqCst);
        let result = read();
        if let Ok(count) = &result {
            consumed.fetch_add(*count as u64, Ordering::SeqCst);
        }
        sequence.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// Worker: bytes written to a pipe so far, where `unread` asks how many still lie in it (`FIONREAD`).
    pub fn written(self, stream: StreamName, mut unread: impl FnMut() -> u64) -> u64 {
        let (sequence, consumed) = self.counter(stream);
        for look in 0..LOOKS_MAX {
            let before = sequence.load(Ordering::SeqCst);
            if before.is_multiple_of(2) {
                let total = consumed.load(Ordering::SeqCst) + unread();
                if sequence.load(Ordering::SeqCst) == before {
                    return total;
                }
            }
            // The kernel may be off the processor in the middle of a read: let it go on.
            if look < SPINS { spin_loop() } else { yield_now() }
        }
        consumed.load(Ordering::SeqCst) + unread()
    }

    fn counter(self, stream: StreamName) -> (&'a AtomicU64, &'a AtomicU64) {
        let base = match stream {
            StreamName::Stdout => STDOUT,
            StreamName::Stderr => STDERR,
        };
        (self.word(base), self.word(base + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_is_what_was_read_and_what_still_lies_in_the_pipe() {
        let words = [const { AtomicU64::new(0) }; PAGE_WORDS];
        let page = Page::new(&words);
        assert_eq!(page.consume(StreamName::Stdout, || Ok::<_, ()>(10)), Ok(10));
        assert_eq!(page.written(StreamName::Stdout, || 5), 15);
        assert_eq!(page.written(StreamName::Stderr, || 0), 0);
        assert_eq!(page.consume(StreamName::Stdout, || Err::<usize, _>("empty")), Err("empty"));
        assert_eq!(page.written(StreamName::Stdout, || 0), 10);
    }

    #[test]
    fn a_writer_that_never_finishes_does_not_stop_the_reader() {
        let words = [const { AtomicU64::new(0) }; PAGE_WORDS];
        words[STDOUT].store(1, Ordering::SeqCst);
        assert_eq!(Page::new(&words).written(StreamName::Stdout, || 3), 3);
    }
}
