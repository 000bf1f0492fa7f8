//! What the sockets promise to peers that keep to the rules: order, lanes, identities, flow control, an end.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cob_clients::zmtp::codec::Item;
use cob_clients::zmtp::command::Command;
use cob_clients::zmtp::{Heartbeat, Lane, Limits, Router, SendError, SocketType, Xpub, XpubEvent};
use support::{Raw, loopback, part};

/// Long enough for any machine; no test waits it out.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_router_answers_who_asked() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let sender = router.sender();
    let mut first = Raw::ready(router.endpoint(), SocketType::Dealer, b"first").await;
    let mut second = Raw::ready(router.endpoint(), SocketType::Dealer, b"second").await;
    second.message(&[part("a"), part(""), part("b")]).await;
    let incoming = router.recv().await;
    assert_eq!((incoming.identity, incoming.message), (part("second"), vec![part("a"), part(""), part("b")]));
    sender.send(b"second", &[part("reply")], Lane::Data).expect("connected");
    sender.send(b"first", &[part("other")], Lane::Data).expect("connected");
    sender.flush();
    assert_eq!(second.next_message().await, Some(vec![part("reply")]));
    assert_eq!(first.next_message().await, Some(vec![part("other")]));
    assert_eq!(sender.send(b"third", &[part("x")], Lane::Data), Err(SendError::NoPeer));
}

#[tokio::test]
async fn a_peer_without_identity_gets_a_unique_one() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let mut identities = Vec::new();
    for _ in 0..2 {
        let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"").await;
        peer.message(&[part("hello")]).await;
        let incoming = router.recv().await;
        router.sender().send(&incoming.identity, &[part("you")], Lane::Data).expect("connected");
        router.sender().flush();
        assert_eq!(peer.next_message().await, Some(vec![part("you")]));
        identities.push(incoming.identity);
    }
    assert_ne!(identities[0], identities[1]);
}

#[tokio::test]
async fn the_same_identity_takes_over() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let identity: Vec<u8> = (0..=254).collect();
    let mut former = Raw::ready(router.endpoint(), SocketType::Dealer, &identity).await;
    former.message(&[part("1")]).await;
    let old = router.recv().await;
    let mut current = Raw::ready(router.endpoint(), SocketType::Dealer, &identity).await;
    former.closed().await;
    current.message(&[part("2")]).await;
    let new = router.recv().await;
    assert_eq!((&old.identity[..], &new.identity[..]), (&identity[..], &identity[..]));
    assert_ne!(old.peer, new.peer);
    router.sender().send(&identity, &[part("3")], Lane::Data).expect("connected");
    router.sender().flush();
    assert_eq!(current.next_message().await, Some(vec![part("3")]));
}

#[tokio::test]
async fn control_overtakes_data_between_messages() {
    let router = Router::bind(&loopback()).await.expect("bound");
    let sender = router.sender();
    let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"peer").await;
    let large = Bytes::from(vec![0; 24 << 20]);
    for number in 0..2 {
        sender.send(b"peer", &[part(&number.to_string()), large.clone()], Lane::Data).expect("room");
    }
    // The socket cannot take 24 MiB at once, so the first message is now half written.
    sender.flush();
    sender.send(b"peer", &[part("interrupt")], Lane::Control).expect("room");
    sender.flush();
    for name in ["0", "interrupt", "1"] {
        assert_eq!(peer.next_message().await.map(|parts| parts[0].clone()), Some(part(name)));
    }
    assert!(sender.flushed(LONG).await);
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_full_and_flushed_says_so() {
    let limits = Limits { queue_bytes: 1 << 20, ..Limits::default() };
    let router = Router::bind_with(&loopback(), limits).await.expect("bound");
    let sender = router.sender();
    let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"peer").await;
    let message = [Bytes::from(vec![7; 100_000])];
    let mut sent = 0;
    let error = loop {
        match sender.send(b"peer", &message, Lane::Data) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        sender.flush();
    };
    assert_eq!(error, SendError::Full);
    assert!(!sender.flushed(Duration::ZERO).await);
    sender.send(b"peer", &[part("control")], Lane::Control).expect("its own budget");
    let flushed = tokio::spawn(async move { sender.flushed(LONG).await });
    let mut large = 0;
    while large < sent {
        large += usize::from(peer.next_message().await.expect("open") == message);
    }
    assert!(flushed.await.expect("no panic"));
}

