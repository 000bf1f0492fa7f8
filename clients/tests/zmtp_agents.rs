//! The endpoint for agents: one inbox for all places, sends by connection, slow and silent peers, who is let in.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cob_clients::agent::{AgentEndpoint, AgentEvent, AgentPeer, Place, Trust};
use cob_clients::zmtp::command::Command;
use cob_clients::zmtp::greeting::{GREETING_BYTES, Greeting, Mechanism};
use cob_clients::zmtp::{Endpoint, Hub, Lane, Limits, Security, SendError, SocketType};
use cob_protocol::json::Json;
use cob_protocol::message::{HeaderWriter, Outgoing};
use cob_protocol::registry;
use cob_protocol::signing::Signer;
use cob_protocol::time::{Clock, SystemClock};
use cob_protocol::wire;
use support::{Raw, loopback, part};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const KEY: &str = "a key of the tests";

fn request(writer: &mut HeaderWriter, key: &str) -> Vec<Bytes> {
    let signer = Signer::new("hmac-sha256", key.as_bytes()).expect("a scheme of ours");
    let message = Outgoing::new("ping", Json::object(), Json::object());
    wire::write(message, &signer, writer, SystemClock.now())
}

async fn open(limits: Limits) -> Hub {
    Hub::bind(&[(loopback(), Security::Open), (loopback(), Security::Open)], &limits).await.expect("bound")
}

fn endpoints(hub: &Hub) -> Vec<Endpoint> {
    hub.endpoints().cloned().collect()
}

async fn agents(places: Vec<Place>, limits: Limits) -> std::io::Result<AgentEndpoint> {
    AgentEndpoint::bind_with(places, "server".to_owned(), Arc::new(SystemClock), &limits).await
}

async fn signed() -> (AgentEndpoint, Endpoint) {
    let place = Place { endpoint: loopback(), trust: Trust::Key(KEY.to_owned()) };
    let agents = agents(vec![place], Limits::agents()).await.expect("bound");
    let endpoint = agents.endpoints().next().expect("a place").clone();
    (agents, endpoint)
}

async fn message(hub: &mut Hub) -> (AgentPeer, Bytes) {
    let arrival = hub.recv().await;
    let incoming = arrival.message.expect("a message, not the end of a peer");
    (arrival.peer, incoming.message.first().expect("a part").clone())
}

#[tokio::test]
async fn all_places_come_in_one_stream_and_each_peer_leaves_once_after_its_last_message() {
    let mut hub = open(Limits::agents()).await;
    let mut peers = Vec::new();
    for (number, endpoint) in endpoints(&hub).iter().enumerate() {
        let mut raw = Raw::ready(endpoint, SocketType::Dealer, b"same name").await;
        raw.message(&[part(&number.to_string())]).await;
        let (peer, text) = message(&mut hub).await;
        assert_eq!((peer.place(), text), (number, part(&number.to_string())));
        hub.sender().send(peer, b"same name", &[part("you")], Lane::Data).expect("connected");
        assert_eq!(raw.next_message().await, Some(vec![part("you")]));
        peers.push((peer, raw));
    }
    for (peer, mut raw) in peers {
        raw.message(&[part("last")]).await;
        drop(raw);
        assert_eq!(message(&mut hub).await, (peer, part("last")));
        let end = hub.recv().await;
        assert_eq!((end.peer, end.message), (peer, None));
    }
    // A connection that never finished its handshake is nobody.
    drop(Raw::greeted(&endpoints(&hub)[0]).await);
    let mut next = Raw::ready(&endpoints(&hub)[0], SocketType::Dealer, b"").await;
    next.message(&[part("next")]).await;
    assert_eq!(message(&mut hub).await.1, part("next"));
}

