//! What a working directory holds: measured after an execution whose session has a limit of it.
//!
//! It counts blocks, as `du` does: a sparse file weighs what it takes. Hard links count once. Links are not
//! followed, and other file systems that are mounted below are not entered. What cannot be measured, because there
//! is too much of it or it cannot be read, is not small: it counts as over the limit, and the reply says why.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
    pub(crate) fn measure_and_settle(&mut self, running: Box<Running>, done: Done) {
        let directory = self.config.program.directory.clone();
        match (self.config.limits.disk_bytes, directory) {
            (Some(limit), Some(directory)) if running.cell.is_some() => {
                let task = tokio::task::spawn_blocking(move || measure(&directory, DISK_ENTRIES_MAX));
                self.measuring = Some(Measuring { running, done, limit, task });
            }
            _ => self.settle(running, &done, None),
        }
    }

    /// The measurement is there: within the limit the execution ends as it would have, else with the error.
    pub(crate) fn measured(&mut self, found: Result<u64, String>) {
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
        self.settle(running, &done, verdict);
    }
}

/// The measurement, when it is there; for ever nothing when nothing is measured. Cancel-safe.
pub(crate) async fn measurement(measuring: &mut Option<Measuring>) -> Result<u64, String> {
    match measuring {
        Some(measuring) => (&mut measuring.task).await.unwrap_or_else(|error| Err(error.to_string())),
        None => std::future::pending().await,
    }
}

/// Bytes that everything in `directory` takes on its device; of no directory, none.
fn measure(directory: &Path, entries_max: usize) -> Result<u64, String> {
    let Some(root) = there(directory, fs::metadata(directory))? else { return Ok(0) };
    let mut walk = Walk { device: root.dev(), entries_left: entries_max, linked: HashSet::new(), bytes: 0 };
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        let found = walk.enter(&folder)?;
        folders.extend(found.ok_or_else(|| format!("it has more than {entries_max} entries"))?);
    }
    Ok(walk.bytes)
}

/// A measurement in progress.
struct Walk {
    device: u64,
    entries_left: usize,
    /// Files with several names, one of which was seen.
    linked: HashSet<u64>,
    bytes: u64,
}

impl Walk {
    /// Adds up what is in a folder, and returns the folders in it; nothing, if it has too many entries.
    fn enter(&mut self, folder: &Path) -> Result<Option<Vec<PathBuf>>, String> {
        let mut folders = Vec::new();
        for entry in there(folder, fs::read_dir(folder))?.into_iter().flatten() {
            let Some(left) = self.entries_left.checked_sub(1) else { return Ok(None) };
            self.entries_left = left;
            let Some(path) = there(folder, entry)?.map(|entry| entry.path()) else { continue };
            let Some(found) = there(&path, fs::symlink_metadata(&path))? else { continue };
            if !self.is_new(&found) {
                continue;
            }
            self.bytes += found.blocks() * BLOCK_BYTES;
            if found.is_dir() {
                folders.push(path);
            }
        }
        Ok(Some(folders))
    }

    /// It lies on our device, and is no other name of what was counted.
    fn is_new(&mut self, found: &Metadata) -> bool {
        let has_other_names = !found.is_dir() && found.nlink() > 1;
        found.dev() == self.device && (!has_other_names || self.linked.insert(found.ino()))
    }
}

/// Nothing, if somebody has removed it meanwhile.
fn there<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, String> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_empty_and_what_has_too_many_entries_is_not_measured() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(measure(&here.join("no such folder"), 10), Ok(0));
        assert_eq!(measure(here, 3), Err("it has more than 3 entries".to_owned()));
        // The sources are in it, and weigh something.
        assert!(measure(here, DISK_ENTRIES_MAX).is_ok_and(|bytes| bytes > 4096));
    }
}
