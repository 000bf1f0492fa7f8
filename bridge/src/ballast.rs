//! Space kept in reserve: on a full disk even deleting fails, and what runs must still be settled.
//!
//! Only the primitives: when the ballast goes and comes back is the writer's decision.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// A file that holds nothing but room.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// A ballast of so many bytes at `path`; it is not there before [`Ballast::restore`].
    #[must_use]
    pub fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, bytes }
    }

    /// Whether the whole of it is in reserve.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.path.metadata().is_ok_and(|metadata| metadata.len() >= self.bytes)
    }

    /// Takes the room into reserve.
    ///
    /// # Errors
    /// The system's; above all that there is no room. Nothing is held then.
    pub fn restore(&mut self) -> io::Result<()> {
        if self.is_held() {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        if self.bytes == 0 {
            return Ok(());
        }
        fallocate(&file, FallocateFlags::empty(), 0, self.bytes).map_err(|error| {
            // A part of it would look like the whole.
            let _ = std::fs::remove_file(&self.path);
            error.into()
        })
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// The system's.
    pub fn release(&mut self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Bytes that may still be written to the disk of `folder`.
///
/// # Errors
/// The system's.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_room_is_really_taken_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::new(folder.path().join("ballast"), 1 << 20);
        assert!(!ballast.is_held());
        ballast.restore().unwrap();
        ballast.restore().unwrap();
        assert!(ballast.is_held());
        assert!(ballast.path.metadata().unwrap().blocks() * 512 >= 1 << 20);
        ballast.release().unwrap();
        ballast.release().unwrap();
        assert!(!ballast.is_held());
        assert!(free_bytes(folder.path()).unwrap() > 0);
    }

    #[test]
    fn half_a_ballast_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::new(folder.path().join("ballast"), 1 << 60);
        ballast.restore().unwrap_err();
        assert!(!ballast.path.exists());
    }
}
