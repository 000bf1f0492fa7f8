//! What one connection has lent: workers of one session, and who is not to be ended with them.

use std::collections::HashMap;

use cob_protocol::limits::{BRANCHES_MAX, CHECKPOINTS_MAX};
use cob_protocol::resources::Limits;

use crate::enclosure::{Enclosure, Local};
use crate::exit::Exit;
use crate::household::{Checkpoint, Household};
use crate::tree::Tree;

/// More than a session can have; what comes beyond is not looked after.
const MEMBERS_MAX: usize = CHECKPOINTS_MAX + BRANCHES_MAX;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lent {
    session: Option<(Household, Limits)>,
    workers: HashMap<u32, Enclosure>,
    spared: HashMap<u32, Checkpoint>,
}

impl Lent {
    pub(super) fn has_begun(&self) -> bool {
        self.session.is_some()
    }

    /// The first worker, with the limits of its session.
    pub(super) fn begin(&mut self, pid: u32, enclosure: Enclosure, limits: Limits) {
        self.session = Some((enclosure.household(), limits));
        self.workers.insert(pid, enclosure);
    }

    /// Another worker.
    pub(super) fn join(&mut self, pid: u32, marker: &str, pipes: &[u64]) {
        let Some((Household::Local(common), limits)) = &self.session else { return };
        let Some(tree) = Tree::of(pid, marker, pipes) else { return };
        if self.workers.len() < MEMBERS_MAX {
            let mut enclosure = Enclosure::Local(Box::new(Local::join(common, Some(tree))));
            enclosure.apply(pid, limits);
            enclosure.outlive();
            self.workers.insert(pid, enclosure);
        }
    }

    pub(super) fn spare(&mut self, pid: u32) {
        if let Some((household, _)) = self.session.as_ref().filter(|_| self.spared.len() < MEMBERS_MAX) {
            self.spared.insert(pid, household.checkpoint(pid));
        }
    }

    pub(super) fn forget(&mut self, pid: u32, is_lost: bool) {
        if let Some(mut checkpoint) = self.spared.remove(&pid).filter(|_| is_lost) {
            checkpoint.lost();
        }
    }

    pub(super) fn keep(&self, owner: u32) {
        self.workers.values().for_each(|enclosure| enclosure.lend_to(owner));
    }

    pub(super) async fn clear(&mut self, pid: u32, exit: Exit, cpu_ms: Option<u64>) -> Exit {
        match self.workers.get_mut(&pid) {
            Some(enclosure) => {
                let exit = enclosure.clear(exit, cpu_ms).await;
                self.workers.remove(&pid);
                exit
            }
            None => exit,
        }
    }

    /// Ends everything.
    pub(super) async fn clear_all(&mut self) {
        self.spared.clear();
        for enclosure in self.workers.values_mut() {
            enclosure.clear(Exit::Unknown, None).await;
        }
        self.workers.clear();
    }
}
