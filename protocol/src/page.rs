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
/// Highest frame of the worker that the kernel has recorded.
const ACKNOWLEDGED: usize = 1;
/// How often the frame socket was replaced: a worker that finds another number than its own fetches the new one.
const EPOCH: usize = 2;
/// A 32-bit word to wait on, in the low half: counted up with every change of the two above.
const BELL: usize = 3;
/// Not 0 while the worker waits on the bell.
const LISTENING: usize = 9;
/// Number of the worker's latest frame.
const SENT: usize = 10;
const STDOUT: usize = 16;
const STDERR: usize = 24;
/// Of a stream's words: where bytes are being moved out of the pipe, one more than the total before; else 0. See
/// [`Page::intend`].
const INTENDED: usize = 2;

const _: () = assert!(STDERR + INTENDED < PAGE_WORDS);

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

    /// Kernel, of a session that outlives it: bytes are about to be moved from a pipe to a *receipt*, another pipe that
    /// outlives the kernel as well. The steps are this one, [`Page::consume`], the emptying of the receipt,
    /// [`Page::settle`]; whoever comes after a kernel that was killed between two of them calls [`Page::recover`].
    ///
    /// What is noted is the total *before*: how many bytes the system will move is known only afterwards.
    pub fn intend(self, stream: StreamName) {
        let before = self.consumed(stream);
        self.intended(stream).store(before.wrapping_add(1), Ordering::SeqCst);
    }

    /// Kernel: the receipt is empty again.
    pub fn settle(self, stream: StreamName) {
        self.intended(stream).store(0, Ordering::SeqCst);
    }

    /// Kernel that comes after one that was killed: how many bytes of a pipe were consumed, where `receipt` lie in the
    /// receipt. It is to be emptied next, then [`Page::settle`] is called. May be called again after any of these steps.
    pub fn recover(self, stream: StreamName, receipt: u64) -> u64 {
        let (sequence, consumed) = self.counter(stream);
        let before = self.intended(stream).load(Ordering::SeqCst);
        let total = consumed.load(Ordering::SeqCst);
        // The bytes were moved and not counted. With none in the receipt they were not moved, or all is done.
        if before != 0 && receipt > 0 && total == before.wrapping_sub(1) {
            consumed.store(total.wrapping_add(receipt), Ordering::SeqCst);
        }
        if !sequence.load(Ordering::SeqCst).is_multiple_of(2) {
            sequence.fetch_add(1, Ordering::SeqCst);
        }
        consumed.load(Ordering::SeqCst)
    }

    /// Kernel: bytes of a pipe that were consumed, as the page says.
    #[must_use]
    pub fn consumed(self, stream: StreamName) -> u64 {
        self.counter(stream).1.load(Ordering::SeqCst)
    }

    /// Worker: it is about to send frame `sequence`, whose place it knows.
    pub fn set_sent(self, sequence: u64) {
        self.word(SENT).store(sequence, Ordering::SeqCst);
    }

    /// Kernel: number of the latest frame that the worker sent or is about to; 0 when it does not say.
    #[must_use]
    pub fn sent(self) -> u64 {
        self.word(SENT).load(Ordering::SeqCst)
    }

    fn intended(self, stream: StreamName) -> &'a AtomicU64 {
        match stream {
            StreamName::Stdout => self.word(STDOUT + INTENDED),
            StreamName::Stderr => self.word(STDERR + INTENDED),
        }
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

    /// Kernel: every frame up to `sequence` is recorded. Whether somebody waits for that: if so, the kernel must wake
    /// all who wait on [`Page::bell_word`].
    #[must_use]
    pub fn acknowledge(self, sequence: u64) -> bool {
        self.word(ACKNOWLEDGED).fetch_max(sequence, Ordering::SeqCst);
        self.ring();
        // After the ring: who is not seen listening here will find another bell than it read, and not wait.
        self.word(LISTENING).load(Ordering::SeqCst) != 0
    }

    /// Worker: highest of its frames that the kernel has recorded.
    #[must_use]
    pub fn acknowledged(self) -> u64 {
        self.word(ACKNOWLEDGED).load(Ordering::SeqCst)
    }

    /// Kernel: the frame socket is about to be replaced. Returns the epoch of the new one. After this the kernel wakes
    /// all who wait on [`Page::bell_word`], and sends the worker's end of the new socket over the old one, beside one
    /// byte: [`epoch_byte`].
    #[must_use]
    pub fn replace_socket(self) -> u64 {
        let before = self.word(EPOCH).fetch_add(1, Ordering::SeqCst);
        self.ring();
        before.wrapping_add(1)
    }

    /// Worker: how often the frame socket was replaced.
    #[must_use]
    pub fn epoch(self) -> u64 {
        self.word(EPOCH).load(Ordering::SeqCst)
    }

    /// Changes what [`Page::bell`] says. A signal handler of the worker does it too: a wait that is about to begin
    /// must not.
    pub fn ring(self) {
        self.word(BELL).fetch_add(1, Ordering::SeqCst);
    }

    /// Worker: the value that the bell has now. A wait for a change begins with it, before the last look at whatever
    /// the change is about.
    #[must_use]
    pub fn bell(self) -> u32 {
        // The low half.
        self.word(BELL).load(Ordering::SeqCst) as u32
    }

    /// What holds the bell: to wait on it, or to wake who waits, the system gets the address of its low half.
    #[must_use]
    pub fn bell_word(self) -> &'a AtomicU64 {
        self.word(BELL)
    }

    /// Worker: from now until this is dropped it waits on the bell.
    #[must_use]
    pub fn listen(self) -> Listening<'a> {
        let listening = self.word(LISTENING);
        listening.fetch_add(1, Ordering::SeqCst);
        Listening(listening)
    }

    fn counter(self, stream: StreamName) -> (&'a AtomicU64, &'a AtomicU64) {
        let base = match stream {
            StreamName::Stdout => STDOUT,
            StreamName::Stderr => STDERR,
        };
        (self.word(base), self.word(base + 1))
    }
}

