//! The Python environments of the tests, in `target/test-env`:
//!
//! - `client`: what the tests themselves run in (pytest, Jupyter's clients);
//! - `rich`: a user's environment with IPython, numpy, pandas, matplotlib;
//! - `bare`: a user's environment with nothing at all;
//! - `py310` … `py313`, `system`: bare ones, of each Python that is here;
//! - `bench`: numpy and serializers, made when checkpoints are measured;
//! - `deno`: Deno, made when JavaScript is measured;
//! - `cmake`: cmake and ninja, where the machine has none and they may not be installed.
//!
//! **Invariant:** a folder with a stamp is complete, and was made from exactly
//! what the stamp says. Two set-ups at once wait for each other.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::engine;
use crate::paths;
use crate::python::{self, Interpreter};
use crate::shell::{self, Failure};
use crate::system;

/// The environments that are ready, as paths of their Pythons.
pub(crate) struct Envs {
    pub(crate) client: PathBuf,
    pub(crate) rich: PathBuf,
    pub(crate) bare: PathBuf,
    /// Name and Python of each supported version; `None` where it is absent.
    pub(crate) pythons: Vec<(String, Option<PathBuf>)>,
}

impl fmt::Display for Envs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, path) in [("client", &self.client), ("rich", &self.rich), ("bare", &self.bare)] {
            writeln!(f, "{name:8} {}", path.display())?;
        }
        for (index, (name, path)) in self.pythons.iter().enumerate() {
            let end = if index + 1 == self.pythons.len() { "" } else { "\n" };
            match path {
                Some(path) => write!(f, "{name:8} {}{end}", path.display())?,
                None => write!(f, "{name:8} absent{end}")?,
            }
        }
        Ok(())
    }
}

/// Creates what is missing or out of date.
pub(crate) fn set_up() -> Result<Envs, Failure> {
    let folder = paths::envs();
    fs::create_dir_all(&folder).map_err(|error| broken("create", &folder, &error))?;
    engine::set_up()?;
    let _lock = lock(&folder.join(".lock"))?;

    let main = python::main()?;
    let client = create("client", &main, Some("client.txt"))?;
    let rich = create("rich", &main, Some("rich.txt"))?;
    let bare = create("bare", &main, None)?;

    let mut pythons = Vec::new();
    for version in python::VERSIONS {
        let name = format!("py{}{}", version.0, version.1);
        let path = python::find(version).map(|found| create(&name, &found, None)).transpose()?;
        pythons.push((name, path));
    }
    let system = python::system().map(|found| create("system", &found, None)).transpose()?;
    pythons.push(("system".to_owned(), system));
    Ok(Envs { client, rich, bare, pythons })
}

/// The interpreter that checkpoints are measured with; no test needs it.
pub(crate) fn bench() -> Result<PathBuf, Failure> {
    on_demand("bench", "bench.txt")
}

/// The environment that holds Deno, whose kernel JavaScript is measured against.
pub(crate) fn deno() -> Result<PathBuf, Failure> {
    on_demand("deno", "deno.txt")
}

/// The environment that holds cmake and ninja.
pub(crate) fn cmake() -> Result<PathBuf, Failure> {
    on_demand("cmake", "cmake.txt")
}

/// One that most runs do without.
fn on_demand(name: &str, requirements: &str) -> Result<PathBuf, Failure> {
    let folder = paths::envs();
    fs::create_dir_all(&folder).map_err(|error| broken("create", &folder, &error))?;
    let _lock = lock(&folder.join(".lock"))?;
    create(name, &python::main()?, Some(requirements))
}

/// Held until the returned file is dropped.
fn lock(path: &Path) -> Result<File, Failure> {
    let file = File::create(path).map_err(|error| broken("create", path, &error))?;
    file.lock().map_err(|error| broken("lock", path, &error))?;
    Ok(file)
}

/// One environment; returns its Python.
fn create(name: &str, base: &Interpreter, requirements: Option<&str>) -> Result<PathBuf, Failure> {
    let folder = paths::envs().join(name);
    let python = folder.join("bin/python");
    let requirements = requirements.map(|file| paths::tests().join("requirements").join(file));
    let stamp = stamp(base, requirements.as_deref())?;
    let stamp_file = folder.join("stamp");
    if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) && python.exists() {
        return Ok(python);
    }

    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| broken("remove", &folder, &error))?;
    }
    if requirements.is_some() {
        need_pip(base)?;
    }
    let mut venv = shell::command(&base.path);
    venv.args(["-m", "venv"]).args(requirements.is_none().then_some("--without-pip")).arg(&folder);
    shell::run(&mut venv)?;
    if let Some(requirements) = requirements {
        let mut pip = shell::command(&python);
        pip.args(["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--requirement"])
            .arg(requirements);
        shell::run(&mut pip)?;
    }
    fs::write(&stamp_file, stamp).map_err(|error| broken("write", &stamp_file, &error))?;
    Ok(python)
}

/// What an environment is made from, in full: nothing to collide, easy to read.
fn stamp(base: &Interpreter, requirements: Option<&Path>) -> Result<String, Failure> {
    let packages = match requirements {
        Some(file) => fs::read_to_string(file).map_err(|error| broken("read", file, &error))?,
        None => String::new(),
    };
    Ok(format!("{}.{} {}\n{packages}", base.version.0, base.version.1, base.path.display()))
}

/// Debian splits the part of `venv` that brings pip into a package of its own.
fn need_pip(base: &Interpreter) -> Result<(), Failure> {
    let works =
        || shell::output_of(shell::command(&base.path).args(["-c", "import ensurepip, venv"])).is_some();
    if works() {
        return Ok(());
    }
    let package = if base.path.starts_with("/usr/bin") {
        format!("python{}.{}-venv", base.version.0, base.version.1)
    } else {
        "python3-venv".to_owned()
    };
    system::install(&[&package], "this Python cannot create virtual environments")?;
    if works() {
        Ok(())
    } else {
        Err(Failure::new(format!("{} still cannot create virtual environments.", base.path.display())))
    }
}

fn broken(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot {verb} {}: {error}", path.display()))
}
