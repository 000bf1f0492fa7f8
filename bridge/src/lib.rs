//! Keeper of promises and of the journal.
//!
//! Every execution, and every question that running code asks, is a promise: recorded before anything happens,
//! settled once. Every output is a numbered event. Whoever tells a client something asks the bridge first:
//! **nothing is acknowledged before it is recorded**, at the durability that was asked for.
//!
//! This crate never talks to a client or a worker. A [`Bridge`] is the handle: what is submitted to it is committed in
//! groups by one thread (`writer`), which completes a future for each group and wakes who waits for what changed.

mod ballast;
mod bridge;
mod bundles;
mod checksum;
mod chunks;
mod error;
mod feed;

mod follow;
#[cfg(any(test, feature = "testing"))]
mod generator;
mod health;
mod history;
mod lifecycle;
mod lock;
mod memory;
mod metrics;
mod news;
mod open;
mod payloads;
mod pending;
mod queue;
mod readers;
mod rules;
mod shared;
mod shelf;
mod sqlite;
mod store;
mod submitted;
mod tail;
mod timers;
mod wakes;
mod watch;
mod weight;
mod writer;

#[cfg(test)]
mod tests;

pub use ballast::{Ballast, free_bytes};
pub use bridge::Bridge;
pub use bundles::{BundleError, Bundles, Facts, KeptBundles, NewBundle, Origin, StoredBundle};

#[cfg(any(test, feature = "testing"))]
pub use bundles::{check_archive, check_manifest, example_archive};
pub use chunks::BundleMetrics;
pub use feed::{Feed, SessionFollower};
pub use follow::Follower;
#[cfg(any(test, feature = "testing"))]
pub use generator::{Generator, compare};
pub use health::Health;
pub use history::{Entry, History};
pub use lifecycle::ending;
pub use memory::MemoryStore;
pub use metrics::{CommitMetrics, Metrics, PendingMetrics, QueueMetrics};
pub use shelf::{KnownStore, known_stores, sweep_stores};
pub use sqlite::{
    AuditEntry, Broken, Head, Limits, OpenError, Retained, SqliteReader, SqliteStore, StoreOptions,
};
pub use store::{
    BridgeError, BundleRecord, ChunkHash, Created, Custody, Filter, Group, NewExecution, Outcomes,
    OutputState, Progress, Read, Recorded, SessionRecord, SignedManifest, Store, StoreError, Totals,
    Unsettled, Write, Written,
};
pub use submitted::Submitted;
pub use watch::StoreWatch;
