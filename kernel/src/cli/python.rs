//! Which Python runs the code, and how its worker is started.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use cob_pool::Program;
use serde::Deserialize;

use super::{Failure, absolute};

/// What an interpreter says of itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Interpreter {
    /// The real executable, behind any shim.
    pub(crate) executable: PathBuf,
    /// `3.11.7`
    pub(crate) version: String,
    /// `CPython`
    pub(crate) implementation: String,
    /// Whether it is a build without the global interpreter lock.
    pub(crate) free_threaded: bool,
    /// Of what cob can make use of: name to version, absent when not installed.
    pub(crate) packages: std::collections::BTreeMap<String, String>,
}

const QUESTION: &str = r"
import json, platform, sys
packages = {}
try:
    from importlib.metadata import version
    for name in ('ipython', 'numpy', 'pandas', 'matplotlib', 'ipywidgets', 'comm', 'jedi'):
        try:
            packages[name] = version(name)
        except Exception:
            pass
except ImportError:
    pass
print(json.dumps({
    'executable': sys.executable, 'version': platform.python_version(),
    'implementation': platform.python_implementation(),
    'free_threaded': 't' in getattr(sys, 'abiflags', ''), 'packages': packages,
}))
";

impl Interpreter {
    /// Asks the interpreter at `path`.
    pub(crate) fn ask(path: &Path) -> Result<Self, Failure> {
        let name = path.display();
        let mut command = Command::new(path);
        command.args(["-c", QUESTION]).env_remove("PYTHONSTARTUP");
        let output = cob_pool::output_of(&mut command)
            .map_err(|error| Failure::Usage(format!("cannot run the interpreter `{name}`: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::Usage(format!("`{name}` is no working Python: {}", said.trim())));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|_| Failure::Usage(format!("`{name}` does not answer like a Python interpreter")))
    }

    /// Why cob cannot use it, if it cannot.
    pub(crate) fn objection(&self) -> Option<String> {
        let numbers: Vec<u32> = self.version.split('.').map_while(|n| n.parse().ok()).collect();
        let version = (numbers.first().copied().unwrap_or(0), numbers.get(1).copied().unwrap_or(0));
        let Self { executable, version: text, implementation, .. } = self;
        let what = if implementation != "CPython" {
            "CPython 3.10 or newer is needed"
        } else if version < (3, 10) {
            "Python 3.10 or newer is needed"
        } else if self.free_threaded {
            "a build with the global interpreter lock is needed"
        } else {
            return None;
        };
        Some(format!("{} is {implementation} {text}; {what}", executable.display()))
    }

    /// The interpreter at `path`, if cob can use it.
    pub(crate) fn usable(path: &Path) -> Result<Self, Failure> {
        let interpreter = Self::ask(path)?;
        match interpreter.objection() {
            Some(why) => Err(Failure::Usage(why)),
            None => Ok(interpreter),
        }
    }
}

/// The interpreter that is meant: the one named, else that of the active virtual environment, else `python3`.
pub(crate) fn choose(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return find(path)
            .ok_or_else(|| Failure::Usage(format!("there is no interpreter `{}`", path.display())));
    }
    let active = std::env::var_os("VIRTUAL_ENV").map(|prefix| Path::new(&prefix).join("bin/python"));
    active.filter(|path| path.exists()).or_else(|| find(Path::new("python3"))).ok_or_else(|| {
        Failure::Usage(
            "there is no `python3` here; install Python 3.10 or newer, or name one with --python".into(),
        )
    })
}

/// A path as it stands, a bare name in the search path.
fn find(path: &Path) -> Option<PathBuf> {
    if path.components().count() > 1 {
        return path.is_file().then(|| absolute(path).ok()).flatten();
    }
    let places = std::env::var_os("PATH")?;
    std::env::split_paths(&places).map(|place| place.join(path)).find(|candidate| candidate.is_file())
}

/// The executable itself: a script that stands in for it (pyenv's shims) is asked for what it stands for.
pub(crate) fn resolve(path: PathBuf) -> Result<PathBuf, Failure> {
    let is_script = std::fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"#!"));
    if is_script { Ok(Interpreter::usable(&path)?.executable) } else { Ok(path) }
}

/// The worker program of an interpreter, with the variables that its code shall have.
pub(crate) fn program(
    interpreter: PathBuf,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
) -> Program {
    Program {
        path: interpreter,
        arguments: vec![OsString::from("-c"), OsString::from(cob_python::BOOTSTRAP)],
        image: Some(cob_python::MODULE),
        environment,
        directory,
    }
}

/// Names what workers are made of: those of another build do not fit this one.
pub(crate) fn build() -> String {
    let mut digest = DefaultHasher::new();
    (cob_python::MODULE, cob_python::BOOTSTRAP).hash(&mut digest);
    format!("{}-{:016x}", env!("CARGO_PKG_VERSION"), digest.finish())
}
