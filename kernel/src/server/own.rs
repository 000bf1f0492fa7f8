//! A session's own folder: made with it, kept while it is open, also from one server to the next, and removed with it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use cob_protocol::ids::SessionId;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFolder(PathBuf);

impl OwnFolder {
    /// That of `session` below `root`; nothing is made yet.
    #[must_use]
    pub(crate) fn of(root: &Path, session: SessionId) -> Self {
        Self(root.join(session.to_string()))
    }

    /// The working directory, and the home of the code.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// For temporary files.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// Makes what is not there, for nobody else to enter.
    pub(crate) fn make(&self) -> io::Result<()> {
        for folder in [self.work(), self.tmp()] {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        Ok(())
    }

    pub(crate) fn remove(&self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, folder = %self.0.display(), "a session's folder is left behind");
            }
            _ => {}
        }
    }
}

/// Removes the folders below `root` of sessions that are not open: whoever closed them was killed before it could.
pub(crate) fn sweep(root: &Path, is_open: impl Fn(SessionId) -> bool) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let session = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(session) = session.filter(|session| !is_open(*session)) {
            OwnFolder::of(root, session).remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn folders_are_private_and_only_those_of_closed_sessions_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let folders = [1, 2].map(|number| OwnFolder::of(root.path(), SessionId(number)));
        for folder in &folders {
            folder.make().unwrap();
            folder.make().unwrap();
            fs::write(folder.work().join("x"), "x").unwrap();
        }
        assert_eq!(fs::metadata(folders[0].tmp()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir(root.path().join("another")).unwrap();
        sweep(root.path(), |session| session == SessionId(2));
        assert!(!folders[0].work().exists() && folders[1].work().join("x").exists());
        assert!(root.path().join("another").exists());
        folders[1].remove();
        folders[1].remove();
        assert!(!folders[1].work().exists());
    }
}
