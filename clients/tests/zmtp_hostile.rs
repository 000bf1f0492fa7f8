//! What strangers may try: each row is closed or refused, and the next client is served.

mod support;

use std::time::Duration;

use bytes::Bytes;
use cob_clients::zmtp::codec::{Caps, Encoded};
use cob_clients::zmtp::command::{Command, Ready};
use cob_clients::zmtp::greeting::{Greeting, Mechanism};
use cob_clients::zmtp::{Heartbeat, Lane, Limits, Router, SendError, SocketType, Xpub};
use support::{Raw, loopback, part};

const HUGE: [u64; 5] = [1 << 32, 1 << 40, 1 << 63, u64::MAX, (32 << 20) + 1];

/// The socket still serves others.
async fn serves(router: &mut Router) {
    let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"good").await;
    peer.message(&[part("hello")]).await;
    assert_eq!(router.recv().await.message, [part("hello")]);
    router.sender().send(b"good", &[part("reply")], Lane::Data).expect("connected");
    router.sender().flush();
    assert_eq!(peer.next_message().await, Some(vec![part("reply")]));
}

fn long_frame(flags: u8, len: u64) -> Vec<u8> {
    [&[flags], len.to_be_bytes().as_slice(), b"a few bytes"].concat()
}

#[tokio::test]
async fn p02_huge_lengths_close_the_connection_before_and_after_the_handshake() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let mut count = 0;
    for len in HUGE {
        for flags in [2, 3, 6] {
            let frame = long_frame(flags, len);
            let mut early = Raw::greeted(router.endpoint()).await;
            early.send(&frame).await;
            early.closed().await;
            let mut late = Raw::ready(router.endpoint(), SocketType::Dealer, b"").await;
            late.send(&frame).await;
            late.closed().await;
            let mut inside = Raw::ready(router.endpoint(), SocketType::Dealer, b"").await;
            inside.send(&[1, 1, b'x']).await;
            inside.send(&frame).await;
            inside.closed().await;
            count += 3;
        }
    }
    serves(&mut router).await;
    assert_eq!(router.counters().malformed, count);
}

#[tokio::test]
async fn p03_endless_parts_close_the_connection() {
    let limits = Limits { caps: Caps { message_bytes: 1 << 20, ..Caps::default() }, ..Limits::default() };
    let mut router = Router::bind_with(&loopback(), limits).await.expect("bound");
    for part in [
        vec![1, 0],
        [vec![1, 255], vec![0; 255]].concat(),
        [&[3][..], &(1u64 << 16).to_be_bytes(), &[0; 1 << 16]].concat(),
    ] {
        let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"").await;
        for _ in 0..100 {
            peer.send(&part).await;
        }
        peer.closed().await;
    }
    serves(&mut router).await;
}

#[tokio::test]
async fn strangers_are_closed_at_once() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let mut plain = Greeting::encode(Mechanism::Null);
    plain[12..17].copy_from_slice(b"PLAIN");
    let mut curve = Greeting::encode(Mechanism::Null);
    curve[12..17].copy_from_slice(b"CURVE");
    let mut old = Greeting::encode(Mechanism::Null);
    old[10] = 1;
    for greeting in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x00", &[0xff; 64], &plain, &curve, &old] {
        let mut peer = Raw::silent(router.endpoint()).await;
        peer.send(greeting).await;
        peer.closed().await;
    }
    serves(&mut router).await;
}

#[tokio::test]
async fn broken_handshakes_are_closed() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let long_identity = Ready::encode(SocketType::Dealer, &[7; 256]);
    for body in [&b""[..], b"\x09SUBSCRIBE", b"\x05READY\x08Identity\xff\xff\xff\xff", &long_identity] {
        let mut peer = Raw::greeted(router.endpoint()).await;
        peer.command(body).await;
        peer.closed().await;
    }
    let mut early = Raw::greeted(router.endpoint()).await;
    early.message(&[part("before READY")]).await;
    early.closed().await;
    let mut twice = Raw::ready(router.endpoint(), SocketType::Dealer, b"").await;
    twice.command(&Ready::encode(SocketType::Dealer, b"")).await;
    twice.closed().await;
    serves(&mut router).await;
}

