//! Bytes to frames and back.
//!
//! On the wire, all numbers big-endian:
//! `u32 length | u8 kind | u8 flags | u64 sequence | u64 acknowledged | u32 header bytes | u32 payload count |
//! u32 bytes of each payload | header | payloads`, where `length` counts everything after itself.
//!
//! **Invariant:** the kind is read and its cap checked before anything is allocated for the frame, and the
//! buffer never grows by a claimed length, only with the bytes that arrived.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::frame::{Envelope, Frame, Kind};
use crate::limits::{
    FRAME_PAYLOADS_MAX, HANDSHAKE_FRAME_BYTES_MAX, REQUEST_FRAME_BYTES_MAX, UNKNOWN_FRAMES_MAX,
};

/// Bytes of the length field.
const LENGTH: usize = 4;
/// Bytes between the length field and the payload table.
const FIXED: usize = 1 + 1 + 8 + 8 + 4 + 4;

/// The peer does not speak the frame protocol; the connection has no way to recover.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A frame larger than its kind allows.
    #[error("frame_too_large: a frame `{kind}` of {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// Name of the kind.
        kind: &'static str,
        /// What the frame claims.
        bytes: usize,
        /// The cap.
        bytes_max: usize,
    },
    /// Lengths inside the frame that contradict each other.
    #[error("bad_frame: {0}")]
    Malformed(&'static str),
    /// A header that is not the MessagePack map its kind asks for.
    #[error("bad_frame: the header of a frame `{kind}` cannot be read: {source}")]
    Header {
        /// Name of the kind.
        kind: &'static str,
        /// What is wrong with it.
        source: rmp_serde::decode::Error,
    },
    /// Too many frames of unknown kind.
    #[error("bad_frame: more than {UNKNOWN_FRAMES_MAX} frames of unknown kind")]
    TooManyUnknown,
    /// A frame with a header that cannot be written.
    #[error("a frame `{kind}` cannot be written: {source}")]
    Encode {
        /// Name of the kind.
        kind: &'static str,
        /// What is wrong with it.
        source: rmp_serde::encode::Error,
    },
}

/// Incremental decoder: push bytes as they come, take whole frames.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
    /// Bytes of a frame of unknown kind that have yet to be thrown away.
    skip: usize,
    unknown: u32,
    ready: bool,
    takes_hello: bool,
}

impl FrameDecoder {
    /// A decoder that accepts only small frames until [`FrameDecoder::handshake_done`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The worker's decoder: it also accepts a `hello`, which carries an environment, in its full size.
    #[must_use]
    pub fn of_worker() -> Self {
        Self { takes_hello: true, ..Self::default() }
    }

    /// From now on the caps of the table hold.
    pub fn handshake_done(&mut self) {
        self.ready = true;
    }

    /// The stream goes on as another one: what stood here of the last one never will be whole.
    pub fn reset(&mut self) {
        self.buffer.clear();
        self.skip = 0;
        self.unknown = 0;
    }

    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that arrived and do not form a whole frame yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Frames of unknown kind that were skipped.
    #[must_use]
    pub fn unknown_frames(&self) -> u32 {
        self.unknown
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`CodecError`]: the connection must be given up.
    pub fn next_frame(&mut self) -> Result<Option<Envelope>, CodecError> {
        loop {
            let skipped = self.skip.min(self.buffer.len());
            self.buffer.advance(skipped);
            self.skip -= skipped;
            if self.skip > 0 {
                return Ok(None);
            }
            let Some((length, kind_byte)) = self.peek() else { return Ok(None) };
            let Some(kind) = Kind::from_byte(kind_byte) else {
                self.skip_unknown(length)?;
                continue;
            };
            self.check_cap(kind, length)?;
            if self.buffer.len() < LENGTH + length {
                return Ok(None);
            }
            self.buffer.advance(LENGTH);
            let body = self.buffer.split_to(length).freeze();
            return parse_body(kind, body).map(Some);
        }
    }

    fn peek(&self) -> Option<(usize, u8)> {
        let mut start = self.buffer.get(..LENGTH + 1)?;
        Some((start.get_u32() as usize, start.get_u8()))
    }

