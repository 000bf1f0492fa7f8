//! Measures the store on disk: `cargo run --release -p cob-bridge --example store -- FOLDER`.
#![allow(clippy::panic, clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cob_bridge::{
    Created, Group, NewExecution, Read, SqliteReader, SqliteStore, Store, StoreOptions, Write, Written,
};
use cob_protocol::event::Event;
use cob_protocol::frame::StreamName;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{Durability, Key, SessionState, Settlement, State, Tally};
use cob_protocol::time::Timestamp;

const SESSION: SessionId = SessionId(1);

fn group(durability: Durability, writes: Vec<Write>) -> Group {
    Group { now: Timestamp::from_micros(1_700_000_000_000_000), durability, writes }
}

fn request(number: u64) -> Write {
    let mut body = [0; 32];
    body[..8].copy_from_slice(&number.to_le_bytes());
    let request =
        r#"{"code":"1+1","silent":false,"store_history":true,"user_expressions":{},"allow_stdin":true}"#;
    Write::CreateExecution(NewExecution {
        session: SESSION,
        key: Some(Key {
            principal: "notebook".into(),
            key: format!("0b0e1a30-5b5c-4f6e-9d0a-{number:012}"),
            body,
        }),
        durability: Durability::Process,
        deadline: None,
        request: Some(Json::parse(request).unwrap()),
        start: Some(number as u32),
    })
}

fn settle(id: PromiseId) -> Write {
    let value = r#"{"status":"ok","execution_count":1,"user_expressions":{},"payload":[]}"#;
    let value = Json::parse(value).unwrap();
    let (session_state, tally) = (SessionState::Kept, Tally::default());
    Write::Settle {
        id,
        settlement: Settlement { state: State::Resolved, value, session_state, last_event: 2, tally },
    }
}

fn create(store: &mut impl Store, durability: Durability, number: u64) -> PromiseId {
    match &store.commit(&[group(durability, vec![request(number)])]).unwrap()[0][0] {
        Ok(Written::Created(Created::New(id))) => *id,
        other => panic!("{other:?}"),
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!("{what}: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.9), at(0.99), at(1.0));
}

fn promises(store: &mut SqliteStore, durability: Durability, count: u64, from: u64) {
    let mut times = Vec::new();
    for number in from..from + count {
        let start = Instant::now();
        let id = create(store, durability, number);
        store.commit(&[group(durability, vec![settle(id)])]).unwrap();
        times.push(start.elapsed());
        store.maintain().unwrap();
    }
    report(&format!("create + settle, {}", durability.as_str()), times);
}

/// Groups of at most 64 events or a megabyte, as a busy writer would have them.
fn journal(store: &mut SqliteStore, reader: &mut SqliteReader, number: u64, bytes: usize, total: usize) {
    let id = create(store, Durability::Process, number);
    let event = Arc::new(Event::Stream { name: StreamName::Stdout, text: "x".repeat(bytes) });
    let together = (1 << 20) / bytes.max(1 << 14);
    let count = total / bytes;
    let start = Instant::now();
    let mut next = 1..=count as u64;
    loop {
        let append = |number| Write::Append { id, number, event: Arc::clone(&event) };
        let writes: Vec<_> = next.by_ref().take(together).map(append).collect();
        if writes.is_empty() {
            break;
        }
        store.commit(&[group(Durability::Process, writes)]).unwrap();
    }
    let appended = start.elapsed();
    let start = Instant::now();
    let (mut from, mut read) = (1, 0);
    loop {
        let events = reader.events(id, from, 1024, 4 << 20).unwrap();
        let Some(last) = events.last() else { break };
        from = last.number + 1;
        read += events.len() * bytes;
    }
    let rate = |bytes: usize, time: Duration| bytes as f64 / time.as_secs_f64() / 1e6;
    println!(
        "events of {bytes} bytes: append {:.0} MB/s ({:.1} µs each), replay {:.0} MB/s",
        rate(count * bytes, appended),
        appended.as_secs_f64() * 1e6 / count as f64,
        rate(read, start.elapsed())
    );
}

fn pending(store: &mut SqliteStore, from: u64) {
    let numbers: Vec<u64> = (from..from + 100_000 - store.totals().unwrap().executions).collect();
    let start = Instant::now();
    for numbers in numbers.chunks(500) {
        let writes = numbers.iter().map(|number| match request(*number) {
            Write::CreateExecution(new) => {
                let deadline = Some(Timestamp::from_micros(*number as i64));
                Write::CreateExecution(NewExecution { deadline, ..new })
            }
            other => other,
        });
        store.commit(&[group(Durability::Process, writes.collect())]).unwrap();
    }
    println!("promises created in groups of 500: {:?} each", start.elapsed() / numbers.len() as u32);
}

fn size(folder: &Path) -> u64 {
    fs::metadata(folder.join("cob.db")).unwrap().len()
}

fn main() {
    let folder = std::env::args().nth(1).expect("the folder of a store that does not exist yet");
    let folder = Path::new(&folder);
    let mut store = SqliteStore::open(&StoreOptions::new(folder)).unwrap();
    let open = Write::OpenSession { session: SESSION, about: Json::object() };
    store.commit(&[group(Durability::Process, vec![open])]).unwrap()[0][0].as_ref().unwrap();
    let mut reader = SqliteReader::open(folder).unwrap();
    promises(&mut store, Durability::Process, 20_000, 0);
    promises(&mut store, Durability::Power, 500, 50_000);
    // What one execution prints at most, then what a store sees that is never idle.
    for number in 0..4 {
        store.maintain().unwrap();
        journal(&mut store, &mut reader, 59_000 + number, 64 << 10, 56 << 20);
    }
    journal(&mut store, &mut reader, 60_000, 64 << 10, 1 << 30);
    journal(&mut store, &mut reader, 60_001, 100, 100 << 20);
    drop((store, reader));

    let mut store = SqliteStore::open(&StoreOptions::new(folder)).unwrap();
    let before = size(folder);
    for number in 100_000..200_000 {
        let id = create(&mut store, Durability::Process, number);
        let text = Arc::new(Event::Stream { name: StreamName::Stdout, text: "hello, world\n".into() });
        let writes = vec![
            Write::HistoryInput {
                session: SESSION,
                execution: id.execution,
                line: number as u32,
                source: "print('hello, world')".into(),
            },
            Write::Append { id, number: 1, event: text },
            Write::Append { id, number: 2, event: Arc::new(Event::Done { last: 1 }) },
            settle(id),
        ];
        store.commit(&[group(Durability::Process, writes)]).unwrap();
        store.maintain().unwrap();
    }
    drop(store);
    println!("a small execution: {} bytes", (size(folder) - before) / 100_000);
    let start = Instant::now();
    let mut store = SqliteStore::open(&StoreOptions::new(folder)).unwrap();
    println!(
        "open with {} promises, {} MB: {:?}",
        store.totals().unwrap().promises,
        size(folder) >> 20,
        start.elapsed()
    );
    pending(&mut store, 300_000);
    drop(store);
    let start = Instant::now();
    let mut store = SqliteStore::open(&StoreOptions::new(folder)).unwrap();
    println!("open with 100,000 pending promises: {:?}", start.elapsed());
    let unsettled = store.unsettled(SESSION).unwrap().len();
    println!("{unsettled} of them read: {:?}", start.elapsed());
    let start = Instant::now();
    let mut reader = SqliteReader::open(folder).unwrap();
    reader.verify_audit().unwrap().unwrap();
    println!("audit trail verified: {:?}", start.elapsed());
    let start = Instant::now();
    reader.verify().unwrap();
    println!("everything verified: {:?}", start.elapsed());
}