/// Somebody waits on the bell.
#[derive(Debug)]
pub struct Listening<'a>(&'a AtomicU64);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The byte that goes with the socket of an epoch.
///
/// A server may be killed between counting the epoch up and sending the socket; then two epochs have one socket, and
/// a worker must know which of them it got.
#[must_use]
pub fn epoch_byte(epoch: u64) -> u8 {
    epoch.to_le_bytes()[0]
}

/// The epoch after `before`, and up to `now`, that `byte` stands for; `now` for a byte that stands for none.
#[must_use]
pub fn epoch_of_byte(byte: u8, before: u64, now: u64) -> u64 {
    let ahead = byte.wrapping_sub(epoch_byte(before));
    let epoch = before.wrapping_add(u64::from(ahead));
    let is_between = ahead != 0 && u64::from(ahead) <= now.wrapping_sub(before);
    if is_between { epoch } else { now }
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

    /// A kernel is killed between any two steps; the next one finds out how many bytes have left the pipe.
    #[test]
    fn what_was_moved_is_known_after_every_step() {
        let (stream, moved) = (StreamName::Stderr, 7);
        for last_step in 0..=6 {
            let words = [const { AtomicU64::new(0) }; PAGE_WORDS];
            let page = Page::new(&words);
            assert_eq!(page.consume(stream, || Ok::<_, ()>(10)), Ok(10));
            let mut receipt = 0;
            let mut truth = 10;
            if last_step > 0 {
                page.intend(stream);
            }
            if last_step > 1 {
                (receipt, truth) = (moved, 10 + moved);
            }
            match last_step {
                // Killed after the bytes were moved and before they were counted.
                2 => drop(words[STDERR].fetch_add(1, Ordering::SeqCst)),
                3.. => drop(page.consume(stream, || Ok::<_, ()>(usize::try_from(moved).unwrap()))),
                _ => {}
            }
            // The receipt is emptied, perhaps not at once.
            receipt = receipt.min([7, 7, 7, 7, 3, 0, 0][last_step]);
            if last_step == 6 {
                page.settle(stream);
            }
            for _ in 0..2 {
                assert_eq!(page.recover(stream, receipt), truth, "after step {last_step}");
            }
            assert_eq!(page.recover(stream, 0), truth);
            page.settle(stream);
            assert_eq!(page.recover(stream, 0), truth);
            assert_eq!(page.written(stream, || 1), truth + 1);
        }
    }

    #[test]
    fn a_writer_that_never_finishes_does_not_stop_the_reader() {
        let words = [const { AtomicU64::new(0) }; PAGE_WORDS];
        words[STDOUT].store(1, Ordering::SeqCst);
        assert_eq!(Page::new(&words).written(StreamName::Stdout, || 3), 3);
    }

    #[test]
    fn what_is_recorded_only_grows_and_whoever_waits_is_seen() {
        let words = [const { AtomicU64::new(0) }; PAGE_WORDS];
        let page = Page::new(&words);
        let before = page.bell();
        assert!(!page.acknowledge(7));
        assert_ne!(page.bell(), before);
        let listening = [page.listen(), page.listen()];
        assert!(page.acknowledge(3));
        assert_eq!(page.acknowledged(), 7);
        drop(listening);
        assert!(!page.acknowledge(8));
    }

    #[test]
    fn a_new_socket_has_a_new_epoch_and_rings_the_bell() {
        let words = [const { AtomicU64::new(0) }; PAGE_WORDS];
        let page = Page::new(&words);
        let before = page.bell();
        assert_eq!(page.replace_socket(), 1);
        assert_eq!(page.epoch(), 1);
        assert_ne!(page.bell(), before);
    }

    #[test]
    fn a_byte_names_one_of_the_epochs_that_may_be_meant() {
        assert_eq!(epoch_of_byte(epoch_byte(1), 0, 2), 1, "the second socket has yet to come");
        assert_eq!(epoch_of_byte(epoch_byte(2), 0, 2), 2);
        assert_eq!(epoch_of_byte(epoch_byte(257), 255, 258), 257);
        assert_eq!(epoch_of_byte(9, 0, 2), 2, "whatever else it says, a socket is one of those");
        assert_eq!(epoch_of_byte(0, 0, 0), 0);
        assert_eq!(epoch_of_byte(1, u64::MAX, 5), 1);
        assert_eq!(epoch_of_byte(0, u64::MAX, 1), 0);
    }
}
