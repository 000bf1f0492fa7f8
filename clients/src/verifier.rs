//! Who believes a message: the signature and the replay window of one place, and the count of what was dropped there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cob_protocol::message::Incoming;
use cob_protocol::signing::{ReplayWindow, Signer};
use cob_protocol::wire;

/// See the module.
#[derive(Debug)]
pub(crate) struct Verifier {
    /// `shell`, or an address: for the log.
    channel: String,
    signer: Signer,
    window: Arc<Mutex<ReplayWindow>>,
    dropped: Arc<AtomicU64>,
}

impl Verifier {
    /// Of a channel that has `window` in common with others, and a count of its own.
    pub(crate) fn new(channel: String, signer: Signer, window: Arc<Mutex<ReplayWindow>>) -> Self {
        Self { channel, signer, window, dropped: Arc::default() }
    }

    /// The message, if it is signed with our key and new. Others are dropped and counted.
    pub(crate) fn read(&self, parts: &[Bytes]) -> Option<Incoming> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        match wire::parse(parts, &self.signer, &mut window) {
            Ok(message) => Some(message),
            Err(error) => {
                let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                // One line for the first, then one for every doubling: a flood cannot fill the log.
                if dropped.is_power_of_two() {
                    tracing::warn!(channel = self.channel, dropped, %error, "message dropped");
                }
                None
            }
        }
    }

    /// How many messages were dropped, while it changes.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}
