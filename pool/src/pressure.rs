//! Hearing of it when the memory of this host runs short: the system measures how long processes have to wait for memory
//! (PSI), and says so. Nobody polls.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use cob_protocol::limits::PRESSURE_TRIGGERS;
use rustix::fs::{Mode, OFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::readiness::watch_for;

/// See the module.
#[derive(Debug)]
pub struct MemoryPressure(AsyncFd<OwnedFd>);

impl MemoryPressure {
    /// Asks the system to say so.
    ///
    /// # Errors
    /// When this system does not, or not to us.
    pub fn open() -> io::Result<Self> {
        Self::at(Path::new("/proc/pressure/memory"), &PRESSURE_TRIGGERS)
    }

    fn at(path: &Path, triggers: &[&str]) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        let mut refused = io::Error::from(io::ErrorKind::Unsupported);
        for trigger in triggers {
            // The system takes the last byte for the end of the text.
            match rustix::io::write(&file, format!("{trigger}\0").as_bytes()) {
                Ok(_) => return watch_for(file, Interest::PRIORITY).map(Self),
                Err(error) => refused = error.into(),
            }
        }
        Err(refused)
    }

    /// Waits until memory is short; what was said before this was asked is old news. `None`: it will not be said again.
    /// Cancel-safe.
    pub async fn short(&self) -> Option<()> {
        tokio::select! {
            biased;
            old = self.said() => old?,
            () = std::future::ready(()) => {}
        }
        self.said().await
    }

    async fn said(&self) -> Option<()> {
        let mut guard = self.0.ready(Interest::PRIORITY).await.ok()?;
        if !guard.ready().is_priority() {
            return None;
        }
        guard.clear_ready();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_say_such_things_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let missing = MemoryPressure::at(&folder.path().join("none"), &PRESSURE_TRIGGERS);
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        // A file is always ready, and cannot be waited for.
        assert!(MemoryPressure::at(&file, &PRESSURE_TRIGGERS).is_err());
        assert!(MemoryPressure::at(&file, &[]).is_err());
    }
}
