//! Blobs, then what they are, as records.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use cob_protocol::bundle::{Outline, RecordHead, Tag};
use cob_protocol::limits::{BUNDLE_BLOBS_MAX, BUNDLE_PIECE_BYTES, OUTLINE_BYTES_MAX};
use rustix::io::{Errno, writev};

/// A reason is cut here.
const REASON_BYTES_MAX: usize = 4096;

/// Writes a bundle: blobs, then its outline.
#[derive(Debug)]
pub struct BundleWriter {
    descriptor: OwnedFd,
    /// Less than a piece of the present blob.
    rest: Vec<u8>,
    /// Whether the present blob has anything.
    is_begun: bool,
    blobs: u32,
}

impl BundleWriter {
    /// Writes to a socket or pipe.
    #[must_use]
    pub fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor, rest: Vec::new(), is_begun: false, blobs: 0 }
    }

    /// Adds bytes to the present blob. Whole pieces are not copied.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.is_begun |= !bytes.is_empty();
        if !self.rest.is_empty() {
            let missing = (BUNDLE_PIECE_BYTES - self.rest.len()).min(bytes.len());
            let (first, others) = bytes.split_at(missing);
            self.rest.extend_from_slice(first);
            bytes = others;
            if self.rest.len() < BUNDLE_PIECE_BYTES {
                return Ok(());
            }
            self.end_piece()?;
        }
        let mut pieces = bytes.chunks_exact(BUNDLE_PIECE_BYTES);
        for piece in pieces.by_ref() {
            self.record(Tag::Piece, piece)?;
        }
        self.rest.extend_from_slice(pieces.remainder());
        Ok(())
    }

    /// The present blob is whole; its number, from 0.
    ///
    /// # Errors
    /// When the host is gone, or the bundle has as many blobs as it may have.
    pub fn end_blob(&mut self) -> io::Result<u32> {
        let number = self.blobs;
        if usize::try_from(number).map_or(true, |number| number >= BUNDLE_BLOBS_MAX) {
            return Err(io::Error::other(format!("a bundle has at most {BUNDLE_BLOBS_MAX} blobs")));
        }
        if !self.rest.is_empty() {
            self.end_piece()?;
        }
        self.record(Tag::BlobEnd, &[])?;
        self.blobs += 1;
        self.is_begun = false;
        Ok(number)
    }

    /// All blobs are written: what they are, and the end.
    ///
    /// # Errors
    /// When the host is gone, the outline is too large, or the last blob was not ended.
    pub fn finish(&mut self, outline: &Outline) -> io::Result<()> {
        if self.is_begun {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the last blob was not ended"));
        }
        let text = serde_json::to_vec(outline)?;
        if text.len() > OUTLINE_BYTES_MAX {
            let text = format!(
                "the description of the session has {} bytes; at most {OUTLINE_BYTES_MAX} are allowed",
                text.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        for piece in text.chunks(BUNDLE_PIECE_BYTES) {
            self.record(Tag::Outline, piece)?;
        }
        self.record(Tag::End, &[])
    }

    /// The bundle will never be whole, and why.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn fail(&mut self, reason: &str) -> io::Result<()> {
        let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
        let reason = reason.get(..end.unwrap_or(0)).unwrap_or_default();
        self.record(Tag::Failed, reason.as_bytes())
    }

    fn end_piece(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.rest);
        self.record(Tag::Piece, &rest)?;
        self.rest = rest;
        self.rest.clear();
        Ok(())
    }

    fn record(&self, tag: Tag, bytes: &[u8]) -> io::Result<()> {
        let head = RecordHead { tag, bytes: bytes.len() }.to_bytes();
        let mut parts = [IoSlice::new(&head), IoSlice::new(bytes)];
        let mut parts = &mut parts[..];
        while parts.iter().any(|part| !part.is_empty()) {
            match writev(&self.descriptor, parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => IoSlice::advance_slices(&mut parts, count),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
