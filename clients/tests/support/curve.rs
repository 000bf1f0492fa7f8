//! A client under CURVE, written after RFC 26 for itself: every step can be done well or badly.

use bytes::{BufMut, Bytes, BytesMut};
use cob_clients::zmtp::codec::{Encoded, Item};
use cob_clients::zmtp::command::Ready;
use cob_clients::zmtp::greeting::{GREETING_BYTES, Greeting, Mechanism};
use cob_clients::zmtp::{Endpoint, SocketType};
use crypto_box::aead::AeadInPlace;
use crypto_box::{Nonce, PublicKey, SalsaBox, SecretKey, Tag};
use tokio::io::AsyncReadExt;

use super::Raw;

/// A pair of keys that is the same in every run.
pub(crate) fn pair(seed: u8) -> SecretKey {
    SecretKey::from_bytes([seed; 32])
}

fn nonce(prefix: &[u8], rest: &[u8]) -> Nonce {
    Nonce::clone_from_slice(&[prefix, rest].concat())
}

pub(crate) fn seal(key: &SalsaBox, prefix: &[u8], rest: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut body = plain.to_vec();
    let tag = key.encrypt_in_place_detached(&nonce(prefix, rest), b"", &mut body).expect("sealed");
    [tag.as_slice(), &body].concat()
}

fn open(key: &SalsaBox, prefix: &[u8], rest: &[u8], boxed: &[u8]) -> Vec<u8> {
    let (tag, body) = boxed.split_at(16);
    let mut body = body.to_vec();
    key.decrypt_in_place_detached(&nonce(prefix, rest), b"", &mut body, Tag::from_slice(tag))
        .expect("opened");
    body
}

/// What a client knows and has said.
pub(crate) struct Client {
    pub(crate) raw: Raw,
    long: SecretKey,
    short: SecretKey,
    server: PublicKey,
    pub(crate) number: u64,
    key: Option<SalsaBox>,
    read: u64,
}

impl Client {
    /// Connects and exchanges greetings.
    pub(crate) async fn greeted(endpoint: &Endpoint, long: SecretKey, server: PublicKey) -> Self {
        let mut raw = Raw::silent(endpoint).await;
        raw.send(&Greeting::encode(Mechanism::Curve)).await;
        let mut greeting = [0; GREETING_BYTES];
        raw.stream.read_exact(&mut greeting).await.expect("a greeting");
        Self { raw, long, short: pair(77), server, number: 0, key: None, read: 0 }
    }

    fn next_number(&mut self) -> [u8; 8] {
        self.number += 1;
        self.number.to_be_bytes()
    }

    pub(crate) fn hello(&mut self) -> Vec<u8> {
        let number = self.next_number();
        let key = SalsaBox::new(&self.server, &self.short);
        let mut body = b"\x05HELLO\x01\x00".to_vec();
        body.put_bytes(0, 72);
        body.put_slice(self.short.public_key().as_bytes());
        body.put_slice(&number);
        body.put_slice(&seal(&key, b"CurveZMQHELLO---", &number, &[0; 64]));
        body
    }

    /// The cookie and the server's short-term key in a WELCOME.
    pub(crate) fn welcomed(&mut self, body: &[u8]) -> Vec<u8> {
        let key = SalsaBox::new(&self.server, &self.short);
        assert_eq!((body.len(), &body[..8]), (168, &b"\x07WELCOME"[..]));
        let plain = open(&key, b"WELCOME-", &body[8..24], &body[24..]);
        let theirs = PublicKey::from_slice(&plain[..32]).expect("32 bytes");
        self.key = Some(SalsaBox::new(&theirs, &self.short));
        let vouching = SalsaBox::new(&theirs, &self.long);
        let vouch = [self.short.public_key().as_bytes().as_slice(), self.server.as_bytes()].concat();
        [plain[32..].to_vec(), [9; 16].to_vec(), seal(&vouching, b"VOUCH---", &[9; 16], &vouch)].concat()
    }

    /// INITIATE from what [`Client::welcomed`] gave, for a socket of that kind.
    pub(crate) fn initiate(&mut self, welcomed: &[u8], kind: SocketType, identity: &[u8]) -> Vec<u8> {
        let number = self.next_number();
        let (cookie, vouch) = welcomed.split_at(96);
        let plain = [self.long.public_key().as_bytes().as_slice(), vouch, &Ready::properties(kind, identity)]
            .concat();
        let key = self.key.as_ref().expect("welcomed");
        let boxed = seal(key, b"CurveZMQINITIATE", &number, &plain);
        [b"\x08INITIATE".as_slice(), cookie, &number, &boxed].concat()
    }

    /// A frame in its box.
    pub(crate) fn frame(&mut self, flags: u8, body: &[u8]) -> Bytes {
        let number = self.next_number();
        let plain = [&[flags], body].concat();
        let boxed = seal(self.key.as_ref().expect("welcomed"), b"CurveZMQMESSAGEC", &number, &plain);
        let frame = [b"\x07MESSAGE".as_slice(), &number, &boxed].concat();
        BytesMut::from(&Encoded::message(&[frame.into()]).to_vec()[..]).freeze()
    }

    pub(crate) async fn command(&mut self) -> Option<Bytes> {
        match self.raw.next().await {
            Some(Item::Command(body)) => Some(body),
            Some(item) => unreachable!("expected a command, not {item:?}"),
            None => None,
        }
    }

    /// The whole handshake.
    pub(crate) async fn ready(endpoint: &Endpoint, long: SecretKey, server: PublicKey) -> Self {
        let mut client = Self::greeted(endpoint, long, server).await;
        let hello = client.hello();
        client.raw.command(&hello).await;
        let welcome = client.command().await.expect("WELCOME");
        let welcomed = client.welcomed(&welcome);
        let initiate = client.initiate(&welcomed, SocketType::Dealer, b"client");
        client.raw.command(&initiate).await;
        let ready = client.command().await.expect("READY");
        assert_eq!(&ready[..6], b"\x05READY");
        open(client.key.as_ref().expect("welcomed"), b"CurveZMQREADY---", &ready[6..14], &ready[14..]);
        client.read = u64::from_be_bytes(ready[6..14].try_into().expect("eight bytes"));
        client
    }

    pub(crate) async fn send(&mut self, flags: u8, body: &[u8]) {
        let frame = self.frame(flags, body);
        self.raw.send(&frame).await;
    }

    /// The next frame: flags and body.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let frame = self.raw.next_message().await?.remove(0);
        assert_eq!(&frame[..8], b"\x07MESSAGE");
        let number = u64::from_be_bytes(frame[8..16].try_into().expect("eight bytes"));
        assert!(number > self.read, "nonces grow");
        self.read = number;
        let plain =
            open(self.key.as_ref().expect("welcomed"), b"CurveZMQMESSAGES", &frame[8..16], &frame[16..]);
        Some((plain[0], plain[1..].to_vec()))
    }
}
