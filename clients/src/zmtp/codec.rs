//! ZMTP frames (RFC 37, "traffic"): an incremental decoder that turns bytes into messages and commands, and the
//! encoder of messages.
//!
//! Sans-IO: whoever owns a socket pushes what it read and pulls what is complete; a fuzz target does the same.
//!
//! **Invariant:** a length is compared with its cap as the 64-bit number it came as, before anything is
//! allocated for it, and what is allocated is never ahead of what arrived by more than
//! [`READ_AHEAD_BYTES_MAX`] or an eighth. (Always 64 KiB was tried: a message of 32 MiB then moved 500 times
//! and took 60 ms to decode instead of 24, which doubling does not improve on.)

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cob_protocol::limits::{
    MESSAGE_BYTES_MAX, MESSAGE_PARTS_MAX, READ_AHEAD_BYTES_MAX, ZMTP_COMMAND_BYTES_MAX,
};

/// One multipart message.
pub type Message = Vec<Bytes>;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Parts up to this size are copied next to their header; larger ones are sent from where they are.
const COPIED_PART_BYTES_MAX: usize = 16 * 1024;
/// An input buffer that grew beyond this is given back when it is empty: most peers are idle most of the time.
const KEPT_BUFFER_BYTES: usize = 8 * 1024;
/// A body grows at least by this much ahead of what has arrived of it.
const GROWTH_BYTES: usize = READ_AHEAD_BYTES_MAX - KEPT_BUFFER_BYTES;

/// What one peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Bytes of one message, all parts together.
    pub message_bytes: usize,
    /// Parts of one message.
    pub parts: usize,
    /// Bytes of one command.
    pub command_bytes: usize,
}

impl Caps {
    /// Before the handshake is done: commands only.
    pub const HANDSHAKE: Caps = Caps { message_bytes: 0, parts: 0, command_bytes: ZMTP_COMMAND_BYTES_MAX };
}

impl Default for Caps {
    fn default() -> Self {
        Caps {
            message_bytes: MESSAGE_BYTES_MAX,
            parts: MESSAGE_PARTS_MAX,
            command_bytes: ZMTP_COMMAND_BYTES_MAX,
        }
    }
}

/// What a decoder found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A complete message; at least one part.
    Message(Message),
    /// The body of a command frame, for [`Command::parse`](super::command::Command::parse).
    Command(Bytes),
}

/// Why the stream of a peer cannot be read on: there is no way to find the next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Bits that RFC 37 reserves, or a command with the MORE bit.
    #[error("a frame has the flags {0:#04x}")]
    Flags(u8),
    /// A command over its cap.
    #[error("a command of {0} bytes is too large")]
    CommandTooLarge(u64),
    /// A message over its cap.
    #[error("a message with a part of {0} bytes is too large")]
    MessageTooLarge(u64),
    /// A message with more parts than allowed; before the handshake is done, that is any.
    #[error("a message has more than {0} parts")]
    TooManyParts(usize),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Part { more: bool },
    Command,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    kind: Kind,
    len: u64,
}

impl Header {
    /// The header and its length, `None` while it is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, CodecError> {
        let Some((&flags, rest)) = bytes.split_first() else { return Ok(None) };
        let kind = match flags & !LONG {
            0 => Kind::Part { more: false },
            MORE => Kind::Part { more: true },
            COMMAND => Kind::Command,
            _ => return Err(CodecError::Flags(flags)),
        };
        let len = if flags & LONG == 0 {
            rest.first().map(|len| (u64::from(*len), 2))
        } else {
            rest.first_chunk().map(|len| (u64::from_be_bytes(*len), 9))
        };
        Ok(len.map(|(len, used)| (Header { kind, len }, used)))
    }

    fn put(out: &mut BytesMut, flags: u8, len: usize) {
        match u8::try_from(len) {
            Ok(len) => out.put_slice(&[flags, len]),
            Err(_) => {
                out.put_u8(flags | LONG);
                out.put_u64(len as u64);
            }
        }
    }
}

/// A frame whose body is still arriving.
#[derive(Debug)]
struct Body {
    kind: Kind,
    len: usize,
    data: Vec<u8>,
}

impl Body {
    /// Takes what belongs to this body from the front of `input` and returns the rest.
    fn fill<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        let missing = self.len - self.data.len();
        let (mine, rest) = input.split_at(missing.min(input.len()));
        if self.data.capacity() - self.data.len() < mine.len() {
            let ahead = GROWTH_BYTES.max(self.data.len() / 8).max(mine.len());
            self.data.reserve_exact(missing.min(ahead));
        }
        self.data.extend_from_slice(mine);
        rest
    }

    fn is_complete(&self) -> bool {
        self.data.len() == self.len
    }
}

/// Turns the bytes of one peer into [`Item`]s.
#[derive(Debug)]
pub struct Decoder {
    caps: Caps,
    /// Bytes that arrived and were not looked at yet, from `at` on.
    buffer: Vec<u8>,
    at: usize,
    body: Option<Body>,
    parts: Message,
    parts_bytes: usize,
}

