//! How many threads this process has, and whether they outlive a fork.
//!
//! A lock that another thread holds at a fork stays locked in the child for ever, so a process with a second thread
//! must not be forked. Libraries that know this end their threads when a fork comes (OpenBLAS does) and start them
//! again when they are needed: only a fork shows whether a thread is one of those.

use std::ffi::OsString;
use std::fs;
use std::io;

use rustix::event::{Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, waitpid};

use crate::executor::Interpreter;
use crate::fork::unnoticed;
use crate::process::{EXIT_QUIETLY, exit_now};

/// Libraries that end their threads at a fork may take a moment: so often it is looked again.
const LOOKS_MAX: u32 = 50;
/// … after this time.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// The number of threads.
///
/// # Errors
/// When `/proc` cannot be read.
pub(super) fn count() -> io::Result<usize> {
    Ok(tasks()?.len())
}

/// The threads, without those that are ending: one that was joined is listed until the system has cleaned up behind it,
/// and has no lock any more.
fn tasks() -> io::Result<Vec<fs::DirEntry>> {
    let all = fs::read_dir("/proc/self/task")?.collect::<io::Result<Vec<_>>>()?;
    if all.len() == 1 {
        return Ok(all);
    }
    Ok(all.into_iter().filter(|task| !is_ending(task)).collect())
}

/// Bit of the flags of a task that is on its way out, before anybody who joins it hears of that (`PF_EXITING`).
const EXITING: u64 = 4;

fn is_ending(task: &fs::DirEntry) -> bool {
    // What cannot be read any more has ended.
    let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { return true };
    // The name in parentheses may hold anything, also parentheses; the flags are the seventh field behind it.
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(6));
    flags.and_then(|flags| flags.parse::<u64>().ok()).is_some_and(|flags| flags & EXITING != 0)
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

/// Threads that have outlived a fork, and what was said of them.
///
/// As long as one of them is there another fork would only find it again, and it is no small thing to fork a large
/// process in vain, over and over.
#[derive(Debug, Default)]
pub(crate) struct Stubborn {
    threads: Vec<OsString>,
    said: String,
}

impl Stubborn {
    /// Whether this process may be forked now.
    ///
    /// # Errors
    /// One sentence that says why not.
    pub(crate) fn look<I: Interpreter>(&mut self, interpreter: &I) -> Result<(), String> {
        let threads = list().map_err(uncountable)?;
        if threads.len() == 1 {
            return Ok(());
        }
        // The main thread is none of them.
        if self.threads.iter().skip(1).any(|thread| threads.contains(thread)) {
            return Err(self.said.clone());
        }
        let tried = unnoticed(|| trial_fork(interpreter));
        *self = match &tried {
            Ok(()) => Self::default(),
            Err(said) => Self { threads: list().map_err(uncountable)?, said: said.clone() },
        };
        tried
    }
}

/// The threads by number, the main one first.
fn list() -> io::Result<Vec<OsString>> {
    let main = OsString::from(std::process::id().to_string());
    let others = tasks()?.into_iter().map(|task| task.file_name());
    Ok(std::iter::once(main.clone()).chain(others.filter(|thread| *thread != main)).collect())
}

fn uncountable(error: io::Error) -> String {
    format!("the threads of the process cannot be counted: {error}")
}

fn names() -> io::Result<Vec<String>> {
    let names = tasks()?.into_iter().filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        Some(name.trim_end().to_owned())
    });
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn who_was_joined_is_not_counted_and_who_lives_is() {
        for _ in 0..50 {
            let (say, hear) = std::sync::mpsc::channel::<()>();
            let (tell, told) = std::sync::mpsc::channel();
            let alive = thread::spawn(move || {
                tell.send(rustix::thread::gettid().as_raw_nonzero().to_string()).unwrap();
                hear.recv().unwrap_err();
            });
            let number = OsString::from(told.recv().unwrap());
            assert!(list().unwrap().contains(&number));
            drop(say);
            alive.join().unwrap();
            assert!(!list().unwrap().contains(&number));
        }
    }
}
