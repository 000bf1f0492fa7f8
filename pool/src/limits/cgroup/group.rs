//! One group: who is in it, what it may use, whether the system killed somebody in it, and its end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cob_protocol::resources::Limits;
use serde::{Deserialize, Serialize};

use super::Version;
use crate::processes::{Process, Stat};
use crate::tree::{self, TreeError};

/// Why a group does not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// This host has none for us.
    #[error("no cgroups: {0}")]
    NotAvailable(String),
    /// The system said no.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Processes in it cannot be ended.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// A directory in one of the hierarchies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) version: Version,
    pub(crate) directory: PathBuf,
}

impl Place {
    pub(crate) fn below(&self, name: &str) -> Self {
        Self { version: self.version, directory: self.directory.join(name) }
    }

    fn write(&self, file: &str, value: impl ToString) -> Result<(), CgroupError> {
        let path = self.directory.join(file);
        fs::write(&path, value.to_string()).map_err(|source| CgroupError::File { path, source })
    }

    fn read(&self, file: &str) -> Result<String, CgroupError> {
        let path = self.directory.join(file);
        fs::read_to_string(&path).map_err(|source| CgroupError::File { path, source })
    }

    fn has(&self, file: &str) -> bool {
        self.directory.join(file).exists()
    }
}

/// A group for one worker and everything it starts. Its clones are the same group; when the last one is dropped, the
/// group is removed if nobody is in it, and left to [`super::Cgroups::sweep`] otherwise.
#[derive(Clone, Debug)]
pub struct Cgroup(Arc<Group>);

#[derive(Debug)]
struct Group {
    name: String,
    memory: Option<Place>,
    pids: Option<Place>,
}

/// A group in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptGroup {
    name: String,
    memory: Option<(Version, PathBuf)>,
    pids: Option<(Version, PathBuf)>,
}

impl Cgroup {
    pub(super) fn found(name: String, memory: Option<Place>, pids: Option<Place>) -> Self {
        Self(Arc::new(Group { name, memory, pids }))
    }

    pub(super) fn make(
        name: String,
        memory: Option<Place>,
        pids: Option<Place>,
    ) -> Result<Self, CgroupError> {
        let mut made: Vec<&Path> = Vec::new();
        for place in distinct(&memory, &pids) {
            let path = place.directory.as_path();
            if let Err(source) = fs::create_dir(path) {
                // What is there already is somebody else's: only what was made here goes again.
                made.iter().for_each(|path| drop(fs::remove_dir(path)));
                return Err(CgroupError::File { path: path.to_owned(), source });
            }
            made.push(path);
        }
        Ok(Self::found(name, memory, pids))
    }

    /// What another process needs to find it.
    pub(crate) fn keep(&self) -> KeptGroup {
        let keep = |place: &Option<Place>| place.clone().map(|place| (place.version, place.directory));
        KeptGroup { name: self.0.name.clone(), memory: keep(&self.0.memory), pids: keep(&self.0.pids) }
    }

    /// One that another process made.
    pub(crate) fn kept(kept: KeptGroup) -> Self {
        let place =
            |kept: Option<(Version, PathBuf)>| kept.map(|(version, directory)| Place { version, directory });
        Self::found(kept.name, place(kept.memory), place(kept.pids))
    }

    /// Its name, the same in every hierarchy.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What limits memory in it.
    #[must_use]
    pub fn memory_version(&self) -> Option<Version> {
        self.0.memory.as_ref().map(|place| place.version)
    }

    /// What limits the number of processes in it.
    #[must_use]
    pub fn pids_version(&self) -> Option<Version> {
        self.0.pids.as_ref().map(|place| place.version)
    }

    /// Puts a process into it; what it starts from now on is in it too.
    ///
    /// # Errors
    /// When there is no such process, or it may not be moved.
    pub fn add(&self, pid: u32) -> Result<(), CgroupError> {
        self.0.places().into_iter().try_for_each(|place| place.write("cgroup.procs", pid))
    }

