//! The files that bundles are made of: which of them somebody works with, and how much they are.
//!
//! A file is removed by the thread that writes the store, once no row names it: it sees every commit, and nobody else
//! removes one. Between the write of a file and the commit that names it, and while a bundle is read, the file is
//! *pinned*.
//!
//! **Invariant:** a pinned file stays. Whoever pins does so before he looks whether it is there.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cob_protocol::crash_point;
use cob_protocol::limits::STORE_CHUNKS_AT_ONCE_MAX;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::payloads::Payloads;
use crate::queue::Queue;
use crate::shared::lock;
use crate::store::{ChunkHash, StoreError};

/// Durable checkpoints, in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BundleMetrics {
    /// How many there are.
    pub bundles: u64,
    /// Files that they are made of: what several share is one.
    pub chunks: u64,
    /// Bytes of these files.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Chunks {
    pub(crate) files: Payloads,
    pins: Mutex<Pins>,
    /// There may be files that nothing names: all are to be looked through.
    is_sweep_wanted: AtomicBool,
    bundles: AtomicU64,
    chunks: AtomicU64,
    bytes: AtomicU64,
    /// Of the writer, who sweeps.
    queue: OnceLock<Arc<Queue>>,
    /// One for each thread that may write at a time, for whichever bundle.
    permits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Pins {
    held: HashMap<ChunkHash, u32>,
    /// One was not removed because it was pinned.
    was_spared: bool,
}

impl Chunks {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            files: Payloads::new(folder),
            pins: Mutex::default(),
            // What was left of the last time.
            is_sweep_wanted: AtomicBool::new(true),
            bundles: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            queue: OnceLock::new(),
            permits: Arc::new(Semaphore::new(STORE_CHUNKS_AT_ONCE_MAX)),
        }
    }

    /// From now on the writer is told when there is something to sweep.
    pub(crate) fn served_by(&self, queue: Arc<Queue>) {
        let _ = self.queue.set(queue);
    }

    /// Does something with files on a blocking thread, when there is one for it. Whoever goes away leaves work behind that
    /// ends by itself.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        Ok(tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        }))
    }

    /// Waits for what is being done; nothing more is begun. Idempotent.
    pub(crate) async fn close(&self) {
        let all = u32::try_from(STORE_CHUNKS_AT_ONCE_MAX).unwrap_or(u32::MAX);
        if self.permits.acquire_many(all).await.is_ok() {
            self.permits.close();
        }
    }

    /// Removes a file that no row names, unless it is pinned. Only for the thread that commits.
    pub(crate) fn remove(&self, hash: &ChunkHash) {
        let mut pins = lock(&self.pins);
        if pins.held.contains_key(hash) {
            pins.was_spared = true;
            return;
        }
        // Under the lock: whoever pins it now finds out whether it is there.
        self.files.remove(hash);
        drop(pins);
        crash_point!("chunk_removed");
    }

    /// Whether all files are to be looked through; it is taken as done.
    pub(crate) fn take_sweep(&self) -> bool {
        self.is_sweep_wanted.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn want_sweep(&self) {
        self.is_sweep_wanted.store(true, Ordering::Release);
        self.ask_for_chores();
    }

    /// The writer has something to do when it has nothing else to do.
    pub(crate) fn ask_for_chores(&self) {
        if let Some(queue) = self.queue.get() {
            queue.ask_for_chores();
        }
    }

    pub(crate) fn metrics(&self) -> BundleMetrics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BundleMetrics { bundles: of(&self.bundles), chunks: of(&self.chunks), bytes: of(&self.bytes) }
    }

    pub(crate) fn publish(&self, metrics: BundleMetrics) {
        self.bundles.store(metrics.bundles, Ordering::Relaxed);
        self.chunks.store(metrics.chunks, Ordering::Relaxed);
        self.bytes.store(metrics.bytes, Ordering::Relaxed);
    }
}

/// Files that stay as long as this exists.
#[derive(Debug)]
pub(crate) struct Pinned {
    chunks: Arc<Chunks>,
    held: Mutex<HashSet<ChunkHash>>,
    /// Files were written that nothing names yet.
    has_strays: AtomicBool,
}

impl Pinned {
    pub(crate) fn new(chunks: &Arc<Chunks>) -> Self {
        Self { chunks: Arc::clone(chunks), held: Mutex::default(), has_strays: AtomicBool::new(false) }
    }

    pub(crate) fn add(&self, hash: ChunkHash) {
        if lock(&self.held).insert(hash) {
            *lock(&self.chunks.pins).held.entry(hash).or_default() += 1;
        }
    }

    /// A file was written, or all that were are named by a row.
    pub(crate) fn set_strays(&self, has_strays: bool) {
        self.has_strays.store(has_strays, Ordering::Release);
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pins = lock(&self.chunks.pins);
        for hash in self.held.get_mut().unwrap_or_else(PoisonError::into_inner).drain() {
            if let Some(count) = pins.held.get_mut(&hash) {
                *count -= 1;
                if *count == 0 {
                    pins.held.remove(&hash);
                }
            }
        }
        let was_spared = std::mem::take(&mut pins.was_spared);
        drop(pins);
        if was_spared || self.has_strays.load(Ordering::Acquire) {
            self.chunks.want_sweep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payloads::{Safe, hash_of};

    #[test]
    fn a_pinned_file_stays_and_is_swept_later() {
        let folder = tempfile::tempdir().unwrap();
        let chunks = Arc::new(Chunks::new(folder.path().join("chunks")));
        assert!(chunks.take_sweep(), "at the start");
        let hash = hash_of(b"abc");
        let pinned = [Pinned::new(&chunks), Pinned::new(&chunks)];
        pinned.iter().for_each(|pinned| pinned.add(hash));
        chunks.files.put(&hash, b"abc", Safe::No).unwrap();
        for pinned in pinned {
            chunks.remove(&hash);
            assert!(chunks.files.has(&hash, 3) && !chunks.take_sweep());
            drop(pinned);
            assert!(chunks.take_sweep(), "it was spared");
        }
        chunks.remove(&hash);
        assert!(!chunks.files.has(&hash, 3));
        let stray = Pinned::new(&chunks);
        stray.set_strays(true);
        drop(stray);
        assert!(chunks.take_sweep(), "it may have left some");
    }
}