#[tokio::test]
async fn an_owner_that_takes_nothing_stops_its_peers_being_read_and_loses_nothing() {
    let limits = Limits { inbox: 4, inbox_bytes: 4096, ..Limits::default() };
    let mut router = Router::bind_with(&loopback(), limits).await.expect("bound");
    let mut tasks = Vec::new();
    for name in ["a", "b"] {
        let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, name.as_bytes()).await;
        tasks.push(tokio::spawn(async move {
            for number in 0..500u32 {
                peer.message(&[Bytes::copy_from_slice(&number.to_be_bytes()), vec![0; 1000].into()]).await;
            }
            peer
        }));
    }
    let mut next = std::collections::HashMap::from([(part("a"), 0u32), (part("b"), 0)]);
    for _ in 0..1000 {
        let incoming = router.recv().await;
        let expected = next.get_mut(&incoming.identity).expect("a or b");
        assert_eq!(incoming.message[0], expected.to_be_bytes()[..]);
        *expected += 1;
    }
}

#[tokio::test]
async fn subscriptions_come_as_messages_and_as_commands() {
    let mut xpub = Xpub::bind(&loopback()).await.expect("bound");
    let publisher = xpub.publisher();
    let mut peer = Raw::ready(xpub.endpoint(), SocketType::Sub, b"").await;
    peer.message(&[part("\u{1}ab")]).await;
    peer.command(b"\x09SUBSCRIBEx").await;
    let Ok([XpubEvent::Subscribed { peer: id, topic }, second]) =
        <[XpubEvent; 2]>::try_from(vec![xpub.recv().await, xpub.recv().await])
    else {
        unreachable!("two subscriptions")
    };
    assert_eq!((topic, second), (part("ab"), XpubEvent::Subscribed { peer: id, topic: part("x") }));
    assert_eq!(publisher.publish(&[part("abc"), part("1")]), 1);
    assert_eq!(publisher.publish(&[part("a"), part("2")]), 0);
    peer.command(b"\x06CANCELx").await;
    peer.message(&[part("\u{0}nothing")]).await;
    peer.message(&[part("\u{0}ab")]).await;
    assert_eq!(xpub.recv().await, XpubEvent::Unsubscribed { peer: id, topic: part("x") });
    assert_eq!(xpub.recv().await, XpubEvent::Unsubscribed { peer: id, topic: part("ab") });
    assert_eq!(publisher.publish(&[part("abc"), part("3")]), 0);
    publisher.send_to(id, &[part("only you")]).expect("connected");
    publisher.flush();
    // The lane of control overtakes what waited; nothing had been flushed.
    assert_eq!(peer.next_message().await, Some(vec![part("only you")]));
    assert_eq!(peer.next_message().await, Some(vec![part("abc"), part("1")]));
}

#[tokio::test]
async fn a_welcome_comes_before_anything_published() {
    let welcome = Arc::new(|topic: &[u8]| Some(vec![Bytes::copy_from_slice(topic), part("welcome")]));
    let mut xpub = Xpub::bind_with(&loopback(), Limits::default(), Some(welcome)).await.expect("bound");
    let publisher = xpub.publisher();
    let mut peer = Raw::subscriber(xpub.endpoint()).await;
    while publisher.publish(&[part("status")]) == 0 {
        tokio::task::yield_now().await;
    }
    publisher.flush();
    assert_eq!(peer.next_message().await, Some(vec![part(""), part("welcome")]));
    assert_eq!(peer.next_message().await, Some(vec![part("status")]));
    peer.send(&[0, 1, 1]).await;
    assert_eq!(peer.next_message().await, Some(vec![part(""), part("welcome")]), "again for the same topic");
    for _ in 0..2 {
        assert!(matches!(xpub.recv().await, XpubEvent::Subscribed { .. }));
    }
}

#[tokio::test]
async fn a_slow_subscriber_is_cut_off_and_a_fast_one_gets_everything_in_order() {
    const COUNT: u32 = 3000;
    let limits =
        Limits { queue_bytes: 4 << 20, subscriber_stall: Duration::from_millis(300), ..Limits::default() };
    let mut xpub = Xpub::bind_with(&loopback(), limits, None).await.expect("bound");
    let publisher = xpub.publisher();
    let mut fast = Raw::subscriber(xpub.endpoint()).await;
    let stuck = Raw::subscriber(xpub.endpoint()).await;
    for _ in 0..2 {
        xpub.recv().await;
    }
    let reader = tokio::spawn(async move {
        for number in 0..COUNT {
            let message = fast.next_message().await.expect("never cut off");
            assert_eq!(message[1], number.to_be_bytes()[..]);
        }
    });
    let body = Bytes::from(vec![0; 20_000]);
    for number in 0..COUNT {
        publisher.publish(&[part("x"), Bytes::copy_from_slice(&number.to_be_bytes()), body.clone()]);
        publisher.flush();
        publisher.room().await;
    }
    reader.await.expect("everything in order");
    assert!(publisher.flushed(LONG).await);
    let counters = publisher.counters();
    assert_eq!((counters.cut_off, counters.peers), (1, 1));
    drop(stuck);
}

