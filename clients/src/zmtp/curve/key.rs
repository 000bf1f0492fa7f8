//! Keys of CURVE, as bytes and as the text that people pass around.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::CurveError;
use super::z85;

/// What anybody may know of a pair of keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub(super) [u8; 32]);

/// The secret half of a pair. Overwritten when it is dropped, as far as `crypto_box` does that.
#[derive(Clone)]
pub struct SecretKey(pub(super) crypto_box::SecretKey);

/// A text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a key of {} characters in Z85", z85::KEY_TEXT_BYTES)]
pub struct KeyTextError;

impl SecretKey {
    /// A new pair.
    ///
    /// # Errors
    /// [`CurveError::Random`] when the system has no random numbers.
    pub fn generate() -> Result<Self, CurveError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| CurveError::Random)?;
        Ok(Self(crypto_box::SecretKey::from_bytes(*bytes)))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().to_bytes())
    }

    /// The key in Z85, for a file that nobody else may read.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        z85::encode(&Zeroizing::new(self.0.to_bytes()))
    }
}

impl PublicKey {
    /// Whether both are the same, in the same time wherever they differ.
    pub(super) fn is(&self, other: &[u8]) -> bool {
        self.0.as_slice().ct_eq(other).into()
    }

    pub(super) fn point(&self) -> crypto_box::PublicKey {
        crypto_box::PublicKey::from_bytes(self.0)
    }
}

impl FromStr for SecretKey {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        z85::decode(text).map(|key| Self(crypto_box::SecretKey::from_bytes(*key))).ok_or(KeyTextError)
    }
}

impl FromStr for PublicKey {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        z85::decode(text).map(|key| Self(*key)).ok_or(KeyTextError)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&z85::encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}
