//! What a session holds, written down by a process that is forked off a checkpoint, and taken in by a worker.

use std::fs::File;
use std::io::{Read, Write};

use cob_protocol::bundle::{RecordHead, Tag};
use cob_protocol::checkpoint::Loaded;
use cob_protocol::frame::{Outcome, question_target};
use cob_protocol::zygote::Status;
use rustix::process::{Pid, Signal, kill_process};

use crate::host::{Host, ended};

/// The records of a bundle that is being saved.
fn records(stream: &mut File) -> Vec<(Tag, Vec<u8>)> {
    let mut records = Vec::new();
    let mut head = [0; 5];
    while stream.read_exact(&mut head).is_ok() {
        let RecordHead { tag, bytes } = RecordHead::from_bytes(head).unwrap();
        let mut body = vec![0; bytes];
        stream.read_exact(&mut body).unwrap();
        records.push((tag, body));
    }
    records
}

fn write(stream: &mut File, tag: Tag, bytes: &[u8]) {
    stream.write_all(&RecordHead { tag, bytes: bytes.len() }.to_bytes()).unwrap();
    stream.write_all(bytes).unwrap();
}

fn loaded(outcome: Outcome) -> Loaded {
    match outcome {
        Outcome::Value(value) => value.read().unwrap(),
        other => panic!("{other:?}"),
    }
}

pub fn a_bundle_is_written_and_read() {
    let mut live = Host::start();
    live.run("add 42");
    let frozen = live.freeze(false).unwrap();
    live.run("add 1");
    let (stream, mut status, _lifeline) = frozen.save();
    let mut saved = records(&mut stream.into());
    assert_eq!(ended(&mut status), Status::Exited(0));
    let tags: Vec<Tag> = saved.iter().map(|(tag, _)| *tag).collect();
    use Tag::{BlobEnd, End, Piece};
    assert_eq!(tags, [Piece, BlobEnd, Piece, Piece, Piece, BlobEnd, Tag::Outline, End]);
    assert_eq!(saved[0].1, 42_u64.to_be_bytes());

    // As a host sends it: the outline first.
    let outline = saved.remove(6);
    saved.insert(0, outline);
    let mut fresh = Host::start();
    let mut bundle = File::from(fresh.load(3));
    saved.iter().for_each(|(tag, bytes)| write(&mut bundle, *tag, bytes));
    drop(bundle);
    let three = (3 << 20).to_string();
    assert_eq!(loaded(fresh.answer(3)).restored, ["counter".to_owned(), three]);
    assert_eq!(fresh.run("add 0"), "42");
    assert_eq!(live.run("add 0"), "43");
    // Saving changes nothing in what is frozen, and a saver ends with its host.
    assert_eq!(frozen.thaw().run("add 0"), "42");
    let (_stream, mut status, lifeline) = frozen.save();
    drop(lifeline);
    assert_eq!(ended(&mut status), Status::Killed(9), "it waited for somebody to read");
}

pub fn a_session_that_cannot_be_saved_says_why() {
    let mut live = Host::start();
    live.run("add 13");
    let frozen = live.freeze(false).unwrap();
    let (stream, mut status, _lifeline) = frozen.save();
    let saved = records(&mut stream.into());
    assert_eq!(saved, [(Tag::Failed, b"nobody saves a thirteen".to_vec())]);
    assert_eq!(ended(&mut status), Status::Exited(78));
    assert!(live.unread() == [0, 0] && frozen.thaw().run("add 0") == "13");
}

pub fn what_is_no_bundle_is_declined() {
    let mut live = Host::start();
    live.run("add 1");
    type Sent = Vec<(Tag, Vec<u8>)>;
    let text = r#"{"language":"counter","runtime":{"implementation":"","version":"","abi":"","platform":""},
        "components":[]}"#;
    let outline = || (Tag::Outline, text.as_bytes().to_vec());
    let cases: [(Sent, &str); 7] = [
        (vec![], "gone"),
        (vec![(Tag::Failed, b"the disk is full".to_vec())], "the disk is full"),
        (vec![(Tag::Outline, b"{".to_vec()), (Tag::End, vec![])], "outline"),
        (vec![outline(), (Tag::Piece, vec![])], "wrong length"),
        (vec![outline(), (Tag::Piece, vec![0; 8]), (Tag::Piece, vec![0])], "wrong length"),
        (vec![outline(), (Tag::Piece, vec![0; 8]), (Tag::End, vec![])], "no end"),
        (vec![outline(), (Tag::Piece, vec![0; 8])], "gone"),
    ];
    for (sent, expected) in cases {
        let mut bundle = File::from(live.load(5));
        sent.iter().for_each(|(tag, bytes)| write(&mut bundle, *tag, bytes));
        drop(bundle);
        match live.answer(5) {
            Outcome::Declined(reason) => assert!(reason.contains(expected), "{reason}, not {expected}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(live.run("add 1"), "2");
}

pub fn a_load_can_be_interrupted() {
    let mut live = Host::start();
    let bundle = live.load(9);
    live.page().aim_interrupt(question_target(9));
    // The pipe has a reader as soon as the order was read, so the signal is sent until it is heard.
    let pid = Pid::from_raw(live.pid() as i32).unwrap();
    let outcome = loop {
        kill_process(pid, Signal::INT).unwrap();
        if live.is_readable_soon() {
            break live.answer(9);
        }
    };
    // Before the language was asked, or after.
    let Outcome::Declined(why) = outcome else { panic!("{outcome:?}") };
    assert!(why.starts_with("interrupted"), "{why}");
    drop(bundle);
    assert_eq!(live.run("add 1"), "1");
}
