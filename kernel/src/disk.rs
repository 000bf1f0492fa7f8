//! What a working directory holds: measured after an execution whose session has a limit of it.
//!
//! It counts blocks, as `du` does: a sparse file weighs what it takes. Hard links count once. Links are not
//! followed, and other file systems that are mounted below are not entered. What cannot be measured, because there
//! is too much of it or it cannot be read, is not small: it counts as over the limit, and the reply says why.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cob_protocol::error::ErrorCode;
use cob_protocol::frame::Done;
use cob_protocol::limits::DISK_ENTRIES_MAX;
use tokio::task::JoinHandle;

use crate::handlers::Verdict;
use crate::session::{Running, Session};
use crate::text::size;

/// The system counts blocks in this unit, whatever those of the file system are.
const BLOCK_BYTES: u64 = 512;

/// An execution that has ended and whose working directory is being measured.
pub(crate) struct Measuring {
    running: Box<Running>,
    done: Done,
    limit: u64,
    task: JoinHandle<Result<u64, String>>,
}

impl Session {
    /// An execution ended by itself: its promise is settled, if there is something to measure before that then
    /// later.
    pub(crate) async fn measure_and_settle(&mut self, running: Box<Running>, done: Done) {
        let directory = self.config.program.directory.clone();
        match (self.config.limits.disk_bytes, directory) {
            (Some(limit), Some(directory)) if running.cell.is_some() => {
                let task = tokio::task::spawn_blocking(move || measure(&directory, DISK_ENTRIES_MAX));
                self.measuring = Some(Measuring { running, done, limit, task });
            }
            _ => self.settle(running, &done, None).await,
        }
    }

    /// The measurement is there: within the limit the execution ends as it would have, else with the error.
    pub(crate) async fn measured(&mut self, found: Result<u64, String>) {
        let Some(Measuring { running, done, limit, .. }) = self.measuring.take() else { return };
        let over = match found {
            Ok(bytes) if bytes <= limit => None,
            Ok(bytes) => Some(format!("holds {}", size(bytes))),
            Err(why) => Some(format!("cannot be measured ({why})")),
        };
        let verdict = over.map(|over| {
            let failed =
                running.error.as_ref().map(|error| format!("; the code itself failed with {}", error.ename));
            let failed = failed.unwrap_or_default();
            let evalue = format!(
                "the working directory {over}, its limit is {}; the variables are kept{failed}",
                size(limit)
            );
            Verdict { code: ErrorCode::DiskLimit, evalue }
        });
        self.settle(running, &done, verdict).await;
    }
}

/// The measurement, when it is there; for ever nothing when nothing is measured. Cancel-safe.
pub(crate) async fn measurement(measuring: &mut Option<Measuring>) -> Result<u64, String> {
    match measuring {
        Some(measuring) => (&mut measuring.task).await.unwrap_or_else(|error| Err(error.to_string())),
        None => std::future::pending().await,
    }
}

/// Bytes that everything in `directory` takes on its device.
fn measure(directory: &Path, entries_max: usize) -> Result<u64, String> {
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let Some(root) = there(fs::metadata(directory)).map_err(|error| failed(directory, error))? else {
        return Ok(0);
    };
    let mut open = vec![directory.to_owned()];
    let (mut total, mut entries, mut linked) = (0_u64, 0, HashSet::new());
    while let Some(folder) = open.pop() {
        let Some(listing) = there(fs::read_dir(&folder)).map_err(|error| failed(&folder, error))? else {
            continue;
        };
        for entry in listing {
            entries += 1;
            if entries > entries_max {
                return Err(format!("more than {entries_max} files"));
            }
            let path = entry.map_err(|error| failed(&folder, error))?.path();
            let Some(found) = there(fs::symlink_metadata(&path)).map_err(|error| failed(&path, error))?
            else {
                continue;
            };
            if found.dev() != root.dev() || is_known(&mut linked, &found) {
                continue;
            }
            total += found.blocks() * BLOCK_BYTES;
            if found.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(total)
}

/// Another name of a file that was counted.
fn is_known(linked: &mut HashSet<u64>, found: &Metadata) -> bool {
    !found.is_dir() && found.nlink() > 1 && !linked.insert(found.ino())
}

/// Nothing, if somebody has removed it meanwhile.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
