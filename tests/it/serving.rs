//! `cob serve` and `cob info` on the command line: one server per folder, wrong use said in a sentence.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use cob_tests::server::TestServer;
use rustix::process::Signal;

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
