//! Durable checkpoints: bundles in chunks beside the database, and their records in it.
//!
//! A bundle is the bytes of its blobs, one after the other, cut into *chunks* that lie in files under their hashes. A
//! large blob begins a chunk of its own and is cut into full pieces, so that what did not change has the same hash
//! again; small blobs lie together. Its *manifest* lists them, with what is known of it, and is signed with the key
//! of the store. The row with the manifest is the bundle: what no row names is swept away.
//!
//! Bundles of a session that is open stay until somebody deletes them. Those of a closed one are kept as its events are:
//! until it has been closed for as long as events are kept, or, oldest first, until all bundles together are not too
//! large; see [`Limits`](crate::Limits).
//!
//! **Invariants:** a bundle is there as a whole or not at all, whenever the process or the power goes; chunks that
//! bundles share are stored once and go with the last of them; what the key of this store did not sign is never given
//! out.

mod archive;
#[cfg(any(test, feature = "testing"))]
mod fuzzing;
mod kept;
mod key;
mod manifest;
mod reading;
#[cfg(test)]
mod tests;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cob_protocol::checkpoint::{CheckpointView, Finding, Tier};
use cob_protocol::ids::{CheckpointId, SessionId};
use cob_protocol::limits::BUNDLES_MAX;
use cob_protocol::promise::Durability;
use thiserror::Error;

use crate::bridge::Bridge;
use crate::chunks::{Chunks, Pinned};
use crate::health::Health;
use crate::store::{BridgeError, SignedManifest, StoreError, Write};

#[cfg(any(test, feature = "testing"))]
pub use fuzzing::{check_archive, check_manifest, example_archive};
pub use kept::KeptBundles;
pub use manifest::Origin;
pub use reading::StoredBundle;
pub use writing::NewBundle;

use key::Keys;
use manifest::Manifest;

/// The durable checkpoints of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bundles {
    bridge: Bridge,
    place: Arc<Place>,
}

/// Where the bundles of a store lie.
#[derive(Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    chunks: Arc<Chunks>,
    keys: Keys,
    /// So many bytes all bundles of the store may have.
    bytes_max: u64,
}

/// Why a bundle cannot be had or made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// This bridge keeps nothing on a disk.
    #[error("this session keeps no store; start it with one to have durable checkpoints")]
    NoStore,
    /// There is none with this name.
    #[error("there is no durable checkpoint {0}")]
    Unknown(CheckpointId),
    /// The session has too many, or there is no room for it.
    #[error("{0}")]
    Full(String),
    /// Signed by nobody we know.
    #[error("{0}")]
    Untrusted(String),
    /// Not what was written, or not a bundle.
    #[error("{0}")]
    Damaged(String),
    /// It cannot be written to where it was to be, or read from there.
    #[error("{}: {what}", .path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// What is wrong there.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is known of a checkpoint beside what is in it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its name: the caller took the number with [`crate::Write::NumberCheckpoints`].
    pub checkpoint: CheckpointId,
    /// See [`CheckpointView`], here and below.
    pub label: Option<String>,
    /// Taken without being asked for.
    pub automatic: bool,
    /// The last execution it knows of.
    pub execution: u64,
    /// The highest `In [count]`.
    pub count: u32,
    /// When it was taken: microseconds since 1970.
    pub taken_at: i64,
    /// Where the session had come from.
    pub parent: Option<CheckpointId>,
    /// What it does not hold, or not as it was.
    pub findings: Vec<Finding>,
}

impl Facts {
    fn into_view(self) -> CheckpointView {
        CheckpointView {
            checkpoint: self.checkpoint,
            label: self.label,
            tier: Tier::Durable,
            automatic: self.automatic,
            execution: self.execution,
            count: self.count,
            taken_at: self.taken_at,
            parent: self.parent,
            private_bytes: None,
            bytes: None,
            new_bytes: None,
            findings: self.findings,
            missing: Vec::new(),
        }
    }
}

