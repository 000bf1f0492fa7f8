//! Signatures of client messages, and the window that refuses replays.
//!
//! **Invariant:** the window remembers only signatures that were verified. Filled before, it would let anyone
//! push a victim's signatures out of it, or block messages that have yet to be sent.

use std::collections::{HashSet, VecDeque};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::limits::REPLAY_WINDOW;

/// Bytes of a signature in hexadecimal.
pub const SIGNATURE_BYTES: usize = 64;

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SignatureError {
    /// The signature does not belong to the message under our key.
    #[error("bad_signature")]
    Bad,
    /// The same signed message was here before.
    #[error("replayed")]
    Replayed,
}

/// A signature scheme that cob does not have.
#[derive(Debug, Error)]
#[error("signature scheme `{0}` is not supported; use `hmac-sha256`, or an empty key for none")]
pub struct UnknownScheme(pub String);

/// Signs what goes out and verifies what comes in, with the key of a connection file.
#[derive(Clone)]
pub struct Signer {
    key: Option<Hmac<Sha256>>,
}

impl Signer {
    /// A signer for `scheme` (`hmac-sha256`); an empty `key` turns signing off, as Jupyter has it.
    ///
    /// # Errors
    /// [`UnknownScheme`] when there is a key and the scheme is another.
    pub fn new(scheme: &str, key: &[u8]) -> Result<Self, UnknownScheme> {
        if key.is_empty() {
            return Ok(Self { key: None });
        }
        if scheme != "hmac-sha256" {
            return Err(UnknownScheme(scheme.to_owned()));
        }
        // HMAC takes keys of every length.
        Hmac::new_from_slice(key)
            .map(|key| Self { key: Some(key) })
            .map_err(|_| UnknownScheme(scheme.to_owned()))
    }

    /// The signature over `parts`, in lower-case hexadecimal; empty when there is no key.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> Vec<u8> {
        self.digest(parts).map_or_else(Vec::new, |digest| {
            digest.iter().flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 15)]).collect()
        })
    }

    /// Whether `signature` belongs to `parts`; takes the same time wherever it differs.
    #[must_use]
    pub fn verify(&self, signature: &[u8], parts: &[&[u8]]) -> bool {
        self.key.is_none() || bool::from(self.sign(parts).as_slice().ct_eq(signature))
    }

    /// Whether messages are signed at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.key.is_some()
    }

    fn digest(&self, parts: &[&[u8]]) -> Option<[u8; 32]> {
        let mut mac = self.key.clone()?;
        parts.iter().for_each(|part| mac.update(part));
        Some(mac.finalize().into_bytes().into())
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("enabled", &self.is_enabled()).finish_non_exhaustive()
    }
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

/// SHA-256 of a request's body: two requests with the same key must agree in it.
#[must_use]
pub fn body_hash(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// The last [`REPLAY_WINDOW`] verified signatures.
#[derive(Debug, Default)]
pub struct ReplayWindow {
    seen: HashSet<[u8; 16]>,
    order: VecDeque<[u8; 16]>,
}

impl ReplayWindow {
    /// Admits a *verified* signature once.
    ///
    /// # Errors
    /// [`SignatureError::Replayed`] the second time.
    pub fn admit(&mut self, signature: &[u8]) -> Result<(), SignatureError> {
        // Sixteen of the 64 digits would do against chance; 16 bytes of text keep the window small.
        let mut short = [0; 16];
        for (slot, byte) in short.iter_mut().zip(signature) {
            *slot = *byte;
        }
        if !self.seen.insert(short) {
            return Err(SignatureError::Replayed);
        }
        self.order.push_back(short);
        if self.order.len() > REPLAY_WINDOW
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::new("hmac-sha256", b"key").unwrap()
    }

    #[test]
    fn the_signature_is_that_of_rfc_2104() {
        let signature = signer().sign(&[b"The quick brown fox ", b"jumps over the lazy dog"]);
        let known = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8";
        assert_eq!(String::from_utf8(signature).unwrap(), known);
    }

    #[test]
    fn p07_only_the_exact_signature_passes() {
        let parts: [&[u8]; 2] = [b"a", b"b"];
        let good = signer().sign(&parts);
        assert!(signer().verify(&good, &parts));
        assert!(!signer().verify(&good.to_ascii_uppercase(), &parts));
        assert!(!signer().verify(b"", &parts));
        assert!(!signer().verify(&good[..32], &parts));
        assert!(!signer().verify(&good, &[b"b", b"a"]));
    }

    #[test]
    fn other_schemes_are_refused_by_name() {
        let text = Signer::new("hmac-sha1", b"key").unwrap_err().to_string();
        assert!(text.contains("hmac-sha1") && text.contains("hmac-sha256"));
        assert!(Signer::new("whatever", b"").is_ok());
    }

    #[test]
    fn p08_a_replay_is_refused_until_the_window_has_moved_on() {
        let mut window = ReplayWindow::default();
        let signature = |n: usize| format!("{n:064}").into_bytes().into_iter().rev().collect::<Vec<_>>();
        assert_eq!(window.admit(&signature(0)), Ok(()));
        assert_eq!(window.admit(&signature(0)), Err(SignatureError::Replayed));
        for n in 1..=REPLAY_WINDOW {
            assert_eq!(window.admit(&signature(n)), Ok(()));
        }
        assert_eq!(window.admit(&signature(0)), Ok(()));
        assert!(window.seen.len() <= REPLAY_WINDOW);
    }
}
