//! What a configuration says, a server does; and what is wrong with it is said.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use cob_tests::agents::{self, Agent, Serve};
use cob_tests::kernel::command;
use serde_json::json;
use tempfile::TempDir;

/// A command line of cob in a folder of its own.
fn cob(folder: &Path, arguments: &[&str]) -> Command {
    for name in ["cwd", "tmp", "home"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
    command(&arguments, folder)
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn a_server_does_what_its_configuration_says_unless_a_flag_says_otherwise() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("any.toml");
    let text = "[server]\ntcp = \"127.0.0.1:0\"\ngrace = 0\n[pool]\nspares = 7\nsession_spares = 7\n[session]\n\
                limits = { time = \"45s\" }\nidle_timeout = 3600\n[limits]\noutput = \"2M\"\n";
    std::fs::write(&path, text).unwrap();
    let setup = agents::setup().spares(0).session_spares(1).argument("--config").argument(&path);
    let serve = Serve::start_as(setup).await;
    assert!(serve.file().tcp.is_some());
    serve.server.holds(1, 0).await;

    let mut agent = Agent::greeted(&serve.place(), "a").await;
    let opened = agent.ok("session_open", json!({ "language": "python" })).await;
    let session = opened["session_id"].as_str().unwrap().to_owned();
    agent.run(&session, "k", "1").await;
    let info = agent.ok("session_info", json!({ "session_id": session })).await["session"].take();
    assert_eq!(info["worker"]["origin"], "warm", "{info:#}");
    assert_eq!(info["idle_timeout_ms"], 3_600_000, "{info:#}");
    let limits = info["limits"].as_array().unwrap().iter();
    let limits: Vec<_> = limits.map(|limit| (limit["limit"].as_str().unwrap(), &limit["value"])).collect();
    assert!(
        limits.contains(&("time", &json!(45_000))) && limits.contains(&("output", &json!(2 << 20))),
        "{info:#}"
    );
    let more = json!({ "language": "python", "limits": "output=4M" });
    agent.refused("session_open", more, "invalid_limit").await;
    drop(agent);
    serve.end_unchecked().await;
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_all_at_once_and_nothing_is_served() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("cob.toml");
    std::fs::write(&path, "[server]\ngraec = 60\n\n[pool]\nspares = \"two\"\n").unwrap();
    let named = path.to_str().unwrap();
    let in_environment = |mut command: Command| command.env("COB_CONFIG", named).output().unwrap();
    for output in [
        cob(folder.path(), &["serve", "--config", named]).output().unwrap(),
        in_environment(cob(folder.path(), &["serve"])),
        cob(folder.path(), &["config", "check", named]).output().unwrap(),
        in_environment(cob(folder.path(), &["config", "show"])),
    ] {
        let (code, stdout, stderr) = said(&output);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        for part in [format!("{named}:2: "), "did you mean `grace`?".to_owned(), format!("{named}:5: ")] {
            assert!(stderr.contains(&part), "{part} in {stderr}");
        }
    }
    let output = cob(folder.path(), &["serve", "--config", "/nowhere/cob.toml"]).output().unwrap();
    let (code, _, stderr) = said(&output);
    assert!(code == Some(2) && stderr.contains("/nowhere/cob.toml"), "{stderr}");
}

#[test]
fn the_example_is_a_configuration_and_the_environment_goes_before_it() {
    let folder = TempDir::new().unwrap();
    let (code, stdout, _) = said(&cob(folder.path(), &["config", "check"]).output().unwrap());
    assert!(code == Some(0) && stdout.starts_with("ok: there is no file"), "{stdout}");
    let (_, example, _) = said(&cob(folder.path(), &["config", "example"]).output().unwrap());
    let usual = folder.path().join("home/.config/cob");
    std::fs::create_dir_all(&usual).unwrap();
    std::fs::write(usual.join("cob.toml"), example).unwrap();
    let (code, stdout, _) = said(&cob(folder.path(), &["config", "check"]).output().unwrap());
    assert!(code == Some(0) && stdout.contains("cob.toml"), "{stdout}");
    let output = cob(folder.path(), &["config", "show"]).env("COB_SERVE_GRACE", "7").output().unwrap();
    let (_, shown, stderr) = said(&output);
    assert!(shown.contains("grace = 7  # COB_SERVE_GRACE\n"), "{shown}{stderr}");
    assert!(shown.contains("cob/cob.toml:"), "{shown}");
}
