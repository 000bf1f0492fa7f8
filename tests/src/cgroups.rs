//! What cob made on this host to enclose workers: its cgroups, and who is marked as theirs. After a test there must
//! be neither; a killed process of cob leaves its groups to the next server.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cob_protocol::message::Channel;
use rustix::process::geteuid;

use crate::client::TestClient;
use crate::process;

/// Whoever is in a group that is being cleared is gone long before this.
const GONE: Duration = Duration::from_secs(20);
/// Containers in containers in slices: no host nests its groups deeper.
const DEPTH_MAX: usize = 8;

/// The groups that the process `pid` made, in every hierarchy.
#[must_use]
pub fn of(pid: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    mounts().iter().for_each(|mount| search(mount, &format!("cob-{pid}-"), DEPTH_MAX, &mut found));
    found
}

/// Everybody in the groups that the process `pid` made.
#[must_use]
pub fn members(pid: u32) -> Vec<u32> {
    let text = |group: &PathBuf| fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = of(pid)
        .iter()
        .map(text)
        .flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// What is written in `file` of each group that the process `pid` made and that has it.
#[must_use]
pub fn values(pid: u32, file: &str) -> Vec<String> {
    let values = of(pid).into_iter().filter_map(|group| fs::read_to_string(group.join(file)).ok());
    values.map(|value| value.trim().to_owned()).collect()
}

/// What the process `pid`, which has ended, must not have left: groups, and processes that are marked as workers
/// of it or their children. One that was killed could not remove its groups: they are removed here, and everybody who
/// is in them must be on the way out.
#[must_use]
pub fn left(pid: u32, was_killed: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for process in process::marked_with(&format!("COB_WORKER={pid}-")).into_iter().chain(members(pid)) {
        let line = process::command_line(process);
        if !process::has_ended_within(process, GONE) {
            wrong.push(format!("process {process} of a worker is left: {line}"));
            process::signal(process, rustix::process::Signal::KILL);
        }
    }
    for group in of(pid) {
        // It fails when its owner was quicker, which is what it should be.
        let was_removed = fs::remove_dir(&group).is_ok();
        if was_removed && !was_killed {
            wrong.push(format!("a group is left: {}", group.display()));
        }
    }
    wrong
}

/// What enforces each limit of a session, as `kernel_info_reply` says.
///
/// # Panics
/// When it does not say so.
pub async fn means(client: &mut TestClient) -> BTreeMap<String, String> {
    let info = client.ask(Channel::Control, "kernel_info_request").await.ok();
    let rows = info.reply["cob"]["limits"].as_array().expect("rows of limits").clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    rows.iter().map(|row| (text(&row["limit"]), text(&row["by"]))).collect()
}

/// Whether a cgroup enforces `limit`: what would harm the host must not be tried otherwise. Says so in the test's
/// output if none does.
///
/// # Panics
/// As [`means`].
pub async fn holds(client: &mut TestClient, limit: &str) -> bool {
    let by = means(client).await.remove(limit).unwrap_or_default();
    let holds = by.starts_with("cgroup");
    if !holds {
        skipped(&format!("no cgroup for {limit}: {by}"));
    }
    holds
}

/// What starts a program that finds no cgroups; `None` when the system does not allow it.
#[must_use]
pub fn hidden() -> Option<Vec<OsString>> {
    let namespaces = if geteuid().is_root() { "-m" } else { "-Urm" };
    let script = "mount -t tmpfs tmpfs /sys/fs/cgroup && exec \"$@\"";
    let launcher: Vec<OsString> =
        ["unshare", namespaces, "--propagation", "private", "sh", "-c", script, "sh"].map(Into::into).into();
    let (program, arguments) = launcher.split_first()?;
    let tried = Command::new(program).args(arguments).arg("true").stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success()).then_some(launcher)
}

/// Says that a part of a test did not run. Not by the macros, whose text the test runner keeps to itself.
pub fn skipped(why: &str) {
    let line = format!("SKIPPED: {why}\n");
    // A report that nobody reads is not missed.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// Where the hierarchies are mounted that count memory or processes.
fn mounts() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let point = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let counts = options.split(',').any(|option| option == "memory" || option == "pids");
        let is_one = kind == "cgroup2" || (kind == "cgroup" && counts);
        is_one.then(|| left.split(' ').nth(4).map(PathBuf::from))?
    };
    text.lines().filter_map(point).collect()
}

fn search(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        } else if depth > 0 {
            search(&entry.path(), prefix, depth - 1, found);
        }
    }
}
