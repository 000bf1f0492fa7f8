//! Cgroups: one for each worker, in which the system counts and limits all its processes together.
//!
//! `Cgroups` is what the host allows us, `Cgroup` is one group. Both work with the old hierarchies (v1: one
//! directory per controller) and the unified one (v2). Names are `cob-<server>-<its start>-<number>`, so that what
//! a dead server left can be told from what a live one uses.

mod group;
mod owner;
mod place;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use group::{Cgroup, CgroupError};
pub(crate) use group::{KeptGroup, WithCheckpoint};
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use super::hierarchy::{Hierarchies, Host};
use crate::processes::Stat;
use place::Place;

/// The group into which a server moves itself: in v2 a group that has limited groups below it may have no processes.
const HOST_LEAF: &str = "cob-host";
const PREFIX: &str = "cob-";

/// Which of the two interfaces of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// Where groups can be made, or why not.
type Parent = Result<Place, String>;

/// What this host allows us to limit by cgroups.
#[derive(Debug)]
pub struct Cgroups {
    memory: Parent,
    pids: Parent,
    /// The first part of the names of our groups.
    stem: String,
}

/// Number of the next group of this process, whoever makes it.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Cgroups {
    /// Finds out where groups for workers can be made. With v2 this process moves into the leaf `cob-host` of its
    /// group, and turns the controllers on for its neighbours.
    #[must_use]
    pub fn detect() -> Self {
        Self::detect_on(&Host::default())
    }

    /// As [`Cgroups::detect`], on another host than this one.
    #[must_use]
    pub fn detect_on(host: &Host) -> Self {
        let found = Hierarchies::of(host);
        let unified = match (&found.memory, &found.pids) {
            (Some(_), Some(_)) => Err("both controllers are in the old hierarchies".to_owned()),
            _ => unified(found.unified.as_deref()),
        };
        let parent = |name: &str, old: Option<PathBuf>| match (old, &unified) {
            (Some(directory), _) => writable(&directory).map(|()| Place { version: Version::V1, directory }),
            (None, Ok((place, controllers))) if controllers.iter().any(|c| c == name) => Ok(place.clone()),
            (None, Ok((place, _))) => Err(format!("{} has no {name} controller", place.directory.display())),
            (None, Err(why)) => Err(why.clone()),
        };
        let me = std::process::id();
        let started = Stat::of(me).map_or(0, |stat| stat.process.started);
        Self {
            memory: parent("memory", found.memory.clone()),
            pids: parent("pids", found.pids.clone()),
            stem: format!("{PREFIX}{me}-{started}"),
        }
    }

    /// A host without cgroups, for whatever reason.
    #[must_use]
    pub fn none(why: &str) -> Self {
        let (memory, pids) = (Err(why.to_owned()), Err(why.to_owned()));
        Self { memory, pids, stem: String::new() }
    }

    /// What limits memory, or why nothing does.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn memory(&self) -> Result<Version, &str> {
        self.memory.as_ref().map(|place| place.version).map_err(String::as_str)
    }

    /// What limits the number of processes, or why nothing does.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn processes(&self) -> Result<Version, &str> {
        self.pids.as_ref().map(|place| place.version).map_err(String::as_str)
    }

    /// Makes a group with a name of its own.
    ///
    /// # Errors
    /// When there is no controller at all, or the directories cannot be made.
    pub fn create(&self) -> Result<Cgroup, CgroupError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.stem);
        let place = |parent: &Parent| parent.as_ref().ok().map(|place| place.below(&name));
        let (memory, pids) = (place(&self.memory), place(&self.pids));
        if memory.is_none() && pids.is_none() {
            let why = self.memory.as_ref().err().cloned().unwrap_or_default();
            return Err(CgroupError::NotAvailable(why));
        }
        Cgroup::make(name, memory, pids)
    }

    /// Ends what dead servers left: kills everybody in their groups and removes these, unless a live process has the
    /// worker in one. Says how many processes it killed. Blocks until they are gone.
    #[must_use]
    pub fn sweep(&self) -> usize {
        self.sweep_if(|_| true)
    }

    /// As [`Cgroups::sweep`], only groups with certain names.
    fn sweep_if(&self, is_chosen: impl Fn(&str) -> bool) -> usize {
        let parents = [&self.memory, &self.pids];
        let places: Vec<&Place> = parents.into_iter().filter_map(|parent| parent.as_ref().ok()).collect();
        let names: HashSet<String> = places.iter().flat_map(|place| names_in(&place.directory)).collect();
        let mut killed = 0;
        for name in names.into_iter().filter(|name| is_abandoned(name) && is_chosen(name)) {
            let place = |parent: &Parent| {
                let place = parent.as_ref().ok()?.below(&name);
                place.directory.is_dir().then_some(place)
            };
            let group = Cgroup::found(name.clone(), place(&self.memory), place(&self.pids));
            if group.is_lent() {
                continue;
            }
            // Nobody is seen in the group of another container that shares the hierarchy; it is left alone then,
            // since it cannot be removed.
            match group.kill().and_then(|count| group.remove().map(|()| count)) {
                Ok(count) => killed += count,
                Err(error) => {
                    tracing::warn!(group = name, %error, "what a dead server left cannot be removed")
                }
            }
        }
        killed
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Has a name of ours, and its server is not alive.
fn is_abandoned(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let numbers: Vec<Option<u64>> = rest.split('-').map(|part| part.parse().ok()).collect();
    let [Some(pid), Some(started), Some(_)] = numbers[..] else { return false };
    let server = u32::try_from(pid).ok().and_then(Stat::of);
    server.is_none_or(|stat| stat.process.started != started || stat.is_over)
}

fn writable(directory: &Path) -> Result<(), String> {
    let rights = Access::WRITE_OK | Access::EXEC_OK;
    access(directory, rights).map_err(|error| {
        format!("no groups can be made in {}: {}", directory.display(), io::Error::from(error))
    })
}

/// The directory in the unified hierarchy below which groups can be made, and the controllers they have.
fn unified(own: Option<&Path>) -> Result<(Place, Vec<String>), String> {
    let own = own.ok_or("no cgroup hierarchy is mounted that has the controller")?;
    // Somebody before us moved this process already.
    let is_moved = own.file_name().is_some_and(|name| name == HOST_LEAF);
    let directory = if is_moved { own.parent().unwrap_or(own) } else { own };
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let controllers = read("cgroup.controllers");
    let wanted: Vec<String> = controllers
        .split_whitespace()
        .filter(|c| ["memory", "pids"].contains(c))
        .map(str::to_owned)
        .collect();
    if wanted.is_empty() {
        return Err(format!("{} has neither the memory nor the pids controller", directory.display()));
    }
    writable(directory)?;
    let enabled = read("cgroup.subtree_control");
    let missing: Vec<_> = wanted
        .iter()
        .filter(|c| enabled.split_whitespace().all(|e| e != *c))
        .map(|c| format!("+{c}"))
        .collect();
    if !missing.is_empty() {
        // The root of the hierarchy has no type, and is free of the rule.
        let must_move = !is_moved && directory.join("cgroup.type").exists();
        enable(directory, &missing.join(" "), must_move)?;
    }
    Ok((Place { version: Version::V2, directory: directory.to_owned() }, wanted))
}

/// Turns controllers on for the groups below `directory`, for which nobody may be left in it.
fn enable(directory: &Path, controllers: &str, must_move: bool) -> Result<(), String> {
    let leaf = directory.join(HOST_LEAF);
    let me = std::process::id().to_string();
    let failed = |what: &str, error: io::Error| format!("{what} in {}: {error}", directory.display());
    if must_move {
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("cannot make a group", error));
            }
            _ => {}
        }
        fs::write(leaf.join("cgroup.procs"), &me).map_err(|error| failed("cannot leave the group", error))?;
    }
    fs::write(directory.join("cgroup.subtree_control"), controllers).map_err(|error| {
        if must_move {
            // Back to where we were: nothing was gained.
            let _ = fs::write(directory.join("cgroup.procs"), &me);
            let _ = fs::remove_dir(&leaf);
        }
        match error.kind() {
            io::ErrorKind::ResourceBusy => {
                format!("other processes than cob are in {}, so it cannot be divided", directory.display())
            }
            _ => failed("cannot turn controllers on", error),
        }
    })
}
