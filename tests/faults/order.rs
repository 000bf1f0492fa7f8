//! What reaches the disk, and in which order with what is told: seen by `strace` and by `kill -9`, at a program that
//! does nothing but commit.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use cob_tests::durable::memory_folder;
use cob_tests::seed::Seed;
use cob_tests::snapshot::Snapshot;
use cob_tests::strace::{self, Called, Trace};

/// SQLite is built with one or the other.
const SYNC: &str = "fsync,fdatasync";

fn writer(trace: Option<&Trace>, folder: &Path, arguments: &[&str]) -> Command {
    let launcher = trace.map(Trace::launcher).unwrap_or_default();
    let program = env!("CARGO_BIN_EXE_store-writer").into();
    let mut words = launcher.into_iter().chain([program]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg(folder.join("store")).args(arguments);
    command.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Calls that a writer makes for its store and its listener.
fn calls(durability: &str, count: &str, bytes: &str) -> Vec<Called> {
    let folder = tempfile::tempdir().unwrap();
    let trace = Trace::new(folder.path(), "write,pwrite64,fsync,fdatasync,rename,renameat,renameat2");
    let output = writer(Some(&trace), folder.path(), &[durability, count, bytes]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut calls = trace.calls();
    // What happened before it was ready is about making the store.
    let ready = calls.iter().position(|call| call.arguments.contains("ready")).unwrap();
    let last = calls.iter().rposition(|call| call.arguments.contains("recorded")).unwrap();
    calls.drain(..=last).skip(ready + 1).collect()
}

/// What a call is about, in one word.
fn word(call: &Called) -> &'static str {
    let is_synced = call.name == "fsync" || call.name == "fdatasync";
    match () {
        () if call.arguments.contains("recorded") => "told",
        () if call.name.starts_with("rename") => "named",
        () if call.arguments.contains("cob.db-wal") => {
            if is_synced {
                "log synced"
            } else {
                "log"
            }
        }
        () if call.arguments.contains("cob.db") => {
            if is_synced {
                "database synced"
            } else {
                "database"
            }
        }
        () if call.arguments.contains("/payloads") => {
            if is_synced {
                "payload synced"
            } else {
                "payload"
            }
        }
        () => {
            if is_synced {
                "synced"
            } else {
                "other"
            }
        }
    }
}

/// The words between one thing told and the next; repetitions are one.
fn words(calls: &[Called]) -> Vec<Vec<&'static str>> {
    let mut all = Vec::new();
    let mut now: Vec<&str> = Vec::new();
    for word in calls.iter().map(word) {
        if now.last() != Some(&word) {
            now.push(word);
        }
        if word == "told" {
            all.push(std::mem::take(&mut now));
        }
    }
    all
}

#[test]
fn d11_power_is_write_then_sync_then_told_and_process_never_waits_for_the_disk() {
    if !strace::works() {
        return;
    }
    let power = calls("power", "5", "10");
    let mut told = words(&power);
    // The first commit of a log may make its name safe too.
    told[0].retain(|word| *word != "synced");
    assert_eq!(told, [["log", "log synced", "told"]; 5], "{power:#?}");
    let process = calls("process", "5", "10");
    assert_eq!(words(&process), [["log", "told"]; 5], "{process:#?}");
}

#[test]
fn d11_the_file_of_a_large_event_is_safe_before_the_row_that_names_it() {
    if !strace::works() {
        return;
    }
    let power = calls("power", "3", "200000");
    for words in words(&power) {
        let place = |wanted: &str| words.iter().position(|word| *word == wanted);
        let synced =
            place("payload synced").unwrap_or_else(|| unreachable!("never synchronised: {power:#?}"));
        assert!(Some(synced) < place("log synced"), "{words:?}");
        assert_eq!(words.last(), Some(&"told"));
    }
    let process = calls("process", "3", "200000");
    let is_synced = |call: &Called| word(call).contains("synced");
    assert!(!process.iter().any(is_synced), "{process:#?}");
}

#[test]
fn s07_a_writer_that_is_killed_at_any_moment_loses_nothing_that_it_told() {
    let mut seed = Seed::new(7);
    let mut recorded = 0;
    for round in 0..12 {
        let folder = memory_folder();
        let durability = ["process", "power", "none"][round % 3];
        let mut told = BTreeSet::new();
        // Several lives of one store.
        for _ in 0..2 {
            let mut child = writer(None, folder.path(), &[durability, "1000000"]).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut left = 1 + seed.below(150);
            while left > 0 {
                told.insert(lines.next().unwrap().unwrap());
                left -= 1;
            }
            child.kill().unwrap();
            // What it said before it died counts too.
            let rest = lines.map_while(Result::ok).filter(|line| line.starts_with("recorded "));
            told.extend(rest);
            child.wait().unwrap();
        }
        let snapshot = Snapshot::of(&folder.path().join("store"));
        assert_eq!(snapshot.damage, Vec::<String>::new());
        let stored: BTreeSet<&str> = snapshot.executions.iter().filter_map(|stored| stored.key()).collect();
        let lost =
            told.iter().filter_map(|line| line.strip_prefix("recorded ")).find(|key| !stored.contains(key));
        assert_eq!(lost, None, "{durability}");
        // An execution and its event are one group.
        assert!(snapshot.executions.iter().all(|stored| stored.events.len() == 1));
        recorded += stored.len();
    }
    assert!(recorded > 200, "{recorded}");
}

#[test]
fn d05_a_disk_that_does_not_synchronise_ends_the_commit_and_is_not_asked_again() {
    if !strace::works() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The first makes the store, the second shows what the third does up to its fault.
    for _ in 0..2 {
        let trace = Trace::new(folder.path(), SYNC);
        assert!(writer(Some(&trace), folder.path(), &["power", "3"]).output().unwrap().status.success());
    }
    let trace = Trace::new(folder.path(), SYNC);
    let synced = trace.calls();
    // Not that of a folder, whose outcome SQLite does not look at.
    let logs = synced.iter().enumerate().filter(|(_, call)| word(call) == "log synced");
    // The very last one belongs to the closing of the database.
    let (last, _) = logs.rev().nth(1).unwrap();
    let name = &synced[last].name;
    let nth = synced.iter().take(last + 1).filter(|call| call.name == *name).count();
    let trace = trace.inject(&format!("{name}:error=EIO:when={nth}"));
    let output = writer(Some(&trace), folder.path(), &["power", "3"]).output().unwrap();
    assert!(!output.status.success());
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("Unsynced"), "{complaint}");
    let calls = trace.calls();
    let failed = calls.iter().position(|call| call.result.starts_with("-1 EIO")).expect("a fault");
    let again = calls.iter().skip(failed + 1).find(|call| word(call) == "log synced");
    assert_eq!(again, None);
    let told = String::from_utf8_lossy(&output.stdout).lines().count();
    assert_eq!(told, 1 + 3 - 1, "ready, and all but the last");
}
