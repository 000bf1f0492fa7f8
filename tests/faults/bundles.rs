//! Durable checkpoints whose server dies at any step: the one before is as good as it was, the new one is whole or not
//! there, and nothing is left over.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cob_tests::bundles::{files, found, id, open, save};
use cob_tests::durable::{crash_at, has_crash_points, memory_folder};
use cob_tests::strace::{self, Trace};
use rustix::process::Signal;

/// A store with the first bundle in it, in a folder that the test may put other things in.
async fn store() -> (tempfile::TempDir, PathBuf) {
    let folder = memory_folder();
    let store = folder.path().join("store");
    let bridge = open(&store).await.unwrap();
    save(&bridge.bundles().unwrap(), 1).await.unwrap();
    bridge.bundles().unwrap().export(id(1), &folder.path().join("one.cob")).await.unwrap();
    bridge.close().await;
    (folder, store)
}

fn writer(store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bundle-writer"));
    command.arg(store).args(arguments).stdin(Stdio::null());
    command
}

/// It dies at the crash point, and not elsewhere.
#[track_caller]
fn dies_at(point: &str, store: &Path, arguments: &[&str]) {
    let output = writer(store, arguments).envs(crash_at(point)).output().unwrap();
    assert_eq!(output.status.signal(), Some(Signal::KILL.as_raw()), "{point} was not passed: {output:?}");
}

#[tokio::test]
async fn a_bundle_whose_writer_dies_at_any_step_is_whole_or_not_there() {
    if !has_crash_points() {
        return;
    }
    for (point, expected) in [
        ("bundle_begun", &[1][..]),
        ("chunk_written", &[1]),
        ("chunk_written:2", &[1]),
        ("chunk_written:3", &[1]),
        ("chunks_synced", &[1]),
        ("commit_begins", &[1]),
        ("bundle_row_before", &[1]),
        ("commit_half", &[1]),
        ("commit_done", &[1, 2]),
        ("bundle_row_after", &[1, 2]),
    ] {
        let (_folder, store) = store().await;
        dies_at(point, &store, &["save", "2"]);
        assert_eq!(found(&store, &[]).await, expected, "{point}");
        // Whoever asks again has it.
        let bridge = open(&store).await.unwrap();
        let again = save(&bridge.bundles().unwrap(), 2).await;
        assert_eq!(again.is_ok(), expected.len() == 1, "{point}: {again:?}");
        bridge.close().await;
        assert_eq!(found(&store, &[]).await, [1, 2], "{point}");
    }
}

#[tokio::test]
async fn an_import_whose_server_dies_at_any_step_is_whole_or_not_there() {
    if !has_crash_points() {
        return;
    }
    for (point, expected) in [
        ("import_checked", &[][..]),
        ("chunk_written:2", &[]),
        ("import_read", &[]),
        ("chunks_synced", &[]),
        ("bundle_row_before:1", &[]),
        ("bundle_row_after", &[5]),
    ] {
        let (folder, store) = store().await;
        let archive = folder.path().join("one.cob");
        let bridge = open(&store).await.unwrap();
        bridge.bundles().unwrap().delete(id(1)).await.unwrap();
        bridge.close().await;
        assert_eq!(found(&store, &[]).await, [0; 0]);
        dies_at(point, &store, &["import", "5", archive.to_str().unwrap()]);
        assert_eq!(found(&store, &[(5, 1)]).await, expected, "{point}");
    }
}

#[tokio::test]
async fn an_export_that_dies_leaves_nothing_under_its_name() {
    if !has_crash_points() {
        return;
    }
    let (folder, store) = store().await;
    let path = folder.path().join("two.cob");
    dies_at("export_written", &store, &["export", "1", path.to_str().unwrap()]);
    assert!(!path.exists());
    assert_eq!(found(&store, &[]).await, [1]);
    assert!(writer(&store, &["export", "1", path.to_str().unwrap()]).status().unwrap().success());
    assert!(std::fs::read(&path).unwrap() == std::fs::read(folder.path().join("one.cob")).unwrap());
}

#[tokio::test]
async fn a_bundle_whose_remover_dies_at_any_step_is_there_or_gone_with_its_chunks() {
    if !has_crash_points() {
        return;
    }
    for (point, expected) in [
        ("commit_begins", &[1, 2][..]),
        ("commit_half", &[1, 2]),
        ("commit_done", &[2]),
        ("bundle_removed", &[]),
        ("chunk_removed", &[]),
        ("chunk_removed:3", &[]),
    ] {
        let (_folder, store) = store().await;
        let bridge = open(&store).await.unwrap();
        save(&bridge.bundles().unwrap(), 2).await.unwrap();
        bridge.close().await;
        dies_at(point, &store, &["delete", "1", "2"]);
        assert_eq!(found(&store, &[]).await, expected, "{point}");
        assert_eq!(files(&store).is_empty(), expected.is_empty(), "{point}");
    }
}

#[tokio::test]
async fn a_writer_that_is_killed_anywhere_loses_nothing_that_it_was_told_of() {
    let (_folder, store) = store().await;
    let mut next = 2;
    for round in 0..5 {
        let numbers: Vec<String> = (next..next + 6).map(|number| number.to_string()).collect();
        let arguments: Vec<&str> = ["save"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
        let mut child = writer(&store, &arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told: Vec<String> = lines.take(1 + round % 3).map(Result::unwrap).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        let found = found(&store, &[]).await;
        let acknowledged = next + told.len() as u64 - 1;
        assert!(found.len() as u64 >= acknowledged - 1, "{told:?}: {found:?}");
        assert!(found.iter().copied().eq(1..=found.len() as u64), "{found:?}");
        next = found.len() as u64 + 1;
    }
}

/// The disk of a store has every chunk and its name before the row that names it, and that before anybody is told.
#[tokio::test]
async fn chunks_are_on_the_disk_before_the_row_and_the_row_before_it_is_told() {
    if !strace::works() {
        return;
    }
    let (folder, store) = store().await;
    let trace = Trace::new(folder.path(), "write,pwrite64,fdatasync,fsync,rename,renameat,renameat2,unlink");
    let [program, arguments @ ..] = &trace.launcher()[..] else { unreachable!() };
    let mut command = Command::new(program);
    command.args(arguments).arg(env!("CARGO_BIN_EXE_bundle-writer")).arg(&store).args(["save", "2"]);
    assert!(command.stdout(Stdio::piped()).output().unwrap().status.success());
    let calls = trace.calls();
    let place = |what: &dyn Fn(&strace::Called) -> bool| {
        calls.iter().enumerate().filter(|(_, call)| what(call)).map(|(place, _)| place).collect::<Vec<_>>()
    };
    let synced = place(&|call| call.name == "fdatasync" && call.arguments.contains("/chunks/unfinished"));
    let named = place(&|call| call.name.starts_with("rename") && call.arguments.contains("/chunks/"));
    let folders = place(&|call| call.name == "fsync" && call.arguments.contains("/chunks"));
    let told = place(&|call| call.name == "write" && call.arguments.contains("saved 2"));
    let row = place(&|call| call.name.ends_with("sync") && call.arguments.contains("cob.db-wal"));
    assert_eq!((synced.len(), named.len(), told.len()), (3, 3, 1), "{calls:#?}");
    assert!(synced.iter().max() < named.iter().max() && synced.iter().min() < named.iter().min());
    assert!(named.iter().max() < folders.iter().min() && folders.len() >= 3, "{calls:#?}");
    let row = row.into_iter().rfind(|row| *row < told[0]).expect("the row is synchronised before it is told");
    assert!(folders.iter().all(|folder| *folder < row), "{calls:#?}");
}
