//! Formatting and lints. A step that passes counts nothing: it is not a test.

use crate::cargo;
use crate::shell;
use crate::tally::Tally;

const STEPS: &[&[&str]] = &[
    &["fmt", "--all", "--check"],
    &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"],
    // The export of spans is for those who ask for it.
    &[
        "clippy",
        "--quiet",
        "--package",
        "cob-kernel",
        "--all-targets",
        "--features",
        "otel",
        "--",
        "--deny",
        "warnings",
    ],
    // The Python module is a feature that only the worker's own build turns on.
    &["clippy", "--quiet", "--package", "cob-python", "--features", "module", "--", "--deny", "warnings"],
];

pub(crate) fn run() -> Tally {
    let mut tally = Tally::default();
    for step in STEPS {
        tally += Tally::default().with_outcome(shell::run(&mut cargo::command(step)));
    }
    tally
}
