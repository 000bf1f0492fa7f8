//! Helpers of the end-to-end tests: the real binary in a folder of its own, clients of it, raw peers, workers that
//! follow a script.
//!
//! Nothing here sleeps: what is waited for is a message, a log line or the end of a process. [`within`] only
//! keeps a test that waits for something that never comes from hanging.
//!
//! # Where the binary comes from
//! `COB_BIN` names it; without that, `cargo build` brings the one beside the test up to date, once per test
//! program. Workers run in the Python that `COB_BARE` names, else in the `python3` of the search path.

pub mod agents;
pub mod bundles;
pub mod cgroups;
pub mod checker;
pub mod client;
pub mod custody;
pub mod durable;
pub mod effects;
pub mod fuzz;
pub mod history;
pub mod kernel;
mod log;
pub mod process;
pub mod programs;
pub mod raw;
pub mod seed;
pub mod server;
pub mod small_disk;
pub mod snapshot;
pub mod source;
pub mod strace;
mod teardown;
pub mod toxic;
pub mod transcript;
pub mod vfs;

use std::time::Duration;

/// Nothing in these tests takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that is sure to come.
///
/// # Panics
/// When it does not; `what` says in the test's report what was waited for.
#[track_caller]
pub fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let outcome = tokio::time::timeout(PATIENCE, future).await;
        outcome.unwrap_or_else(|_| unreachable!("{place}: waited in vain for {what}"))
    }
}
