//! Running other programs: loud, quiet, or watched line by line.

use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Why a step ended: one sentence for a person.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A command that does not inherit what would lead a Python astray.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in ["PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"] {
        command.env_remove(name);
    }
    command
}

/// Runs to the end with output shown; anything but success is a failure.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let name = name_of(command);
    println!("$ {name}");
    let status = command.status().map_err(|error| Failure(format!("cannot start `{name}`: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure(format!("`{name}` failed: {status}"))) }
}

/// What the command prints, when it succeeds.
pub(crate) fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Runs to the end, passing standard output on while `see` looks at every line.
pub(crate) fn run_watched(command: &mut Command, mut see: impl FnMut(&str)) -> Result<(), Failure> {
    let name = name_of(command);
    println!("$ {name}");
    let broken = |error: std::io::Error| Failure(format!("cannot run `{name}`: {error}"));
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(broken)?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).map_err(broken)? > 0 {
            // A reader that went away must not stop the tests.
            let _ = std::io::stdout().write_all(&line);
            see(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
    }
    let status = child.wait().map_err(broken)?;
    if status.success() { Ok(()) } else { Err(Failure(format!("`{name}` failed: {status}"))) }
}

/// The command as one would type it, without the path of the program.
fn name_of(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