    /// Sets memory and number of processes; what is absent in `limits` stays as it is.
    ///
    /// # Errors
    /// When the system refuses: v1 does when more memory is used already than would be allowed.
    pub fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        limits.memory_bytes.map_or(Ok(()), |bytes| self.limit_memory(bytes))?;
        limits.processes.map_or(Ok(()), |count| self.limit_processes(count))
    }

    pub(crate) fn limit_memory(&self, bytes: u64) -> Result<(), CgroupError> {
        self.0.memory.as_ref().map_or(Ok(()), |place| limit_memory(place, bytes))
    }

    pub(crate) fn limit_processes(&self, count: u64) -> Result<(), CgroupError> {
        self.0.pids.as_ref().map_or(Ok(()), |place| place.write("pids.max", count))
    }

    /// How many processes the system killed because memory had run out.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let Some(place) = &self.0.memory else { return 0 };
        let file = match place.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = place.read(file).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Memory that is used in it, also for the cache of files it read.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        let place = self.0.memory.as_ref()?;
        let file = match place.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        place.read(file).ok()?.trim().parse().ok()
    }

    /// The ids of those in it.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = Vec::new();
        for place in self.0.places() {
            let text = place.read("cgroup.procs").unwrap_or_default();
            // Processes of another process namespace are shown as 0.
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Those in it, each for sure.
    pub(crate) fn members(&self) -> Vec<Process> {
        let stats: Vec<_> = self.processes().into_iter().filter_map(Stat::of).collect();
        if stats.is_empty() {
            return Vec::new();
        }
        // Who left between the two calls may have given its id to a stranger; then it is not in the group now.
        let still = self.processes();
        let members = stats.iter().filter(|stat| !stat.is_over && still.contains(&stat.process.pid));
        members.map(|stat| stat.process).collect()
    }

    /// The fast part of [`Cgroup::kill`]: v2 kills everybody in one step; otherwise nobody can start anybody any
    /// more, so that killing one after the other comes to an end.
    pub(crate) fn kill_at_once(&self) {
        for place in self.0.places() {
            // Linux before 5.14 has no such file.
            let is_killed = place.version == Version::V2
                && place.has("cgroup.kill")
                && place.write("cgroup.kill", 1).is_ok();
            if !is_killed && place.has("pids.max") {
                // A group that is gone has nobody left to stop.
                let _ = place.write("pids.max", 0);
            }
        }
    }

    /// Kills everybody in it and waits for their end, at most `TREE_KILL_MS_MAX`. Says how many were killed. Blocks.
    ///
    /// # Errors
    /// With those that did not end.
    pub fn kill(&self) -> Result<usize, CgroupError> {
        let members = self.members().len();
        if members == 0 {
            return Ok(0);
        }
        self.kill_at_once();
        Ok(tree::end_all(|| self.members())?.max(members))
    }

    /// Removes it; nobody may be in it.
    ///
    /// # Errors
    /// When somebody is.
    pub fn remove(&self) -> Result<(), CgroupError> {
        for directory in self.0.directories() {
            match remove(directory) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(CgroupError::File { path: directory.to_owned(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

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
fn remove(directory: &Path) -> io::Result<()> {
    if !fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default().is_empty() {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    // If one of them cannot be removed, nor can the group.
    notes(directory).iter().for_each(|note| drop(fs::remove_dir(note)));
    fs::remove_dir(directory)
}

impl Group {
    fn places(&self) -> Vec<&Place> {
        distinct(&self.memory, &self.pids)
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        self.places().into_iter().map(|place| place.directory.as_path())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in self.directories() {
            // It never blocks; who is still in it is found by the next sweep.
            let _ = remove(directory);
        }
    }
}

/// Each directory once: in v2 both controllers have the same.
fn distinct<'a>(memory: &'a Option<Place>, pids: &'a Option<Place>) -> Vec<&'a Place> {
    let mut places: Vec<&Place> = memory.iter().chain(pids).collect();
    places.dedup();
    places
}

fn limit_memory(place: &Place, bytes: u64) -> Result<(), CgroupError> {
    match place.version {
        Version::V1 => {
            // Memory with swap may never be less than without: which one to write first depends on the direction.
            let swap = "memory.memsw.limit_in_bytes";
            let first = place.write("memory.limit_in_bytes", bytes);
            if place.has(swap) {
                place.write(swap, bytes)?;
            }
            if first.is_err() { place.write("memory.limit_in_bytes", bytes) } else { Ok(()) }
        }
        Version::V2 => {
            // Half a session is no session: whoever reaches the limit takes the others along.
            place.write("memory.oom.group", 1)?;
            // Without swap there is no such file.
            if place.has("memory.swap.max") {
                place.write("memory.swap.max", 0)?;
            }
            place.write("memory.max", bytes)
        }
    }
}