#[tokio::test]
async fn a_publisher_that_never_waits_cuts_off_rather_than_drops() {
    let limits = Limits { queue_bytes: 1 << 20, ..Limits::default() };
    let mut xpub = Xpub::bind_with(&loopback(), limits, None).await.expect("bound");
    let publisher = xpub.publisher();
    let mut peer = Raw::subscriber(xpub.endpoint()).await;
    xpub.recv().await;
    let body = Bytes::from(vec![0; 100_000]);
    let mut number = 0u32;
    while publisher.publish(&[Bytes::copy_from_slice(&number.to_be_bytes()), body.clone()]) == 1 {
        number += 1;
    }
    let mut expected = 0u32;
    while let Some(message) = peer.next_message().await {
        assert_eq!(message[0], expected.to_be_bytes()[..], "what arrives has no gap");
        expected += 1;
    }
    assert!(publisher.flushed(LONG).await, "what was queued for it counts no longer");
    assert!(publisher.has_room());
}

#[tokio::test]
async fn room_and_flushed_need_no_subscriber() {
    let xpub = Xpub::bind(&loopback()).await.expect("bound");
    let publisher = xpub.publisher();
    for _ in 0..1000 {
        assert_eq!(publisher.publish(&[part("nobody"), part("listens")]), 0);
        publisher.room().await;
    }
    assert!(publisher.is_flushed());
    assert!(publisher.flushed(Duration::ZERO).await);
}

#[tokio::test]
async fn the_heartbeat_echoes_every_connection_for_itself() {
    let heartbeat = Heartbeat::bind(&loopback()).await.expect("bound");
    let mut silent = Raw::ready(heartbeat.endpoint(), SocketType::Req, b"").await;
    let mut peer = Raw::ready(heartbeat.endpoint(), SocketType::Req, b"").await;
    for text in ["ping", "pong"] {
        peer.message(&[part(""), part(text), part("and more")]).await;
        assert_eq!(peer.next_message().await, Some(vec![part(""), part(text), part("and more")]));
    }
    silent.message(&[part("no envelope")]).await;
    silent.message(&[part("id"), part(""), part("body")]).await;
    assert_eq!(silent.next_message().await, Some(vec![part("id"), part(""), part("body")]));
}

#[tokio::test]
async fn ping_is_answered_with_its_context_even_between_parts() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"").await;
    peer.send(&[1, 1, b'a']).await;
    peer.command(b"\x04PING\x00\x64context").await;
    let Some(Item::Command(pong)) = peer.next().await else { unreachable!("a PONG") };
    assert_eq!((Command::parse(&pong), &pong[..]), (Ok(Command::Pong), &b"\x04PONGcontext"[..]));
    peer.send(&[0, 1, b'b']).await;
    assert_eq!(router.recv().await.message, [part("a"), part("b")]);
}

#[tokio::test]
async fn two_hundred_peers_are_served() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let sender = router.sender();
    let mut peers = Vec::new();
    for number in 0..200u32 {
        let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, &number.to_be_bytes()).await;
        peer.message(&[part("hello")]).await;
        peers.push(peer);
    }
    for _ in 0..200 {
        let incoming = router.recv().await;
        sender
            .send(&incoming.identity, std::slice::from_ref(&incoming.identity), Lane::Data)
            .expect("connected");
    }
    sender.flush();
    for (number, peer) in (0u32..).zip(&mut peers) {
        assert_eq!(peer.next_message().await, Some(vec![Bytes::copy_from_slice(&number.to_be_bytes())]));
    }
    assert_eq!(router.counters().peers, 200);
}

