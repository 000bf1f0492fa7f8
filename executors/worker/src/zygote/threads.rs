//! How many threads this process has, and whether they outlive a fork.
//!
//! A lock that another thread holds at a fork stays locked in the child for ever, so a process with a second thread
//! must not be forked. Libraries that know this end their threads when a fork comes (OpenBLAS does) and start them
//! again when they are needed: only a fork shows whether a thread is one of those.

use std::fs;
use std::io;

use rustix::event::{Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, waitpid};

use crate::executor::Interpreter;
use crate::process::{EXIT_QUIETLY, exit_now};

/// A thread that was joined is listed until the system has cleaned up behind it: so often it is looked again.
const LOOKS_MAX: u32 = 50;
/// … after this time.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// The number of threads.
///
/// # Errors
/// When `/proc` cannot be read.
pub(super) fn count() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// Forks a process that ends at once, and sees what is left.
///
/// # Errors
/// One sentence that says why this process must not be forked.
pub(super) fn trial_fork<I: Interpreter>(interpreter: &I) -> Result<(), String> {
    let forked = interpreter.fork().map_err(|error| format!("a trial fork failed: {error}"))?;
    let Some(child) = forked else { exit_now(EXIT_QUIETLY) };
    let ended = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    match ended {
        Ok(Some((_, status))) if status.exit_status() == Some(EXIT_QUIETLY) => {}
        Ok(Some((_, status))) => {
            return Err(format!("a process that was forked on trial ended with {status:?}"));
        }
        // A module has told the system not to keep the status of children.
        Ok(None) | Err(_) => {}
    }
    for _ in 0..LOOKS_MAX {
        if count().map_err(uncountable)? == 1 {
            return Ok(());
        }
        let _ = poll(&mut [], Some(&LOOK_AGAIN));
    }
    let names = names().map_err(uncountable)?.join(", ");
    Err(format!(
        "more than one thread is left after a fork, and what a thread has locked stays locked ({names})"
    ))
}

fn uncountable(error: io::Error) -> String {
    format!("the threads of the process cannot be counted: {error}")
}

fn names() -> io::Result<Vec<String>> {
    let names = fs::read_dir("/proc/self/task")?.filter_map(|entry| {
        let name = fs::read_to_string(entry.ok()?.path().join("comm")).ok()?;
        Some(name.trim_end().to_owned())
    });
    Ok(names.collect())
}
