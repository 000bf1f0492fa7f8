//! CURVE from the outside: who is let in, what is refused, and that nothing that a stranger sends does harm.

mod support;
#[path = "support/curve.rs"]
mod support_curve;

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use cob_clients::agent::{AgentEndpoint, AgentEvent, KeyFolder, Place, Trust};
use cob_clients::zmtp::codec::Caps;
use cob_clients::zmtp::command::{Command, Ready, encode_error};
use cob_clients::zmtp::curve::{Authorized, CurveServer, SecretKey};
use cob_clients::zmtp::{Endpoint, Hub, HubPeer, Lane, Limits, Security, SocketType};
use cob_protocol::json::Json;
use cob_protocol::message::{HeaderWriter, Outgoing};
use cob_protocol::signing::Signer;
use cob_protocol::time::{Clock, SystemClock};
use cob_protocol::wire;
use proptest::prelude::*;
use support::{Raw, loopback, part};
use support_curve::{Client, pair};

/// A hub with one place, whose authorised clients are those with the key `pair(1)`.
struct Served {
    hub: Hub,
    endpoint: Endpoint,
    server: crypto_box::PublicKey,
    authorized: Authorized,
    _folder: tempfile::TempDir,
}

/// What the file of a client's key holds.
fn text(key: &crypto_box::SecretKey) -> String {
    z85(key).parse::<SecretKey>().expect("a key").public().to_string()
}

/// RFC 32 once more.
fn z85(key: &crypto_box::SecretKey) -> String {
    const DIGITS: &[u8] =
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
    let words = key.to_bytes();
    let mut text = String::new();
    for word in words.chunks(4) {
        let mut number = u32::from_be_bytes(word.try_into().expect("four bytes"));
        let mut digits = Vec::new();
        for _ in 0..5 {
            digits.push(DIGITS[(number % 85) as usize] as char);
            number /= 85;
        }
        text.extend(digits.into_iter().rev());
    }
    text
}

impl Served {
    async fn open(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authorized = Authorized::new(folder.path().to_owned());
        fs::write(authorized.file("ann"), text(&pair(1))).expect("written");
        let secret: SecretKey = z85(&pair(2)).parse().expect("a key");
        let security = Security::Curve(CurveServer::new(secret), authorized.clone());
        let hub = Hub::bind(&[(loopback(), security)], &limits).await.expect("bound");
        let endpoint = hub.endpoints().next().expect("a place").clone();
        Self { hub, endpoint, server: pair(2).public_key(), authorized, _folder: folder }
    }

    async fn ready(&self) -> Client {
        Client::ready(&self.endpoint, pair(1), self.server.clone()).await
    }

    async fn greeted(&self) -> Client {
        Client::greeted(&self.endpoint, pair(1), self.server.clone()).await
    }

    async fn message(&mut self) -> (HubPeer, Vec<Bytes>) {
        loop {
            let arrival = self.hub.recv().await;
            if let Some(incoming) = arrival.message {
                assert_eq!(incoming.principal.as_deref(), Some("ann"));
                return (arrival.peer, incoming.message);
            }
        }
    }

    /// The next client is served.
    async fn serves(&mut self) {
        let mut client = self.ready().await;
        client.send(1, b"are you").await;
        client.send(0, b"there").await;
        let (peer, message) = self.message().await;
        assert_eq!(message, [part("are you"), part("there")]);
        self.hub.sender().send(peer, b"client", &message, Lane::Data).expect("connected");
        assert_eq!(client.next().await, Some((1, b"are you".to_vec())));
        assert_eq!(client.next().await, Some((0, b"there".to_vec())));
    }
}

#[tokio::test]
async fn an_authorised_client_is_known_by_the_name_of_its_key() {
    let mut place = Served::open(Limits::agents()).await;
    place.serves().await;
    let mut client = place.ready().await;
    // A PING has a box too, and may stand between the parts of a message.
    client.send(1, b"a").await;
    client.send(2, b"\x04PING\x00\x00context").await;
    client.send(0, b"b").await;
    assert_eq!(client.next().await, Some((2, b"\x04PONGcontext".to_vec())));
    assert_eq!(place.message().await.1, [part("a"), part("b")]);
}

#[tokio::test]
async fn an_endpoint_for_everybody_tells_whose_key_a_request_came_under() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = KeyFolder::new(folder.path().to_owned());
    keys.add("ann", Some(text(&pair(1)).parse().expect("a key"))).expect("added");
    let secret_key = z85(&pair(2)).parse().expect("a key");
    let trust = Trust::Curve { secret_key, authorized: keys.authorized() };
    let place = Place { endpoint: "tcp://0.0.0.0:0".parse().expect("an endpoint"), trust };
    let mut agents =
        AgentEndpoint::bind(vec![place], "server".to_owned(), Arc::new(SystemClock)).await.expect("bound");
    let endpoint = agents.endpoints().next().expect("a place").clone();
    let mut client = Client::ready(&endpoint, pair(1), pair(2).public_key()).await;
    let unsigned = Signer::new("hmac-sha256", b"").expect("no key is fine");
    let message = Outgoing::new("ping", Json::object(), Json::object());
    let parts = wire::write(message, &unsigned, &mut HeaderWriter::new("me".to_owned()), SystemClock.now());
    for (number, part) in parts.iter().enumerate() {
        client.send(u8::from(number + 1 < parts.len()), part).await;
    }
    let AgentEvent::Request { principal, message, .. } = agents.recv().await else {
        unreachable!("a request")
    };
    assert_eq!((principal.as_deref(), message.header.msg_type.as_str()), (Some("ann"), "ping"));
}

