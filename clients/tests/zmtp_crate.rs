//! The `zeromq` crate as the peer: an implementation that shares no line with ours.

mod support;

use bytes::Bytes;
use cob_clients::zmtp::{Endpoint, Heartbeat, Lane, Router, Xpub, XpubEvent};
use support::{loopback, part};
use zeromq::util::PeerIdentity;
use zeromq::{DealerSocket, ReqSocket, Socket, SocketOptions, SocketRecv, SocketSend, SubSocket, ZmqMessage};

fn message(parts: &[Bytes]) -> ZmqMessage {
    ZmqMessage::try_from(parts.to_vec()).expect("not empty")
}

/// Both transports; the directory holds the socket file.
fn endpoints() -> (tempfile::TempDir, [Endpoint; 2]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ipc = Endpoint::Ipc(dir.path().join("socket"));
    (dir, [loopback(), ipc])
}

#[tokio::test]
async fn dealers_talk_to_the_router() {
    let (_dir, endpoints) = endpoints();
    for endpoint in endpoints {
        let mut router = Router::bind(&endpoint).await.expect("bound");
        let mut options = SocketOptions::default();
        options.peer_identity(PeerIdentity::try_from(b"dealer".to_vec()).expect("an identity"));
        let mut dealer = DealerSocket::with_options(options);
        dealer.connect(&router.endpoint().to_string()).await.expect("connected");
        let parts = [part("a"), part(""), Bytes::from(vec![7; 300_000]), part("z")];
        dealer.send(message(&parts)).await.expect("sent");
        let incoming = router.recv().await;
        assert_eq!((incoming.identity, incoming.message), (part("dealer"), parts.to_vec()));
        router.sender().send(b"dealer", &parts, Lane::Data).expect("connected");
        router.sender().flush();
        assert_eq!(dealer.recv().await.expect("a reply").into_vec(), parts);
    }
}

#[tokio::test]
async fn subscribers_get_what_they_subscribed_to() {
    const COUNT: u32 = 20_000;
    let (_dir, endpoints) = endpoints();
    for endpoint in endpoints {
        let mut xpub = Xpub::bind(&endpoint).await.expect("bound");
        let mut sub = SubSocket::new();
        sub.connect(&xpub.endpoint().to_string()).await.expect("connected");
        sub.subscribe("want").await.expect("subscribed");
        assert!(matches!(xpub.recv().await, XpubEvent::Subscribed { topic, .. } if topic == "want"));
        let publisher = xpub.publisher();
        let reader = tokio::spawn(async move {
            for number in 0..COUNT {
                let parts = sub.recv().await.expect("a message").into_vec();
                assert_eq!(parts, [part("wanted"), Bytes::copy_from_slice(&number.to_be_bytes())]);
            }
        });
        for number in 0..COUNT {
            publisher.publish(&[part("wanted"), Bytes::copy_from_slice(&number.to_be_bytes())]);
            publisher.publish(&[part("other")]);
            publisher.room().await;
        }
        publisher.flush();
        reader.await.expect("everything in order");
    }
}

#[tokio::test]
async fn requests_to_the_heartbeat_come_back() {
    let (_dir, endpoints) = endpoints();
    for endpoint in endpoints {
        let heartbeat = Heartbeat::bind(&endpoint).await.expect("bound");
        let mut req = ReqSocket::new();
        req.connect(&heartbeat.endpoint().to_string()).await.expect("connected");
        for _ in 0..3 {
            req.send(message(&[part("ping")])).await.expect("sent");
            assert_eq!(req.recv().await.expect("an echo").into_vec(), [part("ping")]);
        }
    }
}
