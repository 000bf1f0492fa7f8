//! The pytest suite: cob as seen by real Jupyter clients.

use std::path::Path;
use std::process::Command;

use crate::env::Envs;
use crate::tally::Tally;
use crate::{cargo, paths, shell};

/// What `cargo xtask python` was asked.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    /// Test the release build instead of the debug build.
    pub(crate) release: bool,
    /// Test ipykernel: a test that fails there is wrong, or asks for more.
    pub(crate) reference: bool,
    /// Handed on to pytest.
    pub(crate) pytest: Vec<String>,
}

/// What a warm worker might do otherwise than one that was started: everything about the interpreter itself, of every
/// language.
const WARM: &[&str] = &[
    "--warm",
    "test_async.py",
    "test_comms.py",
    "test_death.py",
    "test_display.py",
    "test_engine.py",
    "test_errors.py",
    "test_execute.py",
    "test_fork.py",
    "test_interrupt.py",
    "test_languages.py",
    "test_order.py",
    "test_stdin.py",
];

/// What a kernel might do otherwise whose code would outlive it: everything about frames, pipes and their order.
const SURVIVING: &[&str] = &[
    "--surviving",
    "test_comms.py",
    "test_death.py",
    "test_display.py",
    "test_fork.py",
    "test_interrupt.py",
    "test_languages.py",
    "test_order.py",
    "test_stdin.py",
    "test_volume.py",
];

/// A part of the suite once more, with workers that a server keeps warm.
pub(crate) fn run_warm(envs: &Envs) -> Tally {
    run_part(envs, WARM)
}

/// A part of the suite once more, with kernels whose workers would outlive them.
pub(crate) fn run_surviving(envs: &Envs) -> Tally {
    run_part(envs, SURVIVING)
}

fn run_part(envs: &Envs, part: &[&str]) -> Tally {
    let pytest = part.iter().map(|word| (*word).to_owned()).collect();
    run(envs, &Options { pytest, ..Options::default() })
}

pub(crate) fn run(envs: &Envs, options: &Options) -> Tally {
    let mut pytest = pytest(envs, options);
    if !options.reference {
        if let Err(failure) = cargo::build(options.release) {
            return Tally::default().with_outcome(Err(failure));
        }
        pytest.env("COB_BIN", paths::cob(options.release));
    }
    watched(&mut pytest)
}

/// The tests of the Python client, against servers that they start themselves.
pub(crate) fn run_client(envs: &Envs) -> Tally {
    if let Err(failure) = cargo::build(false) {
        return Tally::default().with_outcome(Err(failure));
    }
    let mut pytest = shell::command(&envs.client);
    pytest.current_dir(paths::python_client()).args(["-m", "pytest", "-n", "4"]);
    pytest.env("COB_BIN", paths::cob(false)).env("COB_TEST_PYTHON", &envs.bare);
    watched(&mut pytest)
}

fn watched(pytest: &mut Command) -> Tally {
    let mut tally = Tally::default();
    let outcome = shell::run_watched(pytest, |line| {
        if let Some(summary) = Tally::from_pytest(line) {
            tally = summary;
        }
    });
    tally.with_outcome(outcome)
}

fn pytest(envs: &Envs, options: &Options) -> Command {
    let mut pytest = shell::command(&envs.client);
    pytest.current_dir(paths::tests().join("python")).args(["-m", "pytest"]).args(&options.pytest);
    pytest.env_remove("COB_BIN").env("COB_RICH", &envs.rich).env("COB_BARE", &envs.bare);
    let listed = envs.pythons.iter().map(|(name, path)| {
        let path = path.as_deref().unwrap_or(Path::new(""));
        format!("{name}={}", path.display())
    });
    pytest.env("COB_PYTHONS", listed.collect::<Vec<_>>().join("\n"));
    pytest
}
