//! What the build of the JavaScript engine needs besides Rust and a C compiler: cmake, and the simde headers of its
//! WebAssembly interpreter. They are installed where that may be done unasked; else they are fetched by whoever runs
//! this to below `target`, by the names of their packages.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{self, Failure};
use crate::{env, paths, system};

/// Packages of Debian.
const CMAKE: &str = "cmake";
const MAKE: &str = "make";
const HEADERS: &str = "libsimde-dev";

/// What cmake can drive instead of make, and PyPI has.
const NINJA: &str = "ninja";

/// Brings what is missing.
pub(crate) fn set_up() -> Result<(), Failure> {
    let mut missing = Vec::new();
    missing.extend(Some(CMAKE).filter(|name| !is_here(name)));
    // Debian's cmake comes without, and so does gcc.
    missing.extend(Some(MAKE).filter(|name| !is_here(name) && !is_here(NINJA)));
    missing.extend(Some(HEADERS).filter(|_| !has_headers()));
    if missing.is_empty() {
        return Ok(());
    }
    if system::may_install() {
        return system::install(&missing, "the JavaScript engine is built with it");
    }
    fetch(&missing).map_err(|failure| {
        let names = missing.join(" ");
        Failure::new(format!(
            "the JavaScript engine cannot be built without {names}, and {failure}; \
             install it first: sudo apt-get install {names}"
        ))
    })
}

/// A cargo command that finds what was fetched.
pub(crate) fn equip(cargo: &mut Command) {
    cargo.env("PATH", search_path());
    if !is_here(MAKE) && is_here(NINJA) {
        cargo.env("CMAKE_GENERATOR", "Ninja");
    }
}

/// What was fetched comes last.
fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([tools()]);
    std::env::join_paths(folders).unwrap_or(path)
}

/// An archive that holds nothing: all that a check of the V8 variant needs of V8.
pub(crate) fn empty_archive() -> Result<PathBuf, Failure> {
    let path = paths::target().join("engine/empty.a");
    create(paths::target().join("engine"))?;
    // Written once: cargo looks at the time of the file.
    if !path.exists() {
        fs::write(&path, "!<arch>\n").map_err(|error| broken("write", &path, &error))?;
    }
    Ok(path)
}

fn is_here(program: &str) -> bool {
    shell::output_of(Command::new(program).arg("--version").env("PATH", search_path())).is_some()
}

/// Looks where `.cargo/simde.cmake` looks.
fn has_headers() -> bool {
    let places = [headers().join("usr/include"), "/usr/include".into(), "/usr/local/include".into()];
    places.iter().any(|place| place.join("simde/simde-arch.h").exists())
}

fn fetch(missing: &[&str]) -> Result<(), Failure> {
    if missing.contains(&CMAKE) {
        fetch_program(CMAKE)?;
    }
    if missing.contains(&MAKE) {
        fetch_program(NINJA)?;
    }
    if missing.contains(&HEADERS) { fetch_headers() } else { Ok(()) }
}

/// One program of the environment, without the Python that brought it.
fn fetch_program(name: &str) -> Result<(), Failure> {
    let program = env::cmake()?.with_file_name(name);
    let link = create(tools())?.join(name);
    let _ = fs::remove_file(&link);
    symlink(program, &link).map_err(|error| broken("create", &link, &error))
}

/// Needs no rights: the package is taken apart, not installed.
fn fetch_headers() -> Result<(), Failure> {
    let folder = create(paths::root().join("target/engine"))?;
    let download = |apt: &mut Command| shell::run(apt.args(["-q", "download", HEADERS]).current_dir(&folder));
    // Lists are missing on a fresh machine; whoever may not write those of the machine has some of their own.
    if download(&mut Command::new("apt-get")).is_err() {
        create(folder.join("apt/lists/partial"))?;
        create(folder.join("apt/archives/partial"))?;
        let with_lists = || {
            let mut apt = Command::new("apt-get");
            apt.arg("-o").arg(format!("Dir::State::lists={}", folder.join("apt/lists").display()));
            apt.arg("-o").arg(format!("Dir::Cache={}", folder.join("apt").display()));
            apt
        };
        shell::run(with_lists().args(["-q", "update"]))?;
        download(&mut with_lists())?;
    }
    let packages = fs::read_dir(&folder).map_err(|error| broken("read", &folder, &error))?;
    let mut packages = packages.flatten().map(|entry| entry.path());
    let Some(package) = packages.find(|path| path.extension().is_some_and(|end| end == "deb")) else {
        return Err(Failure::new(format!("there is no package in {}", folder.display())));
    };
    shell::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(headers()))
}

/// Where `.cargo/simde.cmake` finds them, wherever cargo's own folder is.
fn headers() -> PathBuf {
    paths::root().join("target/engine/simde")
}

fn tools() -> PathBuf {
    paths::root().join("target/engine/bin")
}

fn create(folder: PathBuf) -> Result<PathBuf, Failure> {
    fs::create_dir_all(&folder).map_err(|error| broken("create", &folder, &error))?;
    Ok(folder)
}

fn broken(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot {verb} {}: {error}", path.display()))
}
