//! libzmq, by way of pyzmq, as the peer: what real clients run. Needs an interpreter with pyzmq in
//! `COB_TEST_PYTHON`.

mod support;

use std::process::Stdio;

use bytes::Bytes;
use cob_clients::zmtp::{Endpoint, Heartbeat, Lane, Publisher, Router, Xpub, XpubEvent};
use support::loopback;
use tokio::process::Command;

/// Publishes what a subscription to `flood COUNT SIZE` asks for, once, at the pace of the subscriber.
async fn flood(publisher: &Publisher, topic: Bytes) {
    let text = String::from_utf8_lossy(&topic).into_owned();
    let numbers: Vec<u32> = text.split(' ').skip(1).map(|word| word.parse().expect("a number")).collect();
    let [count, size] = numbers[..] else { unreachable!("flood COUNT SIZE, not {text}") };
    let body = Bytes::from(vec![b'x'; usize::try_from(size).expect("small")]);
    for number in 0..count {
        publisher.publish(&[topic.clone(), Bytes::copy_from_slice(&number.to_be_bytes()), body.clone()]);
        publisher.room().await;
    }
    publisher.flush();
}

async fn echo(mut router: Router) {
    let sender = router.sender();
    loop {
        let incoming = router.recv().await;
        // A peer that has left meanwhile is not there to get its echo.
        sender.send(&incoming.identity, &incoming.message, Lane::Data).ok();
        sender.flush();
    }
}

async fn publish(mut xpub: Xpub) {
    let publisher = xpub.publisher();
    loop {
        if let XpubEvent::Subscribed { topic, .. } = xpub.recv().await {
            flood(&publisher, topic).await;
        }
    }
}

async fn interop(python: &str, endpoints: [Endpoint; 3]) {
    let [router, xpub, heartbeat] = endpoints;
    let router = Router::bind(&router).await.expect("bound");
    let xpub = Xpub::bind(&xpub).await.expect("bound");
    let heartbeat = Heartbeat::bind(&heartbeat).await.expect("bound");
    let (publisher, sender) = (xpub.publisher(), router.sender());
    let script = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pyzmq_interop.py"))
        .args([router.endpoint(), xpub.endpoint(), heartbeat.endpoint()].map(Endpoint::to_string))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status();
    let status = tokio::select! {
        status = script => status.expect("the interpreter starts"),
        () = echo(router) => unreachable!("an echo has no end"),
        () = publish(xpub) => unreachable!("a publisher has no end"),
    };
    assert!(status.success());
    assert_eq!(publisher.counters().cut_off, 0);
    assert!(sender.flushed(std::time::Duration::ZERO).await);
}

/// Runs the script, or says why not.
async fn run(endpoints: [Endpoint; 3]) {
    match std::env::var("COB_TEST_PYTHON") {
        Ok(python) => interop(&python, endpoints).await,
        Err(_) => println!("skipped: COB_TEST_PYTHON not set"),
    }
}

#[tokio::test]
async fn libzmq_over_tcp() {
    run([loopback(), loopback(), loopback()]).await;
}

#[tokio::test]
async fn libzmq_over_ipc() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    run(["shell", "iopub", "hb"].map(|name| Endpoint::Ipc(dir.path().join(name)))).await;
}
