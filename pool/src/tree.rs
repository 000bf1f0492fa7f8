//! The end of a worker and of everything it started.
//!
//! With a cgroup, membership cannot be shaken off. Without one, processes are found as descendants, by session and
//! process group, and, when they left all of these, by the marker in their environment or an output pipe they write. A
//! process that gave up every one of these escapes: only a cgroup holds it. Who must end is decided here; how a
//! process is hit without hitting another, in `processes`.
//!
//! **Invariant:** never this process, its parents, another worker or a checkpoint with what belongs to it (`spared`);
//! without a cgroup, never a process that is older than the worker, or of another user.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cob_protocol::limits::{TREE_KILL_MS_MAX, TREE_PIDFDS_MAX};
use rustix::process::getuid;

use crate::limits::Cgroup;
use crate::processes::{self, Kill, Process, Stat};
use crate::spared;

/// Name of the variable that every worker, and with it every process it starts, has in its environment.
pub(crate) const MARKER: &str = "COB_WORKER";

/// So often those in a group are killed while they may start others.
const LOOKS_BEFORE_HALT: usize = 4;

/// Why a tree is not known to be gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// These did not end in time, or may not be killed.
    #[error("processes {pids:?} of a worker are still there {TREE_KILL_MS_MAX} ms after they were killed")]
    Survivors {
        /// Their ids.
        pids: Vec<u32>,
    },
    /// The ends of processes cannot be awaited.
    #[error("cannot wait for the end of processes: {0}")]
    Wait(#[source] std::io::Error),
}

/// What a worker and its descendants are known by.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    leader: Process,
    /// The entry of the environment, as it stands there.
    marker: Vec<u8>,
    /// Targets of the links in `/proc/<pid>/fd`.
    pipes: Vec<String>,
}

impl Tree {
    /// What belongs to the worker `leader`, which must not have been waited for yet. `marker` is the value of
    /// [`MARKER`] in its environment (empty: none), `pipes` are the inodes of its output pipes.
    ///
    /// Nothing when there is no such process.
    #[must_use]
    pub(crate) fn of(leader: u32, marker: &str, pipes: &[u64]) -> Option<Self> {
        Some(Self::found(Stat::of(leader)?.process, marker, pipes))
    }

    /// What belongs to a worker that somebody else had before: also when it is gone by now.
    pub(crate) fn found(leader: Process, marker: &str, pipes: &[u64]) -> Self {
        let entry = if marker.is_empty() { String::new() } else { format!("{MARKER}={marker}") };
        Self {
            leader,
            marker: entry.into_bytes(),
            pipes: pipes.iter().map(|inode| format!("pipe:[{inode}]")).collect(),
        }
    }

    /// Kills all of it and waits on this thread for its end, at most [`TREE_KILL_MS_MAX`]. Says how many were killed.
    ///
    /// # Errors
    /// [`TreeError`] with those that did not end.
    pub(crate) fn kill_blocking(&self, group: Option<&Cgroup>) -> Result<usize, TreeError> {
        let is_alone = |group: &&Cgroup| spared::beside(self.leader, &group.stats()).is_empty();
        if let Some(group) = group.filter(is_alone) {
            group.kill_at_once();
        }
        let mut known = HashMap::from([(self.leader.pid, self.leader)]);
        let mut looks = 0;
        let mut halt = None;
        end_all(|| {
            looks += 1;
            // Who starts others faster than they are killed is kept from it, for once with all others.
            if looks > LOOKS_BEFORE_HALT && halt.is_none() {
                halt = group.map(Cgroup::halt_forks);
            }
            self.members(group, &mut known)
        })
    }

    /// Who it is.
    pub(crate) fn leader(&self) -> Process {
        self.leader
    }

    /// Everybody who is alive and belongs to the tree. `known` are those who did before, by id.
    fn members(&self, group: Option<&Cgroup>, known: &mut HashMap<u32, Process>) -> Vec<Process> {
        let mut members = group.map(|group| self.without_spared(group.stats())).unwrap_or_default();
        if group.is_some() && !members.is_empty() {
            return members;
        }
        // Also with a cgroup, once it is empty: the worker may have moved out, if it runs as we do.
        members.extend(self.search(known));
        members
    }

    fn without_spared(&self, stats: Vec<Stat>) -> Vec<Process> {
        let beside = spared::beside(self.leader, &stats);
        let ours = stats.into_iter().filter(|stat| !beside.contains(&stat.process.pid));
        ours.map(|stat| stat.process).collect()
    }