#[tokio::test]
async fn what_is_meant_for_a_connection_never_reaches_the_one_that_took_over() {
    let mut hub = open(Limits::agents()).await;
    let endpoint = endpoints(&hub).remove(0);
    let mut former = Raw::ready(&endpoint, SocketType::Dealer, b"id").await;
    former.message(&[part("1")]).await;
    let (old, _) = message(&mut hub).await;
    let mut current = Raw::ready(&endpoint, SocketType::Dealer, b"id").await;
    former.closed().await;
    assert_eq!(hub.recv().await.peer, old, "the former has left");
    current.message(&[part("2")]).await;
    let (new, _) = message(&mut hub).await;
    let sender = hub.sender();
    assert_eq!(sender.send(old, b"id", &[part("secret")], Lane::Data), Err(SendError::NoPeer));
    sender.room(old).await;
    sender.send(new, b"id", &[part("yours")], Lane::Data).expect("connected");
    assert_eq!(current.next_message().await, Some(vec![part("yours")]));
    assert_eq!(hub.counters().taken_over, 1);
}

#[tokio::test]
async fn a_flood_of_one_peer_keeps_nobody_else_out() {
    let limits = Limits { inbox: 4, ..Limits::agents() };
    let mut hub = open(limits).await;
    let ends = endpoints(&hub);
    let mut loud = Raw::ready(&ends[0], SocketType::Dealer, b"loud").await;
    let flood = tokio::spawn(async move {
        loop {
            loud.message(&[part("loud")]).await;
        }
    });
    for _ in 0..100 {
        message(&mut hub).await;
    }
    let mut quiet = Raw::ready(&ends[1], SocketType::Dealer, b"quiet").await;
    quiet.message(&[part("quiet")]).await;
    let mut before = 0;
    while message(&mut hub).await.1 != part("quiet") {
        before += 1;
    }
    flood.abort();
    // How many came while the runtime did not look at the quiet one's socket is chance; then it is the next but one.
    assert!(before < 100_000, "{before}");
}

#[tokio::test]
async fn notices_of_those_who_left_are_bounded_by_their_places() {
    let limits = Limits { peers: 3, ..Limits::agents() };
    let mut hub = open(limits).await;
    let endpoint = endpoints(&hub).remove(0);
    for _ in 0..3 {
        drop(Raw::ready(&endpoint, SocketType::Dealer, b"").await);
    }
    while hub.counters().peers > 0 {
        tokio::task::yield_now().await;
    }
    let mut fourth = Raw::greeted(&endpoint).await;
    fourth.command(&cob_clients::zmtp::command::Ready::encode(SocketType::Dealer, b"")).await;
    assert_eq!(fourth.next_command().await, Some(Command::Error(part("too many peers"))));
    for _ in 0..3 {
        assert_eq!(hub.recv().await.message, None);
    }
    Raw::ready(&endpoint, SocketType::Dealer, b"").await;
}

/// Fills a peer's queue until it is behind, and a little more.
fn fill(hub: &Hub, peer: AgentPeer, bytes: usize) {
    let sender = hub.sender();
    let chunk = Bytes::from(vec![0; 64 * 1024]);
    for _ in 0..bytes / chunk.len() {
        sender.send(peer, b"peer", std::slice::from_ref(&chunk), Lane::Data).expect("below the budget");
    }
}

#[tokio::test]
async fn room_comes_when_the_peer_has_read_and_control_overtakes_meanwhile() {
    let limits = Limits { send_ahead: 1 << 20, ..Limits::agents() };
    let mut hub = open(limits).await;
    let mut raw = Raw::ready(&endpoints(&hub)[0], SocketType::Dealer, b"peer").await;
    raw.message(&[part("hello")]).await;
    let (peer, _) = message(&mut hub).await;
    let sender = hub.sender();
    sender.room(peer).await;
    fill(&hub, peer, 16 << 20);
    sender.send(peer, b"peer", &[part("control")], Lane::Control).expect("its own lane");
    {
        let mut room = std::pin::pin!(sender.room(peer));
        assert!(futures_now(room.as_mut()).await.is_none(), "far behind");
    }
    let room = tokio::spawn({
        let sender = sender.clone();
        async move { sender.room(peer).await }
    });
    let (mut messages, mut control_at) = (0, None);
    while messages < 256 {
        if raw.next_message().await.expect("open")[0] == part("control") {
            control_at = Some(messages);
        } else {
            messages += 1;
        }
    }
    room.await.expect("room");
    assert!(control_at.is_some_and(|at| at < 250), "{control_at:?}");
    assert_eq!(hub.counters().cut_off, 0);
}

