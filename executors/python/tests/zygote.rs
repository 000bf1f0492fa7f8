//! Sessions that are forked off a zygote: what they are, and what becomes known of them.
#![cfg(not(feature = "module"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;

use cob_protocol::frame::DoneStatus;
use cob_protocol::handshake::VERSIONS;
use cob_protocol::zygote::{Report, Status};
use rustix::process::{Signal, kill_process};
use support::zygote::Zygote;
use support::{Host, Start, done, pythons, result, text};

#[track_caller]
fn with_each(imports: &[&str], test: impl Fn(&mut Zygote)) {
    for python in pythons() {
        eprintln!("with {python}");
        test(&mut Zygote::start(&Start { python: &python, ..Start::default() }, imports));
    }
}

#[track_caller]
fn value(host: &mut Host, code: &str) -> String {
    let events = host.run(code);
    result(&events).unwrap_or_else(|| panic!("no result: {events:#?}"))
}

#[test]
fn a_forked_worker_is_a_session_with_its_output_in_order() {
    with_each(&["json"], |zygote| {
        let mut host = zygote.session();
        let ready = host.ready.clone().unwrap();
        assert_eq!((ready.versions, ready.pid), (VERSIONS, host.child.id()));
        let events =
            host.run("import os, sys\nprint('a'); os.write(1, b'b\\n'); sys.stdout.write('c\\n'); 6 * 7");
        assert_eq!(text(&events), "a\nb\nc\n");
        assert_eq!(result(&events).as_deref(), Some("42"));
        assert_eq!(done(&events).status, DoneStatus::Ok);
        assert_eq!(value(&mut host, "os.getpid()"), host.child.id().to_string());
        let (status, _) = host.shutdown();
        assert!(status.success(), "{status}");
    });
}

#[test]
fn two_sessions_share_nothing_that_they_could_notice() {
    with_each(&["random", "uuid"], |zygote| {
        let (mut one, mut other) = (zygote.session(), zygote.session());
        one.run("mark = 1; import json; json.mark = 1");
        assert_eq!(
            value(&mut other, "'mark' in globals(), hasattr(__import__('json'), 'mark')"),
            "(False, False)"
        );
        for code in ["__import__('random').random()", "__import__('uuid').uuid4()"] {
            assert_ne!(value(&mut one, code), value(&mut other, code), "{code}");
        }
    });
}