    fn search(&self, known: &mut HashMap<u32, Process>) -> Vec<Process> {
        let all = Stat::all();
        let beside = spared::beside(self.leader, &all);
        let (user, immune) = (getuid().as_raw(), processes::ourselves_and_parents());
        // An id that was given to somebody else says nothing any more about parents, groups and sessions. One that is
        // still the id of a group or session is given to nobody.
        for stat in &all {
            if known.get(&stat.process.pid).is_some_and(|before| *before != stat.process) {
                known.remove(&stat.process.pid);
            }
        }
        let mut suspects: Vec<_> = all
            .into_iter()
            .filter(|stat| stat.process.started >= self.leader.started)
            .filter(|stat| !immune.contains(&stat.process.pid) && !beside.contains(&stat.process.pid))
            .collect();
        // What lost its parent was given to one of ours, or to the first process of the host. To look for marks is
        // dear, and others need it not.
        let is_orphan = |stat: &Stat| stat.parent <= 1 || immune.contains(&stat.parent);
        let mut members = Vec::new();
        // Children may have smaller ids than their parents: look until nobody new is found.
        loop {
            let before = members.len();
            suspects.retain(|stat| {
                let belongs =
                    is_relative(stat, known) || (is_orphan(stat) && self.is_marked(stat.process.pid));
                let is_member = belongs && processes::user_of(stat.process.pid) == Some(user);
                if is_member {
                    known.insert(stat.process.pid, stat.process);
                    members.push(stat.process);
                }
                !is_member
            });
            if members.len() == before {
                return members;
            }
        }
    }

    /// Has the marker in its environment, or can write to one of the pipes. (Who reads them is the worker's owner.)
    fn is_marked(&self, pid: u32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if !self.marker.is_empty() && environment.split(|byte| *byte == 0).any(|entry| entry == self.marker) {
            return true;
        }
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        descriptors.flatten().any(|descriptor| {
            let is_ours = |target: PathBuf| {
                self.pipes.iter().any(|pipe| target.as_os_str().as_bytes() == pipe.as_bytes())
            };
            fs::read_link(descriptor.path()).is_ok_and(is_ours) && is_writable(&descriptor.path())
        })
    }
}

/// Whether the descriptor behind a link in `/proc/<pid>/fd` was opened for writing: the link's mode says so.
fn is_writable(link: &Path) -> bool {
    fs::symlink_metadata(link).is_ok_and(|link| link.permissions().mode() & 0o200 != 0)
}

fn is_relative(stat: &Stat, known: &HashMap<u32, Process>) -> bool {
    let ids = [stat.process.pid, stat.parent, stat.group, stat.session];
    ids.iter().any(|id| known.contains_key(id))
}

/// Kills whom `look` finds, and looks again until it finds nobody. Says how many were killed.
pub(crate) fn end_all(mut look: impl FnMut() -> Vec<Process>) -> Result<usize, TreeError> {
    let deadline = Instant::now() + Duration::from_millis(TREE_KILL_MS_MAX);
    let immune = processes::ourselves_and_parents();
    let (mut killed, mut refused) = (HashSet::new(), HashSet::new());
    loop {
        let mut found = look();
        found.retain(|process| !immune.contains(&process.pid));
        let (beyond_us, ours): (Vec<_>, Vec<_>) =
            found.iter().partition(|process| refused.contains(*process));
        if ours.is_empty() && beyond_us.is_empty() {
            return Ok(killed.len());
        }
        let pids = found.iter().map(|process| process.pid).collect();
        if ours.is_empty() || Instant::now() >= deadline {
            return Err(TreeError::Survivors { pids });
        }
        let ends = kill_each(ours, &mut killed, &mut refused);
        if !processes::wait_for_end(ends, deadline).map_err(TreeError::Wait)? {
            return Err(TreeError::Survivors { pids });
        }
    }
}

/// Kills these; what comes back is readable when they have ended. Of very many, only the first ones are awaited:
/// the next look finds the others.
fn kill_each(
    processes: Vec<Process>,
    killed: &mut HashSet<Process>,
    refused: &mut HashSet<Process>,
) -> Vec<OwnedFd> {
    let mut ends = Vec::new();
    for process in processes {
        match processes::kill(process) {
            Kill::Gone => {}
            Kill::Sent(pidfd) => {
                killed.insert(process);
                if ends.len() < TREE_PIDFDS_MAX {
                    ends.push(pidfd);
                }
            }
            Kill::Refused(error) => {
                tracing::warn!(pid = process.pid, %error, "a process of a worker cannot be killed");
                refused.insert(process);
            }
        }
    }
    ends
}
