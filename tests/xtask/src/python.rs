//! The Pythons of this machine: real binaries, never the shims of a version manager.

use std::path::{Path, PathBuf};

use crate::shell::{self, Failure};
use crate::system;

/// The versions that cob supports and the tests ask for by name.
pub(crate) const VERSIONS: [(u32, u32); 4] = [(3, 10), (3, 11), (3, 12), (3, 13)];

/// Debian's own Python: built statically, without a libpython.
const SYSTEM: &str = "/usr/bin/python3";

/// Tells version and real path, also when asked through a shim or inside a venv.
const PROBE: &str = "import os, sys; \
    print(*sys.version_info[:2], os.path.realpath(getattr(sys, '_base_executable', sys.executable)))";

/// One interpreter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Interpreter {
    pub(crate) version: (u32, u32),
    pub(crate) path: PathBuf,
}

impl Interpreter {
    fn probe(program: impl AsRef<std::ffi::OsStr>) -> Option<Self> {
        Self::parse(&shell::output_of(shell::command(program).args(["-I", "-c", PROBE]))?)
    }

    fn parse(answer: &str) -> Option<Self> {
        let mut words = answer.splitn(3, ' ');
        let version = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { version, path: words.next()?.into() })
    }

    fn is_supported(&self) -> bool {
        self.version >= VERSIONS[0]
    }
}

/// The Python that the environments with packages are made from.
pub(crate) fn main() -> Result<Interpreter, Failure> {
    if let Some(wanted) = std::env::var_os("COB_PYTHON") {
        let named = wanted.to_string_lossy().into_owned();
        return Interpreter::probe(&wanted).filter(Interpreter::is_supported).ok_or_else(|| {
            Failure::new(format!("COB_PYTHON names `{named}`, which is no Python 3.10 or newer."))
        });
    }
    if let Some(found) = first_supported() {
        return Ok(found);
    }
    system::install(&["python3"], "cob needs Python 3.10 or newer, and there is none")?;
    first_supported().ok_or_else(|| {
        Failure::new(
            "this system's python3 is older than 3.10; install a newer one and name it in COB_PYTHON.",
        )
    })
}

fn first_supported() -> Option<Interpreter> {
    let found =
        ["python3", SYSTEM].into_iter().filter_map(Interpreter::probe).find(Interpreter::is_supported);
    found.or_else(|| VERSIONS.iter().rev().find_map(|&version| find(version)))
}

/// A Python of exactly this version.
pub(crate) fn find(version: (u32, u32)) -> Option<Interpreter> {
    let name = format!("python{}.{}", version.0, version.1);
    candidates(&name).into_iter().filter_map(Interpreter::probe).find(|found| found.version == version)
}

/// Debian's own Python, if there is one that cob supports.
pub(crate) fn system() -> Option<Interpreter> {
    Interpreter::probe(SYSTEM).filter(Interpreter::is_supported)
}

/// Places where a Python of this name may be, the most deliberate first.
fn candidates(name: &str) -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from(name)];
    if let Some(home) = std::env::home_dir() {
        for versions in [".pyenv/versions", ".local/share/uv/python"] {
            places.extend(
                sorted_children(&home.join(versions)).into_iter().rev().map(|dir| dir.join("bin").join(name)),
            );
        }
    }
    places.push(Path::new("/usr/bin").join(name));
    places.push(Path::new("/usr/local/bin").join(name));
    // A bare name is looked up on the path; the others must exist.
    places.retain(|place| place.is_relative() || place.exists());
    places
}

fn sorted_children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut children: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    children.sort();
    children
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_answer_is_parsed_with_spaces_in_the_path() {
        let found = Interpreter::parse("3 12 /opt/my pythons/bin/python3.12");
        assert_eq!(
            found,
            Some(Interpreter { version: (3, 12), path: "/opt/my pythons/bin/python3.12".into() })
        );
        assert_eq!(Interpreter::parse(""), None);
        assert_eq!(Interpreter::parse("Python 3.12"), None);
    }
}
