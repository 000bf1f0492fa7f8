//! Files named by the SHA-256 of what is in them, beside the database: bodies of large events, and chunks of bundles.
//!
//! **Invariant:** a file under its final name is whole, as far as the system goes on; at `power` it is on the disk
//! before the commit that names it. A file that no row names is left over from a commit that failed or a process that
//! died, and is swept away.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

/// SHA-256 of a body.
pub(crate) type PayloadHash = [u8; 32];

/// The folder of payloads.
#[derive(Clone, Debug)]
pub(crate) struct Payloads {
    folder: PathBuf,
}

/// Why a payload cannot be had.
#[derive(Debug)]
pub(crate) enum NotRead {
    /// No such file.
    Missing(PathBuf),
    /// Its content has another hash.
    Changed(PathBuf),
    /// The system refused.
    Failed(PathBuf, io::Error),
}

/// How safe from a loss of power a file is when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Safe {
    /// Not at all.
    No,
    /// What is in it; its name is not, before [`Payloads::sync_names`].
    Inside,
    /// With its name.
    Wholly,
}

/// Names of files that are being written begin so.
const UNFINISHED: &str = "unfinished";

/// Parts that the files are spread over.
pub(crate) const PARTS: usize = 256;

impl Payloads {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn path(&self, hash: &PayloadHash) -> PathBuf {
        let name = hex::encode(hash);
        let part = name.get(..2).unwrap_or_default();
        self.folder.join(part).join(&name)
    }

    /// Writes a body under its name, unless it is there.
    pub(crate) fn write(&self, body: &[u8], is_power: bool) -> Result<PayloadHash, (PathBuf, io::Error)> {
        let hash = hash_of(body);
        self.put(&hash, body, if is_power { Safe::Wholly } else { Safe::No })?;
        Ok(hash)
    }

    /// Writes the body with this hash under its name, unless it is there; says whether it was not.
    pub(crate) fn put(
        &self,
        hash: &PayloadHash,
        body: &[u8],
        safe: Safe,
    ) -> Result<bool, (PathBuf, io::Error)> {
        let path = self.path(hash);
        self.put_at(&path, body, safe).map_err(|error| (path, error))
    }

    fn put_at(&self, path: &Path, body: &[u8], safe: Safe) -> io::Result<bool> {
        let part = path.parent().unwrap_or(&self.folder);
        if self.has_at(path, body.len() as u64) {
            if safe == Safe::Wholly {
                // Whoever wrote it may not have asked for it to be safe from a loss of power.
                sync_all(path, part)?;
            }
            return Ok(false);
        }
        for folder in [&self.folder, part] {
            match DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Err(_) => {}
                Ok(()) if safe == Safe::Wholly => sync(folder.parent().unwrap_or(folder))?,
                Ok(()) => {}
            }
        }
        // Several may write at a time.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let unfinished = self.folder.join(format!("{UNFINISHED}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let written = fill(&unfinished, body, safe).and_then(|()| fs::rename(&unfinished, path));
        if let Err(error) = written {
            // On a full disk half a file would keep the room that is missing.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        if safe == Safe::Wholly {
            sync(part)?;
        }
        Ok(true)
    }

    /// Whether the body with this hash is there, and of this length.
    pub(crate) fn has(&self, hash: &PayloadHash, bytes: u64) -> bool {
        self.has_at(&self.path(hash), bytes)
    }

    fn has_at(&self, path: &Path, bytes: u64) -> bool {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == bytes)
    }

    /// Makes the names in these parts safe from a loss of power, and those of the folders themselves.
    pub(crate) fn sync_names(&self, parts: &[u8]) -> Result<(), (PathBuf, io::Error)> {
        let parts = parts.iter().map(|part| self.folder.join(hex::encode([*part])));
        let above = [Some(self.folder.clone()), self.folder.parent().map(Path::to_owned)];
        for folder in parts.chain(above.into_iter().flatten()) {
            sync(&folder).map_err(|error| (folder, error))?;
        }
        Ok(())
    }

    /// Removes what somebody who died was writing. Nobody may be writing.
    pub(crate) fn clear_unfinished(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The body with this hash.
    pub(crate) fn read(&self, hash: &PayloadHash) -> Result<Vec<u8>, NotRead> {
        let path = self.path(hash);
        verified(hash, &path, fs::read(&path))
    }

    /// The body with this hash, which has so many bytes.
    pub(crate) fn read_at_most(&self, hash: &PayloadHash, bytes: u64) -> Result<Vec<u8>, NotRead> {
        let path = self.path(hash);
        let read = || {
            let mut body = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
            File::open(&path)?.take(bytes.saturating_add(1)).read_to_end(&mut body)?;
            Ok(body)
        };
        verified(hash, &path, read())
    }

    /// Removes the body with this hash. That it stays, if the system refuses, harms nobody: it is swept away later.
    pub(crate) fn remove(&self, hash: &PayloadHash) {
        let _ = fs::remove_file(self.path(hash));
    }

    /// The hashes of the files in one of the [`PARTS`]; files with other names are not ours.
    pub(crate) fn part(&self, part: u8) -> Vec<PayloadHash> {
        let Ok(entries) = fs::read_dir(self.folder.join(hex::encode([part]))) else { return Vec::new() };
        let hash = |entry: io::Result<fs::DirEntry>| {
            let mut hash = PayloadHash::default();
            hex::decode_to_slice(entry.ok()?.file_name().to_str()?, &mut hash).ok().map(|()| hash)
        };
        entries.filter_map(hash).collect()
    }
}

/// What was read of a file, if that is what was written.
fn verified(hash: &PayloadHash, path: &Path, read: io::Result<Vec<u8>>) -> Result<Vec<u8>, NotRead> {
    let path = || path.to_owned();
    match read {
        Ok(body) if hash_of(&body) == *hash => Ok(body),
        Ok(_) => Err(NotRead::Changed(path())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NotRead::Missing(path())),
        Err(error) => Err(NotRead::Failed(path(), error)),
    }
}

/// What a body is named by.
pub(crate) fn hash_of(body: &[u8]) -> PayloadHash {
    Sha256::digest(body).into()
}

fn fill(path: &Path, body: &[u8], safe: Safe) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(body)?;
    if safe == Safe::No { Ok(()) } else { file.sync_data() }
}

fn sync_all(path: &Path, part: &Path) -> io::Result<()> {
    File::open(path)?.sync_data()?;
    sync(part)
}

/// Makes the names in a folder safe from a loss of power.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_written_once_and_a_changed_one_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let payloads = Payloads::new(folder.path().join("payloads"));
        let hash = payloads.write(b"abc", true).unwrap();
        assert_eq!(payloads.write(b"abc", false).unwrap(), hash);
        assert_eq!(payloads.read(&hash).unwrap(), b"abc");
        assert_eq!(payloads.part(hash[0]), [hash]);
        fs::write(payloads.path(&hash), b"abd").unwrap();
        assert!(matches!(payloads.read(&hash), Err(NotRead::Changed(_))));
        payloads.remove(&hash);
        assert!(matches!(payloads.read(&hash), Err(NotRead::Missing(_))));
    }

    #[test]
    fn what_was_cut_short_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let payloads = Payloads::new(folder.path().join("payloads"));
        let hash = payloads.write(b"abc", false).unwrap();
        fs::write(payloads.path(&hash), b"a").unwrap();
        payloads.write(b"abc", false).unwrap();
        assert_eq!(payloads.read(&hash).unwrap(), b"abc");
    }
}
