//! libzmq under CURVE, by way of pyzmq. Needs an interpreter with pyzmq in `COB_TEST_PYTHON`.

mod support;

use std::process::Stdio;
use std::time::Duration;

use cob_clients::zmtp::curve::{Authorized, CurveServer, SecretKey};
use cob_clients::zmtp::{Endpoint, Hub, Lane, Limits, Security};
use support::loopback;
use tokio::process::Command;

async fn echo(hub: &mut Hub) {
    let sender = hub.sender();
    loop {
        let arrival = hub.recv().await;
        let Some(incoming) = arrival.message else { continue };
        assert_eq!(incoming.principal.as_deref(), Some("libzmq"));
        // A peer that has left meanwhile is not there to get its echo.
        sender.send(arrival.peer, &incoming.identity, &incoming.message, Lane::Data).ok();
    }
}

async fn interop(python: &str, endpoint: Endpoint) {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = SecretKey::generate().expect("random numbers");
    let public = secret.public().to_string();
    let security = Security::Curve(CurveServer::new(secret), Authorized::new(folder.path().to_owned()));
    let limits = Limits { silence: Some(Duration::from_millis(100)), ..Limits::agents() };
    let mut hub = Hub::bind(&[(endpoint, security)], &limits).await.expect("bound");
    let endpoint = hub.endpoints().next().expect("a place").to_string();
    let script = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pyzmq_curve.py"))
        .args([endpoint.as_str(), public.as_str()])
        .arg(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status();
    let status = tokio::select! {
        status = script => status.expect("the interpreter starts"),
        () = echo(&mut hub) => unreachable!("an echo has no end"),
    };
    assert!(status.success());
    let counters = hub.counters();
    // One that nobody knows, and the one that was added too late for its first connection; libzmq tries again.
    assert!(counters.unknown_keys >= 2, "{counters:?}");
    assert_eq!((counters.silent, counters.cut_off, counters.malformed), (0, 0, 0), "{counters:?}");
}

/// Runs the script, or says why not.
async fn run(endpoint: Endpoint) {
    match std::env::var("COB_TEST_PYTHON") {
        Ok(python) => interop(&python, endpoint).await,
        Err(_) => println!("skipped: COB_TEST_PYTHON not set"),
    }
}

#[tokio::test]
async fn libzmq_under_curve_over_tcp() {
    run(loopback()).await;
}

#[tokio::test]
async fn libzmq_under_curve_over_ipc() {
    let folder = tempfile::tempdir().expect("a folder");
    run(Endpoint::Ipc(folder.path().join("agent"))).await;
}
