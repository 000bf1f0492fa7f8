//! One server per store: the lock of its folder, and who holds it.
//!
//! The system lets go of the lock when its holder dies, however that happens, so nothing is left to be cleared up; the
//! number in the file is for people.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use cob_protocol::limits::STORE_LOCK_WAIT_MS;

/// Held as long as it exists.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: File,
}

/// Why the lock was not got.
#[derive(Debug)]
pub(crate) enum NotLocked {
    /// Another process has it.
    Held {
        /// Its number, if it has written it down already.
        pid: Option<u32>,
    },
    /// The system refused.
    Failed(io::Error),
}

impl StoreLock {
    /// Takes the lock `path`, or says who has it. Waits a moment for one who is about to let go of it.
    ///
    /// # Errors
    /// [`NotLocked`]
    pub(crate) fn take(path: &Path) -> Result<Self, NotLocked> {
        Self::take_if(path, is_let_go)
    }

    /// Takes the lock `path` if nobody has it.
    ///
    /// # Errors
    /// [`NotLocked`]
    pub(crate) fn take_at_once(path: &Path) -> Result<Self, NotLocked> {
        Self::take_if(path, |_| false)
    }

    fn take_if(path: &Path, is_let_go: fn(&File) -> bool) -> Result<Self, NotLocked> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(NotLocked::Failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if is_let_go(&file) => {}
            Err(TryLockError::WouldBlock) => return Err(NotLocked::Held { pid: holder(&mut file) }),
            Err(TryLockError::Error(error)) => return Err(NotLocked::Failed(error)),
        }
        sign(&mut file).map_err(NotLocked::Failed)?;
        Ok(Self { _file: file })
    }
}

/// Whether the lock comes free in a moment. A server that was killed while it started a process leaves the lock with
/// that process until it runs its program: without this, its successor would be told of a server that is dead.
fn is_let_go(file: &File) -> bool {
    let (got, waiting) = sync_channel(1);
    let Ok(file) = file.try_clone() else { return false };
    // Waits in a thread because waiting for a lock knows no limit. One that comes too late is let go of at once.
    let wait = move || file.lock().is_ok() && got.send(()).is_ok();
    if std::thread::Builder::new().spawn(wait).is_err() {
        return false;
    }
    waiting.recv_timeout(Duration::from_millis(STORE_LOCK_WAIT_MS)).is_ok()
}

fn sign(file: &mut File) -> io::Result<()> {
    let text = format!("{}\n", std::process::id());
    // Overwritten before it is cut, so that a reader never finds an empty file after the first time.
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_comes_free_in_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = StoreLock::take(&path).unwrap();
        let second = std::thread::spawn({
            let path = path.clone();
            move || StoreLock::take(&path).is_ok()
        });
        drop(first);
        assert!(second.join().unwrap());
    }

    #[test]
    fn s10_the_second_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::fs::write(&path, "4000000000 of somebody who is long dead\n").unwrap();
        let first = StoreLock::take(&path).unwrap();
        let Err(NotLocked::Held { pid }) = StoreLock::take(&path) else { panic!("two hold it") };
        assert_eq!(pid, Some(std::process::id()));
        drop(first);
        StoreLock::take(&path).unwrap();
    }
}
