//! Calls to cargo, with the cargo that started us.

use std::process::Command;

use crate::engine;
use crate::env::Envs;
use crate::paths;
use crate::shell::{self, Failure};
use crate::tally::Tally;

/// A cargo command in the root of the repository.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root()).args(arguments);
    engine::equip(&mut command);
    command
}

/// Builds the binary `cob`.
pub(crate) fn build(release: bool) -> Result<(), Failure> {
    let mut build = command(&["build", "--package", "cob-kernel"]);
    if release {
        build.arg("--release");
    }
    shell::run(&mut build)
}

/// Every Rust test of the workspace. Those that talk to pyzmq find it in the clients' Python; those of the worker
/// run in every Python there is.
pub(crate) fn test(envs: &Envs) -> Tally {
    let mut tally = Tally::default();
    let mut test = command(&["test", "--workspace", "--no-fail-fast"]);
    test.env("COB_TEST_PYTHON", &envs.client);
    if let Ok(pythons) = std::env::join_paths(envs.pythons.iter().filter_map(|(_, path)| path.as_ref())) {
        test.env("COB_TEST_PYTHONS", pythons);
    }
    // What a build without features leaves out.
    let exported =
        command(&["test", "--package", "cob-kernel", "--features", "otel", "--bin", "cob", "telemetry"]);
    for mut test in [test, exported] {
        let outcome = shell::run_watched(&mut test, |line| {
            if let Some(summary) = Tally::from_cargo(line) {
                tally += summary;
            }
        });
        tally = tally.with_outcome(outcome);
    }
    tally
}
