//! A bundle on its way into the store.
//!
//! Records come from a worker, who may say anything. Chunks are hashed and written by a few blocking threads at a time,
//! while the next records come in; nothing is held but what these work on, and the outline.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use cob_protocol::bundle::Tag;
use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::crash_point;
use cob_protocol::limits::{
    BUNDLE_BLOBS_MAX, BUNDLE_CHUNKS_AT_ONCE_MAX, BUNDLE_CHUNKS_MAX, BUNDLE_FREE_BYTES_MIN,
    BUNDLE_PACK_BYTES_MAX, BUNDLE_PIECE_BYTES, BUNDLE_SMALL_BYTES_MAX, OUTLINE_BYTES_MAX,
};
use tokio::task::JoinHandle;

use super::manifest::{Chunk, HexHash, Manifest, Origin, damaged};
use super::{BundleError, Bundles, Place};
use crate::ballast::free_bytes;
use crate::chunks::Pinned;
use crate::payloads::{Safe, hash_of};
use crate::store::{BundleRecord, ChunkHash, SignedManifest, StoreError, Write};

/// A bundle on its way into the store. Dropped before its commit, nothing of it stays.
#[derive(Debug)]
pub struct NewBundle {
    bundles: Bundles,
    view: CheckpointView,
    imported_from: Vec<Origin>,
    writing: Arc<Writing>,
    stage: Stage,
    /// Small blobs that are not written yet.
    pack: BytesMut,
    outline: Vec<u8>,
    blobs: Vec<u64>,
    chunks: Vec<Written>,
    /// Chunks that are being written, in their order.
    under_way: VecDeque<JoinHandle<Result<Written, BundleError>>>,
    /// A record was refused, or whoever brought it went away: it can never be whole.
    is_void: bool,
}

/// Which records may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A blob, or the outline.
    Between,
    /// More of a blob that has so many bytes; or, after a piece that was not full, its end.
    Blob {
        bytes: u64,
        was_full: bool,
    },
    Outline,
    Whole,
}

/// What is written, and how much of it was not there before.
#[derive(Debug)]
pub(super) struct Writing {
    place: Arc<Place>,
    pinned: Arc<Pinned>,
    new_bytes: AtomicU64,
}

/// A chunk that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    chunk: Chunk,
    is_new: bool,
}

impl NewBundle {
    pub(super) fn new(bundles: Bundles, view: CheckpointView, imported_from: Vec<Origin>) -> Self {
        let place = Arc::clone(&bundles.place);
        let pinned = Arc::new(Pinned::new(&place.chunks));
        let writing = Arc::new(Writing { place, pinned, new_bytes: AtomicU64::new(0) });
        Self {
            bundles,
            view,
            imported_from,
            writing,
            stage: Stage::Between,
            pack: BytesMut::new(),
            outline: Vec::new(),
            blobs: Vec::new(),
            chunks: Vec::new(),
            under_way: VecDeque::new(),
            is_void: false,
        }
    }

    /// The next record of the stream; an order that is none is an error. After an error, and after a future of this that
    /// was dropped, the bundle can only be dropped too.
    ///
    /// # Errors
    /// [`BundleError`]
    pub async fn record(&mut self, tag: Tag, bytes: Bytes) -> Result<(), BundleError> {
        if std::mem::replace(&mut self.is_void, true) {
            return Err(damaged("a record of it was refused before"));
        }
        match tag {
            Tag::Piece => self.piece(bytes).await?,
            _ if !bytes.is_empty() && matches!(tag, Tag::BlobEnd | Tag::End) => {
                return Err(damaged("a record that has no bytes came with some"));
            }
            Tag::BlobEnd => self.blob_end()?,
            Tag::Outline => self.more_outline(&bytes)?,
            Tag::End => self.end()?,
            Tag::Failed => return Err(damaged(String::from_utf8_lossy(&bytes))),
        }
        self.is_void = false;
        Ok(())
    }

