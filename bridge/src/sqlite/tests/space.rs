//! Full disks: every commit is recorded whole or refused whole.

use std::process::Command;

use super::*;

/// One of everything, in groups.
fn scenario() -> Vec<Vec<Write>> {
    let id = PromiseId::execution(SESSION, 1);
    let mut groups = vec![
        vec![open_session(), request("a")],
        vec![
            Write::CreateCall { id: id.with_call(1), request: Json::object(), deadline: None },
            append(id, 1, &PAYLOAD),
        ],
        vec![Write::HistoryInput { session: SESSION, execution: 1, line: 1, source: "x".repeat(9_000) }],
    ];
    // What comes first has room where what comes next has none.
    groups.extend((2..30).step_by(2).map(|number| {
        vec![
            append(id, number, "z"),
            append(id, number + 1, &"y".repeat(7_000)),
            append(id, number + 99, "odd"),
            Write::HistoryOutput { session: SESSION, line: 1, text: "x".repeat(900 * number as usize) },
        ]
    }));
    groups.push(vec![settle(id.with_call(1)), settle(id), request("a"), request("b")]);
    groups.push(vec![Write::CloseSession { session: SESSION }, request("c")]);
    groups
}

/// Runs the scenario, a refused group again with more room; how many were refused.
fn run(folder: &Path, pages: i64) -> usize {
    let mut store = open(folder);
    let mut oracle = MemoryStore::oracle(usize::MAX);
    let grow = |store: &SqliteStore, pages: i64| {
        let set = format!("PRAGMA max_page_count = {pages}");
        store.connection.query_row(&set, [], |row| row.get::<_, i64>(0)).unwrap();
    };
    grow(&store, pages);
    let mut refused = 0;
    for writes in scenario() {
        let groups = [group(writes)];
        let outcomes = match store.commit(&groups) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                refused += 1;
                assert!(matches!(error, StoreError::Full { .. }), "{error}");
                assert_eq!(Snapshot::of(&mut store).unwrap(), Snapshot::of(&mut oracle).unwrap());
                assert!(store.connection.is_autocommit());
                grow(&store, 100_000);
                let outcomes = store.commit(&groups).unwrap();
                grow(&store, pages);
                outcomes
            }
        };
        let expected = oracle.commit(&groups).unwrap();
        assert_eq!(outcomes[0].len(), expected[0].len());
        for (outcome, expected) in outcomes[0].iter().zip(&expected[0]) {
            assert_eq!(outcome.is_ok(), expected.is_ok());
        }
    }
    drop(store);
    assert_eq!(Snapshot::of(&mut open(folder)).unwrap(), Snapshot::of(&mut oracle).unwrap());
    let mut reader = SqliteReader::open(folder).unwrap();
    reader.verify().unwrap();
    reader.verify_audit().unwrap().unwrap();
    refused
}

#[test]
fn d02_with_room_for_n_pages_every_group_is_recorded_or_refused_whole() {
    let mut refusals = 0;
    // An empty store has as many already.
    for pages in 12.. {
        let folder = in_memory();
        let refused = run(folder.path(), pages);
        refusals += refused;
        if refused == 0 {
            break;
        }
    }
    assert!(refusals > 100, "{refusals}");
}

pub(crate) const SMALL_DISK: &str = "COB_TEST_SMALL_DISK";

/// Runs an ignored test again on a disk of `size`, if the system lets anybody mount one.
pub(crate) fn on_a_small_disk(test: &str, size: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mount =
        "mount -t tmpfs -o size=$1 tmpfs \"$2\" || exit 77; exec \"$3\" --exact \"$4\" --ignored --nocapture";
    let status = Command::new("unshare")
        .args(["-Urm", "sh", "-c", mount, "sh", size])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(SMALL_DISK, folder.path())
        .status();
    match status.as_ref().map(|status| status.code()) {
        Ok(Some(77)) | Err(_) => eprintln!("no small disk to be had here"),
        _ => assert!(status.unwrap().success()),
    }
}

#[test]
fn d01_a_real_disk_that_is_full_is_named_and_the_ballast_helps() {
    on_a_small_disk("sqlite::tests::space::on_a_disk_of_four_megabytes", "4m");
}

#[test]
#[ignore = "started by d01 on a disk of its own"]
fn on_a_disk_of_four_megabytes() {
    let Some(folder) = std::env::var_os(SMALL_DISK) else { return };
    let folder = Path::new(&folder).join("store");
    let mut store = SqliteStore::open(&StoreOptions { ballast_bytes: 1 << 20, ..options(&folder) }).unwrap();
    assert!(store.ballast().is_held());
    write(&mut store, open_session());
    let id = create(&mut store, "k");
    let mut number = 1;
    let full = loop {
        match store.commit(&[group(vec![append(id, number, &"z".repeat(60_000))])]) {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
        store.maintain().unwrap_or_default();
    };
    assert!(matches!(full, StoreError::Full { .. }), "{full}");
    assert!(number > 5, "{number}");
    let full = store.commit(&[group(vec![append(id, number, &PAYLOAD)])]).unwrap_err();
    assert!(matches!(full, StoreError::Full { .. }), "a file: {full}");
    assert!(store.free_bytes().unwrap() < 200_000);
    store.ballast().release().unwrap();
    write(&mut store, settle(id));
    assert_eq!(store.events(id, 1, 9999, usize::MAX).unwrap().len() as u64, number - 1);
    let other = folder.with_file_name("filler");
    let _ = fs::write(&other, vec![1; 8 << 20]);
    let error = SqliteStore::open(&options(&folder.with_file_name("second"))).unwrap_err();
    assert!(matches!(error, OpenError::Store(StoreError::Full { .. })), "{error}");
}

#[test]
fn d01_a_disk_that_is_only_read_is_named() {
    on_a_small_disk("sqlite::tests::space::on_a_disk_that_is_only_read", "64m");
}

#[test]
#[ignore = "started by d01 on a disk of its own"]
fn on_a_disk_that_is_only_read() {
    let Some(disk) = std::env::var_os(SMALL_DISK) else { return };
    let folder = Path::new(&disk).join("store");
    furnished(&folder);
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk).status().unwrap();
    assert!(remount.success());
    let error = SqliteStore::open(&options(&folder)).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
    let error = SqliteStore::open(&options(&folder.with_file_name("second"))).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
}
