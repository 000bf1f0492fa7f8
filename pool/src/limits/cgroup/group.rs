//! One group: who is in it, what it may use, whether the system killed somebody in it, and its end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cob_protocol::resources::Limits;
use serde::{Deserialize, Serialize};

use super::Version;
use super::owner::remove;
use super::place::{Place, distinct, limit_memory};
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

/// A group for one worker and everything it starts. Its clones are the same group; when the last one is dropped, the
/// group is removed if nobody is in it, and left to [`super::Cgroups::sweep`] otherwise.
#[derive(Clone, Debug)]
pub struct Cgroup(pub(super) Arc<Group>);

#[derive(Debug)]
pub(super) struct Group {
    name: String,
    memory: Option<Place>,
    pids: Option<Place>,
    /// Processes killed for memory of which it is known why.
    settled_oom_kills: AtomicU64,
    victims: Mutex<Victims>,
}

/// What decides who goes when memory runs out.
#[derive(Debug, Default)]
struct Victims {
    /// Checkpoints in the group.
    checkpoints: usize,
    is_memory_limited: bool,
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
        Self(Arc::new(Group {
            name,
            memory,
            pids,
            settled_oom_kills: AtomicU64::new(0),
            victims: Mutex::default(),
        }))
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
        self.0.memory.as_ref().map_or(Ok(()), |place| limit_memory(place, bytes))?;
        self.0.choose_victims(|victims| victims.is_memory_limited = true);
        Ok(())
    }

    /// A checkpoint is in it. When memory runs out it goes first, and alone.
    pub(crate) fn with_checkpoint(&self) -> WithCheckpoint {
        self.0.choose_victims(|victims| victims.checkpoints += 1);
        WithCheckpoint(self.clone())
    }

    /// Whether somebody was killed for memory of whom that is not known yet.
    pub(crate) fn has_new_oom_kills(&self) -> bool {
        self.oom_kills() > self.settled_oom_kills()
    }

    pub(crate) fn settled_oom_kills(&self) -> u64 {
        self.0.settled_oom_kills.load(Ordering::Relaxed)
    }

    /// What became of `count` of those that were killed for memory is known.
    pub(crate) fn settle_oom_kills(&self, count: u64) {
        self.0.settled_oom_kills.fetch_max(count, Ordering::Relaxed);
    }

    /// A checkpoint in it ended by itself: if somebody was killed for memory, it was that one.
    pub(crate) fn settle_one_oom_kill(&self) {
        let now = self.oom_kills();
        let one_more = |settled: u64| (settled < now).then(|| settled + 1);
        // Nobody was, then.
        let _ = self.0.settled_oom_kills.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    }

    /// Nobody in it can start anybody as long as the result lives.
    pub(crate) fn halt_forks(&self) -> HaltedForks {
        let places = self.0.places().into_iter().filter(|place| place.has("pids.max"));
        let halted = places.filter_map(|place| {
            let before = place.read("pids.max").ok()?;
            place.write("pids.max", 0).ok()?;
            Some((place.clone(), before))
        });
        HaltedForks(halted.collect())
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
    pub(crate) fn stats(&self) -> Vec<Stat> {
        let mut stats: Vec<_> = self.processes().into_iter().filter_map(Stat::of).collect();
        if !stats.is_empty() {
            // Who left between the two calls may have given its id to a stranger; then it is not in the group now.
            let still = self.processes();
            stats.retain(|stat| !stat.is_over && still.contains(&stat.process.pid));
        }
        stats
    }

    /// As [`Cgroup::stats`], by name only.
    pub(crate) fn members(&self) -> Vec<Process> {
        self.stats().iter().map(|stat| stat.process).collect()
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
}

/// See [`Cgroup::with_checkpoint`].
#[derive(Debug)]
pub(crate) struct WithCheckpoint(Cgroup);

impl WithCheckpoint {
    pub(crate) fn group(&self) -> &Cgroup {
        &self.0
    }
}

impl Drop for WithCheckpoint {
    fn drop(&mut self) {
        self.0.0.choose_victims(|victims| victims.checkpoints -= 1);
    }
}

/// See [`Cgroup::halt_forks`].
#[derive(Debug)]
pub(crate) struct HaltedForks(Vec<(Place, String)>);

impl Drop for HaltedForks {
    fn drop(&mut self) {
        for (place, before) in &self.0 {
            // A group that is gone has nobody in it.
            let _ = place.write("pids.max", before.trim());
        }
    }
}

impl Group {
    /// Half a session is no session: whoever reaches the limit takes the others along, unless there are checkpoints.
    /// Then the system chooses one, by its score.
    fn choose_victims(&self, change: impl FnOnce(&mut Victims)) {
        // Held until it is written, so that the last change is the last one written.
        let mut victims = self.victims.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut victims);
        let Some(place) = self.memory.as_ref().filter(|place| place.version == Version::V2) else { return };
        if victims.is_memory_limited {
            let is_whole = victims.checkpoints == 0;
            if let Err(error) = place.write("memory.oom.group", u8::from(is_whole)) {
                tracing::debug!(%error, "who goes when memory runs out is left to the system");
            }
        }
    }

    fn places(&self) -> Vec<&Place> {
        distinct(&self.memory, &self.pids)
    }

    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
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
