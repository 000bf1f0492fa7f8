//! Who has the worker in a group, if it is another process than the one that made it, and the end of the group with that
//! note.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::group::{Cgroup, CgroupError};
use crate::processes::{Process, Stat};

impl Cgroup {
    /// Writes down that process `owner` has the worker in it, and lives on if we do not. The note is an empty group
    /// below, in every hierarchy: whoever sees the group in only one of them, in whatever folder it works, sees the note
    /// too, and they go together.
    ///
    /// # Errors
    /// When there is no such process, or the system refuses.
    pub(crate) fn lend_to(&self, owner: u32) -> Result<(), CgroupError> {
        let started = Stat::of(owner).map_or(0, |stat| stat.process.started);
        self.0.directories().try_for_each(|directory| {
            let path = directory.join(format!("{OWNER}{owner}-{started}"));
            match fs::create_dir(&path) {
                // It was told so before.
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    Err(CgroupError::File { path, source })
                }
                _ => Ok(()),
            }
        })
    }

    /// Whether a process that lives has the worker in it.
    pub(crate) fn is_lent(&self) -> bool {
        let owners = self.0.directories().flat_map(notes);
        owners
            .filter_map(|path| owner(&path))
            .any(|owner| Stat::of(owner.pid).is_some_and(|stat| stat.process == owner && !stat.is_over))
    }
}

/// What the name of a note begins with.
const OWNER: &str = "owner-";

/// The notes about the owner of a group.
fn notes(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| owner(path).is_some()).collect()
}

/// Who is named in a note.
fn owner(note: &Path) -> Option<Process> {
    let (pid, started) = note.file_name()?.to_str()?.strip_prefix(OWNER)?.split_once('-')?;
    Some(Process { pid: pid.parse().ok()?, started: started.parse().ok()? })
}

/// Removes a group in which nobody is, with the notes about it; else neither.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    if !fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default().is_empty() {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    // If one of them cannot be removed, nor can the group.
    notes(directory).iter().for_each(|note| drop(fs::remove_dir(note)));
    fs::remove_dir(directory)
}