#[tokio::test]
async fn dropping_a_socket_closes_its_peers() {
    let router = Router::bind(&loopback()).await.expect("bound");
    let sender = router.sender();
    let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"peer").await;
    let mut half_open = Raw::greeted(router.endpoint()).await;
    drop(router);
    peer.closed().await;
    half_open.closed().await;
    assert_eq!(sender.send(b"peer", &[part("x")], Lane::Data), Err(SendError::NoPeer));
    assert!(sender.flushed(Duration::ZERO).await);
}

#[tokio::test]
async fn who_comes_back_under_its_identity_finds_what_was_kept_for_it_and_nobody_elses() {
    let router = Router::bind(&loopback()).await.expect("bound");
    let sender = router.sender();
    for (identity, text) in [("mine", "one"), ("theirs", "other"), ("mine", "two")] {
        let identity = Bytes::copy_from_slice(identity.as_bytes());
        sender.send_or_keep(&identity, &[part(text)], Lane::Data).expect("kept");
    }
    let ours = Bytes::from_static(&[0, 1, 2]);
    assert_eq!(sender.send_or_keep(&ours, &[part("x")], Lane::Data), Err(SendError::NoPeer));
    for expected in [&["one", "two", "three"][..], &["three"]] {
        let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"mine").await;
        while sender.send(b"mine", &[part("three")], Lane::Data).is_err() {
            tokio::task::yield_now().await;
        }
        sender.flush();
        for text in expected {
            assert_eq!(peer.next_message().await, Some(vec![part(text)]));
        }
    }
}

#[tokio::test]
async fn an_ipc_socket_leaves_no_file_behind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("shell");
    let endpoint = format!("ipc://{}", path.display()).parse().expect("an endpoint");
    let router = Router::bind(&endpoint).await.expect("bound");
    assert_eq!(router.endpoint(), &endpoint);
    assert!(path.exists());
    let second = Router::bind(&endpoint).await.expect_err("in use");
    assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
    drop(router);
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_on_many_threads_keep_their_order_and_never_interleave() {
    const COUNT: u32 = 2000;
    let router = Router::bind(&loopback()).await.expect("bound");
    let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"peer").await;
    let threads: Vec<_> = (0..4u8)
        .map(|thread| {
            let sender = router.sender();
            tokio::task::spawn_blocking(move || {
                for number in 0..COUNT {
                    let stamp = Bytes::copy_from_slice(&number.to_be_bytes());
                    let body =
                        Bytes::from(vec![thread; usize::try_from(number * 37 % 5_000).expect("small")]);
                    sender.send(b"peer", &[vec![thread].into(), stamp, body], Lane::Data).expect("room");
                    sender.flush();
                }
            })
        })
        .collect();
    let mut next = [0u32; 4];
    for _ in 0..4 * COUNT {
        let parts = peer.next_message().await.expect("open");
        let thread = parts[0][0];
        let expected = &mut next[usize::from(thread)];
        assert_eq!(parts[1], expected.to_be_bytes()[..]);
        assert!(parts[2].iter().all(|byte| *byte == thread));
        *expected += 1;
    }
    for thread in threads {
        thread.await.expect("no panic");
    }
}

#[tokio::test]
async fn what_was_flushed_arrives_after_the_socket_is_gone() {
    let mut xpub = Xpub::bind(&loopback()).await.expect("bound");
    let publisher = xpub.publisher();
    let mut peer = Raw::subscriber(xpub.endpoint()).await;
    xpub.recv().await;
    for number in 0..200u32 {
        publisher.publish(&[Bytes::copy_from_slice(&number.to_be_bytes()), vec![0; 10_000].into()]);
    }
    let reader = tokio::spawn(async move {
        for number in 0..200u32 {
            assert_eq!(peer.next_message().await.expect("not lost")[0], number.to_be_bytes()[..]);
        }
        assert_eq!(peer.next_message().await, None);
    });
    assert!(publisher.flushed(LONG).await);
    drop(xpub);
    reader.await.expect("everything arrives");
}

#[tokio::test]
async fn waiting_for_a_message_may_be_given_up() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let mut peer = Raw::ready(router.endpoint(), SocketType::Dealer, b"").await;
    for number in 0..200u32 {
        peer.message(&[Bytes::copy_from_slice(&number.to_be_bytes())]).await;
        let incoming = loop {
            tokio::select! {
                biased;
                () = tokio::task::yield_now() => {}
                incoming = router.recv() => break incoming,
            }
            if let Some(incoming) = router.try_recv() {
                break incoming;
            }
        };
        assert_eq!(incoming.message[0], number.to_be_bytes()[..]);
    }
}