#[tokio::test]
async fn the_wrong_kind_of_socket_is_told_so() {
    let router = Router::bind(&loopback()).await.expect("bound");
    let xpub = Xpub::bind(&loopback()).await.expect("bound");
    let heartbeat = Heartbeat::bind(&loopback()).await.expect("bound");
    for (endpoint, kind) in [
        (router.endpoint(), SocketType::Sub),
        (router.endpoint(), SocketType::Rep),
        (xpub.endpoint(), SocketType::Dealer),
        (heartbeat.endpoint(), SocketType::Sub),
    ] {
        let mut peer = Raw::greeted(endpoint).await;
        peer.command(&Ready::encode(kind, b"")).await;
        let reason = Bytes::from_static(b"incompatible socket type");
        assert_eq!(peer.next_command().await, Some(Command::Error(reason)), "{kind:?}");
        peer.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stops_is_closed_by_the_deadline() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let whole = Greeting::encode(Mechanism::Null);
    for prefix in [&[][..], &[0xff], &whole[..63], &whole] {
        let mut peer = Raw::silent(router.endpoint()).await;
        peer.send(prefix).await;
        peer.closed().await;
    }
    assert_eq!(router.counters().rejected, 4);
    serves(&mut router).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_inside_a_message_is_closed_and_an_idle_one_is_not() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let mut idle = Raw::ready(router.endpoint(), SocketType::Dealer, b"idle").await;
    for prefix in [&[1][..], &[0, 5, 1], &[1, 1, 1]] {
        let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"").await;
        peer.send(prefix).await;
        peer.closed().await;
    }
    idle.message(&[part("still here")]).await;
    assert_eq!(router.recv().await.message, [part("still here")]);
}

#[tokio::test(start_paused = true)]
async fn incomplete_messages_of_all_peers_are_bounded_and_the_stuck_make_way() {
    let limits = Limits { inbound_bytes: 1 << 20, ..Limits::default() };
    let mut router = Router::bind_with(&loopback(), limits).await.expect("bound");
    let half = [&[2][..], &(2u64 << 20).to_be_bytes(), &vec![0; 1 << 19]].concat();
    let mut stuck = Vec::new();
    for _ in 0..4 {
        let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"").await;
        peer.send(&half).await;
        stuck.push(peer);
    }
    for peer in &mut stuck {
        peer.closed().await;
    }
    serves(&mut router).await;
}

#[tokio::test]
async fn c07_silent_connections_do_not_keep_a_good_one_out() {
    let limits = Limits { half_open: 8, ..Limits::default() };
    let mut router = Router::bind_with(&loopback(), limits).await.expect("bound");
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(Raw::silent(router.endpoint()).await);
    }
    serves(&mut router).await;
    for peer in silent.iter_mut().take(42) {
        peer.closed().await;
    }
    assert_eq!(router.counters().malformed, 0);
}

#[tokio::test]
async fn more_peers_than_seats_are_told_so_and_a_free_seat_is_given_away() {
    let limits = Limits { peers: 1, ..Limits::default() };
    let router = Router::bind_with(&loopback(), limits).await.expect("bound");
    let first = Raw::ready(router.endpoint(), SocketType::Dealer, b"").await;
    let mut second = Raw::greeted(router.endpoint()).await;
    second.command(&Ready::encode(SocketType::Dealer, b"")).await;
    assert_eq!(second.next_command().await, Some(Command::Error(Bytes::from_static(b"too many peers"))));
    drop(first);
    while router.counters().peers > 0 {
        tokio::task::yield_now().await;
    }
    Raw::ready(router.endpoint(), SocketType::Dealer, b"").await;
}

