//! A bundle on its way out of the store. Chunks are read and verified by a few blocking threads ahead of whoever takes
//! the records; what is not what was written is never given out.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cob_protocol::bundle::{Outline, Tag};
use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::limits::{BUNDLE_CHUNKS_AT_ONCE_MAX, BUNDLE_PIECE_BYTES};
use tokio::task::JoinHandle;

use super::manifest::{Chunk, Manifest, Origin};
use super::{BundleError, Place};
use crate::chunks::Pinned;
use crate::payloads::{NotRead, Payloads};
use crate::store::ChunkHash;

/// A bundle that can be read. While it is, it may be deleted, and is read all the same.
#[derive(Debug)]
pub struct StoredBundle {
    place: Arc<Place>,
    manifest: Manifest,
    outline: Outline,
    stage: Stage,
    /// Of the manifest: the next one to be read.
    next_chunk: usize,
    ahead: VecDeque<JoinHandle<Result<Bytes, BundleError>>>,
    /// What is left of a chunk.
    rest: Bytes,
    _pinned: Pinned,
}

/// What comes next.
#[derive(Debug)]
enum Stage {
    /// The outline, from this byte on.
    Outline(usize),
    /// This blob, of which so many bytes are to come.
    Blob {
        blob: usize,
        left: u64,
    },
    Over,
}

impl StoredBundle {
    pub(super) fn new(place: Arc<Place>, manifest: Manifest, pinned: Pinned) -> Result<Self, BundleError> {
        let outline = manifest.checked_outline()?;
        Ok(Self {
            place,
            manifest,
            outline,
            stage: Stage::Outline(0),
            next_chunk: 0,
            ahead: VecDeque::new(),
            rest: Bytes::new(),
            _pinned: pinned,
        })
    }

    /// What is known of it.
    #[must_use]
    pub fn view(&self) -> Option<&CheckpointView> {
        Some(&self.manifest.view)
    }

    /// What it says of itself.
    #[must_use]
    pub fn outline(&self) -> Option<&Outline> {
        Some(&self.outline)
    }

    /// Where it was before it came here, the last place last.
    #[must_use]
    pub fn imported_from(&self) -> &[Origin] {
        &self.manifest.imported_from
    }

    /// The next record as a worker reads it: outline, blobs, end; `None` after that. Every chunk is verified. After an
    /// error nothing more comes, and what came before is not to be used.
    ///
    /// # Errors
    /// [`BundleError::Damaged`], [`BundleError::Store`]
    ///
    /// # Cancel safety
    /// Nothing is lost when its future is dropped.
    pub async fn next(&mut self) -> Result<Option<(Tag, Bytes)>, BundleError> {
        let result = self.following().await;
        if result.is_err() {
            self.stage = Stage::Over;
            self.ahead.clear();
        }
        result
    }

    async fn following(&mut self) -> Result<Option<(Tag, Bytes)>, BundleError> {
        match self.stage {
            Stage::Outline(from) => {
                self.read_ahead();
                let text = self.manifest.outline.get().as_bytes();
                let rest = text.get(from..).unwrap_or_default();
                let piece = rest.get(..BUNDLE_PIECE_BYTES).unwrap_or(rest);
                let is_last = piece.len() == rest.len();
                let piece = Bytes::copy_from_slice(piece);
                self.stage = if is_last { self.blob(0) } else { Stage::Outline(from + piece.len()) };
                Ok(Some((Tag::Outline, piece)))
            }
            Stage::Blob { blob, left } if blob < self.manifest.blobs.len() => {
                if left == 0 {
                    self.stage = self.blob(blob + 1);
                    return Ok(Some((Tag::BlobEnd, Bytes::new())));
                }
                let piece =
                    usize::try_from(left).map_or(BUNDLE_PIECE_BYTES, |left| left.min(BUNDLE_PIECE_BYTES));
                let bytes = self.take(piece).await?;
                self.stage = Stage::Blob { blob, left: left - bytes.len() as u64 };
                Ok(Some((Tag::Piece, bytes)))
            }
            Stage::Blob { .. } => {
                self.stage = Stage::Over;
                Ok(Some((Tag::End, Bytes::new())))
            }
            Stage::Over => Ok(None),
        }
    }

    fn blob(&self, blob: usize) -> Stage {
        Stage::Blob { blob, left: self.manifest.blobs.get(blob).copied().unwrap_or(0) }
    }

    /// So many bytes, from as many chunks as it takes: one, as we write them.
    async fn take(&mut self, count: usize) -> Result<Bytes, BundleError> {
        while self.rest.len() < count {
            let chunk = self.chunk().await?;
            if self.rest.is_empty() {
                self.rest = chunk;
                continue;
            }
            let mut joined = BytesMut::with_capacity(self.rest.len() + chunk.len());
            joined.extend_from_slice(&self.rest);
            joined.extend_from_slice(&chunk);
            self.rest = joined.freeze();
        }
        Ok(self.rest.split_to(count))
    }

    async fn chunk(&mut self) -> Result<Bytes, BundleError> {
        self.read_ahead();
        let Some(first) = self.ahead.front_mut() else {
            return Err(BundleError::Damaged("the checkpoint has fewer chunks than it needs".to_owned()));
        };
        let read = first.await.unwrap_or_else(|error| Err(self.place.failed(error)));
        self.ahead.pop_front();
        self.read_ahead();
        read
    }

    fn read_ahead(&mut self) {
        while self.ahead.len() < BUNDLE_CHUNKS_AT_ONCE_MAX
            && let Some(chunk) = self.manifest.chunks.get(self.next_chunk).copied()
        {
            self.next_chunk += 1;
            let place = Arc::clone(&self.place);
            self.ahead.push_back(tokio::task::spawn_blocking(move || read(&place.chunks.files, chunk)));
        }
    }
}

/// The bytes of a chunk, if they are what was written.
pub(super) fn read(files: &Payloads, chunk: Chunk) -> Result<Bytes, BundleError> {
    let hash: ChunkHash = chunk.hash.0;
    let damaged = |what: String| BundleError::Damaged(format!("the checkpoint is damaged: {what}"));
    // Its length was looked at when the bundle was opened: not more of a file is read than it should have.
    match files.read_at_most(&hash, u64::from(chunk.bytes)) {
        Ok(bytes) => Ok(Bytes::from(bytes)),
        Err(NotRead::Failed(path, error)) => Err(BundleError::File { path, what: error.to_string() }),
        Err(reason) => Err(damaged(reason.into())),
    }
}