/// Polls once.
async fn futures_now<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_peer_that_is_behind_and_reads_nothing_is_cut_off_and_whoever_waits_goes_on() {
    let limits =
        Limits { send_ahead: 1 << 20, subscriber_stall: Duration::from_millis(200), ..Limits::agents() };
    let mut hub = open(limits).await;
    let mut raw = Raw::ready(&endpoints(&hub)[0], SocketType::Dealer, b"peer").await;
    raw.message(&[part("hello")]).await;
    let (peer, _) = message(&mut hub).await;
    fill(&hub, peer, 32 << 20);
    hub.sender().room(peer).await;
    assert_eq!(hub.recv().await.message, None);
    assert_eq!(hub.counters().cut_off, 1);
    assert_eq!(hub.sender().send(peer, b"peer", &[part("x")], Lane::Control), Err(SendError::NoPeer));
    raw.closed().await;
}

#[tokio::test]
async fn whoever_does_not_read_replies_can_be_cut_off() {
    let mut hub = open(Limits::agents()).await;
    let mut raw = Raw::ready(&endpoints(&hub)[0], SocketType::Dealer, b"peer").await;
    raw.message(&[part("hello")]).await;
    let (peer, _) = message(&mut hub).await;
    hub.sender().cut_off(peer);
    raw.closed().await;
    assert_eq!(hub.recv().await.message, None);
    assert_eq!(hub.counters().cut_off, 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_asked_and_given_up_and_one_that_answers_is_not() {
    let mut hub = open(Limits::agents()).await;
    let ends = endpoints(&hub);
    let mut dead = Raw::ready(&ends[0], SocketType::Dealer, b"dead").await;
    let mut alive = Raw::ready(&ends[0], SocketType::Dealer, b"alive").await;
    for round in 0..5 {
        assert_eq!(alive.next_command().await, Some(Command::Ping(Bytes::new())), "{round}");
        alive.command(b"\x04PONG").await;
    }
    assert_eq!(dead.next_command().await, Some(Command::Ping(Bytes::new())));
    assert_eq!(dead.next().await, None, "asked once, then closed");
    assert_eq!(hub.recv().await.message, None);
    let counters = hub.counters();
    assert_eq!((counters.silent, counters.peers), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_slowly_reads_what_stands_before_the_question_is_not_given_up() {
    let limits = Limits { subscriber_stall: Duration::from_secs(3600), ..Limits::agents() };
    let mut hub = open(limits).await;
    let endpoint = endpoints(&hub).remove(0);
    let mut slow = Raw::ready(&endpoint, SocketType::Dealer, b"peer").await;
    let mut stuck = Raw::ready(&endpoint, SocketType::Dealer, b"peer 2").await;
    for raw in [&mut slow, &mut stuck] {
        raw.message(&[part("hello")]).await;
        let arrival = hub.recv().await;
        let large = Bytes::from(vec![0; 24 << 20]);
        let identity = arrival.message.expect("a message").identity;
        hub.sender().send(arrival.peer, &identity, &[large], Lane::Data).expect("room");
    }
    // Its questions tell the time.
    let mut clock = Raw::ready(&endpoint, SocketType::Dealer, b"clock").await;
    let mut some = vec![0; 2 << 20];
    for _ in 0..8 {
        assert!(matches!(clock.next_command().await, Some(Command::Ping(_))));
        clock.command(b"\x04PONG").await;
        slow.stream.read_exact(&mut some).await.expect("open");
    }
    slow.message(&[part("still here")]).await;
    loop {
        if let Some(incoming) = hub.recv().await.message {
            assert_eq!(incoming.message, [part("still here")]);
            break;
        }
    }
    assert_eq!((hub.counters().silent, hub.counters().peers), (1, 2), "only the stuck one is gone");
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_the_older_version_is_not_asked() {
    let mut hub = open(Limits::agents()).await;
    let endpoint = endpoints(&hub).remove(0);
    let mut old = Raw::silent(&endpoint).await;
    let mut greeting = Greeting::encode(Mechanism::Null);
    greeting[11] = 0;
    old.send(&greeting).await;
    let mut theirs = [0; GREETING_BYTES];
    old.stream.read_exact(&mut theirs).await.expect("a greeting");
    old.command(&cob_clients::zmtp::command::Ready::encode(SocketType::Dealer, b"")).await;
    assert!(matches!(old.next_command().await, Some(Command::Ready(_))));
    let mut other = Raw::ready(&endpoint, SocketType::Dealer, b"").await;
    for _ in 0..10 {
        assert!(matches!(other.next_command().await, Some(Command::Ping(_))));
        other.command(b"\x04PONG").await;
    }
    old.message(&[part("still here")]).await;
    assert_eq!(message(&mut hub).await.1, part("still here"));
}

#[tokio::test]
async fn a_process_of_another_user_is_refused_before_the_handshake() {
    let folder = tempfile::tempdir().expect("a folder");
    let user = rustix::process::geteuid().as_raw();
    let [ours, theirs] = ["ours", "theirs"].map(|name| Endpoint::Ipc(folder.path().join(name)));
    // No test can become another user, so the socket expects one.
    let places = [(ours.clone(), Security::SameUser(user)), (theirs.clone(), Security::SameUser(user + 1))];
    let hub = Hub::bind(&places, &Limits::agents()).await.expect("bound");
    for (endpoint, answer) in [(ours, GREETING_BYTES), (theirs, 0)] {
        let Endpoint::Ipc(path) = endpoint else { unreachable!("a socket file") };
        let mut stream = UnixStream::connect(path).await.expect("it listens");
        // An error is fine: the other side may have hung up already.
        stream.write_all(&Greeting::encode(Mechanism::Null)).await.ok();
        let mut greeting = [0; GREETING_BYTES];
        let read = stream.read_exact(&mut greeting).await;
        assert_eq!(read.is_ok(), answer > 0);
    }
    let counters = hub.counters();
    assert_eq!((counters.other_users, counters.rejected), (1, 1));
}

#[tokio::test]
async fn only_what_is_signed_and_new_is_believed_and_the_rest_counted() {
    let (mut agents, endpoint) = signed().await;
    let mut raw = Raw::ready(&endpoint, SocketType::Dealer, b"client").await;
    let mut writer = HeaderWriter::new("client".to_owned());
    let good = request(&mut writer, KEY);
    raw.message(&[part("no message at all")]).await;
    raw.message(&request(&mut writer, "another key")).await;
    raw.message(&good).await;
    raw.message(&good).await;
    raw.message(&request(&mut writer, KEY)).await;
    let mut peers = Vec::new();
    for _ in 0..2 {
        let AgentEvent::Request { peer, identity, principal, message } = agents.recv().await else {
            unreachable!("nobody has left")
        };
        assert_eq!((&identity[..], principal), (&b"client"[..], None));
        assert_eq!(message.header.msg_type, "ping");
        peers.push(peer);
    }
    assert_eq!(peers[0], peers[1]);
    let counters = agents.counters();
    assert_eq!((counters.dropped, counters.connections.admitted, agents.peers()), (3, 1, 1));
    let reply = Outgoing::new("ping_reply", Json::object(), Json::object());
    agents.sender().send(peers[0], &part("client"), reply, registry::Lane::Control).expect("connected");
    let parts = raw.next_message().await.expect("a reply");
    let signer = Signer::new("hmac-sha256", KEY.as_bytes()).expect("a scheme of ours");
    assert!(wire::parse(&parts, &signer, &mut cob_protocol::signing::ReplayWindow::default()).is_ok());
    drop(raw);
    assert!(matches!(agents.recv().await, AgentEvent::Left(peer) if peer == peers[0]));
}

#[tokio::test]
async fn a_place_that_would_trust_anybody_is_not_opened() {
    for (endpoint, trust, why) in [
        ("tcp://0.0.0.0:0", Trust::Key(KEY.to_owned()), "CURVE"),
        ("tcp://127.0.0.1:0", Trust::Key(String::new()), "empty key"),
        ("tcp://127.0.0.1:0", Trust::SameUser, "use a key"),
    ] {
        let place = Place { endpoint: endpoint.parse().expect("an endpoint"), trust };
        let error = agents(vec![place], Limits::agents()).await.expect_err("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(endpoint) && error.to_string().contains(why), "{error}");
    }
}
