//! When the disk is waited for: seen from outside, by `strace`.

use std::process::Command;

use super::*;

const TRACED: &str = "COB_TEST_TRACED_STORE";

/// What the system was asked for between the marks, in order, for the log of the database: `write`, `sync`, and the
/// marks themselves.
fn trace(test: &str) -> Option<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("trace");
    let status = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-y",
            "-e",
            "trace=fsync,fdatasync,pwrite64,write,access,faccessat,faccessat2",
            "-o",
        ])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("sqlite::tests::syncing::{test}"), "--ignored", "--nocapture"])
        .env(TRACED, folder.path().join("store"))
        .status();
    let Ok(status) = status else {
        eprintln!("there is no strace here");
        return None;
    };
    let text = fs::read_to_string(&log).unwrap_or_default();
    if !status.success() && text.is_empty() {
        eprintln!("strace may not trace here");
        return None;
    }
    assert!(status.success());
    let step = |line: &str| {
        let mark = line.split("/mark-").nth(1).and_then(|rest| rest.split('"').next());
        match mark {
            Some(mark) => Some(mark.to_owned()),
            None if line.contains("sync(") && line.contains("cob.db-wal") => Some("sync".to_owned()),
            None if line.contains("sync(") && line.contains("/unfinished") => Some("sync payload".to_owned()),
            None if line.contains("sync(") && line.contains("/payloads") => Some("sync name".to_owned()),
            None if line.contains("sync(") => Some("sync other".to_owned()),
            None if line.contains("pwrite64(") && line.contains("cob.db-wal") => Some("write".to_owned()),
            None => None,
        }
    };
    let mut steps: Vec<String> = text.lines().filter_map(step).collect();
    steps.dedup();
    let first = steps.iter().position(|step| step == "begin").unwrap();
    Some(steps.split_off(first))
}

fn mark(name: &str) {
    // Visible in the trace, and nothing else.
    let _ = rustix::fs::access(format!("/mark-{name}"), rustix::fs::Access::EXISTS);
}

#[test]
fn a_commit_at_power_is_on_the_disk_before_it_returns_and_no_other_waits() {
    let Some(steps) = trace("commits_at_both_durabilities") else { return };
    let expected = [
        "begin, write, process, write, process",
        "write, sync, power",
        // The folder of the payloads is new, then the file and its name.
        "sync other, sync name, sync payload, sync name, write, sync, payload",
        "write, process",
        "sync, sync other, maintained",
    ];
    assert_eq!(steps.join(", "), expected.join(", "));
}

#[test]
#[ignore = "started under strace"]
fn commits_at_both_durabilities() {
    let Some(folder) = std::env::var_os(TRACED) else { return };
    let mut store = open(Path::new(&folder));
    write(&mut store, open_session());
    let id = create(&mut store, "k");
    let power = |writes| Group { durability: Durability::Power, ..group(writes) };
    mark("begin");
    write(&mut store, append(id, 1, "a"));
    mark("process");
    write(&mut store, append(id, 2, "a"));
    mark("process");
    store.commit(&[group(vec![append(id, 3, "a")]), power(vec![append(id, 4, "a")])]).unwrap();
    mark("power");
    store.commit(&[power(vec![append(id, 5, &PAYLOAD)])]).unwrap();
    mark("payload");
    write(&mut store, append(id, 6, "a"));
    mark("process");
    store.checkpoint().unwrap();
    mark("maintained");
}
