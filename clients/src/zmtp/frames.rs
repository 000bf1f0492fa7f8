//! What one peer sends after its handshake: the decoder, and under CURVE what opens the boxes that it finds.

use super::codec::{Caps, Decoder, Item};
use super::curve::{FRAME_OVERHEAD_BYTES, Opener};
use super::fault::Fault;

/// See the module.
#[derive(Debug)]
pub(super) struct Frames {
    decoder: Decoder,
    opener: Option<Opener>,
    caps: Caps,
}

impl Frames {
    /// Goes on where the handshake ended.
    pub(super) fn new(decoder: Decoder, opener: Option<Opener>, caps: Caps) -> Self {
        let mut frames = Frames { decoder, opener, caps };
        frames.admit();
        frames
    }

    /// Tells the decoder what may come next. A box holds one frame, so that its cap is what is left of the message.
    fn admit(&mut self) {
        let caps = match &self.opener {
            None => self.caps,
            Some(opener) => {
                let left = self.caps.message_bytes.saturating_sub(opener.held());
                let message_bytes = left.max(self.caps.command_bytes) + FRAME_OVERHEAD_BYTES;
                Caps { message_bytes, parts: 1, ..self.caps }
            }
        };
        self.decoder.set_caps(caps);
    }

    pub(super) fn push(&mut self, input: &[u8]) {
        self.decoder.push(input);
    }

    /// The next complete item, `None` when more bytes are needed.
    pub(super) fn pull(&mut self) -> Result<Option<Item>, Fault> {
        loop {
            let Some(item) = self.decoder.pull()? else { return Ok(None) };
            let Some(opener) = &mut self.opener else { return Ok(Some(item)) };
            let Item::Message(mut frame) = item else {
                return Err(Fault::Grammar("a command outside of its box"));
            };
            let opened = opener.open(frame.pop().unwrap_or_default(), &self.caps)?;
            self.admit();
            if opened.is_some() {
                return Ok(opened);
            }
        }
    }

    /// Whether a message or a frame has begun and not ended.
    pub(super) fn is_mid_message(&self) -> bool {
        self.decoder.is_mid_message() || self.opener.as_ref().is_some_and(Opener::is_mid_message)
    }

    /// Bytes that arrived and were not handed out.
    pub(super) fn held(&self) -> usize {
        self.decoder.held() + self.opened()
    }

    /// Bytes allocated for what arrived and was not handed out.
    pub(super) fn allocated(&self) -> usize {
        self.decoder.allocated() + self.opened()
    }

    fn opened(&self) -> usize {
        self.opener.as_ref().map_or(0, Opener::held)
    }
}
