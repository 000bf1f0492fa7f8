//! The first frame each side sends, and how a version is agreed on.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::json::Json;

/// Versions of the frame protocol that this build speaks.
pub const VERSIONS: VersionRange = VersionRange { min: 1, max: 1 };

/// Descriptor at which a worker finds its program image (Python's extension module), if it has one.
pub const IMAGE_FD: i32 = 3;
/// Descriptor at which a worker finds its frame socket, and a zygote its control socket: the type of the socket
/// (stream, packets) says which of the two the process shall be.
pub const FRAME_FD: i32 = 4;
/// Descriptor at which a worker finds the page it shares with the kernel ([`crate::page`]).
pub const PAGE_FD: i32 = 5;
/// Descriptor whose other end only the server holds: when the server is gone, the system kills the worker.
pub const LIFELINE_FD: i32 = 6;

/// An inclusive range of protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRange {
    /// Oldest.
    pub min: u32,
    /// Newest.
    pub max: u32,
}

/// Kernel and worker have no version in common.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "the worker speaks versions {}..={} of the frame protocol, this kernel {}..={}; \
     upgrade the {older}", theirs.min, theirs.max, ours.min, ours.max
)]
pub struct NoCommonVersion {
    ours: VersionRange,
    theirs: VersionRange,
    older: &'static str,
}

impl VersionRange {
    /// The highest version in both ranges.
    ///
    /// # Errors
    /// When there is none; the error says which side is the older one.
    pub fn agree(self, theirs: Self) -> Result<u32, NoCommonVersion> {
        let version = self.max.min(theirs.max);
        if version >= self.min.max(theirs.min) {
            Ok(version)
        } else {
            let older = if theirs.max < self.min { "worker" } else { "kernel" };
            Err(NoCommonVersion { ours: self, theirs, older })
        }
    }
}

/// The kernel introduces itself and says how the session shall be set up.
///
/// A worker that was forked off a zygote did not get its surroundings from the system; they are two payloads.
/// Payload 0: its environment, `NAME=VALUE` with a NUL after each; it replaces what the process had. Payload 1: its
/// working directory. Without payloads both stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Frame protocol versions of the kernel.
    pub versions: VersionRange,
    /// The session this worker will serve.
    pub session: String,
    /// Executor options, a JSON object; unknown keys are ignored.
    #[serde(default)]
    pub options: Json,
    /// File mode creation mask; as it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Whether the worker gives up its power over processes that are not its own.
    #[serde(default)]
    pub confined: bool,
    /// Whether the session outlives its server: the worker keeps every frame until the shared page says that it was
    /// recorded, and goes on when the socket is replaced.
    #[serde(default)]
    pub survives: bool,
    /// Whether the worker was forked off a checkpoint: it has its variables, its surroundings and what confines it
    /// already. Then payload 0 only changes the variables of the environment that it names, and an empty payload 1
    /// leaves the working directory as it is.
    #[serde(default)]
    pub resumes: bool,
}

/// The worker is ready to run code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Frame protocol versions of the worker.
    pub versions: VersionRange,
    /// The executor's name and version, for logs.
    pub executor: String,
    /// The worker's process id, as it sees it.
    pub pid: u32,
    /// Jupyter's `language_info`, a JSON object.
    pub language_info: Json,
    /// A line or two for people: language, version, executable.
    pub banner: String,
    /// What confines it, if it was asked to be: a sentence each, those that could not be had begin with `not
    /// enforced`.
    #[serde(default)]
    pub confinement: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_chosen() {
        let ours = VersionRange { min: 2, max: 4 };
        assert_eq!(ours.agree(VersionRange { min: 1, max: 3 }), Ok(3));
        assert_eq!(ours.agree(VersionRange { min: 4, max: 9 }), Ok(4));
    }

    #[test]
    fn no_common_version_names_the_side_to_upgrade() {
        let ours = VersionRange { min: 2, max: 4 };
        let text = ours.agree(VersionRange { min: 1, max: 1 }).unwrap_err().to_string();
        assert!(text.contains("upgrade the worker"), "{text}");
        let text = ours.agree(VersionRange { min: 7, max: 9 }).unwrap_err().to_string();
        assert!(text.contains("upgrade the kernel"), "{text}");
    }
}
