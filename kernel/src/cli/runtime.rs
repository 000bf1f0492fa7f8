//! The folder where the processes of one user find each other, and where private sessions live.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Failure;

/// `COB_RUNTIME_DIR`, else `cob` in `XDG_RUNTIME_DIR`, else a folder of this user's below the temporary one.
pub(crate) fn folder() -> PathBuf {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("COB_RUNTIME_DIR")
        .or_else(|| named("XDG_RUNTIME_DIR").map(|folder| folder.join("cob")))
        .unwrap_or_else(|| std::env::temp_dir().join(format!("cob-{}", rustix::process::geteuid().as_raw())))
}

/// The file mode creation mask of this process.
pub(crate) fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(mask.trim(), 8).ok()
}

/// A session's own files: removed when it is dropped, and by whoever comes next if the process was killed.
#[derive(Debug)]
pub(crate) struct PrivateFolder {
    folder: PathBuf,
    /// Held while the session lives.
    _lock: File,
}

impl PrivateFolder {
    /// Makes one, and sweeps those whose sessions are over.
    pub(crate) fn create() -> Result<Self, Failure> {
        cob_pool::private_folder(&folder()).map_err(Failure::failed)?;
        let sessions = folder().join("sessions");
        let failed = |error: io::Error| {
            Failure::Failed(format!("cannot make a private folder in {}: {error}", sessions.display()))
        };
        private(&sessions).map_err(failed)?;
        sweep(&sessions);
        let folder = sessions.join(uuid::Uuid::new_v4().to_string());
        private(&folder).map_err(failed)?;
        let lock =
            lock(&folder).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::ResourceBusy.into()))?;
        for inside in ["work", "tmp"] {
            private(&folder.join(inside)).map_err(failed)?;
        }
        Ok(Self { folder, _lock: lock })
    }

    /// The working directory.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// For temporary files.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.folder.join("tmp")
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, folder = %self.folder.display(), "a private folder is left behind");
        }
    }
}

fn private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// `None` while somebody holds it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

fn sweep(sessions: &Path) {
    for entry in std::fs::read_dir(sessions).into_iter().flatten().flatten() {
        // Without a lock file it is being made this very moment.
        let is_over = entry.path().join("lock").exists() && matches!(lock(&entry.path()), Ok(Some(_)));
        if is_over && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, folder = %entry.path().display(), "an old private folder cannot be removed");
        }
    }
}
