//! Processes as the system shows them: who is there, how large, with which descriptors.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// Sends a signal. A process that has gone already is fine.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = id(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Waits until a process has ended, without an event loop; `false` when it has not after `patience`.
#[must_use]
pub fn has_ended_within(pid: u32, patience: Duration) -> bool {
    let Some(Ok(pidfd)) = id(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return true };
    let patience = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: 0 };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&patience)) {
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Waits until a process has ended; at once when there is none.
pub async fn ended(pid: u32) {
    let what = format!("the end of process {pid}");
    // It fails when the process has gone already.
    let _ = crate::within(&what, cob_pool::exit_of(pid)).await;
}

/// Every process whose environment contains `marker`.
#[must_use]
pub fn marked(marker: &str) -> Vec<u32> {
    having(|variable| variable == marker.as_bytes())
}

/// Every process whose environment contains a variable that begins with `marker`.
#[must_use]
pub fn marked_with(marker: &str) -> Vec<u32> {
    having(|variable| variable.starts_with(marker.as_bytes()))
}

fn having(is_it: impl Fn(&[u8]) -> bool) -> Vec<u32> {
    let has_marker = |pid: &u32| {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(&is_it))
    };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(has_marker).collect()
}

/// The processes whose parent is `pid`, those that have ended and were not waited for left out.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut children: Vec<u32> = pids.filter(|child| parent(*child) == Some(pid)).collect();
    children.sort_unstable();
    children
}

/// The parent of a process that has not ended.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may contain anything.
    let mut rest = stat.rsplit(')').next()?.split_whitespace();
    if rest.next()? == "Z" { None } else { rest.next()?.parse().ok() }
}

/// How a process was started, for reports.
#[must_use]
pub fn command_line(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").chars().take(200).collect()
}

/// Bytes of resident memory.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:") * 1024
}

/// The most bytes of resident memory there have been.
#[must_use]
pub fn resident_bytes_peak(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:") * 1024
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Open descriptors and what they are (`pipe`, `anon_inode:[pidfd]`, a path); the number of an inode left out.
#[must_use]
pub fn descriptors(pid: u32) -> BTreeMap<u32, String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeMap::new() };
    let what = |target: PathBuf| {
        let text = target.to_string_lossy().into_owned();
        match text.split_once(":[") {
            Some((kind @ ("pipe" | "socket"), _)) => kind.to_owned(),
            _ => text,
        }
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, what(fs::read_link(entry.path()).ok()?)))
        })
        .collect()
}

fn id(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}
