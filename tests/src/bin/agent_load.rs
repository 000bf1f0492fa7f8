//! What the agent endpoint of a server can do, measured by one lean client: `agent-load ENDPOINT [NAME=NUMBER…]`.
//!
//! It speaks ZMTP over a blocking Unix socket, signs nothing, and looks into a message only as far as it must, so that
//! the server is what is measured. The result is one JSON object on stdout; what is wrong ends it with a panic, because
//! a failure is never a fast time.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a measurement that fails must stop")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bytes::Bytes;
use cob_clients::zmtp::SocketType;
use cob_clients::zmtp::codec::{Caps, Decoder, Encoded, Item};
use cob_clients::zmtp::command::Ready;
use cob_clients::zmtp::greeting::{GREETING_BYTES, Greeting, Mechanism};
use serde_json::{Map, Value, json};

/// Requests that are under way at a time.
const WINDOW: usize = 256;

struct Lean {
    stream: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
    next: u64,
}

struct Came {
    msg_type: String,
    parent: String,
    content: Bytes,
}

impl Came {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.content).unwrap()
    }
}

impl Lean {
    fn connect(path: &str) -> Self {
        let mut stream = UnixStream::connect(path).expect("a server that listens");
        stream.write_all(&Greeting::encode(Mechanism::Null)).unwrap();
        stream.read_exact(&mut [0; GREETING_BYTES]).unwrap();
        stream.write_all(&Encoded::command(&Ready::encode(SocketType::Dealer, b"")).to_vec()).unwrap();
        let mut lean = Self { stream, decoder: Decoder::new(Caps::default()), out: Vec::new(), next: 0 };
        assert!(matches!(lean.item(), Item::Command(_)));
        lean.ask("hello_request", &json!({ "versions": [1], "client": "agent-load" }));
        lean
    }

    /// Puts a request into the buffer; its id.
    fn put(&mut self, msg_type: &str, content: &Value) -> String {
        self.next += 1;
        let id = format!("load-{}", self.next);
        let header =
            format!(r#"{{"msg_id":"{id}","msg_type":"{msg_type}","session":"load","version":"5.5"}}"#);
        let parts = [
            Bytes::from_static(b"<IDS|MSG>"),
            Bytes::new(),
            header.into(),
            Bytes::from_static(b"{}"),
            Bytes::from_static(b"{}"),
            content.to_string().into(),
        ];
        self.out.extend(Encoded::message(&parts).to_vec());
        id
    }

    fn flush(&mut self) {
        self.stream.write_all(&self.out).unwrap();
        self.out.clear();
    }

    fn item(&mut self) -> Item {
        let mut buffer = [0; 64 * 1024];
        loop {
            if let Some(item) = self.decoder.pull().unwrap() {
                return item;
            }
            let count = self.stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the server closed the connection");
            self.decoder.push(&buffer[..count]);
        }
    }

    fn next(&mut self) -> Came {
        loop {
            let Item::Message(parts) = self.item() else { continue };
            let field = |part: &Bytes, name: &str| {
                let value: Value = serde_json::from_slice(part).unwrap_or_default();
                value[name].as_str().unwrap_or_default().to_owned()
            };
            let [_, _, header, parent, _, content, ..] = parts.as_slice() else { unreachable!("{parts:?}") };
            let (msg_type, parent) = (field(header, "msg_type"), field(parent, "msg_id"));
            return Came { msg_type, parent, content: content.clone() };
        }
    }

    fn until(&mut self, msg_type: &str, parent: &str) -> Came {
        loop {
            let came = self.next();
            if came.msg_type == msg_type && came.parent == parent {
                return came;
            }
        }
    }

    fn ask(&mut self, msg_type: &str, content: &Value) -> Value {
        let id = self.put(msg_type, content);
        self.flush();
        let reply = format!("{}_reply", msg_type.trim_end_matches("_request"));
        let reply = self.until(&reply, &id).json();
        assert_eq!(reply["status"], "ok", "{msg_type}: {reply}");
        reply
    }

    fn open(&mut self) -> String {
        let reply = self.ask("session_open", &json!({ "language": "python" }));
        let session = reply["session_id"].as_str().unwrap().to_owned();
        // Its worker is there.
        self.execute(&session, "pass");
        session
    }

    fn close(&mut self, session: &str) {
        self.ask("session_close", &json!({ "session_id": session }));
    }

    fn execute(&mut self, session: &str, code: &str) -> Value {
        self.ask("execute_request", &json!({ "session_id": session, "code": code }))
    }
}

/// A place in a sorted list, as a part of its length.
fn at(sorted: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() as f64 * part) as usize).min(sorted.len() - 1);
    sorted[index]
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn per_second(count: usize, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}

/// No-op executions of one session, so many at a time.
fn pipelined(lean: &mut Lean, count: usize) -> f64 {
    let session = lean.open();
    let noop = json!({ "session_id": session, "code": "pass", "silent": true, "store_history": false });
    let (mut sent, mut done) = (0, 0);
    let began = Instant::now();
    while done < count {
        // Refilled when half of the window is empty, so that both sides write in bulk.
        if sent < count && sent - done <= WINDOW / 2 {
            while sent < count && sent - done < WINDOW {
                lean.put("execute_request", &noop);
                sent += 1;
            }
            lean.flush();
        }
        let came = lean.next();
        if came.msg_type == "execute_reply" {
            assert!(came.content.windows(4).any(|word| word == b"\"ok\""), "{}", came.json());
            done += 1;
        }
    }
    let rate = per_second(count, began);
    lean.close(&session);
    rate
}

