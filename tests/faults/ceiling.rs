//! What may be asked for: the operator's ceiling, texts that mean nothing, and what this host would enforce.

use std::ffi::OsStr;
use std::process::Output;

use cob_protocol::message::Channel;
use cob_protocol::resources::Limit;
use cob_tests::kernel::{Setup, TestKernel, command};
use cob_tests::programs;
use cob_tests::server::{ServerSetup, TestServer};
use serde_json::Value;

async fn capped() -> TestServer {
    ServerSetup::new().argument("--limits").argument("memory=1G,processes=64").start().await
}

/// What holds for the session of this kernel, as its clients are told.
async fn told(kernel: &TestKernel) -> Vec<(String, u64)> {
    let mut client = kernel.client().await;
    let info = client.ask(Channel::Control, "kernel_info_request").await.ok();
    assert_eq!(info.reply["cob"]["worker"], "warm", "{:#}", info.reply);
    let rows = info.reply["cob"]["limits"].as_array().unwrap().iter();
    rows.map(|row| (row["limit"].as_str().unwrap().to_owned(), row["value"].as_u64().unwrap())).collect()
}

#[tokio::test]
async fn under_a_ceiling_less_is_taken_as_asked_and_nothing_asked_is_the_ceiling() {
    let server = capped().await;
    for (asked, memory, processes) in
        [("", 1 << 30, 64), ("memory=512M", 512 << 20, 64), ("memory=1G,processes=8", 1 << 30, 8)]
    {
        let kernel = Setup::new().server(&server).limits(asked).start().await;
        let holds = told(&kernel).await;
        assert_eq!(holds, [("memory".to_owned(), memory), ("processes".to_owned(), processes)], "{asked}");
    }
    let kernel = Setup::new().server(&server).limits("time=30s").start().await;
    let names: Vec<_> = told(&kernel).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["memory", "time", "processes"]);
}

#[tokio::test]
async fn more_than_the_ceiling_is_refused_in_a_sentence() {
    const SENTENCE: &str = "cob: memory=2G is more than this server allows: at most memory=1G\n";
    let server = capped().await;
    let mut kernel = Setup::new().server(&server).limits("memory=2G").launch();
    assert_eq!(kernel.end().await.code(), Some(1));
    assert_eq!(
        kernel.log_line("more than this server allows", 0).await.as_deref(),
        Some(SENTENCE.trim_end())
    );
    let python = programs::python().to_str().unwrap();
    let run = |limits: &str, more: &[&str]| {
        let arguments = [&["run", "--python", python, "--limits", limits, "-c", "6 * 7"], more].concat();
        server.output(&arguments)
    };
    let refused = run("memory=2G", &[]);
    assert_eq!((refused.status.code(), text(&refused)), (Some(2), SENTENCE.to_owned()));
    assert_eq!(run("memory=1G", &[]).status.code(), Some(0));
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One row for each kind of [`cob_protocol::resources::LimitError`] that a text can have.
#[test]
fn limits_that_mean_nothing_are_refused_with_what_to_write_instead() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("cwd")).unwrap();
    let long = "memory=1G,".repeat(200);
    for (limits, sentence) in [
        ("memroy=2G", "there is no limit \"memroy\": write memory"),
        ("gpus=1", "there is no limit \"gpus\": write one of memory, cpu, time, processes"),
        ("memory=lots", "memory=lots is not a whole number: write for example memory=512M"),
        ("time=30", "time=30 has the wrong unit: ms, s, m or h may follow the number, for example time=30s"),
        ("memory=1M", "memory=1M is too small: at least 16M, for example memory=512M"),
        ("output=1T", "output=1T is too large: at most 64M, for example output=16M"),
        ("cpu=1s,cpu=2s", "cpu is named twice: write it once, for example cpu=60s"),
        (long.as_str(), "the list of limits is too long: write each limit once"),
    ] {
        for command_line in [&["kernel", "-f", "file"][..], &["run", "-c", "1"], &["serve"]] {
            let arguments = [command_line, &["--limits", limits]].concat();
            let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
            let output = command(&arguments, folder.path()).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{limits}");
            assert!(text(&output).contains(sentence), "{limits}: {}", text(&output));
            assert_eq!(output.stdout, b"");
        }
    }
}

#[test]
fn the_doctor_names_what_enforces_each_limit() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["cwd", "tmp", "home"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let python = programs::python().as_os_str();
    let arguments = [OsStr::new("doctor"), OsStr::new("--json"), OsStr::new("--python"), python];
    let output = command(&arguments, folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = document["checks"].as_array().unwrap();
    let limits = checks.iter().find(|check| check["check"] == "limits").unwrap();
    let found: Vec<&str> = limits["found"].as_str().unwrap().lines().collect();
    assert_eq!(found.len(), Limit::ALL.len(), "{limits:#}");
    for (limit, line) in Limit::ALL.iter().zip(found) {
        let (name, by) = line.split_once(": ").unwrap();
        assert_eq!(name, limit.name());
        let known = ["cgroup v", "rlimit", "kernel", "not enforced: "];
        assert!(known.iter().any(|means| by.starts_with(means)), "{line}");
    }
    // What could be better comes with what to do about it.
    assert_eq!(limits["fix"].is_null(), limits["verdict"] == "ok", "{limits:#}");
}
