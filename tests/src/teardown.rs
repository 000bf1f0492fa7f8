//! What must be left of a process of cob when a test is over: nothing. Each function says what is not so.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;

use crate::process;

/// Processes that are told to end, or whose owner has ended, are gone long before this.
const GONE: Duration = Duration::from_secs(20);

/// Ends a process with SIGTERM if it has not ended. It must succeed, unless it was killed.
pub(crate) fn end(child: &mut Child, was_killed: bool) -> Vec<String> {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return Vec::new();
    }
    process::signal(child.id(), Signal::TERM);
    if !process::has_ended_within(child.id(), GONE) {
        return vec!["it did not end when asked to".to_owned()];
    }
    match child.wait() {
        Ok(status) if status.success() || was_killed => Vec::new(),
        outcome => vec![format!("it ended with {outcome:?}")],
    }
}

/// These are on their way out.
pub(crate) fn gone(pids: Vec<u32>) -> Vec<String> {
    let mut wrong = Vec::new();
    for pid in pids {
        let line = process::command_line(pid);
        if !process::has_ended_within(pid, GONE) {
            wrong.push(format!("process {pid} is left: {line}"));
            process::signal(pid, Signal::KILL);
        }
    }
    wrong
}

/// Nothing is in `folder` for which `may_stay` does not say so.
pub(crate) fn files(folder: &Path, may_stay: impl Fn(&str) -> bool) -> Vec<String> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let left = files.filter(|file| !may_stay(&file.file_name().to_string_lossy()));
    left.map(|file| format!("left behind: {file:?}")).collect()
}

/// No panic, and no error but announced ones.
pub(crate) fn lines(log: Vec<String>, errors_expected: bool) -> Vec<String> {
    let is_wrong =
        |line: &String| line.contains("panicked") || (line.contains(" ERROR ") && !errors_expected);
    log.into_iter().filter(is_wrong).collect()
}
