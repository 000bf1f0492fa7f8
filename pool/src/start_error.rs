//! Why a worker did not come up.

use std::io;

use cob_protocol::handshake::NoCommonVersion;
use cob_protocol::limits::WORKER_START_MS_MAX;
use thiserror::Error;

use crate::exit::Exit;

/// A worker that did not come up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program could not be started at all.
    #[error("cannot start `{program}`: {source}")]
    Spawn {
        /// The executable.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("`{program}` {exit}{}", said(output))]
    Ended {
        /// The executable.
        program: String,
        /// How it ended.
        exit: Exit,
        /// What it wrote until then.
        output: String,
    },
    /// It was not ready in time, and was killed.
    #[error("`{program}` was not ready within {} s{}", WORKER_START_MS_MAX / 1000, said(output))]
    TimedOut {
        /// The executable.
        program: String,
        /// What it wrote until then.
        output: String,
    },
    /// It speaks another version of the frame protocol.
    #[error(transparent)]
    Version(#[from] NoCommonVersion),
}

fn said(output: &str) -> String {
    let text = output.trim();
    if text.is_empty() { String::new() } else { format!("; it said:\n{text}") }
}
