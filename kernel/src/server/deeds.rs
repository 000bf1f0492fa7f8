//! What the sessions of a server have done with checkpoints since it began: what they do themselves, and what they do
//! because memory is short.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    taken: AtomicU64,
    taken_automatically: AtomicU64,
    restored: AtomicU64,
    hibernated: AtomicU64,
    shortages: AtomicU64,
    shed_bytes: AtomicU64,
    relieved: AtomicU64,
}

impl Deeds {
    pub(crate) fn took(&self, automatic: bool) {
        let count = if automatic { &self.taken_automatically } else { &self.taken };
        add(count, 1);
    }

    pub(crate) fn restored(&self) {
        add(&self.restored, 1);
    }

    pub(crate) fn hibernated(&self) {
        add(&self.hibernated, 1);
    }

    /// Memory was short.
    pub(crate) fn was_short(&self) {
        add(&self.shortages, 1);
    }

    /// Checkpoints were given up for it.
    pub(crate) fn shed(&self, bytes: u64) {
        add(&self.shed_bytes, bytes);
    }

    /// A session was hibernated for it.
    pub(crate) fn relieved(&self) {
        add(&self.relieved, 1);
    }

    /// By name: figures that only grow.
    pub(crate) fn figures(&self) -> Value {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        json!({
            "taken": of(&self.taken),
            "taken_automatically": of(&self.taken_automatically),
            "restored": of(&self.restored),
            "hibernated": of(&self.hibernated),
            "memory_shortages": of(&self.shortages),
            "memory_shed_bytes": of(&self.shed_bytes),
            "memory_hibernated": of(&self.relieved),
        })
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}