#[tokio::test]
async fn too_many_subscriptions_close_the_connection() {
    let limits = Limits { subscriptions: 3, ..Limits::default() };
    let mut xpub = Xpub::bind_with(&loopback(), limits, None).await.expect("bound");
    let mut peer = Raw::ready(xpub.endpoint(), SocketType::Sub, b"").await;
    for topic in ["a", "b", "c", "d"] {
        peer.message(&[part(&format!("\u{1}{topic}"))]).await;
    }
    for _ in 0..3 {
        xpub.recv().await;
    }
    peer.closed().await;
    assert_eq!(xpub.publisher().counters().malformed, 1);
}

#[tokio::test]
async fn a_flood_of_pings_that_nobody_reads_is_bounded() {
    let router = Router::bind(&loopback()).await.expect("bound");
    let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"").await;
    let pings = b"\x04\x0c\x04PING\x00\x00abcde".repeat(4096);
    for _ in 0..200 {
        peer.send(&pings).await;
    }
    assert!(router.sender().flushed(Duration::ZERO).await || router.counters().peers == 1);
}

#[tokio::test]
async fn p04_every_prefix_of_a_conversation_may_be_the_last() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let conversation = |identity: &[u8]| {
        let ready = Encoded::command(&Ready::encode(SocketType::Dealer, identity)).to_vec();
        let traffic = [1, 1, b'a', 4, 7, 4, b'P', b'I', b'N', b'G', 0, 0, 0, 2, b'b', b'c'];
        [&Greeting::encode(Mechanism::Null)[..], &ready, &traffic].concat()
    };
    let (conversation, whole) = (conversation(b"prefix"), conversation(b"whole"));
    for end in 0..conversation.len() {
        let mut peer = Raw::silent(router.endpoint()).await;
        peer.send(&conversation[..end]).await;
    }
    let mut peer = Raw::silent(router.endpoint()).await;
    peer.send(&whole).await;
    assert_eq!(router.recv().await.message, [part("a"), part("bc")]);
    serves(&mut router).await;
}

/// Numbers that look random and are the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Bytes of which many look like the flags and lengths of frames.
    fn bytes(&mut self) -> Vec<u8> {
        let len = self.next() % 200;
        (0..len)
            .map(|_| if self.next().is_multiple_of(2) { self.next() as u8 % 8 } else { self.next() as u8 })
            .collect()
    }
}

#[tokio::test]
async fn noise_at_every_stage_harms_nobody() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let xpub = Xpub::bind(&loopback()).await.expect("bound");
    let heartbeat = Heartbeat::bind(&loopback()).await.expect("bound");
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for round in 0..600 {
        let mut peer = match round % 4 {
            0 => Raw::silent(router.endpoint()).await,
            1 => Raw::greeted(router.endpoint()).await,
            2 => Raw::ready(xpub.endpoint(), SocketType::Sub, b"").await,
            _ => Raw::ready(heartbeat.endpoint(), SocketType::Req, b"").await,
        };
        peer.send(&noise.bytes()).await;
    }
    serves(&mut router).await;
    Raw::ready(xpub.endpoint(), SocketType::Sub, b"").await;
    let mut peer = Raw::ready(heartbeat.endpoint(), SocketType::Req, b"").await;
    peer.message(&[part(""), part("ping")]).await;
    assert_eq!(peer.next_message().await, Some(vec![part(""), part("ping")]));
}

#[tokio::test]
async fn a_peer_that_comes_again_and_again_leaves_nothing_behind() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    for _ in 0..500 {
        let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"again").await;
        peer.message(&[part("hello")]).await;
        assert_eq!(router.recv().await.identity, part("again"));
    }
    let last = Raw::ready(router.endpoint(), SocketType::Dealer, b"again").await;
    while router.counters().peers > 1 {
        tokio::task::yield_now().await;
    }
    drop(last);
    while router.counters().peers > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(router.sender().send(b"again", &[part("x")], Lane::Data), Err(SendError::NoPeer));
}
