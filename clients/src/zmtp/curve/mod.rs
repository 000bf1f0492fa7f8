//! CURVE (RFC 26), the side of the server: both sides prove who they are, and nobody on the way reads or changes what
//! they say.
//!
//! Sans-IO: [`Handshake`] answers the bodies of commands, [`Opener`] and [`Sealer`] turn messages into what stands on the
//! wire and back. The arithmetic is the crate `crypto_box`'s.
//!
//! **Invariants:** nothing is kept of a client's or our short-term keys between WELCOME and INITIATE: they come back in
//! the cookie, which is good for its own connection only, so that a recorded conversation cannot be played again. No nonce
//! is used twice, none is accepted twice. What decides who somebody is is compared in constant time.

mod authorized;
mod handshake;
mod key;
mod traffic;
mod z85;

use crypto_box::aead::AeadInPlace;
use crypto_box::{Nonce, SalsaBox, Tag};

pub use authorized::{Authorized, NameError, check_name};
pub use handshake::{CurveServer, Handshake, Session};
pub use key::{KeyTextError, PublicKey, SecretKey};
pub use traffic::{FRAME_OVERHEAD_BYTES, OpenError, Opener, Sealer};

/// Bytes that prove that the rest of a box was not changed; they stand first.
const TAG_BYTES: usize = 16;

/// Why a client is refused, or not believed any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CurveError {
    /// A command that is none, or has the wrong length.
    #[error("CURVE: {0} is malformed")]
    Malformed(&'static str),
    /// HELLO was made for another server key.
    #[error("CURVE: HELLO cannot be opened: the client has another public key of this server")]
    OtherServer,
    /// A box that was changed on the way, or made with other keys.
    #[error("CURVE: {0} cannot be opened")]
    Unopened(&'static str),
    /// The cookie is not the one that this connection got.
    #[error("CURVE: the cookie is not of this connection")]
    Cookie,
    /// A message that was there before, or in another order.
    #[error("CURVE: a nonce does not grow")]
    Nonce,
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Random,
}

fn random<const N: usize>() -> Result<[u8; N], CurveError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| CurveError::Random)?;
    Ok(bytes)
}

/// A nonce that counts.
fn short_nonce(prefix: &[u8; 16], number: u64) -> Nonce {
    joined(prefix, &number.to_be_bytes())
}

/// A nonce that does not repeat by chance.
fn long_nonce(prefix: &[u8; 8], rest: &[u8; 16]) -> Nonce {
    joined(prefix, rest)
}

fn joined(prefix: &[u8], rest: &[u8]) -> Nonce {
    prefix.iter().chain(rest).copied().collect()
}

/// Encrypts `plain`, which begins with room for the tag.
fn seal_in_place(key: &SalsaBox, nonce: &Nonce, plain: &mut [u8]) -> Result<(), CurveError> {
    let (tag, body) = plain.split_at_mut_checked(TAG_BYTES).ok_or(CurveError::Malformed("a box"))?;
    // It fails for lengths that no message has.
    let made = key.encrypt_in_place_detached(nonce, b"", body).map_err(|_| CurveError::Malformed("a box"))?;
    tag.copy_from_slice(&made);
    Ok(())
}

/// Decrypts a box; what it holds stands after the bytes of the tag.
fn open_in_place(
    key: &SalsaBox,
    nonce: &Nonce,
    boxed: &mut [u8],
    name: &'static str,
) -> Result<(), CurveError> {
    let (tag, body) = boxed.split_at_mut_checked(TAG_BYTES).ok_or(CurveError::Malformed(name))?;
    key.decrypt_in_place_detached(nonce, b"", body, Tag::from_slice(tag))
        .map_err(|_| CurveError::Unopened(name))
}

/// What a command says, front to back.
struct Fields<'a>(&'a [u8], &'static str);

impl<'a> Fields<'a> {
    /// After the name of the command, which must be `name`.
    fn of(body: &'a [u8], name: &'static str) -> Result<Self, CurveError> {
        let rest = body.split_first().filter(|(len, _)| usize::from(**len) == name.len());
        let rest = rest.and_then(|(_, rest)| rest.strip_prefix(name.as_bytes()));
        rest.map(|rest| Self(rest, name)).ok_or(CurveError::Malformed(name))
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], CurveError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(CurveError::Malformed(self.1))?;
        self.0 = rest;
        Ok(taken)
    }

    fn end(&self) -> Result<(), CurveError> {
        if self.0.is_empty() { Ok(()) } else { Err(CurveError::Malformed(self.1)) }
    }
}