#[tokio::test]
async fn large_messages_and_both_lanes_keep_their_nonces_in_order() {
    let mut place = Served::open(Limits::agents()).await;
    let mut client = place.ready().await;
    let large: Vec<u8> = (0..3u32 << 20).map(|number| (number % 251) as u8).collect();
    client.send(1, b"x").await;
    client.send(0, &large).await;
    let (peer, message) = place.message().await;
    assert_eq!(message[1], large);
    let sender = place.hub.sender();
    for number in 0..6 {
        let parts = [part(&number.to_string()), Bytes::from(large.clone())];
        sender.send(peer, b"client", &parts, Lane::Data).expect("room");
    }
    sender.send(peer, b"client", &[part("control")], Lane::Control).expect("room");
    let mut order = Vec::new();
    while order.len() < 7 {
        let (flags, name) = client.next().await.expect("open");
        if flags == 1 {
            assert_eq!(client.next().await, Some((0, large.clone())));
        }
        order.push(String::from_utf8(name).expect("text"));
    }
    let data: Vec<_> = order.iter().filter(|name| *name != "control").collect();
    assert_eq!(data, ["0", "1", "2", "3", "4", "5"]);
    assert_ne!(order.last().map(String::as_str), Some("control"), "it overtakes");
    assert!(sender.flushed(std::time::Duration::from_secs(60)).await);
}

#[tokio::test]
async fn a_key_counts_from_the_next_connection_on() {
    let mut place = Served::open(Limits::agents()).await;
    let stranger = pair(3);
    let mut refused = Client::greeted(&place.endpoint, stranger.clone(), place.server.clone()).await;
    let hello = refused.hello();
    refused.raw.command(&hello).await;
    let welcome = refused.command().await.expect("WELCOME");
    let welcomed = refused.welcomed(&welcome);
    let initiate = refused.initiate(&welcomed, SocketType::Dealer, b"");
    refused.raw.command(&initiate).await;
    assert_eq!(refused.command().await, Some(encode_error("400")));
    refused.raw.closed().await;
    let counters = place.hub.counters();
    assert_eq!((counters.unknown_keys, counters.rejected, counters.admitted), (1, 1, 0));
    fs::write(place.authorized.file("zoe"), text(&stranger)).expect("written");
    Client::ready(&place.endpoint, stranger, place.server.clone()).await;
    fs::remove_file(place.authorized.file("ann")).expect("removed");
    fs::write(place.authorized.file("ann"), text(&pair(1))).expect("written");
    place.serves().await;
}

#[tokio::test]
async fn other_mechanisms_and_other_server_keys_are_refused_with_a_word() {
    let mut place = Served::open(Limits::agents()).await;
    let mut null = Raw::greeted(&place.endpoint).await;
    assert_eq!(
        null.next_command().await,
        Some(Command::Error(part("another security mechanism is required")))
    );
    null.closed().await;
    let mut wrong = Client::greeted(&place.endpoint, pair(1), pair(9).public_key()).await;
    let hello = wrong.hello();
    wrong.raw.command(&hello).await;
    assert_eq!(wrong.command().await, Some(encode_error("400")));
    wrong.raw.closed().await;
    let mut bad_kind = place.greeted().await;
    let hello = bad_kind.hello();
    bad_kind.raw.command(&hello).await;
    let welcome = bad_kind.command().await.expect("WELCOME");
    let welcomed = bad_kind.welcomed(&welcome);
    let initiate = bad_kind.initiate(&welcomed, SocketType::Sub, b"");
    bad_kind.raw.command(&initiate).await;
    assert_eq!(bad_kind.command().await, Some(encode_error("incompatible socket type")));
    place.serves().await;
}

#[tokio::test]
async fn a_recorded_conversation_cannot_be_played_again() {
    let mut place = Served::open(Limits::agents()).await;
    let mut client = place.greeted().await;
    let hello = client.hello();
    client.raw.command(&hello).await;
    let welcome = client.command().await.expect("WELCOME");
    let welcomed = client.welcomed(&welcome);
    let initiate = client.initiate(&welcomed, SocketType::Dealer, b"client");
    client.raw.command(&initiate).await;
    client.command().await.expect("READY");
    let frame = client.frame(0, b"once");
    client.raw.send(&frame).await;
    assert_eq!(place.message().await.1, [part("once")]);
    // On another connection, while the first one lives and its cookie's key may too.
    let mut replay = place.greeted().await;
    replay.raw.command(&hello).await;
    replay.command().await.expect("WELCOME");
    replay.raw.command(&initiate).await;
    replay.raw.send(&frame).await;
    replay.raw.closed().await;
    // And on the same one.
    client.raw.send(&frame).await;
    client.raw.closed().await;
    place.serves().await;
}

