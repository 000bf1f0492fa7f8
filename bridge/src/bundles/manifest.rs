//! What is signed of a bundle: what is known of it, what its worker said, and the lists of its blobs and chunks.
//!
//! The bytes are signed as they are stored and sent, so that there is one way to read them. They are parsed only once
//! their signature is verified; what a worker said in them is checked before they are signed, and again after.

use std::collections::{HashMap, HashSet};

use cob_protocol::bundle::Outline;
use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::ids::CheckpointId;
use cob_protocol::limits::{
    BUNDLE_BLOBS_MAX, BUNDLE_CHUNKS_MAX, BUNDLE_MANIFEST_BYTES_MAX, BUNDLE_NAME_BYTES_MAX, BUNDLE_PIECE_BYTES,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::BundleError;
use crate::store::ChunkHash;

const VERSION: u32 = 1;

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    version: u32,
    pub(super) view: CheckpointView,
    /// Where it was before it came here, the last place last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) imported_from: Vec<Origin>,
    /// How long each blob is.
    pub(super) blobs: Vec<u64>,
    /// What the blobs, one after the other, are cut into.
    pub(super) chunks: Vec<Chunk>,
    /// As the worker wrote it.
    pub(super) outline: Box<RawValue>,
}

/// Where an imported bundle was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Its name there.
    pub checkpoint: CheckpointId,
    /// Which key had signed it: the first digits of its SHA-256.
    pub key: String,
}

/// A piece of the bytes of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(HexHash, u32)", into = "(HexHash, u32)")]
pub(super) struct Chunk {
    pub(super) hash: HexHash,
    pub(super) bytes: u32,
}

impl From<(HexHash, u32)> for Chunk {
    fn from((hash, bytes): (HexHash, u32)) -> Self {
        Self { hash, bytes }
    }
}

impl From<Chunk> for (HexHash, u32) {
    fn from(chunk: Chunk) -> Self {
        (chunk.hash, chunk.bytes)
    }
}

/// A hash that is written as hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HexHash(pub(super) ChunkHash);

impl Serialize for HexHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for HexHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut hash = ChunkHash::default();
        hex::decode_to_slice(String::deserialize(deserializer)?, &mut hash).map_err(D::Error::custom)?;
        Ok(Self(hash))
    }
}

impl Manifest {
    /// One of these parts; `view` gets what the others say.
    pub(super) fn new(
        view: CheckpointView,
        imported_from: Vec<Origin>,
        blobs: Vec<u64>,
        chunks: Vec<Chunk>,
        outline: Vec<u8>,
    ) -> Result<Self, BundleError> {
        let text = String::from_utf8(outline).map_err(|_| damaged("its outline is not UTF-8"))?;
        let outline =
            RawValue::from_string(text).map_err(|error| damaged(format!("its outline: {error}")))?;
        let mut manifest = Self { version: VERSION, view, imported_from, blobs, chunks, outline };
        manifest.view.bytes = Some(manifest.sum()?);
        manifest.view.missing = manifest.checked_outline()?.missing;
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads one whose signature is good.
    pub(super) fn parse(body: &[u8]) -> Result<Self, BundleError> {
        let manifest: Self =
            serde_json::from_slice(body).map_err(|error| damaged(format!("its manifest: {error}")))?;
        manifest.check()?;
        manifest.checked_outline()?;
        Ok(manifest)
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let body = serde_json::to_vec(self).map_err(|error| damaged(format!("its manifest: {error}")))?;
        match body.len() <= BUNDLE_MANIFEST_BYTES_MAX {
            true => Ok(body),
            false => Err(damaged(format!("its manifest has more than {BUNDLE_MANIFEST_BYTES_MAX} bytes"))),
        }
    }

    /// Its chunks, each once.
    pub(super) fn distinct(&self) -> impl Iterator<Item = (ChunkHash, u32)> {
        let mut seen = HashSet::new();
        self.chunks
            .iter()
            .filter(move |chunk| seen.insert(chunk.hash.0))
            .map(|chunk| (chunk.hash.0, chunk.bytes))
    }

    /// Bytes of all blobs.
    fn sum(&self) -> Result<u64, BundleError> {
        let add = |sum: u64, bytes: &u64| sum.checked_add(*bytes);
        self.blobs.iter().try_fold(0, add).ok_or_else(|| damaged("its blobs are longer than any number"))
    }

    fn check(&self) -> Result<(), BundleError> {
        if self.version != VERSION {
            let found = self.version;
            let what =
                format!("it has version {found}, this cob knows version {VERSION}; use the cob that made it");
            return Err(BundleError::Damaged(what));
        }
        if self.blobs.len() > BUNDLE_BLOBS_MAX || self.chunks.len() > BUNDLE_CHUNKS_MAX {
            return Err(damaged("it has too many blobs or chunks"));
        }
        let mut lengths = HashMap::new();
        let mut bytes = 0;
        for chunk in &self.chunks {
            let is_long = usize::try_from(chunk.bytes).is_ok_and(|bytes| bytes <= BUNDLE_PIECE_BYTES);
            if chunk.bytes == 0
                || !is_long
                || *lengths.entry(chunk.hash.0).or_insert(chunk.bytes) != chunk.bytes
            {
                return Err(damaged(format!(
                    "chunk {} of it cannot be of its length",
                    hex::encode(chunk.hash.0)
                )));
            }
            bytes += u64::from(chunk.bytes);
        }
        let sum = self.sum()?;
        if (sum, Some(sum)) != (bytes, self.view.bytes) {
            return Err(damaged(format!("its blobs have {sum} bytes, its chunks {bytes}")));
        }
        Ok(())
    }

    /// What the worker said, as far as it can be true.
    pub(super) fn checked_outline(&self) -> Result<Outline, BundleError> {
        let text = self.outline.get();
        let outline: Outline =
            serde_json::from_str(text).map_err(|error| damaged(format!("its outline: {error}")))?;
        let names = outline.components.iter().flat_map(|component| &component.names);
        let kinds = outline.components.iter().flat_map(|component| [&component.kind, &component.codec]);
        let missing = outline.missing.iter().flat_map(|missing| [&missing.name, &missing.kind]);
        if names.chain(kinds).chain(missing).any(|name| name.len() > BUNDLE_NAME_BYTES_MAX) {
            return Err(damaged(format!(
                "a name in its outline has more than {BUNDLE_NAME_BYTES_MAX} bytes"
            )));
        }
        for component in &outline.components {
            let mut bytes = 0_u64;
            for blob in &component.blobs {
                let length = usize::try_from(*blob).ok().and_then(|blob| self.blobs.get(blob));
                let length = length
                    .ok_or_else(|| damaged(format!("its outline names blob {blob}, which it has not")))?;
                bytes = bytes.saturating_add(*length);
            }
            if bytes != component.bytes {
                let (name, said) = (component.names.first().map_or("", String::as_str), component.bytes);
                return Err(damaged(format!("{name:?} in its outline has {bytes} bytes, not {said}")));
            }
        }
        Ok(outline)
    }
}

/// It is not a bundle that could be.
pub(super) fn damaged(what: impl std::fmt::Display) -> BundleError {
    BundleError::Damaged(format!("the checkpoint cannot be used: {what}"))
}
