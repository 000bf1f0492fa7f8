//! Programs whose system calls are watched, and made to fail, by `strace`: what reaches the disk, and in which order
//! with what is told.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Whether programs can be traced here; says so when they cannot.
#[must_use]
pub fn works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    let works = *WORKS.get_or_init(|| {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=1", "true"]);
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        strace.status().is_ok_and(|status| status.success())
    });
    if !works {
        crate::cgroups::skipped("no strace, or it may trace nothing here");
    }
    works
}

/// A trace of some system calls of a program and all its threads and children.
#[derive(Debug)]
pub struct Trace {
    file: PathBuf,
    calls: String,
    injections: Vec<String>,
}

/// A system call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// Its name.
    pub name: String,
    /// Everything in its parentheses, with the paths of descriptors.
    pub arguments: String,
    /// What it gave back, for people.
    pub result: String,
}

impl Trace {
    /// A trace of these calls (`write,fdatasync`) into a file in `folder`.
    #[must_use]
    pub fn new(folder: &Path, calls: &str) -> Self {
        Self { file: folder.join("trace"), calls: calls.to_owned(), injections: Vec::new() }
    }

    /// Some calls fail: `fdatasync:error=EIO:when=3`.
    #[must_use]
    pub fn inject(mut self, what: &str) -> Self {
        self.injections.push(format!("inject={what}"));
        self
    }

    /// What starts a program under this trace; the program is the child, not strace.
    #[must_use]
    pub fn launcher(&self) -> Vec<OsString> {
        let mut launcher: Vec<OsString> =
            ["strace", "-DD", "-f", "-y", "-s", "64", "-o"].map(Into::into).into();
        launcher.push(self.file.clone().into());
        launcher.extend(["-e".into(), format!("trace={}", self.calls).into()]);
        launcher.extend(self.injections.iter().flat_map(|what| ["-e".into(), what.into()]));
        launcher.push("--".into());
        launcher
    }

    /// The calls so far, in the order in which they ended.
    ///
    /// # Panics
    /// When there is no trace.
    #[must_use]
    pub fn calls(&self) -> Vec<Called> {
        let text = std::fs::read_to_string(&self.file).expect("a trace");
        parse(&text)
    }
}

fn parse(text: &str) -> Vec<Called> {
    let mut begun: Vec<(String, String)> = Vec::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(first) = rest.strip_suffix(" <unfinished ...>") {
            begun.push((thread.to_owned(), first.to_owned()));
            continue;
        }
        let mut whole = rest.to_owned();
        if rest.starts_with("<... ")
            && let Some((_, second)) = rest.split_once(" resumed>")
        {
            let place = begun.iter().position(|(other, _)| other == thread);
            let Some(place) = place else { continue };
            whole = begun.swap_remove(place).1 + second;
        }
        let Some((name, rest)) = whole.split_once('(') else { continue };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { continue };
        let arguments = arguments.trim_end().trim_end_matches(')').to_owned();
        calls.push(Called { name: name.to_owned(), arguments, result: result.to_owned() });
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_listed_as_they_end_and_fail_as_they_must() {
        if !works() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let trace = Trace::new(folder.path(), "write,fdatasync").inject("fdatasync:error=EIO:when=2");
        let [program, arguments @ ..] = &trace.launcher()[..] else { unreachable!() };
        let script = "echo one > file; sync -d file && echo two > file; sync -d file; echo three";
        let mut command = Command::new(program);
        command.args(arguments).args(["sh", "-c", script]).current_dir(folder.path());
        // Each of the two is a process of its own, in which it is the first.
        let output = command.output().unwrap();
        assert!(output.status.success());
        let calls = trace.calls();
        let names: Vec<_> = calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["write", "fdatasync", "write", "fdatasync", "write"], "{calls:#?}");
        assert!(calls[0].arguments.contains("/file>") && calls[0].arguments.contains("one"), "{calls:#?}");
    }

    #[test]
    fn a_call_that_was_interrupted_by_another_thread_is_put_together() {
        let text = "\
10 write(3</store.db-wal>, \"x\", 1 <unfinished ...>
11 fdatasync(4</other>) = 0
10 <... write resumed>) = 1
11 fdatasync(3</store.db-wal>) = -1 EIO (Input/output error) (INJECTED)
10 +++ killed by SIGABRT +++
";
        let calls = parse(text);
        assert_eq!(calls.len(), 3);
        assert_eq!(calls[1].arguments, "3</store.db-wal>, \"x\", 1");
        assert_eq!((calls[1].result.as_str(), calls[2].name.as_str()), ("1", "fdatasync"));
        assert!(calls[2].result.starts_with("-1 EIO"));
    }
}