#[tokio::test]
async fn what_is_in_a_box_keeps_to_the_caps_too() {
    let caps = Caps { message_bytes: 10_000, parts: 3, command_bytes: 100 };
    let mut place = Served::open(Limits { caps, ..Limits::agents() }).await;
    for frames in [
        vec![(1, 6_000), (0, 6_000)],
        vec![(0, 10_001)],
        vec![(1, 1), (1, 1), (1, 1), (0, 1)],
        vec![(2, 101)],
        vec![(3, 1)],
        vec![(8, 1)],
    ] {
        let mut client = place.ready().await;
        for (flags, len) in &frames {
            client.send(*flags, &vec![4; *len]).await;
        }
        client.raw.closed().await;
    }
    let mut exact = place.ready().await;
    exact.send(1, &[0; 6_000]).await;
    exact.send(0, &[0; 4_000]).await;
    assert_eq!(place.message().await.1.len(), 2);
    let mut outside = place.ready().await;
    outside.raw.message(&[part("a plain message")]).await;
    outside.raw.closed().await;
    let mut command = place.ready().await;
    command.raw.command(&Ready::encode(SocketType::Dealer, b"")).await;
    command.raw.closed().await;
    place.serves().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_asked_in_a_box() {
    let place = Served::open(Limits::agents()).await;
    let mut client = place.ready().await;
    assert_eq!(client.next().await, Some((2, b"\x04PING\x00\x00".to_vec())));
    client.send(2, b"\x04PONG").await;
    assert_eq!(client.next().await, Some((2, b"\x04PING\x00\x00".to_vec())));
    assert_eq!(client.next().await, None);
    assert_eq!(place.hub.counters().silent, 1);
}

/// One change to the bytes of a step.
#[derive(Clone, Debug)]
enum Accident {
    Flip(usize, u8),
    Cut(usize),
    Grow(Vec<u8>),
    Replace(Vec<u8>),
}

fn accident() -> impl Strategy<Value = Accident> {
    prop_oneof![
        3 => (any::<usize>(), 1u8..).prop_map(|(at, by)| Accident::Flip(at, by)),
        1 => any::<usize>().prop_map(Accident::Cut),
        1 => proptest::collection::vec(any::<u8>(), 1..300).prop_map(Accident::Grow),
        1 => proptest::collection::vec(any::<u8>(), 0..300).prop_map(Accident::Replace),
    ]
}

fn damaged(mut bytes: Vec<u8>, accident: &Accident) -> Vec<u8> {
    let at = |at: &usize, len: usize| at % len.max(1);
    match accident {
        Accident::Flip(index, by) => {
            let index = at(index, bytes.len());
            bytes[index] ^= by;
        }
        Accident::Cut(index) => bytes.truncate(at(index, bytes.len())),
        Accident::Grow(more) => bytes.extend(more),
        Accident::Replace(other) => bytes = other.clone(),
    }
    bytes
}

/// Does the handshake and sends a frame, with an accident at one step: what was damaged is not believed.
async fn with_accident(place: &mut Served, step: usize, accident: &Accident) {
    let mut client = place.greeted().await;
    let spoil = |number: usize, bytes: Vec<u8>| if number == step { damaged(bytes, accident) } else { bytes };
    let hello = spoil(0, client.hello());
    client.raw.command(&hello).await;
    // HELLO has zeros that say nothing: changed ones are no accident.
    let Some(welcome) = client.command().await.filter(|body| body.starts_with(b"\x07WELCOME")) else {
        return;
    };
    let welcomed = client.welcomed(&welcome);
    let initiate = spoil(1, client.initiate(&welcomed, SocketType::Dealer, b"client"));
    client.raw.command(&initiate).await;
    if client.command().await.is_none_or(|body| !body.starts_with(b"\x05READY")) {
        return assert_eq!(step, 1, "only INITIATE was damaged");
    }
    assert_ne!(step, 1, "a damaged INITIATE is refused");
    let frame = client.frame(0, b"believed");
    let frame = spoil(2, frame.to_vec());
    client.raw.send(&frame).await;
    drop(client);
    let arrival = place.hub.recv().await;
    if let Some(incoming) = arrival.message {
        assert_eq!(incoming.message, [part("believed")]);
        assert!(step != 2 || matches!(accident, Accident::Grow(_)), "a damaged frame is not believed");
        assert_eq!(place.hub.recv().await.message, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn hostile_bytes_at_every_step_are_survived(step in 0usize..3, accident in accident()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut place = Served::open(Limits::agents()).await;
            with_accident(&mut place, step, &accident).await;
            place.serves().await;
        });
    }
}