    async fn piece(&mut self, bytes: Bytes) -> Result<(), BundleError> {
        let (before, may_follow) = match self.stage {
            Stage::Between => (0, true),
            Stage::Blob { bytes, was_full } => (bytes, was_full),
            Stage::Outline | Stage::Whole => return Err(out_of_order(Tag::Piece)),
        };
        if !may_follow || bytes.is_empty() || bytes.len() > BUNDLE_PIECE_BYTES {
            return Err(damaged(
                "a piece of a blob is not full, and not the last; or it is empty or too long",
            ));
        }
        self.stage =
            Stage::Blob { bytes: before + bytes.len() as u64, was_full: bytes.len() == BUNDLE_PIECE_BYTES };
        if before == 0 && bytes.len() < BUNDLE_SMALL_BYTES_MAX {
            if self.pack.len() + bytes.len() > BUNDLE_PACK_BYTES_MAX {
                self.write_pack().await?;
            }
            self.pack.extend_from_slice(&bytes);
            return Ok(());
        }
        self.write_pack().await?;
        self.write(bytes).await
    }

    fn blob_end(&mut self) -> Result<(), BundleError> {
        let bytes = match self.stage {
            Stage::Between => 0,
            Stage::Blob { bytes, .. } => bytes,
            Stage::Outline | Stage::Whole => return Err(out_of_order(Tag::BlobEnd)),
        };
        if self.blobs.len() >= BUNDLE_BLOBS_MAX {
            return Err(BundleError::Full(format!(
                "the session has too many values for one checkpoint: it may have {BUNDLE_BLOBS_MAX} blobs"
            )));
        }
        self.blobs.push(bytes);
        self.stage = Stage::Between;
        Ok(())
    }

    fn more_outline(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        if !matches!(self.stage, Stage::Between | Stage::Outline) {
            return Err(out_of_order(Tag::Outline));
        }
        if self.outline.len() + bytes.len() > OUTLINE_BYTES_MAX {
            return Err(BundleError::Full(format!(
                "the description of the checkpoint has more than {OUTLINE_BYTES_MAX} bytes; has the session very many \
                 variables?"
            )));
        }
        self.stage = Stage::Outline;
        self.outline.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> Result<(), BundleError> {
        if self.stage != Stage::Outline {
            return Err(out_of_order(Tag::End));
        }
        self.stage = Stage::Whole;
        Ok(())
    }

    /// What an archive holds, instead of records: its chunks are written already.
    pub(super) fn take_whole(&mut self, manifest: &Manifest, chunks: Vec<Written>) {
        self.blobs.clone_from(&manifest.blobs);
        self.outline = manifest.outline.get().as_bytes().to_vec();
        self.chunks = chunks;
        self.stage = Stage::Whole;
    }

    pub(super) fn writing(&self) -> &Arc<Writing> {
        &self.writing
    }

    async fn write_pack(&mut self) -> Result<(), BundleError> {
        if self.pack.is_empty() {
            return Ok(());
        }
        let pack = self.pack.split().freeze();
        self.write(pack).await
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), BundleError> {
        if self.chunks.len() + self.under_way.len() >= BUNDLE_CHUNKS_MAX {
            return Err(BundleError::Full(format!(
                "the session is too large for one checkpoint: it may have {BUNDLE_CHUNKS_MAX} chunks"
            )));
        }
        self.wait_for_fewer_than(BUNDLE_CHUNKS_AT_ONCE_MAX).await?;
        let writing = Arc::clone(&self.writing);
        let chunks = Arc::clone(&writing.place.chunks);
        self.under_way.push_back(chunks.work(move || writing.write(hash_of(&bytes), &bytes)).await?);
        Ok(())
    }

    async fn wait_for_fewer_than(&mut self, count: usize) -> Result<(), BundleError> {
        while self.under_way.len() >= count.max(1) {
            let Some(oldest) = self.under_way.front_mut() else { break };
            let written = oldest.await.unwrap_or_else(|error| Err(self.writing.place.failed(error)));
            self.under_way.pop_front();
            self.chunks.push(written?);
        }
        Ok(())
    }

    /// It is whole: from here on it is there, whatever happens.
    ///
    /// # Errors
    /// [`BundleError`]
    pub async fn commit(mut self) -> Result<CheckpointView, BundleError> {
        if self.is_void || self.stage != Stage::Whole {
            return Err(damaged("it is not whole"));
        }
        self.write_pack().await?;
        self.wait_for_fewer_than(1).await?;
        let Self { bundles, view, imported_from, writing, blobs, chunks, outline, .. } = self;
        let checkpoint = view.checkpoint;
        let sealed = bundles.blocking(move || {
            writing.sync(&chunks)?;
            crash_point!("chunks_synced");
            seal(writing, (view, imported_from), blobs, chunks, outline)
        });
        let (writing, record) = sealed.await?;
        let view = record.view.clone();
        bundles.submit(checkpoint, Write::KeepBundle(Box::new(record))).await?;
        writing.pinned.set_strays(false);
        crash_point!("bundle_row_after");
        Ok(view)
    }
}

/// The row of a bundle whose chunks are on the disk.
fn seal(
    writing: Arc<Writing>,
    (mut view, imported_from): (CheckpointView, Vec<Origin>),
    blobs: Vec<u64>,
    chunks: Vec<Written>,
    outline: Vec<u8>,
) -> Result<(Arc<Writing>, BundleRecord), BundleError> {
    view.new_bytes = Some(new_bytes(&chunks));
    let chunks = chunks.into_iter().map(|written| written.chunk).collect();
    let manifest = Manifest::new(view, imported_from, blobs, chunks, outline)?;
    let body = manifest.to_bytes()?;
    let mac = writing.place.keys.made()?.sign(&body);
    let record = BundleRecord {
        chunks: manifest.distinct().collect(),
        view: manifest.view,
        signed: SignedManifest { body, mac },
        _pinned: Some(Arc::clone(&writing.pinned)),
    };
    Ok((writing, record))
}

/// Of chunks that are the same several times, one may have been new.
fn new_bytes(chunks: &[Written]) -> u64 {
    let new = chunks.iter().filter(|written| written.is_new);
    let new: HashMap<ChunkHash, u32> =
        new.map(|written| (written.chunk.hash.0, written.chunk.bytes)).collect();
    new.values().map(|bytes| u64::from(*bytes)).sum()
}

fn out_of_order(tag: Tag) -> BundleError {
    damaged(format!("a record came out of order: {tag:?}"))
}

impl Writing {
    /// Writes a chunk that has this hash, unless it is there.
    pub(super) fn write(&self, hash: ChunkHash, bytes: &[u8]) -> Result<Written, BundleError> {
        let files = &self.place.chunks.files;
        let length = bytes.len() as u64;
        self.pinned.add(hash);
        let is_new = !files.has(&hash, length);
        if is_new {
            self.must_fit(length)?;
            self.pinned.set_strays(true);
            files.put(&hash, bytes, Safe::Inside).map_err(|error| self.file_error(error))?;
            crash_point!("chunk_written");
        }
        let chunk = Chunk { hash: HexHash(hash), bytes: u32::try_from(length).unwrap_or(u32::MAX) };
        Ok(Written { chunk, is_new })
    }

