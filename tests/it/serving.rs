//! `cob serve` and `cob info` on the command line: one server per folder, wrong use said in a sentence.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use cob_tests::agents::Serve;
use cob_tests::server::{ServerSetup, TestServer};
use rustix::process::Signal;
use serde_json::json;

#[tokio::test]
async fn a_second_server_names_the_first_and_leaves_it_alone() {
    let server = TestServer::start().await;
    let output = server.output(&["serve"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("cob: ") && stderr.trim().lines().count() == 1, "{stderr}");
    assert!(stderr.contains(&format!("process {}", server.pid())), "{stderr}");
    assert_eq!(server.kernel().await.worker_from(0).await.1, "Warm");
}

#[tokio::test]
async fn a_folder_that_others_can_enter_is_refused_with_a_hint() {
    let mut server = TestServer::start().await;
    server.signal(Signal::TERM);
    server.end().await;
    for mode in [0o755, 0o701, 0o777] {
        std::fs::set_permissions(server.runtime(), Permissions::from_mode(mode)).unwrap();
        let output = server.output(&["serve"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains("can be entered by other users") && stderr.contains("COB_RUNTIME_DIR"),
            "{stderr}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_said_in_a_sentence() {
    let mut server = TestServer::start().await;
    server.signal(Signal::TERM);
    server.end().await;
    for (arguments, code, sentence) in [
        (&["info"][..], 1, "start one with `cob serve`"),
        (&["info", "--json"], 1, "start one with `cob serve`"),
        (&["serve", "--import", "os; x"], 2, "`os; x` is no name of a module"),
        (&["serve", "--import", "numpy,,pandas"], 2, "is no name of a module"),
        (&["serve", "--import", "numpy.,pandas"], 2, "is no name of a module"),
        (&["serve", "--python", "/nowhere/python"], 2, "there is no interpreter `/nowhere/python`"),
        (&["serve", "--memory", "a lot"], 2, "a lot"),
        (&["serve", "--spares", "-1"], 2, "-1"),
        (&["serve", "--limits", "memroy=2G"], 2, "memroy"),
        (&["serve", "--curve"], 2, "--tcp"),
        (&["serve", "--tcp", "0.0.0.0:0"], 2, "run `cob keys server`"),
    ] {
        let output = server.output(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(sentence), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn info_shows_people_what_the_document_says() {
    let server = TestServer::start().await;
    drop(server.kernel().await);
    server.settled().await;
    let output = server.output(&["info"]);
    let shown = String::from_utf8(output.stdout).unwrap();
    for line in [
        server.python().to_str().unwrap(),
        "  zygote   ready",
        "  imported colorsys",
        "  workers  2 warm, 0 starting, 0 in use",
        "leases     1 warm, 0 forked, 0 cold; 0 refused",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "`{line}` is not in\n{shown}");
    }
}

#[tokio::test]
async fn who_asks_a_server_that_ends_is_told_so_and_what_runs_ends_well() {
    let setup = ServerSetup::new().env("PYTHONNOUSERSITE", "1").argument("--store").argument("../store");
    let mut serve = Serve::start_as(setup).await;
    let gate = serve.gate("gate");
    let mut agent = serve.agent("a").await;
    let session = agent.open().await;
    let running =
        agent.execute(&session, "k1", &format!("print('on', flush=True)\n{}\n6 * 7", gate.python())).await;
    agent.printed(&running, "on\n").await;
    serve.server.signal(Signal::TERM);
    serve.server.log_line("the server ends when its sessions have", 0).await.unwrap();
    agent.refused("execute_request", json!({ "session_id": session, "code": "1" }), "shutting_down").await;
    agent.refused("session_open", json!({ "language": "python" }), "shutting_down").await;
    gate.open().await;
    assert_eq!(agent.reply(&running).await.content["status"], "ok");
    drop(agent);
    assert!(serve.server.end().await.success());
}
