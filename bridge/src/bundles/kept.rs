//! The bundles of a store, for whoever may read its files: also without its server, or beside it.

use std::path::Path;

use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::ids::{CheckpointId, SessionId};

use super::{BundleError, Place, archive};
use crate::sqlite::{OpenError, SqliteReader};
use crate::store::{BridgeError, Read, SignedManifest};

/// See the module. Everything here waits for the disk.
#[derive(Debug)]
pub struct KeptBundles {
    reader: SqliteReader,
    place: Place,
}

impl KeptBundles {
    /// Looks into the store in `folder`.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let reader = SqliteReader::open(folder)?;
        let place = Place::new(reader.folder().to_owned(), reader.chunks().clone(), 0);
        Ok(Self { reader, place })
    }

    /// Those of a session, or of all, in the order of their names.
    ///
    /// # Errors
    /// [`BundleError::Store`]
    pub fn list(&mut self, session: Option<SessionId>) -> Result<Vec<CheckpointView>, BundleError> {
        self.reader.bundles(session).map_err(|error| self.refused(error))
    }

    /// As [`Bundles::export`](super::Bundles::export).
    ///
    /// # Errors
    /// [`BundleError`]
    pub fn export(&mut self, checkpoint: CheckpointId, path: &Path) -> Result<u64, BundleError> {
        let signed = self.signed(checkpoint)?;
        let exported = self.place.verified(checkpoint, &signed).and_then(|(manifest, _pinned)| {
            archive::export(&self.place.chunks().files, &manifest, &signed, path)
        });
        if matches!(exported, Err(BundleError::Damaged(_))) {
            // Its server may have deleted it meanwhile, and knows nothing of whoever reads here.
            self.signed(checkpoint)?;
        }
        exported
    }

    fn signed(&mut self, checkpoint: CheckpointId) -> Result<SignedManifest, BundleError> {
        let signed = self.reader.bundle(checkpoint).map_err(|error| self.refused(error))?;
        signed.ok_or(BundleError::Unknown(checkpoint))
    }

    fn refused(&self, error: BridgeError) -> BundleError {
        match error {
            BridgeError::Store(error) => error.into(),
            error => self.place.failed(error),
        }
    }
}
