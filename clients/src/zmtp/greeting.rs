//! The 64 bytes with which a ZMTP connection begins: signature, version, security mechanism (RFC 37, "greeting").
//!
//! Sans-IO.

/// Bytes of a greeting.
pub const GREETING_BYTES: usize = 64;
/// The version this side speaks.
pub const VERSION: (u8, u8) = (3, 1);

const SIGNATURE_BYTES: usize = 10;
const MECHANISM: std::ops::Range<usize> = 12..32;

/// How a connection is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Not at all: the layer above signs its messages.
    Null,
    /// By keys, and everything is encrypted.
    Curve,
}

impl Mechanism {
    const ALL: [Mechanism; 2] = [Mechanism::Null, Mechanism::Curve];

    fn name(self) -> &'static [u8] {
        match self {
            Mechanism::Null => b"NULL",
            Mechanism::Curve => b"CURVE",
        }
    }

    fn parse(field: &[u8]) -> Option<Self> {
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        let (name, padding) = field.split_at(end);
        let known = Self::ALL.into_iter().find(|mechanism| mechanism.name() == name);
        known.filter(|_| padding.iter().all(|byte| *byte == 0))
    }
}

/// What the other side announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Minor version; the major one is 3 or higher.
    pub minor: u8,
    /// The mechanism, which both sides must agree on.
    pub mechanism: Mechanism,
}

/// Why a peer's first bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// Not ZMTP: perhaps a web browser.
    #[error("the first bytes are not a ZMTP signature")]
    Signature,
    /// ZMTP 1 or 2 (ZeroMQ 3 and older).
    #[error("ZMTP version {0} is not supported")]
    Version(u8),
    /// A mechanism that this socket does not speak.
    #[error("the security mechanism is not supported")]
    Mechanism,
}

impl Greeting {
    /// The greeting this side sends.
    #[must_use]
    pub fn encode(mechanism: Mechanism) -> [u8; GREETING_BYTES] {
        let mut bytes = [0; GREETING_BYTES];
        let mut fields = [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, VERSION.0, VERSION.1].into_iter();
        let mut name = mechanism.name().iter().copied();
        for byte in &mut bytes {
            *byte = fields.next().or_else(|| name.next()).unwrap_or(0);
        }
        // Whoever binds is the server of a mechanism that has one.
        bytes[MECHANISM.end] = u8::from(mechanism == Mechanism::Curve);
        bytes
    }

    /// Reads the first [`GREETING_BYTES`] of `bytes`, `None` while too few have arrived. A greeting that is
    /// already known to be wrong fails at once, so that a stranger is not waited for.
    ///
    /// # Errors
    /// [`GreetingError`] when this is not a ZMTP 3 peer with a mechanism that we speak.
    pub fn parse(bytes: &[u8]) -> Result<Option<Greeting>, GreetingError> {
        let at = |index: usize| bytes.get(index).copied();
        if at(0).is_some_and(|byte| byte != 0xff) || at(SIGNATURE_BYTES - 1).is_some_and(|byte| byte != 0x7f)
        {
            return Err(GreetingError::Signature);
        }
        if let Some(major) = at(SIGNATURE_BYTES).filter(|major| *major < VERSION.0) {
            return Err(GreetingError::Version(major));
        }
        let Some(greeting) = bytes.first_chunk::<GREETING_BYTES>() else { return Ok(None) };
        let mechanism = greeting.get(MECHANISM).and_then(Mechanism::parse).ok_or(GreetingError::Mechanism)?;
        Ok(Some(Greeting { minor: greeting[SIGNATURE_BYTES + 1], mechanism }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_greeting_is_accepted_and_every_prefix_of_it_waits() {
        for mechanism in Mechanism::ALL {
            let bytes = Greeting::encode(mechanism);
            assert_eq!(Greeting::parse(&bytes), Ok(Some(Greeting { minor: 1, mechanism })));
            for end in 0..GREETING_BYTES {
                assert_eq!(Greeting::parse(&bytes[..end]), Ok(None), "{end} bytes");
            }
        }
    }

    #[test]
    fn strangers_are_refused_as_soon_as_they_are_known() {
        let with = |index: usize, byte: u8| {
            let mut bytes = Greeting::encode(Mechanism::Null);
            bytes[index] = byte;
            Greeting::parse(&bytes)
        };
        assert_eq!(Greeting::parse(b"G"), Err(GreetingError::Signature));
        assert_eq!(with(9, 0x7e), Err(GreetingError::Signature));
        assert_eq!(with(10, 1), Err(GreetingError::Version(1)));
        assert_eq!(with(12, b'P'), Err(GreetingError::Mechanism));
        assert_eq!(with(31, b'x'), Err(GreetingError::Mechanism), "garbage after the name");
        assert_eq!(with(10, 4), Ok(Some(Greeting { minor: 1, mechanism: Mechanism::Null })), "newer is fine");
    }
}
