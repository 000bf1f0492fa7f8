//! The bridge over a store on disk.

use std::path::Path;
use std::sync::Arc;

use cob_protocol::limits::RETENTION_COMMITS;
use cob_protocol::time::{Clock, Timestamp};

use crate::bridge::Bridge;
use crate::bundles::Place;
use crate::sqlite::{Limits, OpenError, SqliteReader, SqliteStore, StoreOptions};
use crate::store::{BridgeError, Group, Outcomes, Read, Store, StoreError};

impl Bridge {
    /// Opens the store of `options`, or makes it, and starts the thread that writes. Blocks until it can be used: it
    /// reads what is not settled.
    ///
    /// # Errors
    /// [`OpenError`]; the store is as it was then.
    pub fn open(options: &StoreOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let store = SqliteStore::open(options)?;
        let folder = store.folder().to_owned();
        let name = folder.display().to_string();
        let place = Place::new(folder.clone(), Arc::clone(store.chunks()), options.limits.bundle_bytes);
        let store = OnDisk {
            store,
            busy_ms: options.busy_ms,
            ballast_bytes: options.ballast_bytes,
            limits: options.limits.clone(),
            commits: 0,
            is_tidying: true,
        };
        let bridge = Self::over(&name, store, move || look(&folder), clock).map_err(|error| match error {
            BridgeError::Store(error) => OpenError::Store(error),
            error => OpenError::Store(StoreError::Failed { store: name, what: error.to_string() }),
        })?;
        bridge.keep_bundles(place);
        Ok(bridge)
    }
}

/// One more look into the store.
fn look(folder: &Path) -> Result<Box<dyn Read>, BridgeError> {
    match SqliteReader::open(folder) {
        Ok(reader) => Ok(Box::new(reader)),
        Err(OpenError::Store(error)) => Err(error.into()),
        Err(error) => {
            let store = folder.display().to_string();
            Err(StoreError::Failed { store, what: error.to_string() }.into())
        }
    }
}

/// The store, and when it is tidied up.
struct OnDisk {
    store: SqliteStore,
    busy_ms: u64,
    ballast_bytes: u64,
    limits: Limits,
    /// Commits since the journal was last looked through.
    commits: u32,
    /// It is being looked through.
    is_tidying: bool,
}

impl Store for OnDisk {
    fn commit(&mut self, groups: &[Group]) -> Result<Vec<Outcomes>, StoreError> {
        self.commits = self.commits.saturating_add(1);
        self.store.commit(groups)
    }

    fn commit_now(&mut self, group: &Group) -> Result<Option<Outcomes>, StoreError> {
        self.commits = self.commits.saturating_add(1);
        self.store.commit_now(group, self.busy_ms)
    }

    fn tidy(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        self.store.maintain()?;
        if self.commits >= RETENTION_COMMITS {
            self.is_tidying = true;
        }
        if self.is_tidying {
            self.commits = 0;
            self.is_tidying = self.store.retain(now, &self.limits)?.is_more;
        }
        Ok(self.is_tidying)
    }

    fn discard(&mut self) -> Result<bool, StoreError> {
        self.store.discard()
    }

    fn free_bytes(&mut self) -> Option<u64> {
        self.store.free_bytes().ok()
    }

    fn ballast_bytes(&self) -> u64 {
        self.ballast_bytes
    }

    fn has_ballast(&mut self) -> bool {
        self.store.ballast().is_held()
    }

    fn release_ballast(&mut self) {
        if let Err(error) = self.store.ballast().release() {
            tracing::error!(%error, "the space in reserve cannot be given up");
        }
    }

    fn restore_ballast(&mut self) -> bool {
        self.store.ballast().restore().is_ok()
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.store.empty_log()
    }
}
