//! Where things are. Everything that is written lies under cargo's target folder.

use std::path::{Path, PathBuf};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable at run time too; the compiled-in value only
    // serves a binary that is started by hand.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).ancestors().nth(2).map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    let root = root();
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// The folder of the test environments.
pub(crate) fn envs() -> PathBuf {
    target().join("test-env")
}

/// The folder `tests`, which holds suites, notebooks and requirements.
pub(crate) fn tests() -> PathBuf {
    root().join("tests")
}

/// The folder of the client that is written in Python.
pub(crate) fn python_client() -> PathBuf {
    root().join("clients/python")
}

/// The binary that `cargo build` leaves behind.
pub(crate) fn cob(release: bool) -> PathBuf {
    target().join(if release { "release" } else { "debug" }).join("cob")
}