    /// Before the disk is full, and not when it is.
    fn must_fit(&self, more: u64) -> Result<(), BundleError> {
        let Place { folder, chunks, bytes_max, .. } = &*self.place;
        let new = self.new_bytes.fetch_add(more, Ordering::Relaxed) + more;
        let kept = chunks.metrics().bytes;
        if kept + new > *bytes_max {
            return Err(BundleError::Full(format!(
                "the checkpoint does not fit: the checkpoints of {} have {kept} bytes, it would add at least {new}, and \
                 {bytes_max} are allowed; delete some",
                folder.display()
            )));
        }
        let free = free_bytes(folder).map_err(|error| self.place.failed(error))?;
        if free < more + BUNDLE_FREE_BYTES_MIN {
            return Err(BundleError::Full(format!(
                "the checkpoint does not fit: {free} bytes are free on the disk of {}, of which {BUNDLE_FREE_BYTES_MIN} \
                 are kept for other records, and it needs at least {more} more; make room, or delete checkpoints",
                folder.display()
            )));
        }
        Ok(())
    }

    /// What was written survives the loss of power.
    fn sync(&self, chunks: &[Written]) -> Result<(), BundleError> {
        // Also those that were there: who wrote them may not have come so far yet.
        let mut parts: Vec<u8> =
            chunks.iter().filter_map(|written| written.chunk.hash.0.first().copied()).collect();
        parts.sort_unstable();
        parts.dedup();
        if parts.is_empty() {
            return Ok(());
        }
        self.place.chunks.files.sync_names(&parts).map_err(|error| self.file_error(error))
    }

    fn file_error(&self, (path, error): (std::path::PathBuf, std::io::Error)) -> BundleError {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => {
                StoreError::Full { store: self.place.folder.display().to_string() }.into()
            }
            _ => self.place.failed(format!("{}: {error}", path.display())),
        }
    }
}
