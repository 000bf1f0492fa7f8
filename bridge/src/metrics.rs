//! What a bridge does, in figures.

use std::sync::atomic::{AtomicU64, Ordering};

use cob_protocol::time::Timestamp;
use serde::Serialize;

use crate::chunks::BundleMetrics;
use crate::health::Health;
use crate::pending::Kinds;

/// A look at the figures of a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// What is not settled.
    pub pending: PendingMetrics,
    /// What was recorded since the store was opened.
    pub commits: CommitMetrics,
    /// What waits for the writer.
    pub queue: QueueMetrics,
    /// Whether the store can do its work: `good`, `full` or `read_only`.
    pub health: Health,
    /// Durable checkpoints.
    pub bundles: BundleMetrics,
}

/// Promises that are not settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PendingMetrics {
    /// Executions that wait or run, and durable channels that are open.
    pub executions: usize,
    /// Questions without an answer.
    pub calls: usize,
    /// The most that there were at a time, of both kinds together.
    pub high_water: usize,
    /// Age of the oldest execution, in milliseconds.
    pub oldest_execution_ms: Option<u64>,
    /// Age of the oldest question, in milliseconds.
    pub oldest_call_ms: Option<u64>,
}

/// Commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommitMetrics {
    /// Those that succeeded.
    pub count: u64,
    /// Groups in them.
    pub groups: u64,
    /// The most groups that one took.
    pub groups_max: u64,
    /// Writes in them.
    pub writes: u64,
    /// What these weighed, roughly.
    pub bytes: u64,
    /// Those that failed.
    pub failures: u64,
    /// Groups that were refused without a commit.
    pub refused: u64,
}

/// The writer's queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QueueMetrics {
    /// Groups that wait.
    pub groups: usize,
    /// Bytes that wait or are being written, roughly.
    pub bytes: usize,
}

impl PendingMetrics {
    pub(crate) fn new(kinds: Kinds, now: Timestamp) -> Self {
        let age = |since: Timestamp| u64::try_from((now.micros() - since.micros()) / 1000).unwrap_or(0);
        Self {
            executions: kinds.executions,
            calls: kinds.calls,
            high_water: kinds.high_water,
            oldest_execution_ms: kinds.oldest_execution.map(age),
            oldest_call_ms: kinds.oldest_call.map(age),
        }
    }
}

/// What the writer counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    groups: AtomicU64,
    groups_max: AtomicU64,
    writes: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
}

impl Counters {
    pub(crate) fn committed(&self, groups: usize, writes: usize, bytes: usize) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.groups.fetch_add(groups as u64, Ordering::Relaxed);
        self.groups_max.fetch_max(groups as u64, Ordering::Relaxed);
        self.writes.fetch_add(writes as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, groups: usize) {
        self.refused.fetch_add(groups as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> CommitMetrics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CommitMetrics {
            count: of(&self.commits),
            groups: of(&self.groups),
            groups_max: of(&self.groups_max),
            writes: of(&self.writes),
            bytes: of(&self.bytes),
            failures: of(&self.failures),
            refused: of(&self.refused),
        }
    }
}
