//! Where a server can be reached: the file that it leaves in its runtime folder while it runs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Name of the file in the runtime folder.
const NAME: &str = "server.json";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFile {
    /// Of the agent protocol.
    pub version: u32,
    /// The server's process.
    pub pid: u32,
    /// Names this run of the server.
    pub instance: String,
    /// Its local endpoint.
    pub ipc: String,
    /// Its loopback port.
    pub tcp: Option<Signed>,
    /// Its address for everybody else.
    pub curve: Option<Curve>,
}

/// A loopback port: messages are signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// `tcp://127.0.0.1:5555`
    pub endpoint: String,
    /// Of the signatures.
    pub key: String,
}

/// An address that anybody may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Curve {
    /// `tcp://0.0.0.0:5556`
    pub endpoint: String,
    /// The server's public key, Z85.
    pub public_key: String,
}

/// The file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerFileError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is something else.
    #[error("{}: no description of a server: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl ServerFile {
    /// Where the file of a runtime folder lies.
    #[must_use]
    pub fn path_in(runtime: &Path) -> PathBuf {
        runtime.join(NAME)
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`ServerFileError`]; `Io` with `NotFound` when no server runs.
    pub fn read(path: &Path) -> Result<Self, ServerFileError> {
        let text = fs::read(path).map_err(|source| ServerFileError::Io { path: path.to_owned(), source })?;
        serde_json::from_slice(&text)
            .map_err(|source| ServerFileError::Content { path: path.to_owned(), source })
    }

    /// Writes it for nobody else to read, whole or not at all.
    ///
    /// # Errors
    /// [`ServerFileError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), ServerFileError> {
        let failed = |source| ServerFileError::Io { path: path.to_owned(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        let beside = path.with_extension(format!("json.{}", self.pid));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        fs::rename(&beside, path).map_err(failed)
    }

    /// Removes it at the end of the run that wrote it; another server's stays.
    pub fn remove(&self, path: &Path) {
        if Self::read(path).is_ok_and(|found| found.instance == self.instance) {
            // A file that stays behind names a socket where nobody listens, which clients see.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(instance: &str) -> ServerFile {
        ServerFile {
            version: 1,
            pid: 7,
            instance: instance.to_owned(),
            ipc: "ipc:///run/cob/agent".to_owned(),
            tcp: Some(Signed { endpoint: "tcp://127.0.0.1:5".to_owned(), key: "k".to_owned() }),
            curve: None,
        }
    }

    #[test]
    fn what_is_written_is_read_by_its_owner_only_and_removed_by_its_own_run_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = ServerFile::path_in(folder.path());
        file("a").write(&path).unwrap();
        assert_eq!(ServerFile::read(&path).unwrap(), file("a"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        file("b").remove(&path);
        assert!(path.exists());
        file("a").remove(&path);
        assert!(matches!(ServerFile::read(&path), Err(ServerFileError::Io { .. })));
    }
}
