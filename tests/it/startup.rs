//! Wrong use of `cob kernel`: one clear sentence, the right exit code, nothing left behind.

use std::ffi::OsStr;
use std::net::TcpListener;

use cob_tests::kernel::command;
use cob_tests::programs;
use serde_json::{Value, json};

/// Exit code and stderr of `cob kernel` with this text as its connection file.
#[track_caller]
fn outcome(file: Option<&str>, python: &OsStr) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["cwd", "tmp", "home"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("kernel.json");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    let arguments =
        [OsStr::new("kernel"), OsStr::new("-f"), path.as_os_str(), OsStr::new("--python"), python];
    let output = command(&arguments, folder.path()).output().unwrap();
    assert_eq!(output.stdout, b"");
    assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn file(changes: Value) -> String {
    let mut file = json!({
        "transport": "tcp", "ip": "127.0.0.1", "shell_port": 0, "iopub_port": 0, "stdin_port": 0,
        "control_port": 0, "hb_port": 0, "key": "k", "signature_scheme": "hmac-sha256",
    });
    for (name, value) in changes.as_object().unwrap() {
        file[name] = value.clone();
    }
    file.to_string()
}

#[test]
fn a_bad_connection_file_is_the_callers_fault_and_named() {
    for (text, sentence) in [
        (None, "cannot read the connection file"),
        (Some(String::new()), "is no connection file"),
        (Some("[]".to_owned()), "is no connection file"),
        (Some("{\"ip\":".to_owned()), "is no connection file"),
        (Some("{\"ip\": \"127.0.0.1\"}".to_owned()), "shell_port"),
        (Some(file(json!({ "shell_port": 70_000 }))), "70000"),
        (Some(file(json!({ "transport": "udp" }))), "udp"),
        (Some(file(json!({ "ip": "nowhere" }))), "nowhere"),
        (Some(file(json!({ "signature_scheme": "hmac-sha1" }))), "hmac-sha1"),
    ] {
        let (code, stderr) = outcome(text.as_deref(), programs::python().as_os_str());
        assert_eq!(code, Some(2), "{text:?}: {stderr}");
        assert!(stderr.starts_with("cob: ") && stderr.contains(sentence), "{text:?}: {stderr}");
        assert_eq!(stderr.trim().lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_port_in_use_is_named_with_its_channel() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for channel in ["shell", "control", "stdin", "iopub", "heartbeat"] {
        let field = format!("{}_port", if channel == "heartbeat" { "hb" } else { channel });
        let (code, stderr) = outcome(Some(&file(json!({ field: port }))), programs::python().as_os_str());
        assert_eq!(code, Some(1), "{stderr}");
        let sentence = format!("cannot bind the {channel} channel to tcp://127.0.0.1:{port}: ");
        assert!(stderr.contains(&sentence), "{stderr}");
        assert!(stderr.contains("Address already in use"), "{stderr}");
    }
}

#[test]
fn an_interpreter_that_is_none_is_named() {
    let (code, stderr) = outcome(Some(&file(json!({}))), OsStr::new("/nowhere/python"));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("there is no interpreter `/nowhere/python`"), "{stderr}");

    let (code, stderr) = outcome(Some(&file(json!({}))), OsStr::new("/bin/false"));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("`/bin/false` exited with status 1"), "{stderr}");
}

#[test]
fn wrong_use_of_the_command_line_has_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("cwd")).unwrap();
    for arguments in [
        &[][..],
        &["kernel"],
        &["kernel", "-f"],
        &["colonel"],
        &["kernel", "--no-such-option"],
        &["kernel", "-f", "file", "--limits", "memroy=2G"],
        &["run", "-c", "1", "--interrupt-grace", "2s"],
    ] {
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        let output = command(&arguments, folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stderr.starts_with(b"error: ") || output.stderr.starts_with(b"An execution kernel"));
    }
}
