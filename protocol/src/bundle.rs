//! Bundles: what a session holds, written down by a worker and read by another.
//!
//! A worker speaks of values in *blobs*; the host stores them in chunks under their hashes, so that what did not change
//! is stored once. The worker never sees the store, and the host never looks into a blob.
//!
//! **The stream.** Between worker and host a bundle travels as records over a socket or pipe of its own. A record is one
//! byte ([`Tag`]), a length (`u32`, big-endian, at most [`BUNDLE_PIECE_BYTES`]) and so many bytes. A blob is its pieces,
//! each of them full but the last, and an end; blobs are numbered by their order, from 0. An outline is JSON, in pieces
//! as well. *Saving*: blobs, outline, end. *Loading*: outline, blobs, end. Instead of going on, either side may say why
//! it fails.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::checkpoint::Missing;
use crate::limits::BUNDLE_PIECE_BYTES;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// Part of the present blob.
    Piece = 1,
    /// The present blob is whole; no bytes.
    BlobEnd = 2,
    /// Part of the [`Outline`].
    Outline = 3,
    /// The bundle is whole; no bytes.
    End = 4,
    /// It will never be: a sentence, UTF-8.
    Failed = 5,
}

impl Tag {
    /// The tag with this byte, if there is one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Piece, Self::BlobEnd, Self::Outline, Self::End, Self::Failed]
            .into_iter()
            .find(|tag| *tag as u8 == byte)
    }
}

/// Length of what stands before the bytes of a record.
pub const RECORD_HEAD_BYTES: usize = 5;

/// What stands before the bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// What it is.
    pub tag: Tag,
    /// How many bytes follow.
    pub bytes: usize,
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// No such tag.
    #[error("a record of a bundle begins with the unknown byte {0}")]
    Tag(u8),
    /// Longer than any record.
    #[error("a record of a bundle has {0} bytes; at most {BUNDLE_PIECE_BYTES} are allowed")]
    Length(u32),
}

impl RecordHead {
    /// As it travels.
    #[must_use]
    pub fn to_bytes(self) -> [u8; RECORD_HEAD_BYTES] {
        let [a, b, c, d] = u32::try_from(self.bytes).unwrap_or(u32::MAX).to_be_bytes();
        [self.tag as u8, a, b, c, d]
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn from_bytes(head: [u8; RECORD_HEAD_BYTES]) -> Result<Self, RecordError> {
        let [tag, a, b, c, d] = head;
        let tag = Tag::from_byte(tag).ok_or(RecordError::Tag(tag))?;
        let length = u32::from_be_bytes([a, b, c, d]);
        match usize::try_from(length) {
            Ok(bytes) if bytes <= BUNDLE_PIECE_BYTES => Ok(Self { tag, bytes }),
            _ => Err(RecordError::Length(length)),
        }
    }
}

/// What a worker says about the blobs of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// Name of the language.
    pub language: String,
    /// Where it was made.
    pub runtime: Runtime,
    /// What it holds: variables that share values stand in one component.
    pub components: Vec<Component>,
    /// What it does not hold.
    #[serde(default)]
    pub missing: Vec<Missing>,
    /// Whatever else the language wants to find again (random state, working directory, search path, …): a JSON
    /// object that only it understands.
    #[serde(default)]
    pub extra: serde_json::Value,
}

/// The interpreter that a bundle was made by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// `cpython`
    pub implementation: String,
    /// `3.11.7`
    pub version: String,
    /// What compiled modules are built for.
    pub abi: String,
    /// System and processor.
    pub platform: String,
    /// Packages that the values need, with their versions.
    #[serde(default)]
    pub packages: BTreeMap<String, String>,
}

/// Variables that share values: they are stored and restored together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Their names.
    pub names: Vec<String>,
    /// The type of the value, or of the first one.
    pub kind: String,
    /// How the first blob is to be read: `pickle`, `cloudpickle`, `reference`, …
    pub codec: String,
    /// Bytes of all its blobs.
    pub bytes: u64,
    /// Its blobs: the values, then what stands outside of them (buffers). Empty: it is only a reference, which
    /// `reference` names.
    pub blobs: Vec<u32>,
    /// What it refers to: a module's name, say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_survive_the_way_and_nonsense_is_refused() {
        for tag in [Tag::Piece, Tag::BlobEnd, Tag::Outline, Tag::End, Tag::Failed] {
            let head = RecordHead { tag, bytes: BUNDLE_PIECE_BYTES };
            assert_eq!(RecordHead::from_bytes(head.to_bytes()), Ok(head));
        }
        assert_eq!(RecordHead::from_bytes([9, 0, 0, 0, 0]), Err(RecordError::Tag(9)));
        assert_eq!(RecordHead::from_bytes([1, 255, 0, 0, 0]), Err(RecordError::Length(0xff00_0000)));
    }
}