impl Bridge {
    /// Its durable checkpoints, if it has a place for them.
    #[must_use]
    pub fn bundles(&self) -> Option<Bundles> {
        let place = self.shared().bundles.get().map(Arc::clone)?;
        Some(Bundles { bridge: self.clone(), place })
    }
}

impl Place {
    pub(crate) fn new(folder: PathBuf, chunks: Arc<Chunks>, bytes_max: u64) -> Self {
        let keys = Keys::new(&folder);
        Self { folder, chunks, keys, bytes_max }
    }

    pub(crate) fn chunks(&self) -> &Arc<Chunks> {
        &self.chunks
    }

    fn failed(&self, what: impl ToString) -> BundleError {
        let store = self.folder.display().to_string();
        BundleError::Store(StoreError::Failed { store, what: what.to_string() })
    }

    /// The manifest that was signed, if it was signed by us, and all its chunks are there: they stay as long as the
    /// second one exists.
    fn verified(
        &self,
        checkpoint: CheckpointId,
        signed: &SignedManifest,
    ) -> Result<(Manifest, Pinned), BundleError> {
        self.keys.verify(checkpoint, signed)?;
        let manifest = Manifest::parse(&signed.body)?;
        if manifest.view.checkpoint != checkpoint {
            let of = manifest.view.checkpoint;
            return Err(BundleError::Untrusted(format!("what is kept as {checkpoint} was signed as {of}")));
        }
        let pinned = Pinned::new(&self.chunks);
        for chunk in &manifest.chunks {
            pinned.add(chunk.hash.0);
            if !self.chunks.files.has(&chunk.hash.0, u64::from(chunk.bytes)) {
                let path = self.chunks.files.path(&chunk.hash.0);
                let what = format!("{checkpoint} is damaged: {} is missing, or cut short", path.display());
                return Err(BundleError::Damaged(what));
            }
        }
        Ok((manifest, pinned))
    }
}

impl Bundles {
    /// Begins to write one. Nothing of it is there before [`NewBundle::commit`].
    ///
    /// # Errors
    /// [`BundleError`]
    pub async fn begin(&self, facts: Facts) -> Result<NewBundle, BundleError> {
        self.begin_with(facts.into_view(), Vec::new()).await
    }

    async fn begin_with(
        &self,
        view: CheckpointView,
        imported_from: Vec<Origin>,
    ) -> Result<NewBundle, BundleError> {
        match self.bridge.health() {
            Health::Good => {}
            Health::Full(error) | Health::ReadOnly(error) => return Err(error.into()),
        }
        let session = view.checkpoint.session;
        // Asked again by the commit; here it saves the work.
        let known = self.list(session).await?;
        if known.iter().any(|known| known.checkpoint == view.checkpoint) {
            return Err(self.refused(view.checkpoint, BridgeError::Exists(view.checkpoint.to_string())));
        }
        if known.len() >= BUNDLES_MAX {
            return Err(self.refused(view.checkpoint, BridgeError::BundlesFull(session)));
        }
        cob_protocol::crash_point!("bundle_begun");
        Ok(NewBundle::new(self.clone(), view, imported_from))
    }

    /// Those of a session, oldest first.
    ///
    /// # Errors
    /// [`BundleError::Store`]
    pub async fn list(&self, session: SessionId) -> Result<Vec<CheckpointView>, BundleError> {
        let list = self.bridge.read(move |store| store.bundles(Some(session))).await;
        list.map_err(|error| self.refused(CheckpointId { session, number: 0 }, error))
    }

    /// Opens one, once everything of it is verified to be signed and to be there.
    ///
    /// # Errors
    /// [`BundleError`]
    pub async fn open(&self, checkpoint: CheckpointId) -> Result<StoredBundle, BundleError> {
        let (manifest, pinned, _) = self.verified(checkpoint).await?;
        StoredBundle::new(Arc::clone(&self.place), manifest, pinned)
    }

