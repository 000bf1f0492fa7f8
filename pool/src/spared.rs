//! Processes that nobody ends for the sake of another: the workers of this process, and its checkpoints.
//!
//! A checkpoint is forked off a worker and has workers for children, so they all look like parts of each other. Who is
//! ended with a worker is therefore found by leaving out what somebody else stands for.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::processes::{Process, Stat};

static ALL: LazyLock<Mutex<HashMap<Process, usize>>> = LazyLock::new(Mutex::default);

/// A process that somebody stands for, as long as this lives.
#[derive(Debug)]
pub(crate) struct Spared(Process);

impl Spared {
    pub(crate) fn new(process: Process) -> Self {
        *ALL.lock().unwrap_or_else(PoisonError::into_inner).entry(process).or_default() += 1;
        Self(process)
    }
}

impl Drop for Spared {
    fn drop(&mut self) {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.0);
            }
        }
    }
}

/// Those of `all` that are not ended with `leader`: who is spared, and who belongs to one of these by descent, session or
/// group. What descends from `leader` does not, also where it descends from one that is spared itself.
pub(crate) fn beside(leader: Process, all: &[Stat]) -> HashSet<u32> {
    let spared = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let is_spared = |stat: &&Stat| stat.process != leader && spared.contains_key(&stat.process);
    let mut found: HashSet<u32> = all.iter().filter(is_spared).map(|stat| stat.process.pid).collect();
    drop(spared);
    // Children may have smaller ids than their parents: until nobody new is found.
    let mut before = 0;
    while found.len() > before {
        before = found.len();
        for stat in all.iter().filter(|stat| stat.process.pid != leader.pid) {
            let ids = [stat.parent, stat.session, stat.group];
            if stat.parent != leader.pid && ids.iter().any(|id| found.contains(id)) {
                found.insert(stat.process.pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: u32, parent: u32, session: u32) -> Stat {
        let process = Process { pid, started: u64::MAX - u64::from(pid) };
        Stat { process, parent, group: session, session, cpu_ticks: 0, is_over: false }
    }

    #[test]
    fn a_worker_that_came_of_a_checkpoint_is_ended_without_it_and_without_its_siblings() {
        // A checkpoint (10) with two workers (20, 30), each with a child (21, 31), of which one has left its session.
        let all = [
            stat(31, 30, 31),
            stat(10, 1, 10),
            stat(20, 10, 20),
            stat(21, 20, 20),
            stat(30, 10, 30),
            stat(32, 31, 31),
            stat(40, 1, 20),
        ];
        let leader = |index: usize| all[index].process;
        let guards: Vec<_> = [1, 2, 4].map(|index| Spared::new(leader(index))).into_iter().collect();
        let sorted = |of: Process| {
            let mut pids: Vec<_> = beside(of, &all).into_iter().collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(sorted(leader(2)), [10, 30, 31, 32]);
        assert_eq!(sorted(leader(4)), [10, 20, 21, 40]);
        drop(guards);
        assert!(beside(leader(2), &all).is_empty());
    }
}