impl Decoder {
    /// A decoder at the start of a stream of frames.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Decoder { caps, buffer: Vec::new(), at: 0, body: None, parts: Vec::new(), parts_bytes: 0 }
    }

    /// Changes what the peer may send from the next frame on.
    pub fn set_caps(&mut self, caps: Caps) {
        self.caps = caps;
    }

    /// Adds bytes that arrived. Pull until [`Decoder::pull`] has nothing more before pushing again: the bytes
    /// in between are kept.
    pub fn push(&mut self, input: &[u8]) {
        let rest = match &mut self.body {
            Some(body) => body.fill(input),
            None => input,
        };
        if rest.is_empty() {
            return;
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.reserve_exact(rest.len());
        self.buffer.extend_from_slice(rest);
    }

    /// The next complete item, `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`CodecError`] when the peer broke the grammar or a cap; every later call says the same.
    pub fn pull(&mut self) -> Result<Option<Item>, CodecError> {
        loop {
            let body = match self.body.take() {
                Some(body) => body,
                None => match self.begin()? {
                    Some(body) => body,
                    None => {
                        self.give_back();
                        return Ok(None);
                    }
                },
            };
            if !body.is_complete() {
                self.body = Some(body);
                self.give_back();
                return Ok(None);
            }
            if let Some(item) = self.complete(body) {
                return Ok(Some(item));
            }
        }
    }

    /// Whether a message or a frame has begun and not ended.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        self.held() > 0 || !self.parts.is_empty() || self.body.is_some()
    }

    /// Bytes that arrived and were not handed out.
    #[must_use]
    pub fn held(&self) -> usize {
        self.parts_bytes + self.body.as_ref().map_or(0, |body| body.data.len()) + self.buffer.len() - self.at
    }

    /// Bytes allocated for what arrived and was not handed out.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.parts_bytes + self.body.as_ref().map_or(0, |body| body.data.capacity()) + self.buffer.capacity()
    }

    /// Starts the frame at the front of the buffer, if its header is there.
    fn begin(&mut self) -> Result<Option<Body>, CodecError> {
        let bytes = self.buffer.get(self.at..).unwrap_or_default();
        let Some((header, used)) = Header::parse(bytes)? else { return Ok(None) };
        let len = self.admit(header)?;
        let bytes = bytes.get(used..).unwrap_or_default();
        let mut body = Body { kind: header.kind, len, data: Vec::with_capacity(len.min(bytes.len())) };
        body.fill(bytes);
        self.at += used + body.data.len();
        Ok(Some(body))
    }

    /// The length of a frame, if the caps allow it.
    fn admit(&self, header: Header) -> Result<usize, CodecError> {
        let (room, refusal) = match header.kind {
            Kind::Command => (self.caps.command_bytes, CodecError::CommandTooLarge(header.len)),
            Kind::Part { .. } if self.parts.len() >= self.caps.parts => {
                return Err(CodecError::TooManyParts(self.caps.parts));
            }
            Kind::Part { .. } => (
                self.caps.message_bytes.saturating_sub(self.parts_bytes),
                CodecError::MessageTooLarge(header.len),
            ),
        };
        usize::try_from(header.len).ok().filter(|len| *len <= room).ok_or(refusal)
    }

    /// Takes a complete frame; gives back what it completes. A command may stand between the parts of a
    /// message: libzmq sends its PING there.
    fn complete(&mut self, body: Body) -> Option<Item> {
        let Kind::Part { more } = body.kind else { return Some(Item::Command(Bytes::from(body.data))) };
        self.parts_bytes += body.data.len();
        self.parts.push(Bytes::from(body.data));
        if more {
            return None;
        }
        self.parts_bytes = 0;
        Some(Item::Message(std::mem::take(&mut self.parts)))
    }

    /// What is left now is at most a part of a header.
    fn give_back(&mut self) {
        self.buffer.drain(..self.at);
        self.at = 0;
        if self.buffer.capacity() > KEPT_BUFFER_BYTES {
            self.buffer.shrink_to_fit();
        }
    }
}

/// One frame of a message, or a command.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) more: bool,
    pub(super) is_command: bool,
    pub(super) body: Bytes,
}

/// A message as it stands on the wire, in pieces that are cheap to clone: encoded once, sent to many.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    pub(super) chunks: Vec<Bytes>,
}

impl Encoded {
    /// Encodes a message. One without parts encodes to nothing.
    #[must_use]
    pub fn message(parts: &[Bytes]) -> Self {
        let is_copied = |part: &Bytes| part.len() <= COPIED_PART_BYTES_MAX;
        let copied: usize = parts.iter().map(|part| 9 + if is_copied(part) { part.len() } else { 0 }).sum();
        let mut near = BytesMut::with_capacity(copied);
        let mut chunks = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            Header::put(&mut near, if index + 1 < parts.len() { MORE } else { 0 }, part.len());
            if is_copied(part) {
                near.put_slice(part);
            } else {
                chunks.push(near.split().freeze());
                chunks.push(part.clone());
            }
        }
        if !near.is_empty() {
            chunks.push(near.freeze());
        }
        Encoded { chunks }
    }

    /// Encodes a command from its body.
    #[must_use]
    pub fn command(body: &[u8]) -> Self {
        let mut frame = BytesMut::with_capacity(9 + body.len());
        Header::put(&mut frame, COMMAND, body.len());
        frame.put_slice(body);
        Encoded { chunks: vec![frame.freeze()] }
    }

    /// The header of a frame of a message that is alone.
    pub(super) fn put_header(out: &mut BytesMut, len: usize) {
        Header::put(out, 0, len);
    }

    /// The frames that this stands for.
    pub(super) fn frames(&self) -> impl Iterator<Item = Frame> {
        let mut rest = Bytes::new();
        let mut chunks = self.chunks.iter();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                rest = chunks.next()?.clone();
            }
            let (header, used) = Header::parse(&rest).ok().flatten()?;
            let len = usize::try_from(header.len).ok()?;
            rest.advance(used);
            // A large body is a chunk of its own.
            let body = if len <= rest.len() { rest.split_to(len) } else { chunks.next()?.clone() };
            let more = matches!(header.kind, Kind::Part { more: true });
            Some(Frame { more, is_command: matches!(header.kind, Kind::Command), body })
        })
    }

    /// All bytes in one piece.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.chunks.concat()
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