/// One at a time: microseconds to `ack` and to the reply, sorted.
fn round_trips(lean: &mut Lean, count: usize) -> (Vec<f64>, Vec<f64>) {
    let session = lean.open();
    let (mut acks, mut replies) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let began = Instant::now();
        let id = lean.put("execute_request", &json!({ "session_id": session, "code": "1+1", "credit": 10 }));
        lean.flush();
        lean.until("ack", &id);
        acks.push(began.elapsed().as_secs_f64() * 1e6);
        lean.until("execute_reply", &id);
        replies.push(began.elapsed().as_secs_f64() * 1e6);
    }
    lean.close(&session);
    acks.sort_by(f64::total_cmp);
    replies.sort_by(f64::total_cmp);
    (acks, replies)
}

/// All sessions execute at once; every output must come to its own. Milliseconds until each had its reply, sorted.
fn at_once(lean: &mut Lean, count: usize, lines: usize) -> Vec<f64> {
    let sessions: Vec<String> = (0..count).map(|_| lean.open()).collect();
    let mut running: HashMap<String, (String, usize)> = HashMap::new();
    for session in &sessions {
        let code = format!("for n in range({lines}): print('{session}', n, flush=True)");
        let id =
            lean.put("execute_request", &json!({ "session_id": session, "code": code, "credit": 100_000 }));
        running.insert(id, (session.clone(), 0));
    }
    let began = Instant::now();
    lean.flush();
    let mut times = Vec::new();
    while !running.is_empty() {
        let came = lean.next();
        match came.msg_type.as_str() {
            "event" => {
                let event = came.json();
                let (session, seen) = running.get_mut(event["subscription"].as_str().unwrap()).unwrap();
                if event["kind"] == "stream" {
                    let text = event["content"]["text"].as_str().unwrap();
                    assert!(
                        text.lines().all(|line| line.split(' ').next() == Some(session)),
                        "{session}: {text}"
                    );
                    *seen += text.lines().count();
                }
            }
            "execute_reply" => {
                let (session, seen) = running.remove(&came.parent).unwrap();
                assert_eq!(seen, lines, "{session}: {}", came.json());
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
            _ => {}
        }
    }
    sessions.iter().for_each(|session| lean.close(session));
    times.sort_by(f64::total_cmp);
    times
}

/// What was printed is read again, from the first event: megabytes per second.
fn replay(lean: &mut Lean, megabytes: usize) -> f64 {
    let session = lean.open();
    let code = format!("import sys\nfor _ in range({megabytes}): sys.stdout.write('x' * 1000000)");
    lean.execute(&session, &code);
    let began = Instant::now();
    let promise = format!("{session}.e2");
    let id = lean.put("subscribe", &json!({ "promise": promise, "credit": 1_000_000 }));
    lean.flush();
    let mut bytes = 0;
    loop {
        let came = lean.next();
        match came.msg_type.as_str() {
            "event" => bytes += came.content.len(),
            "subscription_end" if came.json()["subscription"] == *id => break,
            _ => {}
        }
    }
    assert!(bytes >= megabytes * 1_000_000, "{bytes} bytes came");
    let rate = per_second(bytes, began) / 1e6;
    lean.close(&session);
    rate
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().expect("an endpoint");
    let path = endpoint.strip_prefix("ipc://").expect("an ipc endpoint");
    let mut sizes: HashMap<&str, usize> =
        [("pipelined", 20_000), ("rtt", 1_000), ("sessions", 1_000), ("lines", 20), ("replay", 48)].into();
    let rest: Vec<String> = arguments.collect();
    for argument in &rest {
        let (name, number) = argument.split_once('=').expect("NAME=NUMBER");
        *sizes.get_mut(name).expect("a known name") = number.parse().expect("a number");
    }
    let mut lean = Lean::connect(path);
    let mut found = Map::new();
    let mut note = |name: &str, value: f64| drop(found.insert(name.to_owned(), json!(value)));
    note("pipelined no-op, 1/s", pipelined(&mut lean, sizes["pipelined"]));
    let (acks, replies) = round_trips(&mut lean, sizes["rtt"]);
    note("ack, us", at(&acks, 0.5));
    note("ack p99, us", at(&acks, 0.99));
    note("1+1, us", at(&replies, 0.5));
    note("1+1 p99, us", at(&replies, 0.99));
    let times = at_once(&mut lean, sizes["sessions"], sizes["lines"]);
    note("sessions at once, median, ms", at(&times, 0.5));
    note("sessions at once, p99, ms", at(&times, 0.99));
    note("sessions at once, p99 / median", at(&times, 0.99) / at(&times, 0.5));
    note("replay, MB/s", replay(&mut lean, sizes["replay"]));
    println!("{}", Value::Object(found));
}
