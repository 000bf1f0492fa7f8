//! Sessions in JavaScript: their workers are this binary, started once more.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use cob_pool::Program;

use super::Failure;

/// `cob worker javascript`: not for people, and nothing of the command line is set up for it.
const ARGUMENTS: [&str; 2] = ["worker", "javascript"];

/// Whether this binary has the engine.
pub(crate) const IS_BUILT_IN: bool = cfg!(any(feature = "javascript", feature = "javascript-v8"));

/// What the engine is called.
pub(crate) const ENGINE: &str = if cfg!(feature = "javascript-v8") { "V8" } else { "QuickJS" };

/// What the engine is not good for, and what is.
pub(crate) const LACKS: Option<(&str, &str)> = match cfg!(feature = "javascript-v8") {
    true => None,
    false => Some((
        "no JIT: loops over numbers take 10 to 40 times as long; `Intl` formats hardly anything as the locale says",
        "where that matters, build cob with V8: docs/javascript.md says how",
    )),
};

/// What somebody is told who asks for what this binary does not have.
pub(crate) const HOW_TO_GET_IT: &str = "build it again with the feature `javascript`, which is on by default: \
                                        `cargo build --release -p cob-kernel`";

/// Whether this process was started as a worker. Then it never returns.
pub(crate) fn work_if_asked() {
    #[cfg(any(feature = "javascript", feature = "javascript-v8"))]
    if std::env::args_os().skip(1).eq(ARGUMENTS) {
        cob_javascript::main();
    }
}

/// What a session is recorded to run on: this binary, wherever it lies when its worker is started.
///
/// # Errors
/// When this binary has no engine.
pub(crate) fn find() -> Result<PathBuf, Failure> {
    match IS_BUILT_IN {
        true => Ok(PathBuf::from("cob")),
        false => Err(Failure::Usage(format!("this cob was built without JavaScript; {HOW_TO_GET_IT}"))),
    }
}

/// The worker program, with the variables that its code shall have.
pub(crate) fn program(environment: Vec<(OsString, OsString)>, directory: Option<PathBuf>) -> Program {
    Program::own(ARGUMENTS.map(OsString::from).to_vec(), environment, directory)
}

/// Names this binary, that very file: workers of another one may speak another protocol.
pub(crate) fn build() -> String {
    let file = std::fs::metadata("/proc/self/exe");
    let file = file.map_or_else(
        |_| format!("process {}", std::process::id()),
        |file| format!("{}-{}-{}-{}", file.dev(), file.ino(), file.size(), file.mtime_nsec() ^ file.mtime()),
    );
    format!("javascript-{}-{file}", env!("CARGO_PKG_VERSION"))
}
