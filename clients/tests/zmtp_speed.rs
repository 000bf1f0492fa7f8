//! How fast the sockets are on the loopback; prints, asserts nothing about time. For a release build:
//! `cargo test --release -p cob-clients --test zmtp_speed -- --ignored --nocapture --test-threads=1`.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cob_clients::zmtp::codec::{Caps, Decoder, Encoded, Item};
use cob_clients::zmtp::command::Ready;
use cob_clients::zmtp::greeting::{Greeting, Mechanism};
use cob_clients::zmtp::{Endpoint, Incoming, Lane, Router, SendError, SocketType, Xpub};
use support::loopback;

/// A blocking client, so that only our side runs on tokio.
struct Client {
    stream: TcpStream,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(endpoint: &Endpoint, kind: SocketType) -> Client {
        let Endpoint::Tcp(address) = endpoint else { unreachable!("only TCP") };
        let mut stream = TcpStream::connect(address).expect("listening");
        stream.set_nodelay(true).expect("nodelay");
        stream.write_all(&Greeting::encode(Mechanism::Null)).expect("open");
        stream.write_all(&Encoded::command(&Ready::encode(kind, b"")).to_vec()).expect("open");
        stream.read_exact(&mut [0; 64]).expect("a greeting");
        let mut client =
            Client { stream, decoder: Decoder::new(Caps::default()), buffer: vec![0; 256 * 1024] };
        assert!(matches!(client.next(), Item::Command(_)));
        client
    }

    fn next(&mut self) -> Item {
        loop {
            if let Some(item) = self.decoder.pull().expect("valid") {
                return item;
            }
            let arrived = self.stream.read(&mut self.buffer).expect("open");
            assert!(arrived > 0, "closed");
            self.decoder.push(&self.buffer[..arrived]);
        }
    }
}

fn jupyter_like(size: usize) -> Vec<Bytes> {
    let frames: [&'static [u8]; 5] = [b"<IDS|MSG>", &[b's'; 64], &[b'h'; 200], &[b'p'; 200], b"{}"];
    frames.into_iter().map(Bytes::from_static).chain([Bytes::from(vec![b'c'; size])]).collect()
}

fn round_trips(endpoint: &Endpoint, size: usize, count: usize) {
    let mut client = Client::connect(endpoint, SocketType::Dealer);
    let wire = Encoded::message(&jupyter_like(size)).to_vec();
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let start = Instant::now();
            client.stream.write_all(&wire).expect("open");
            client.next();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("echo {size} B: p50 {:?} p99 {:?}", times[count / 2], times[count * 99 / 100]);
}

fn pipelined(endpoint: &Endpoint, size: usize, count: usize) {
    let mut client = Client::connect(endpoint, SocketType::Dealer);
    let wire = Encoded::message(&jupyter_like(size)).to_vec();
    let mut writer = client.stream.try_clone().expect("a clone");
    let start = Instant::now();
    let sender = std::thread::spawn(move || {
        let per_batch = (100_000 / wire.len()).max(1);
        let batch = wire.repeat(per_batch);
        for _ in 0..count / per_batch {
            writer.write_all(&batch).expect("open");
        }
        for _ in 0..count % per_batch {
            writer.write_all(&wire).expect("open");
        }
    });
    for _ in 0..count {
        client.next();
    }
    sender.join().expect("no panic");
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!("pipelined {size} B: {rate:.0} messages/s, {:.0} MB/s", rate * size as f64 / 1e6);
}

#[tokio::test]
#[ignore = "a measurement"]
async fn router_echo() {
    let mut router = Router::bind(&loopback()).await.expect("bound");
    let (sender, endpoint) = (router.sender(), router.endpoint().clone());
    let client = tokio::task::spawn_blocking(move || {
        for (size, count) in [(100, 20_000), (10_000, 10_000), (1_000_000, 300), (16_000_000, 20)] {
            round_trips(&endpoint, size, count);
        }
        for (size, count) in [(100, 300_000), (10_000, 50_000)] {
            pipelined(&endpoint, size, count);
        }
    });
    let reply = async |incoming: Incoming| {
        while let Err(SendError::Full) = sender.send(&incoming.identity, &incoming.message, Lane::Data) {
            sender.flushed(Duration::from_secs(5)).await;
        }
    };
    let echo = async {
        loop {
            reply(router.recv().await).await;
            // What has come meanwhile is answered in one write.
            while let Some(incoming) = router.try_recv() {
                reply(incoming).await;
            }
            sender.flush();
        }
    };
    tokio::select! {
        done = client => done.expect("no panic"),
        () = echo => {}
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn xpub_flood() {
    for (size, count) in [(100, 1_000_000), (10_000, 200_000), (1_000_000, 4_000)] {
        let mut xpub = Xpub::bind(&loopback()).await.expect("bound");
        let (publisher, endpoint) = (xpub.publisher(), xpub.endpoint().clone());
        let reader = std::thread::spawn(move || {
            let mut client = Client::connect(&endpoint, SocketType::Sub);
            client.stream.write_all(&[0, 1, 1]).expect("open");
            for _ in 0..count {
                client.next();
            }
        });
        xpub.recv().await;
        let message = [Bytes::from_static(b"topic"), Bytes::from(vec![0; size])];
        let start = Instant::now();
        for number in 0..count {
            publisher.publish(&message);
            if number % 16 == 0 {
                publisher.flush();
            }
            publisher.room().await;
        }
        assert!(publisher.flushed(Duration::from_secs(60)).await);
        reader.join().expect("everything arrives");
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "publish {size} B: {:.0} messages/s, {:.0} MB/s",
            f64::from(count) / seconds,
            f64::from(count) * size as f64 / seconds / 1e6
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn decoder_of_one_large_message() {
    let wire = Encoded::message(&[Bytes::from(vec![7; 32 << 20])]).to_vec();
    for _ in 0..3 {
        let start = Instant::now();
        let mut decoder = Decoder::new(Caps::default());
        for piece in wire.chunks(64 * 1024) {
            decoder.push(piece);
            if let Some(item) = decoder.pull().expect("valid") {
                drop(item);
            }
        }
        println!("decoded 32 MiB in {:?}", start.elapsed());
    }
}
