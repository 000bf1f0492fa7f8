//! The folder of keys for CURVE: the server's own pair, and the public keys of those who may come in.
//!
//! `server.key` and, for clients whose pair was made here, `NAME.key` hold secrets; `authorized/NAME.pub` lets `NAME` in.
//! Every file holds one key in Z85, appears whole or not at all, and is never overwritten.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cob_protocol::limits::KEY_FILE_BYTES_MAX;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::zmtp::curve::{Authorized, CurveError, NameError, PublicKey, SecretKey, check_name};

/// Name of the server's own pair.
const SERVER: &str = "server";

/// Why the keys cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} holds no key; expected 40 characters in Z85", .0.display())]
    Content(PathBuf),
    /// Others could read a secret, or let somebody in.
    #[error("{} is open to other users; close it with `chmod go-rwx {}`", .0.display(), .0.display())]
    Open(PathBuf),
    /// It cannot be the name of a key.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It is the name of the server's own pair.
    #[error("`{SERVER}` is the server's own pair; choose another name")]
    Reserved,
    /// Somebody has this name.
    #[error("`{0}` has a key already; remove it first with `cob keys remove {0}`")]
    Taken(String),
    /// Somebody has this public key.
    #[error("this public key comes in as `{0}` already")]
    Known(String),
    /// Nobody has this name.
    #[error("there is no key of `{0}`; `cob keys list` shows the names")]
    Unknown(String),
    /// No pair can be made.
    #[error(transparent)]
    Curve(#[from] CurveError),
}

/// A folder of keys.
#[derive(Clone, Debug)]
pub struct KeyFolder(PathBuf);

/// The server's own pair.
#[derive(Clone, Debug)]
pub struct ServerKey {
    /// The pair.
    pub secret: SecretKey,
    /// Where it is kept.
    pub file: PathBuf,
    /// Whether it was made just now.
    pub is_new: bool,
}

/// A client that may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// Its name, which is its principal.
    pub name: String,
    /// Its public key.
    pub public: PublicKey,
    /// Where its secret key is, if that is kept here.
    pub secret_file: Option<PathBuf>,
}

impl KeyFolder {
    /// The keys in that folder. It need not exist yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The folder of those who may come in, for [`super::Trust::Curve`].
    #[must_use]
    pub fn authorized(&self) -> PathBuf {
        self.0.join("authorized")
    }

    /// The server's own pair; made the first time.
    ///
    /// # Errors
    /// [`KeyError`], also when others could read the secret or let somebody in.
    pub fn server(&self) -> Result<ServerKey, KeyError> {
        self.make_folders()?;
        let file = self.secret_file(SERVER);
        let made = SecretKey::generate()?;
        let is_new = create(&file, &made.to_text())?;
        Ok(ServerKey { secret: if is_new { made } else { read_secret(&file)? }, file, is_new })
    }

    /// The server's public key, if it has a pair.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn server_public(&self) -> Result<Option<PublicKey>, KeyError> {
        let file = self.secret_file(SERVER);
        match read_secret(&file) {
            Ok(secret) => Ok(Some(secret.public())),
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets `name` in with this public key; with a new pair, whose secret is kept here, if there is none.
    ///
    /// # Errors
    /// [`KeyError`]; nothing has changed then.
    pub fn add(&self, name: &str, public: Option<PublicKey>) -> Result<ClientKey, KeyError> {
        check_name(name)?;
        if name == SERVER {
            return Err(KeyError::Reserved);
        }
        self.make_folders()?;
        let taken = || KeyError::Taken(name.to_owned());
        for known in self.list()? {
            if known.name == name {
                return Err(taken());
            }
            if Some(known.public) == public {
                return Err(KeyError::Known(known.name));
            }
        }
        let (public, secret_file) = match public {
            Some(public) => (public, None),
            None => {
                let secret = SecretKey::generate()?;
                let file = self.secret_file(name);
                if !create(&file, &secret.to_text())? {
                    return Err(taken());
                }
                (secret.public(), Some(file))
            }
        };
        let added = create(&self.public_file(name), &public.to_string());
        if let (Ok(false) | Err(_), Some(file)) = (&added, &secret_file) {
            // A secret that opens nothing.
            let _ = fs::remove_file(file);
        }
        if added? { Ok(ClientKey { name: name.to_owned(), public, secret_file }) } else { Err(taken()) }
    }

    /// Who may come in, in the order of the names.
    ///
    /// # Errors
    /// [`KeyError::Io`].
    pub fn list(&self) -> Result<Vec<ClientKey>, KeyError> {
        let folder = self.authorized();
        let keys = Authorized::new(folder.clone()).list().map_err(at(&folder))?;
        let known = |(name, public): (String, PublicKey)| {
            let secret_file = Some(self.secret_file(&name)).filter(|file| file.exists());
            ClientKey { name, public, secret_file }
        };
        Ok(keys.into_iter().map(known).collect())
    }

    /// Lets `name` in no longer, and forgets its secret if that is kept here. Who is connected stays so.
    ///
    /// # Errors
    /// [`KeyError::Unknown`], [`KeyError::Io`].
    pub fn remove(&self, name: &str) -> Result<(), KeyError> {
        check_name(name)?;
        if name == SERVER {
            return Err(KeyError::Reserved);
        }
        // The public one first: half of it done, nobody comes in.
        let files = [self.public_file(name), self.secret_file(name)];
        let mut is_known = false;
        for file in files {
            match fs::remove_file(&file) {
                Ok(()) => is_known = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&file)(error)),
            }
        }
        if is_known { Ok(()) } else { Err(KeyError::Unknown(name.to_owned())) }
    }

    fn secret_file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.key"))
    }

    fn public_file(&self, name: &str) -> PathBuf {
        Authorized::new(self.authorized()).file(name)
    }

    fn make_folders(&self) -> Result<(), KeyError> {
        for folder in [self.0.clone(), self.authorized()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(at(&folder))?;
            let metadata = fs::metadata(&folder).map_err(at(&folder))?;
            let is_ours = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
            if !is_ours || metadata.mode() & 0o022 != 0 {
                return Err(KeyError::Open(folder));
            }
        }
        Ok(())
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { path, source }
}

fn read_secret(path: &Path) -> Result<SecretKey, KeyError> {
    let file = fs::File::open(path).map_err(at(path))?;
    if file.metadata().map_err(at(path))?.mode() & 0o077 != 0 {
        return Err(KeyError::Open(path.to_owned()));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text).map_err(at(path))?;
    text.trim().parse().map_err(|_| KeyError::Content(path.to_owned()))
}

/// Writes a file that only its owner may read, whole or not at all; `false` when there is one.
fn create(path: &Path, text: &str) -> Result<bool, KeyError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Beside it, under a name that no key has.
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = write_new(&beside, text).and_then(|()| match fs::hard_link(&beside, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        linked => linked.map(|()| true),
    });
    // Of a file that was not made there is nothing to remove.
    let _ = fs::remove_file(&beside);
    written.map_err(at(path))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    // Of a process of the same number that was killed.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
