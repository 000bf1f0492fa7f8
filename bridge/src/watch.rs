//! Noticing that another process has written to a store: for those who read along without being its server.
//!
//! The system tells when a file of the store was written. A commit is written a moment before it can be seen, so a
//! look may come too early; it is repeated a few times, later and later, and then no more until the next write.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use cob_protocol::limits::LOOK_AGAIN_MS;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

/// See the module.
#[derive(Debug)]
pub struct StoreWatch {
    inotify: OwnedFd,
    /// Looks since the last write.
    looks: usize,
}

impl StoreWatch {
    /// Watches the store in `folder`. What is written from now on ends a wait.
    ///
    /// # Errors
    /// The system's.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        // The folder, not the files: some of them come and go.
        let changes = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, folder, changes | inotify::WatchFlags::ONLYDIR)?;
        Ok(Self { inotify, looks: 0 })
    }

    /// Blocks until another look may show something new.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&mut self) -> io::Result<()> {
        let again = LOOK_AGAIN_MS.get(self.looks).map(|ms| Timespec {
            tv_sec: i64::try_from(ms / 1000).unwrap_or(0),
            tv_nsec: i64::try_from(ms % 1000 * 1_000_000).unwrap_or(0),
        });
        let mut ready = [PollFd::new(&self.inotify, PollFlags::IN)];
        let count = loop {
            match poll(&mut ready, again.as_ref()) {
                Err(Errno::INTR) => {}
                count => break count?,
            }
        };
        self.looks = if count == 0 { self.looks + 1 } else { 0 };
        self.drain()
    }

    /// Throws away what the system told: only that it did counts.
    fn drain(&self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_write_ends_the_wait_and_a_few_looks_follow_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cob.db-wal");
        let mut watch = StoreWatch::new(folder.path()).unwrap();
        for _ in LOOK_AGAIN_MS {
            watch.wait().unwrap();
        }
        assert_eq!(watch.looks, LOOK_AGAIN_MS.len());
        let writer = std::thread::spawn(move || {
            let mut file = std::fs::File::create(path).unwrap();
            file.write_all(b"x").unwrap();
        });
        watch.wait().unwrap();
        assert_eq!(watch.looks, 0);
        writer.join().unwrap();
    }
}
