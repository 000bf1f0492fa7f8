//! Formatting and lints. A step that passes counts nothing: it is not a test.

use crate::cargo;
use crate::engine;
use crate::shell::{self, Failure};
use crate::tally::Tally;

/// What is linted besides the workspace as it is built, package by package: features that only some ask for.
const VARIANTS: &[&[&str]] = &[
    // The export of spans is for those who ask for it.
    &["--package", "cob-kernel", "--all-targets", "--features", "otel"],
    // A build without JavaScript.
    &["--package", "cob-kernel", "--no-default-features"],
    // JavaScript on real V8. The check reads no byte of the engine, so that none has to be had.
    &["--package", "cob-kernel", "--no-default-features", "--features", "javascript-v8"],
    // The Python module is a feature that only the worker's own build turns on.
    &["--package", "cob-python", "--features", "module"],
];

pub(crate) fn run() -> Tally {
    let mut tally = Tally::default();
    let format = shell::run(&mut cargo::command(&["fmt", "--all", "--check"]));
    tally += Tally::default().with_outcome(format);
    tally += Tally::default().with_outcome(lint(&["--workspace", "--all-targets"]));
    for variant in VARIANTS {
        tally += Tally::default().with_outcome(lint(variant));
    }
    tally
}

fn lint(what: &[&str]) -> Result<(), Failure> {
    let mut clippy = cargo::command(&["clippy", "--quiet"]);
    clippy.args(what).args(["--", "--deny", "warnings"]);
    shell::run(clippy.env("RUSTY_V8_ARCHIVE", engine::empty_archive()?))
}
