//! What gives a worker to the one who knows it.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use subtle::ConstantTimeEq;

const BYTES: usize = 32;

/// See the module.
#[derive(Clone)]
pub(super) struct Secret([u8; BYTES]);

impl Secret {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(random()?))
    }

    /// In hexadecimal digits.
    pub(super) fn text(&self) -> String {
        hex(&self.0)
    }

    /// Takes as long whatever the difference.
    pub(super) fn is(&self, text: &str) -> bool {
        self.text().as_bytes().ct_eq(text.as_bytes()).into()
    }
}

/// Random bytes of the system.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Part of a name that nothing else has.
pub(super) fn unique() -> io::Result<String> {
    random::<8>().map(|bytes| hex(&bytes))
}
