//! What one worker is enclosed in: its limits, who enforces each of them, and whether it died of one.
//!
//! Memory and processes are limited by a cgroup where the host allows one, else by limits of the single process
//! (`rlimits`). Time, output and disk are the kernel loop's, which knows where an execution begins and ends.

mod cgroup;
mod enforced;
mod hierarchy;
mod rlimits;
#[cfg(test)]
mod tests;

/// Says that a test did not run. Not by the macros, whose text the test runner keeps to itself.
#[cfg(test)]
pub(crate) fn skipped(why: &str) {
    let line = format!("SKIPPED: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

use cob_protocol::limits::{CPU_TOLD_MS, RESERVED_BYTES_PER_CPU};
use cob_protocol::resources::{Limit, Limits};
use rustix::process::Resource;
use serde::{Deserialize, Serialize};

pub use cgroup::{Cgroup, CgroupError, Cgroups, Version};
pub(crate) use cgroup::{KeptGroup, WithCheckpoint};
pub use enforced::{Enforced, EnforcedRow, Means, forecast};
pub use hierarchy::Host;
pub use rlimits::cpu_ms;

use crate::exit::Exit;

/// What one worker is enclosed in.
#[derive(Debug)]
pub struct Enclosure {
    /// The group, or why there is none.
    group: Result<Cgroup, String>,
    is_admitted: bool,
    memory_bytes: Option<u64>,
    cpu: Option<Cpu>,
}

/// What another process needs to know of an enclosure to go on with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The group, if the worker is in one.
    pub(crate) group: Option<KeptGroup>,
    oom_kills_before: u64,
    memory_bytes: Option<u64>,
    cpu: Option<Cpu>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cpu {
    /// What the session was given.
    given_s: u64,
    /// What the worker may have used since its start.
    end_s: u64,
}

impl Enclosure {
    /// Makes a group for one worker, if the host allows it. Without one, less is enforced, and
    /// [`Enclosure::apply`] says so.
    #[must_use]
    pub fn new(cgroups: &Cgroups) -> Self {
        let group = cgroups.create().map_err(|error| error.to_string());
        Self { group, is_admitted: false, memory_bytes: None, cpu: None }
    }

    pub(crate) fn keep(&self) -> Kept {
        let oom_kills_before = self.group().map_or(0, Cgroup::settled_oom_kills);
        let group = self.group().map(Cgroup::keep);
        let Self { memory_bytes, cpu, .. } = *self;
        Kept { group, oom_kills_before, memory_bytes, cpu }
    }

    /// One that another process had before.
    pub(crate) fn found(kept: Kept) -> Self {
        let Kept { group, oom_kills_before, memory_bytes, cpu } = kept;
        let group = group.map(Cgroup::kept).ok_or_else(|| "it never had a group".to_owned());
        if let Ok(group) = &group {
            group.settle_oom_kills(oom_kills_before);
        }
        Self { is_admitted: group.is_ok(), group, memory_bytes, cpu }
    }

    /// That of another worker of the same session, which was forked into the group; no limit is set for it yet.
    pub(crate) fn successor(&self) -> Self {
        Self { group: self.group.clone(), is_admitted: self.is_admitted, memory_bytes: None, cpu: None }
    }

    /// The group, if there is one with the worker in it.
    #[must_use]
    pub fn group(&self) -> Option<&Cgroup> {
        self.group.as_ref().ok().filter(|_| self.is_admitted)
    }

    /// Takes a worker in, long before it is known what it may use: moving a process can take 12 ms, setting a limit
    /// takes microseconds. Memory it has by then is not counted.
    ///
    /// # Errors
    /// When it may not be moved. It then lives without a group, as on a host that has none.
    pub fn admit(&mut self, pid: u32) -> Result<(), CgroupError> {
        let Ok(group) = &self.group else { return Ok(()) };
        if let Err(error) = group.add(pid) {
            self.group = Err(error.to_string());
            return Err(error);
        }
        group.settle_oom_kills(group.oom_kills());
        self.is_admitted = true;
        Ok(())
    }

    /// Sets `limits` for the worker and what it starts. Says for each what enforces it. May be called again.
    pub fn apply(&mut self, pid: u32, limits: &Limits) -> Enforced {
        // No limit, but no less useful: the memory of a worker must not end up on the disk.
        if let Err(error) = rlimits::set(pid, Resource::Core, 0, 0) {
            tracing::debug!(pid, %error, "core files stay allowed");
        }
        let rows = limits.iter().map(|(limit, value)| EnforcedRow {
            limit,
            value: Some(value),
            by: self.apply_one(pid, limit, value),
        });
        Enforced(rows.collect())
    }

    fn apply_one(&mut self, pid: u32, limit: Limit, value: u64) -> Means {
        let simple = |resource| Means::rlimit(rlimits::set(pid, resource, value, value), None);
        match limit {
            Limit::Memory => self.apply_memory(pid, value),
            Limit::Processes => self.apply_processes(pid, value),
            Limit::Cpu => match rlimits::set_cpu(pid, value) {
                Ok(end_s) => {
                    self.cpu = Some(Cpu { given_s: value, end_s });
                    Means::Rlimit(None)
                }
                Err(error) => Means::Not(error.to_string()),
            },
            Limit::OpenFiles => simple(Resource::Nofile),
            Limit::File => simple(Resource::Fsize),
            Limit::Time | Limit::Disk | Limit::Output => Means::Kernel,
        }
    }

    /// Measured with CPython 3.11 and a limit of 512 MiB: by the cgroup alone, `bytearray(600 << 20)` costs the user
    /// the worker and all variables; with the same bound on the process's data it is a `MemoryError`, and nothing is
    /// lost. But that bound counts what is merely reserved: numpy reserves 171 MiB on four processors and uses 25, and
    /// with 128 MiB it cannot even be imported. So beside a cgroup the bound has room for that; alone it has not, as
    /// nobody else would stop a worker that uses it.
    fn apply_memory(&mut self, pid: u32, bytes: u64) -> Means {
        let by_group = match self.group() {
            None => Err(self.no_group()),
            Some(group) => match group.memory_version() {
                None => Err("the group has no memory controller".to_owned()),
                Some(version) => {
                    group.limit_memory(bytes).map(|()| version).map_err(|error| error.to_string())
                }
            },
        };
        match by_group {
            Ok(version) => {
                self.memory_bytes = Some(bytes);
                let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
                let most = bytes.saturating_add(cpus.saturating_mul(RESERVED_BYTES_PER_CPU));
                if let Err(error) = rlimits::set(pid, Resource::Data, most, most) {
                    tracing::debug!(pid, %error, "allocations that are too large end the worker");
                }
                Means::group(version)
            }
            Err(why) => {
                Means::rlimit(rlimits::set(pid, Resource::Data, bytes, bytes), Some(enforced::alone(&why)))
            }
        }
    }

    fn apply_processes(&self, pid: u32, count: u64) -> Means {
        let by_group = match self.group() {
            None => Err(self.no_group()),
            Some(group) => match group.pids_version() {
                None => Err("the group has no pids controller".to_owned()),
                Some(version) => {
                    group.limit_processes(count).map(|()| version).map_err(|error| error.to_string())
                }
            },
        };
        match by_group {
            Ok(version) => Means::group(version),
            Err(why) => match rlimits::set_processes(pid, count) {
                Ok(()) => Means::Rlimit(Some(enforced::together(&why))),
                Err(error) => Means::Not(format!("{error}, and {why}")),
            },
        }
    }

    fn no_group(&self) -> String {
        match &self.group {
            Err(why) => why.clone(),
            Ok(_) => "the worker is in no group".to_owned(),
        }
    }

    /// Why the worker died, when the system killed it: `exit` itself, or the limit that it reached. Only for an end
    /// that cob did not bring about. `cpu_ms` is the processor time that it had used by then;
    /// unknown is fine.
    #[must_use]
    pub fn verdict(&self, exit: Exit, cpu_ms: Option<u64>) -> Exit {
        match (&exit, self.cpu, self.memory_bytes) {
            (Exit::Signal(libc::SIGXCPU), Some(cpu), _) => Exit::CpuLimit(cpu.given_s),
            (Exit::Signal(libc::SIGKILL), _, Some(bytes)) if self.was_out_of_memory() => {
                Exit::MemoryLimit(bytes)
            }
            (Exit::Signal(libc::SIGKILL), Some(cpu), _) if cpu.is_used_up(cpu_ms) => {
                Exit::CpuLimit(cpu.given_s)
            }
            _ => exit,
        }
    }

    /// The system says whom it killed for memory; it is never guessed from the signal.
    fn was_out_of_memory(&self) -> bool {
        self.group().is_some_and(Cgroup::has_new_oom_kills)
    }
}

impl Cpu {
    /// Who went on after SIGXCPU ignored it, and is killed by the system as soon as the grace is over as well.
    fn is_used_up(self, cpu_ms: Option<u64>) -> bool {
        // The system counts ticks, and tells what a finer clock says: that may be less.
        cpu_ms.is_some_and(|used| used.saturating_add(CPU_TOLD_MS) >= self.end_s.saturating_mul(1000))
    }
}