    /// What [`Place::verified`] says of the one with this name; and what was signed.
    async fn verified(
        &self,
        checkpoint: CheckpointId,
    ) -> Result<(Manifest, Pinned, SignedManifest), BundleError> {
        let signed = self.signed(checkpoint).await?;
        let place = Arc::clone(&self.place);
        let verified = self.blocking(move || {
            let (manifest, pinned) = place.verified(checkpoint, &signed)?;
            Ok((manifest, pinned, signed))
        });
        match verified.await {
            Err(BundleError::Damaged(what)) => {
                // It may have been deleted since its row was read.
                self.signed(checkpoint).await?;
                Err(BundleError::Damaged(what))
            }
            verified => verified,
        }
    }

    async fn signed(&self, checkpoint: CheckpointId) -> Result<SignedManifest, BundleError> {
        let signed = self.bridge.read(move |store| store.bundle(checkpoint)).await;
        let signed = signed.map_err(|error| self.refused(checkpoint, error))?;
        signed.ok_or(BundleError::Unknown(checkpoint))
    }

    /// Removes one, and the chunks that only it had: it is gone when this returns, and they go when the store has nothing
    /// else to do.
    ///
    /// # Errors
    /// [`BundleError`]
    pub async fn delete(&self, checkpoint: CheckpointId) -> Result<(), BundleError> {
        self.submit(checkpoint, Write::RemoveBundle { checkpoint }).await?;
        self.place.chunks.ask_for_chores();
        Ok(())
    }

    /// Writes one into a file that is not there yet, for its owner alone; gives the size of the file. Only whoever has
    /// the key of this store (`bundle.key` in its folder) can take it in elsewhere.
    ///
    /// # Errors
    /// [`BundleError`]
    pub async fn export(&self, checkpoint: CheckpointId, path: &Path) -> Result<u64, BundleError> {
        let (manifest, pinned, signed) = self.verified(checkpoint).await?;
        let (place, path) = (Arc::clone(&self.place), path.to_owned());
        self.blocking(move || {
            let _pinned = pinned;
            archive::export(&place.chunks.files, &manifest, &signed, &path)
        })
        .await
    }

    /// Takes one in from a file, as checkpoint `to`; `key` is that of the store that made it, if not ours: what stands
    /// in its `bundle.key`. Signed by us from then on.
    ///
    /// # Errors
    /// [`BundleError`]
    pub async fn import(
        &self,
        to: CheckpointId,
        path: &Path,
        key: Option<&str>,
    ) -> Result<CheckpointView, BundleError> {
        let (place, path, key) = (Arc::clone(&self.place), path.to_owned(), key.map(str::to_owned));
        let archive =
            self.blocking(move || archive::Archive::open(&place.keys, &path, key.as_deref())).await?;
        cob_protocol::crash_point!("import_checked");
        let (view, origins) = archive.as_imported(to);
        let mut bundle = self.begin_with(view, origins).await?;
        let bundle = self
            .blocking(move || {
                archive.read_into(&mut bundle)?;
                Ok(bundle)
            })
            .await?;
        cob_protocol::crash_point!("import_read");
        bundle.commit().await
    }

    /// Asks the writer for one write, at `power`.
    async fn submit(&self, checkpoint: CheckpointId, write: Write) -> Result<(), BundleError> {
        let outcomes = self.bridge.submit(Durability::Power, vec![write]).await?;
        match outcomes.into_iter().next() {
            Some(Err(error)) => Err(self.refused(checkpoint, error)),
            _ => Ok(()),
        }
    }

    fn refused(&self, checkpoint: CheckpointId, error: BridgeError) -> BundleError {
        match error {
            BridgeError::Store(error) => error.into(),
            BridgeError::UnknownBundle(_) => BundleError::Unknown(checkpoint),
            error @ BridgeError::BundlesFull(_) => BundleError::Full(error.to_string()),
            error => self.place.failed(error),
        }
    }

    /// Away from the threads that must not wait for a disk, or calculate for long.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, BundleError> + Send + 'static,
    ) -> Result<T, BundleError> {
        let done = self.place.chunks.work(work).await?.await;
        done.unwrap_or_else(|error| Err(self.place.failed(error)))
    }
}
