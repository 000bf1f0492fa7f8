//! MESSAGE: every frame of a connection in a box of its own, whose first byte holds the flags of the frame.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use crypto_box::SalsaBox;

use super::super::codec::{Caps, CodecError, Encoded, Item, Message};
use super::{CurveError, TAG_BYTES, open_in_place, seal_in_place, short_nonce};

const NAME: &[u8; 8] = b"\x07MESSAGE";
const MORE: u8 = 1;
const COMMAND: u8 = 2;
/// What a box adds to what it holds: name, nonce, tag and flags.
pub const FRAME_OVERHEAD_BYTES: usize = NAME.len() + 8 + TAG_BYTES + 1;

/// Opens what one client sends.
pub struct Opener {
    key: Arc<SalsaBox>,
    /// Of the last frame.
    nonce: u64,
    parts: Message,
    parts_bytes: usize,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("nonce", &self.nonce).finish_non_exhaustive()
    }
}

/// Why a frame was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a box of this client.
    #[error(transparent)]
    Curve(#[from] CurveError),
    /// What is in it breaks the grammar or a cap.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Opener {
    pub(super) fn new(key: Arc<SalsaBox>, nonce: u64) -> Self {
        Self { key, nonce, parts: Vec::new(), parts_bytes: 0 }
    }

    /// Opens one frame as it came; gives back what it completes.
    ///
    /// # Errors
    /// [`OpenError`]: nothing that follows can be believed.
    pub fn open(&mut self, frame: Bytes, caps: &Caps) -> Result<Option<Item>, OpenError> {
        // The decoder hands frames out and keeps nothing of them, so this copies nothing.
        let mut frame = frame.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        if frame.len() < FRAME_OVERHEAD_BYTES || !frame.starts_with(NAME) {
            return Err(CurveError::Malformed("MESSAGE").into());
        }
        frame.advance(NAME.len());
        let nonce = frame.get_u64();
        if nonce <= self.nonce {
            return Err(CurveError::Nonce.into());
        }
        open_in_place(&self.key, &short_nonce(b"CurveZMQMESSAGEC", nonce), &mut frame, "MESSAGE")?;
        self.nonce = nonce;
        frame.advance(TAG_BYTES);
        let flags = frame.get_u8();
        self.take(flags, frame.freeze(), caps)
    }

    fn take(&mut self, flags: u8, body: Bytes, caps: &Caps) -> Result<Option<Item>, OpenError> {
        match flags {
            COMMAND if body.len() > caps.command_bytes => {
                Err(CodecError::CommandTooLarge(body.len() as u64).into())
            }
            COMMAND => Ok(Some(Item::Command(body))),
            0 | MORE if self.parts.len() >= caps.parts => Err(CodecError::TooManyParts(caps.parts).into()),
            0 | MORE if self.parts_bytes + body.len() > caps.message_bytes => {
                Err(CodecError::MessageTooLarge(body.len() as u64).into())
            }
            0 | MORE => {
                self.parts_bytes += body.len();
                self.parts.push(body);
                if flags == MORE {
                    return Ok(None);
                }
                self.parts_bytes = 0;
                Ok(Some(Item::Message(std::mem::take(&mut self.parts))))
            }
            _ => Err(CodecError::Flags(flags).into()),
        }
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Bytes of its parts so far.
    #[must_use]
    pub fn held(&self) -> usize {
        self.parts_bytes
    }
}

/// Seals what one client is sent.
pub struct Sealer {
    key: Arc<SalsaBox>,
    /// Of the last box.
    nonce: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("nonce", &self.nonce).finish_non_exhaustive()
    }
}

impl Sealer {
    pub(super) fn new(key: Arc<SalsaBox>) -> Self {
        Self { key, nonce: 0 }
    }

    /// The body of READY with these properties.
    ///
    /// # Errors
    /// [`CurveError`] for lengths that no message has.
    pub fn ready(&mut self, properties: &[u8]) -> Result<Bytes, CurveError> {
        let mut body = BytesMut::with_capacity(14 + TAG_BYTES + properties.len());
        body.put_slice(b"\x05READY");
        self.put_box(&mut body, b"CurveZMQREADY---", &[properties])?;
        Ok(body.freeze())
    }

    /// A message or a command as it stands on the wire, which it must reach before what is sealed after it.
    ///
    /// # Errors
    /// [`CurveError`] for lengths that no message has.
    pub fn seal(&mut self, message: &Encoded) -> Result<Bytes, CurveError> {
        let mut wire = BytesMut::new();
        for frame in message.frames() {
            let flags = u8::from(frame.more) * MORE + u8::from(frame.is_command) * COMMAND;
            Encoded::put_header(&mut wire, FRAME_OVERHEAD_BYTES + frame.body.len());
            wire.put_slice(NAME);
            self.put_box(&mut wire, b"CurveZMQMESSAGES", &[&[flags], &frame.body])?;
        }
        Ok(wire.freeze())
    }

    fn put_box(&mut self, out: &mut BytesMut, prefix: &[u8; 16], plain: &[&[u8]]) -> Result<(), CurveError> {
        self.nonce += 1;
        out.put_u64(self.nonce);
        let mut boxed = out.split_off(out.len());
        boxed.reserve(TAG_BYTES + plain.iter().map(|piece| piece.len()).sum::<usize>());
        boxed.put_bytes(0, TAG_BYTES);
        plain.iter().for_each(|piece| boxed.put_slice(piece));
        seal_in_place(&self.key, &short_nonce(prefix, self.nonce), &mut boxed)?;
        out.unsplit(boxed);
        Ok(())
    }
}
