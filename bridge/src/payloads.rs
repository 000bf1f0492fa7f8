//! Bodies of large events: files named by the SHA-256 of what is in them, beside the database.
//!
//! **Invariant:** a file under its final name is whole, as far as the system goes on; at `power` it is on the disk
//! before the commit that names it. A file that no row names is left over from a commit that failed or a process that
//! died, and is swept away.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
        let hash: PayloadHash = Sha256::digest(body).into();
        let path = self.path(&hash);
        self.write_at(&path, body, is_power).map_err(|error| (path, error))?;
        Ok(hash)
    }

    fn write_at(&self, path: &Path, body: &[u8], is_power: bool) -> io::Result<()> {
        let part = path.parent().unwrap_or(&self.folder);
        if path.metadata().is_ok_and(|metadata| metadata.len() == body.len() as u64) {
            // Whoever wrote it may not have asked for it to be safe from a loss of power.
            return if is_power { sync_all(path, part) } else { Ok(()) };
        }
        for folder in [&self.folder, part] {
            match DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Err(_) => {}
                Ok(()) if is_power => sync(folder.parent().unwrap_or(folder))?,
                Ok(()) => {}
            }
        }
        let unfinished = self.folder.join("unfinished");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(body)?;
        if is_power {
            file.sync_data()?;
        }
        fs::rename(&unfinished, path)?;
        if is_power { sync(part) } else { Ok(()) }
    }

    /// The body with this hash.
    pub(crate) fn read(&self, hash: &PayloadHash) -> Result<Vec<u8>, NotRead> {
        let path = self.path(hash);
        match fs::read(&path) {
            Ok(body) if PayloadHash::from(Sha256::digest(&body)) == *hash => Ok(body),
            Ok(_) => Err(NotRead::Changed(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NotRead::Missing(path)),
            Err(error) => Err(NotRead::Failed(path, error)),
        }
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
