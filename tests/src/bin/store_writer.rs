//! Opens the store in a folder, commits groups one after the other, and says so after each: somebody to be traced,
//! killed, and given a bad disk.
//!
//! `store-writer FOLDER DURABILITY COUNT [BYTES]`: each group is an execution with one event of so many bytes.

use std::io::Write as _;
use std::sync::Arc;

use cob_bridge::{Group, NewExecution, SqliteStore, Store, StoreOptions, Write};
use cob_protocol::event::Event;
use cob_protocol::frame::StreamName;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{Durability, Key};
use cob_protocol::time::{Clock, SystemClock};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |place: usize| arguments.get(place).map_or("", String::as_str);
    let durability = match argument(1) {
        "power" => Durability::Power,
        "process" => Durability::Process,
        _ => Durability::None,
    };
    let count: u64 = argument(2).parse().expect("a count");
    let bytes: usize = argument(3).parse().unwrap_or(10);
    let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::new(argument(0)) };
    let mut store = SqliteStore::open(&options).expect("a store");
    let session = SessionId(u64::from(std::process::id()));
    let mut commit = |writes| {
        let group = Group { now: SystemClock.now(), durability, writes };
        let outcomes = store.commit(&[group]).unwrap_or_else(|error| {
            // As the writer of a server does: nothing is tidied up on a disk that cannot be believed.
            eprintln!("{error:?}");
            std::process::abort()
        });
        assert!(outcomes.iter().flatten().all(Result::is_ok), "{outcomes:?}");
    };
    commit(vec![Write::OpenSession { session, about: Json::object() }]);
    say("ready");
    for number in 1..=count {
        let id = PromiseId::execution(session, number);
        let key = Key { principal: "p".into(), key: format!("{session}-{number}"), body: [0; 32] };
        let execution = NewExecution {
            session,
            key: Some(key),
            durability,
            deadline: None,
            request: Some(Json::object()),
            start: Some(1),
        };
        // Every group's event is another one, so that no file of it exists.
        let text = format!("{session}-{number} {}", "x".repeat(bytes));
        let event = Arc::new(Event::Stream { name: StreamName::Stdout, text });
        commit(vec![Write::CreateExecution(execution), Write::Append { id, number: 1, event }]);
        say(&format!("recorded {session}-{number}"));
    }
}

/// One `write(2)`.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("somebody who listens");
}
