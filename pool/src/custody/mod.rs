//! Workers that outlive their server: the *custodian*, a small process that holds duplicates of the server's ends of
//! everything a worker has, and gives them to the next server.
//!
//! A worker has one thread, which may be in user code or blocked in a write for hours: it can neither look for a server
//! nor wait for one. So it notices nothing when its server dies. Its pipes and its socket stay open, what it writes
//! fills them, and its lifeline has a second holder.
//!
//! | file | what lives there |
//! |---|---|
//! | `client` | the handle that a server has on its custodian |
//! | `take_over` | how the next server gets a worker back |
//! | `process` | the custodian itself: one thread, one loop |
//! | `vault` | what it holds, and who may have it |
//! | `wire`, `address` | the words between them; where they meet |
//!
//! **Invariant:** nobody is left. A custodian ends when it has neither a server nor a worker; when no server came within
//! the grace it ends what it holds, and itself.

mod address;
mod client;
mod process;
mod secret;
mod take_over;
#[cfg(test)]
mod tests;
mod vault;
mod wire;

use std::io;
use std::path::PathBuf;

use cob_protocol::limits::CUSTODY_NOTE_BYTES_MAX;
use thiserror::Error;

pub use client::{Custodian, Deposit};
pub use process::custodian_main;
pub use take_over::{Taken, take_over};
pub(crate) use wire::{Belongings, Held};

/// How far the output of a worker has come, since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of its last frame.
    pub frames: u64,
    /// Bytes of its stdout.
    pub stdout: u64,
    /// Bytes of its stderr.
    pub stderr: u64,
}

/// A worker that cannot be kept, or not be had back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CustodyError {
    /// The custodian could not be started.
    #[error("cannot start the custodian `{program}`: {source}")]
    Start {
        /// The executable.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// There is no custodian where one was.
    #[error("no custodian answers at {}: {source}", path.display())]
    Absent {
        /// Its socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It hung up: the secret is not one of its own.
    #[error("the custodian holds nothing under this secret")]
    WrongSecret,
    /// It said no.
    #[error("the custodian refuses: {reason}")]
    Refused {
        /// One sentence.
        reason: String,
    },
    /// It has gone, or does not answer any more.
    #[error("the custodian has gone: {0}")]
    Lost(#[source] io::Error),
    /// The worker was not told that its session survives.
    #[error("the worker does not outlive its server")]
    Mortal,
    /// The worker has ended.
    #[error("the worker has ended")]
    Ended,
    /// The note is too long.
    #[error("a note of {0} bytes; at most {CUSTODY_NOTE_BYTES_MAX} are kept")]
    Note(usize),
    /// What the custodian gave out makes no worker.
    #[error("the worker cannot be taken over: {0}")]
    Worker(#[source] io::Error),
}
