//! The folder where stores live, and which of them is meant.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cob_bridge::{OpenError, known_stores, sweep_stores};

use super::Failure;

/// `COB_STATE_DIR`, else `cob` in `XDG_STATE_HOME`, else `~/.local/state/cob`.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    from_surroundings(|name| std::env::var_os(name).map(PathBuf::from))
        .ok_or_else(|| Failure::usage("set COB_STATE_DIR or HOME, or name the store with --store"))
}

fn from_surroundings(get: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let named = |name| get(name).filter(|value| !value.as_os_str().is_empty());
    // The specification of these variables wants relative ones ignored.
    let xdg = || named("XDG_STATE_HOME").filter(|folder| folder.is_absolute());
    named("COB_STATE_DIR")
        .or_else(|| xdg().map(|folder| folder.join("cob")))
        .or_else(|| named("HOME").map(|home| home.join(".local/state/cob")))
}

fn kernels() -> Result<PathBuf, Failure> {
    Ok(folder()?.join("kernels"))
}

/// The store of the kernel with this connection file: the same file finds the same store again, and no other does.
pub(crate) fn of_kernel(connection_file: &Path) -> Result<PathBuf, Failure> {
    let stem = connection_file.file_stem().filter(|stem| *stem != "." && *stem != "..");
    let stem = stem.ok_or_else(|| {
        Failure::Usage(format!("{} does not name a connection file", connection_file.display()))
    })?;
    let path = super::absolute(connection_file)?;
    let hash = cob_protocol::signing::body_hash(path.as_os_str().as_bytes());
    let mut name = stem.to_owned();
    // Many front ends call their files alike.
    name.push(format!("-{}", hex::encode(&hash[..4])));
    Ok(kernels()?.join(name))
}

/// The store that is meant: the one that was named, else the kernel's or the server's that was written last.
pub(crate) fn chosen(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(folder) = named {
        return Ok(folder);
    }
    let (all, kernels) = (folder()?, kernels()?);
    let look = |folder: &Path| {
        known_stores(folder).map_err(|error| {
            Failure::Usage(format!(
                "cannot look for stores in {}: {error}; name one with --store",
                folder.display()
            ))
        })
    };
    // That of the server lies beside those of kernels.
    let known = look(&kernels)?.into_iter().chain(look(&all)?);
    known.max_by_key(|store| store.written_at).map(|store| store.folder).ok_or_else(|| {
        Failure::Usage(format!(
            "nothing was recorded in {} yet; `cob kernel` and `cob serve` do that, and --store names another folder",
            all.display()
        ))
    })
}

/// Removes stores of kernels that ended long ago. Every kernel does it when it ends; what fails is left for the next.
pub(crate) fn sweep() {
    let Ok(kernels) = kernels() else { return };
    if let Err(error) = sweep_stores(&kernels, SystemTime::now()) {
        tracing::debug!(%error, folder = %kernels.display(), "old stores not removed");
    }
}

/// Why a store cannot be read: damage and trouble are failures, everything else was asked wrongly.
pub(crate) fn not_opened(error: OpenError) -> Failure {
    match error {
        OpenError::Missing { .. } => Failure::usage(error),
        error => Failure::failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_where_the_surroundings_say() {
        let find = |pairs: &[(&str, &str)]| {
            from_surroundings(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
        };
        let path = |text: &str| Some(PathBuf::from(text));
        let home = ("HOME", "/home/me");
        assert_eq!(find(&[home]), path("/home/me/.local/state/cob"));
        assert_eq!(find(&[home, ("XDG_STATE_HOME", "/state")]), path("/state/cob"));
        assert_eq!(find(&[home, ("XDG_STATE_HOME", "state")]), path("/home/me/.local/state/cob"));
        assert_eq!(find(&[home, ("COB_STATE_DIR", "/x"), ("XDG_STATE_HOME", "/state")]), path("/x"));
        assert_eq!(find(&[home, ("COB_STATE_DIR", "")]), path("/home/me/.local/state/cob"));
        assert_eq!(find(&[]), None);
    }
}
