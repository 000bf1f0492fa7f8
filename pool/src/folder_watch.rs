//! Noticing that another process has put a file into the folder where the processes of a user find each other.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::readiness::watch;

/// See the module.
#[derive(Debug)]
pub struct FolderWatch(AsyncFd<OwnedFd>);

impl FolderWatch {
    /// Watches `folder`. What is put into it from now on ends a wait.
    ///
    /// # Errors
    /// The system's.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // What is to be read whole is written beside its place and then moved there.
        inotify::add_watch(&inotify, folder, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
        watch(inotify).map(Self)
    }

    /// Waits until something new is there. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        loop {
            match reader.next() {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_moved_into_the_folder_ends_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let watch = FolderWatch::new(folder.path()).unwrap();
        for _ in 0..2 {
            let [new, place] = ["new", "server.json"].map(|name| folder.path().join(name));
            std::fs::write(&new, "{}").unwrap();
            let (changed, moved) = tokio::join!(watch.changed(), async { std::fs::rename(&new, &place) });
            moved.unwrap();
            changed.unwrap();
        }
        FolderWatch::new(&folder.path().join("none")).unwrap_err();
    }
}
