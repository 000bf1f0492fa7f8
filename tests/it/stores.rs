//! Where the records of a kernel lie: what is found there again, and what cannot be used.

use std::ffi::OsStr;
use std::path::Path;

use cob_protocol::message::Channel;
use cob_tests::kernel::command;
use cob_tests::programs;
use serde_json::json;

use crate::durable::{killed, on, store};

#[tokio::test]
async fn history_reaches_back_to_sessions_before() {
    let (_folder, store) = store();
    let first = on(&store).start().await;
    let mut client = first.client().await;
    client.run("'in the first'").await.ok();
    drop((client, first));
    let second = on(&store).start().await;
    let mut client = second.client().await;
    assert_eq!(client.run("'in the second'").await.ok().count(), 1);
    let ask = json!({ "hist_access_type": "tail", "n": 10, "output": true, "raw": true });
    let id = client.send(Channel::Shell, "history_request", ask).await;
    let history = client.finish(&id).await.ok().reply["history"].clone();
    assert_eq!(
        history,
        json!([[1, 1, ["'in the first'", "'in the first'"]], [2, 1, ["'in the second'", "'in the second'"]]])
    );
    killed(second).await;
    // The same session goes on, and nothing of it is there twice.
    let third = on(&store).start().await;
    let mut client = third.client().await;
    assert_eq!(client.run("'again'").await.ok().count(), 2);
    let ask = json!({ "hist_access_type": "range", "session": 0, "output": false, "raw": true });
    let id = client.send(Channel::Shell, "history_request", ask).await;
    let history = client.finish(&id).await.ok().reply["history"].clone();
    assert_eq!(history, json!([[2, 1, "'in the second'"], [2, 2, "'again'"]]));
}

/// Exit code and stderr of a kernel on this store.
#[track_caller]
fn refused(store: &Path) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["cwd", "tmp", "home"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let file = json!({
        "transport": "ipc", "ip": folder.path().join("s"), "shell_port": 1, "iopub_port": 2, "stdin_port": 3,
        "control_port": 4, "hb_port": 5, "key": "k", "signature_scheme": "hmac-sha256",
    });
    let path = folder.path().join("kernel.json");
    std::fs::write(&path, file.to_string()).unwrap();
    let python = programs::python().as_os_str();
    let arguments = ["kernel", "-f"].map(OsStr::new);
    let rest = [path.as_os_str(), OsStr::new("--python"), python, OsStr::new("--store"), store.as_os_str()];
    let output = command(&[arguments.as_slice(), &rest].concat(), folder.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let sentence: Vec<&str> = stderr.lines().filter(|line| line.starts_with("cob: ")).collect();
    assert_eq!(sentence.len(), 1, "{stderr}");
    (output.status.code(), sentence[0].to_owned())
}

#[tokio::test]
async fn a_store_has_one_kernel_at_a_time() {
    let (_folder, store) = store();
    let kernel = on(&store).start().await;
    let (code, sentence) = refused(&store);
    assert_eq!(code, Some(1), "{sentence}");
    assert!(
        sentence.contains("store_locked") && sentence.contains(&format!("process {}", kernel.pid())),
        "{sentence}"
    );
    // The first one is as it was.
    let mut client = kernel.client().await;
    assert_eq!(client.run("1").await.ok().count(), 1);
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_is_named_with_the_reason() {
    let (folder, newer) = store();
    drop(on(&newer).start().await);
    let database = std::fs::read_dir(&newer).unwrap().map(|entry| entry.unwrap().path());
    let database =
        database.into_iter().find(|path| path.extension().is_some_and(|end| end == "db" || end == "sqlite"));
    let database = database.expect("a database");
    let change =
        "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute('PRAGMA user_version = 999')";
    let changed = std::process::Command::new(programs::python()).args(["-c", change]).arg(&database).status();
    assert!(changed.unwrap().success());
    let (code, sentence) = refused(&newer);
    assert_eq!(code, Some(1), "{sentence}");
    assert!(sentence.contains("999"), "{sentence}");
    let garbage = folder.path().join("garbage");
    std::fs::create_dir(&garbage).unwrap();
    std::fs::write(garbage.join(database.file_name().unwrap()), "this is a letter".repeat(1000)).unwrap();
    let (code, sentence) = refused(&garbage);
    assert_eq!(code, Some(1), "{sentence}");
    assert!(sentence.contains("is no store of cob"), "{sentence}");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for store in [file.clone(), file.join("store")] {
        let (code, sentence) = refused(&store);
        assert_eq!(code, Some(1), "{sentence}");
        assert!(sentence.contains(&*file.to_string_lossy()), "{sentence}");
    }
}
