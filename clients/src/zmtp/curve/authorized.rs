//! Whose keys may come in: a folder of files `NAME.pub`, read anew for every client, so that a key that is added or
//! removed counts from the next connection on.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cob_protocol::limits::{AUTHORIZED_KEYS_MAX, KEY_FILE_BYTES_MAX, KEY_NAME_BYTES_MAX};

use super::key::PublicKey;

const SUFFIX: &str = "pub";

/// A folder of public keys.
#[derive(Clone, Debug)]
pub struct Authorized(PathBuf);

/// A name that no key may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It could mean something to a file system or to a reader.
    #[error(
        "the name of a key has 1 to {KEY_NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, and begins with no `.` or `-`"
    )]
    Form,
    /// Who has this name may do everything.
    #[error("`local` is the operator of the server, who needs no key")]
    Operator,
}

/// Whether a key may have this name, which is the principal of those who have the key.
///
/// # Errors
/// [`NameError`] says what is wrong with it.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty()
        || name.len() > KEY_NAME_BYTES_MAX
        || name.starts_with(['.', '-'])
        || !name.chars().all(is_plain)
    {
        return Err(NameError::Form);
    }
    if name == "local" { Err(NameError::Operator) } else { Ok(()) }
}

impl Authorized {
    /// The keys in that folder. It need not exist yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The file of a name.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.{SUFFIX}"))
    }

    /// The name of a key; the first in their order if it has several.
    ///
    /// # Errors
    /// What the system says of the folder.
    pub fn find(&self, key: &PublicKey) -> io::Result<Option<String>> {
        let found = self.list()?.into_iter().find(|(_, known)| known.is(&key.0));
        Ok(found.map(|(name, _)| name))
    }

    /// All names and keys, in the order of the names. A file that holds no key is left out, with a line in the log.
    ///
    /// # Errors
    /// What the system says of the folder; one that does not exist is empty.
    pub fn list(&self) -> io::Result<Vec<(String, PublicKey)>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut keys = Vec::new();
        for entry in entries.take(AUTHORIZED_KEYS_MAX) {
            let path = entry?.path();
            if let Some(name) = name_of(&path) {
                match read(&path) {
                    Ok(key) => keys.push((name.to_owned(), key)),
                    Err(error) => tracing::warn!(file = %path.display(), %error, "no public key: left out"),
                }
            }
        }
        keys.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(keys)
    }
}

/// The name that a file gives to its key, if it may.
fn name_of(path: &Path) -> Option<&str> {
    let name = path.file_stem()?.to_str()?;
    (path.extension()? == SUFFIX && check_name(name).is_ok()).then_some(name)
}

fn read(path: &Path) -> io::Result<PublicKey> {
    // Opening what is no file could wait for somebody.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no file"));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text)?;
    text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zmtp::curve::SecretKey;

    #[test]
    fn a_key_counts_while_its_file_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let authorized = Authorized::new(folder.path().join("authorized"));
        let key = SecretKey::generate().expect("random numbers").public();
        assert_eq!(authorized.find(&key).expect("no folder is an empty one"), None);
        fs::create_dir(folder.path().join("authorized")).expect("a folder");
        fs::write(authorized.file("ann"), format!("{key}\n")).expect("written");
        fs::write(authorized.file("bob"), "no key").expect("written");
        // The operator's name, and what is no key's file.
        fs::write(authorized.file("local"), key.to_string()).expect("written");
        fs::write(authorized.file(".hidden"), key.to_string()).expect("written");
        fs::write(authorized.file("ann").with_extension("old"), key.to_string()).expect("written");
        fs::create_dir(authorized.file("folder")).expect("a folder");
        assert_eq!(authorized.find(&key).expect("readable"), Some("ann".to_owned()));
        assert_eq!(authorized.list().expect("readable"), [("ann".to_owned(), key)]);
        fs::remove_file(authorized.file("ann")).expect("removed");
        assert_eq!(authorized.find(&key).expect("readable"), None);
    }

    #[test]
    fn names_are_plain() {
        for good in ["a", "build-7", "ann@home".split('@').next().unwrap_or("x"), "A.b_c"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "é", "a\n", &"a".repeat(KEY_NAME_BYTES_MAX + 1)]
        {
            assert_eq!(check_name(bad), Err(NameError::Form), "{bad}");
        }
        assert_eq!(check_name("local"), Err(NameError::Operator));
    }
}
