//! The key that signs the bundles of a store: `bundle.key` beside the database, 32 random bytes as hexadecimal digits, for
//! its owner alone. It is made when something is first signed.
//!
//! **Invariant:** a key that is there is never replaced, not even by a better one: what it signed would be lost.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cob_protocol::ids::CheckpointId;
use hmac::{Hmac, KeyInit, Mac};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::Sha256;

use super::BundleError;
use crate::payloads::{hash_of, sync};
use crate::shared::lock;
use crate::store::SignedManifest;

/// What is signed begins so: a signature of something else with the same key is none of a bundle.
const DOMAIN: &[u8] = b"cob bundle 1\n";

/// A key.
#[derive(Clone)]
pub(super) struct Key {
    hmac: Hmac<Sha256>,
    name: String,
}

impl Key {
    fn new(bytes: &[u8; 32]) -> Option<Self> {
        let hmac = Hmac::new_from_slice(bytes).ok()?;
        let name = hex::encode(hash_of(bytes)).get(..16).unwrap_or_default().to_owned();
        Some(Self { hmac, name })
    }

    /// The key that stands in a file, or that somebody gave.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).ok()?;
        Self::new(&bytes)
    }

    /// To tell it from others: a part of its hash.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn sign(&self, body: &[u8]) -> [u8; 32] {
        self.over(body).finalize().into_bytes().into()
    }

    /// Takes as long for every wrong signature.
    pub(super) fn has_signed(&self, signed: &SignedManifest) -> bool {
        self.over(&signed.body).verify_slice(&signed.mac).is_ok()
    }

    fn over(&self, body: &[u8]) -> Hmac<Sha256> {
        self.hmac.clone().chain_update(DOMAIN).chain_update(body)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

/// The key of a store, read or made when it is needed.
#[derive(Debug)]
pub(super) struct Keys {
    path: PathBuf,
    known: Mutex<Option<Key>>,
}

impl Keys {
    pub(super) fn new(folder: &Path) -> Self {
        Self { path: folder.join("bundle.key"), known: Mutex::default() }
    }

    /// The key; made, if there is none. Only for the server of the store.
    pub(super) fn made(&self) -> Result<Key, BundleError> {
        let mut known = lock(&self.known);
        if let Some(key) = &*known {
            return Ok(key.clone());
        }
        let key = match self.read()? {
            Some(key) => key,
            None => self.make().map_err(|error| self.failed(error))?,
        };
        *known = Some(key.clone());
        Ok(key)
    }

    /// The key, if there is one.
    pub(super) fn found(&self) -> Result<Option<Key>, BundleError> {
        let mut known = lock(&self.known);
        if known.is_none() {
            *known = self.read()?;
        }
        Ok(known.clone())
    }

    /// Whether a bundle was signed with it.
    pub(super) fn verify(
        &self,
        checkpoint: CheckpointId,
        signed: &SignedManifest,
    ) -> Result<(), BundleError> {
        let path = self.path.display();
        match self.found()? {
            Some(key) if key.has_signed(signed) => Ok(()),
            Some(_) => Err(BundleError::Untrusted(format!(
                "{checkpoint} is not signed with the key in {path}: either it was changed, or the key was"
            ))),
            None => Err(BundleError::Untrusted(format!(
                "{checkpoint} cannot be verified: its key, {path}, is gone; put it back from a copy"
            ))),
        }
    }

    fn failed(&self, error: impl ToString) -> BundleError {
        BundleError::File { path: self.path.clone(), what: error.to_string() }
    }

    fn read(&self) -> Result<Option<Key>, BundleError> {
        match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
            Ok(text) => {
                let key = Key::read(&text);
                key.map(Some).ok_or_else(|| self.failed("this is no key; put it back from a copy"))
            }
        }
    }

    fn make(&self) -> io::Result<Key> {
        let mut bytes = [0_u8; 32];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += getrandom(rest, GetRandomFlags::empty())?;
        }
        let folder = self.path.parent().unwrap_or(&self.path);
        let unfinished = folder.join("unfinished.key");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(format!("{}\n", hex::encode(bytes)).as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, &self.path)?;
        sync(folder)?;
        Key::new(&bytes).ok_or_else(|| io::Error::other("no key can be made"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::new(folder.path());
        assert!(keys.found().unwrap().is_none());
        let key = keys.made().unwrap();
        let path = folder.path().join("bundle.key");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let signed = SignedManifest { body: b"abc".to_vec(), mac: key.sign(b"abc") };
        let again = Keys::new(folder.path()).made().unwrap();
        assert!(again.has_signed(&signed) && again.name() == key.name());
        let text = fs::read_to_string(&path).unwrap();
        assert!(Key::read(&text).unwrap().has_signed(&signed));
        assert!(!format!("{keys:?} {key:?}").contains(text.trim()));
        let other = tempfile::tempdir().unwrap();
        assert!(!Keys::new(other.path()).made().unwrap().has_signed(&signed));
        for bit in 0..256 {
            let mut forged = signed.clone();
            forged.mac[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.has_signed(&forged));
        }
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle.key");
        fs::write(&path, "12").unwrap();
        let error = Keys::new(folder.path()).made().unwrap_err().to_string();
        assert!(error.contains("bundle.key") && error.contains("no key"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "12");
    }
}
