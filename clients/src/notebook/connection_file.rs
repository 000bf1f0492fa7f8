//! The connection file: where a kernel shall bind, and the key of its messages.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::zmtp::{Endpoint, EndpointError};

/// A Jupyter connection file. (Jupyter messaging specification, "Connection files".)
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectionFile {
    /// `tcp` or `ipc`.
    #[serde(default = "tcp")]
    pub transport: String,
    /// An address; for `ipc` the path that the port numbers are added to.
    pub ip: String,
    /// Port of the shell channel.
    pub shell_port: u16,
    /// Port of the iopub channel.
    pub iopub_port: u16,
    /// Port of the stdin channel.
    pub stdin_port: u16,
    /// Port of the control channel.
    pub control_port: u16,
    /// Port of the heartbeat.
    pub hb_port: u16,
    /// Key of the signatures; empty for none.
    #[serde(default)]
    pub key: String,
    /// `hmac-sha256`
    #[serde(default = "hmac_sha256")]
    pub signature_scheme: String,
}

impl ConnectionFile {
    /// Whether only processes of this machine can reach it, and over TCP only those that have its key.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let is_loopback = |ip: &str| ip.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        self.transport == "ipc" || (is_loopback(&self.ip) && !self.key.is_empty())
    }
}

fn tcp() -> String {
    "tcp".to_owned()
}

fn hmac_sha256() -> String {
    "hmac-sha256".to_owned()
}

/// A connection file that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// It cannot be read.
    #[error("cannot read the connection file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not the JSON object it should be.
    #[error("{} is no connection file: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Its addresses cannot be bound to.
    #[error("the connection file names `{transport}://{ip}`, which is no address to bind to: {source}")]
    Address {
        /// As in the file.
        transport: String,
        /// As in the file.
        ip: String,
        /// What is wrong with it.
        source: EndpointError,
    },
}

impl ConnectionFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConnectionError::Read`] or [`ConnectionError::Malformed`], with the path.
    pub fn read(path: &Path) -> Result<Self, ConnectionError> {
        let text =
            std::fs::read(path).map_err(|source| ConnectionError::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&text)
            .map_err(|source| ConnectionError::Malformed { path: path.to_owned(), source })
    }

    /// The address that belongs to one of the ports.
    ///
    /// # Errors
    /// [`ConnectionError::Address`].
    pub fn endpoint(&self, port: u16) -> Result<Endpoint, ConnectionError> {
        let separator = if self.transport == "ipc" { '-' } else { ':' };
        let ip = if self.transport == "tcp" && self.ip.contains(':') && !self.ip.starts_with('[') {
            format!("[{}]", self.ip)
        } else {
            self.ip.clone()
        };
        format!("{}://{ip}{separator}{port}", self.transport).parse().map_err(|source| {
            ConnectionError::Address { transport: self.transport.clone(), ip: self.ip.clone(), source }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(transport: &str, ip: &str) -> ConnectionFile {
        serde_json::from_value(serde_json::json!({
            "transport": transport, "ip": ip, "shell_port": 1, "iopub_port": 2, "stdin_port": 3,
            "control_port": 4, "hb_port": 5, "key": "k", "kernel_name": "cob",
        }))
        .unwrap()
    }

    #[test]
    fn addresses_are_written_as_jupyter_does() {
        let address = |transport, ip| file(transport, ip).endpoint(1).map(|e| e.to_string());
        assert_eq!(address("tcp", "127.0.0.1").unwrap(), "tcp://127.0.0.1:1");
        assert_eq!(address("tcp", "::1").unwrap(), "tcp://[::1]:1");
        assert_eq!(address("ipc", "/run/k").unwrap(), "ipc:///run/k-1");
        assert!(address("tcp", "not an address").is_err());
        assert!(address("udp", "127.0.0.1").unwrap_err().to_string().contains("udp"));
    }

    #[test]
    fn what_others_could_reach_is_not_local() {
        assert!(file("tcp", "127.0.0.1").is_local() && file("tcp", "::1").is_local());
        assert!(file("ipc", "/run/k").is_local());
        assert!(!file("tcp", "0.0.0.0").is_local() && !file("tcp", "localhost.example").is_local());
        assert!(!ConnectionFile { key: String::new(), ..file("tcp", "127.0.0.1") }.is_local());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_path() {
        let missing = ConnectionFile::read(Path::new("/nowhere/kernel.json")).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/kernel.json"), "{missing}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kernel.json");
        std::fs::write(&path, "{\"ip\": \"127.0.0.1\"}").unwrap();
        let text = ConnectionFile::read(&path).unwrap_err().to_string();
        assert!(text.contains("shell_port") && text.contains("kernel.json"), "{text}");
    }
}