    fn check_cap(&self, kind: Kind, bytes: usize) -> Result<(), CodecError> {
        let cap = kind.bytes_max();
        let bytes_max = if self.ready || (self.takes_hello && kind == Kind::Hello) {
            cap
        } else {
            cap.min(HANDSHAKE_FRAME_BYTES_MAX)
        };
        if bytes > bytes_max {
            return Err(CodecError::TooLarge { kind: kind.name(), bytes, bytes_max });
        }
        if bytes < FIXED {
            return Err(CodecError::Malformed("shorter than its fixed fields"));
        }
        Ok(())
    }

    fn skip_unknown(&mut self, length: usize) -> Result<(), CodecError> {
        if length == 0 {
            return Err(CodecError::Malformed("empty"));
        }
        let cap = if self.ready { REQUEST_FRAME_BYTES_MAX } else { HANDSHAKE_FRAME_BYTES_MAX };
        if length > cap {
            // Garbage, most likely: skipping what it claims would swallow everything that follows.
            return Err(CodecError::TooLarge { kind: "unknown", bytes: length, bytes_max: cap });
        }
        self.unknown += 1;
        if self.unknown > UNKNOWN_FRAMES_MAX {
            return Err(CodecError::TooManyUnknown);
        }
        self.skip = LENGTH + length;
        Ok(())
    }
}

fn parse_body(kind: Kind, mut body: Bytes) -> Result<Envelope, CodecError> {
    if body.len() < FIXED {
        return Err(CodecError::Malformed("shorter than its fixed fields"));
    }
    body.advance(2); // kind and flags; no flag is defined yet
    let sequence = body.get_u64();
    let acknowledged = body.get_u64();
    let header_length = body.get_u32() as usize;
    let count = body.get_u32() as usize;
    if count > FRAME_PAYLOADS_MAX {
        return Err(CodecError::Malformed("too many payloads"));
    }
    if body.len() < count * 4 {
        return Err(CodecError::Malformed("payload table cut short"));
    }
    let lengths: Vec<usize> = (0..count).map(|_| body.get_u32() as usize).collect();
    let total = lengths.iter().fold(header_length, |sum, length| sum.saturating_add(*length));
    if total != body.len() {
        return Err(CodecError::Malformed("lengths do not add up"));
    }
    let header = body.split_to(header_length);
    let frame = Frame::decode_header(kind, &header)
        .map_err(|source| CodecError::Header { kind: kind.name(), source })?;
    let payloads = lengths.into_iter().map(|length| body.split_to(length)).collect();
    Ok(Envelope { sequence, acknowledged, frame, payloads })
}

/// Writes a frame: one piece with everything but the payloads, which follow it as they are.
///
/// # Errors
/// [`CodecError::TooLarge`] when the frame exceeds its kind's cap; [`CodecError::Encode`] or
/// [`CodecError::Malformed`] when it cannot be written at all.
pub fn encode(
    frame: &Frame,
    payloads: &[Bytes],
    sequence: u64,
    acknowledged: u64,
) -> Result<Bytes, CodecError> {
    let kind = frame.kind();
    let header = frame.encode_header().map_err(|source| CodecError::Encode { kind: kind.name(), source })?;
    if payloads.len() > FRAME_PAYLOADS_MAX {
        return Err(CodecError::Malformed("too many payloads"));
    }
    let head = FIXED + payloads.len() * 4 + header.len();
    let bytes = head + payloads.iter().map(Bytes::len).sum::<usize>();
    let bytes_max = kind.bytes_max();
    if bytes > bytes_max {
        return Err(CodecError::TooLarge { kind: kind.name(), bytes, bytes_max });
    }
    // The casts are safe: every cap is below 2^32, which limits.rs asserts.
    let mut out = BytesMut::with_capacity(LENGTH + head);
    out.put_u32(bytes as u32);
    out.put_u8(kind as u8);
    out.put_u8(0);
    out.put_u64(sequence);
    out.put_u64(acknowledged);
    out.put_u32(header.len() as u32);
    out.put_u32(payloads.len() as u32);
    for payload in payloads {
        out.put_u32(payload.len() as u32);
    }
    out.put_slice(&header);
    Ok(out.freeze())
}

/// Sets both numbers of an encoded frame, when it is known which place it takes on the wire.
#[must_use]
pub fn stamp(head: Bytes, sequence: u64, acknowledged: u64) -> Bytes {
    let mut head = BytesMut::from(head);
    if let Some(mut numbers) = head.get_mut(LENGTH + 2..LENGTH + 18) {
        numbers.put_u64(sequence);
        numbers.put_u64(acknowledged);
    }
    head.freeze()
}

#[cfg(test)]
mod tests;
