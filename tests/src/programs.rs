//! The programs that tests start: the binary `cob`, a Python for its workers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary under test; see the crate's page for where it comes from.
///
/// # Panics
/// When it cannot be built.
pub fn cob() -> &'static Path {
    static COB: OnceLock<PathBuf> = OnceLock::new();
    COB.get_or_init(|| std::env::var_os("COB_BIN").map_or_else(build, PathBuf::from))
}

/// Cargo builds no binary of another package for a test, and building is the only way to know that it is current.
fn build() -> PathBuf {
    // target/PROFILE/deps/TEST
    let test = std::env::current_exe().expect("a running test");
    let folder = test.ancestors().nth(2).expect("a target folder").to_owned();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::source::root()).args([
        "build",
        "--quiet",
        "--package",
        "cob-kernel",
        "--bin",
        "cob",
    ]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "cob does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    folder.join("cob")
}

/// A Python that cob supports, as a real executable.
///
/// # Panics
/// When there is none.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        if let Some(bare) = std::env::var_os("COB_BARE") {
            return bare.into();
        }
        let names = ["python3", "/usr/bin/python3", "python3.13", "python3.12", "python3.11", "python3.10"];
        names.into_iter().find_map(executable).expect("a Python of version 3.10 or newer")
    })
}

/// The executable behind `name`, which may be a shim, if its version will do.
fn executable(name: &str) -> Option<PathBuf> {
    const QUESTION: &str = "import sys; print(sys.executable if sys.version_info >= (3, 10) else '')";
    let output = Command::new(name).args(["-I", "-c", QUESTION]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    Some(path.trim()).filter(|path| !path.is_empty()).map(PathBuf::from)
}
