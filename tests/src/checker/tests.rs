//! Evidence of a world in which all is well, and for each invariant worlds in which it is violated.

use std::sync::Arc;

use cob_protocol::frame::StreamName;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{Durability, Key, SessionState, Tally};
use cob_protocol::time::Timestamp;
use serde_json::json;

use super::*;

const REPLY: &str = "{\"status\":\"ok\",\"execution_count\":1}";

fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn promise(execution: u64, key: &str) -> Promise {
    Promise {
        id: PromiseId::execution(SessionId(1), execution),
        state: State::Resolved,
        key: Some(Key { principal: "p".into(), key: key.into(), body: [0; 32] }),
        durability: Durability::Process,
        created_at: time(1),
        started_at: Some(time(2)),
        deadline: None,
        settled_at: Some(time(3)),
        last_event: 2,
        tally: Tally { written: 4, dropped: 0 },
        value: Some(Json::parse(REPLY).unwrap()),
        session_state: Some(SessionState::Kept),
        audit: None,
    }
}

fn stream(text: &str) -> Event {
    Event::Stream { name: StreamName::Stdout, text: text.into() }
}

fn events(events: impl IntoIterator<Item = Event>) -> Vec<(u64, Arc<Event>)> {
    (1..).zip(events.into_iter().map(Arc::new)).collect()
}

fn saw(msg_type: &str, content: Value) -> Entry {
    Entry::Saw { msg_type: msg_type.into(), content, is_late: false }
}

fn status(state: &str) -> Entry {
    saw("status", json!({ "execution_state": state }))
}

fn text_of(text: &str) -> Entry {
    saw("stream", json!({ "name": "stdout", "text": text }))
}

fn reply(content: &str) -> Entry {
    Entry::Replied { content: content.to_owned() }
}

/// Two requests, `a` and `b`, each printed its name and a number, and ended well. The client lost the first
/// connection while `b` ran.
fn good() -> Evidence {
    let history = History::default();
    let (one, two) = (history.connect(), history.connect());
    for key in ["a", "b"] {
        let asked = Asked { has_effect: true, token: Some(key.into()), prints: Some(4) };
        history.invoke(one, key, asked);
    }
    let entries = [status("busy"), text_of("a 1\n"), reply(REPLY), status("idle")];
    entries.into_iter().for_each(|entry| history.add(one, "a", entry));
    history.add(one, "b", status("busy"));
    history.disconnect(one);
    history.invoke(two, "b", Asked::default());
    [text_of("b 1\n"), status("idle"), status("busy"), reply(REPLY), status("idle")]
        .into_iter()
        .for_each(|entry| history.add(two, "b", entry));
    let executions = ["a", "b"].into_iter().zip(1..).map(|(key, number)| Stored {
        promise: promise(number, key),
        events: events([stream(&format!("{key} 1\n")), Event::Done { last: 1 }]),
    });
    let last = Snapshot { executions: executions.collect(), ..Snapshot::default() };
    let mut first = last.clone();
    first.executions[1].promise.state = State::Started;
    first.executions[1].promise.value = None;
    first.executions[1].promise.settled_at = None;
    first.executions[1].events.truncate(1);
    Evidence {
        history,
        effects: [("a".to_owned(), 1), ("b".to_owned(), 1)].into(),
        snapshots: vec![first, last],
        log: vec!["12:00 INFO cob: worker ready".into()],
        ..Evidence::default()
    }
}

fn last(evidence: &mut Evidence, execution: usize) -> &mut Stored {
    &mut evidence.snapshots.last_mut().unwrap().executions[execution]
}

/// One change makes a violation of exactly one invariant, and its sentence contains `what`.
#[track_caller]
fn violates(number: &str, what: &str, change: impl FnOnce(&mut Evidence)) {
    let mut evidence = good();
    change(&mut evidence);
    let found = violations(&evidence);
    assert!(!found.is_empty(), "nothing was found");
    for sentence in found {
        assert!(sentence.starts_with(&format!("{number}: ")) && sentence.contains(what), "{sentence}");
    }
}

#[test]
fn a_world_in_which_all_is_well_has_no_violation() {
    assert_eq!(violations(&good()), Vec::<String>::new());
}

#[test]
fn i1_an_answer_that_is_not_stored_or_has_another_byte() {
    violates("I1", "nothing is settled", |evidence| {
        for snapshot in &mut evidence.snapshots {
            snapshot.executions[0].promise.key = None;
        }
        evidence.history = {
            let history = History::default();
            let one = history.connect();
            history.invoke(one, "a", Asked::default());
            history.add(one, "a", reply(REPLY));
            history.invoke(one, "b", Asked::default());
            history.add(one, "b", reply(REPLY));
            history
        };
    });
    violates("I1", "but stored is", |evidence| {
        let other = Json::parse("{\"status\":\"ok\", \"execution_count\":1}").unwrap();
        for snapshot in &mut evidence.snapshots {
            snapshot.executions[0].promise.value = Some(other.clone());
        }
    });
}

#[test]
fn i2_code_that_ran_twice_or_never_or_unasked() {
    violates("I2", "a ran 2 times", |evidence| {
        evidence.effects.insert("a".into(), 2);
    });
    violates("I2", "never ran", |evidence| {
        evidence.effects.remove("b");
    });
    violates("I2", "nobody asked", |evidence| {
        evidence.effects.insert("c".into(), 1);
    });
    // Whether lost code ran is not known; that it ran once is the most that may be.
    let mut lost = good();
    let value = json!({ "status": "error", "code": "execution_lost" });
    let history = History::default();
    lost.history = history.clone();
    for key in ["a", "b"] {
        history.invoke(1, key, Asked { has_effect: true, ..Asked::default() });
    }
    history.add(1, "a", reply(REPLY));
    history.add(1, "b", reply(&value.to_string()));
    last(&mut lost, 1).promise.state = State::Rejected;
    last(&mut lost, 1).promise.value = Some(value.into());
    for effects in [0, 1] {
        lost.effects.insert("b".into(), effects);
        assert_eq!(violations(&lost), Vec::<String>::new());
    }
    lost.effects.insert("b".into(), 2);
    assert_eq!(violations(&lost).len(), 1);
}

#[test]
fn i3_no_answer_or_two_different_ones() {
    violates("I3", "never answered", |evidence| {
        evidence.history.invoke(2, "c", Asked::default());
        evidence.history.disconnect(2);
    });
    let evidence = good();
    evidence.history.add(2, "a", reply("{\"status\":\"error\"}"));
    assert!(violations(&evidence).iter().any(|what| what.starts_with("I3") && what.contains("2 answers")));
    // A refusal is no answer to what the key names.
    let evidence = good();
    evidence.history.invoke(2, "a", Asked::default());
    evidence.history.add(2, "a", reply("{\"status\":\"error\",\"code\":\"key_reused\"}"));
    assert_eq!(violations(&evidence), Vec::<String>::new());
}

#[test]
fn i4_a_gap_a_missing_end_a_wrong_end_and_output_that_is_not_stored() {
    violates("I4", "have the numbers [1, 3]", |evidence| last(evidence, 0).events[1].0 = 3);
    violates("I4", "settled without `done`", |evidence| {
        last(evidence, 0).events.pop();
    });
    violates("I4", "is event 2", |evidence| {
        last(evidence, 0).events[1].1 = Arc::new(Event::Done { last: 2 });
    });
    violates("I4", "settled with 1 events", |evidence| {
        last(evidence, 0).promise.last_event = 1;
        evidence.snapshots[0].executions[0].promise.last_event = 1;
    });
    violates("I4", "`result` as event 3 after `done`", |evidence| {
        last(evidence, 0).events.push((3, Arc::new(Event::Result(Json::object()))));
    });
    violates("I4", "was seen, but is not stored", |evidence| {
        evidence.history.add(2, "b", status("busy"));
        evidence.history.add(2, "b", text_of("b 2\n"));
        evidence.history.add(2, "b", status("idle"));
    });
    violates("I4", "was seen, but is not stored", |evidence| {
        // Twice: once more than it is stored.
        evidence.history.add(2, "b", status("busy"));
        evidence.history.add(2, "b", text_of("b 1\n"));
        evidence.history.add(2, "b", status("idle"));
    });
}

#[test]
fn i5_a_byte_that_is_neither_stored_nor_counted() {
    let change = |evidence: &mut Evidence, tally| {
        for snapshot in &mut evidence.snapshots {
            snapshot.executions[0].promise.tally = tally;
        }
    };
    violates("I5", "wrote 5 bytes; 4 are stored, 0 dropped", |evidence| {
        change(evidence, Tally { written: 5, dropped: 0 });
        let asked = Asked { prints: None, ..Asked::default() };
        let history = History::default();
        for key in ["a", "b"] {
            history.invoke(1, key, asked.clone());
            history.add(1, key, reply(REPLY));
        }
        evidence.history = history;
    });
    violates("I5", "printed 4 bytes; 5 were counted", |evidence| {
        change(evidence, Tally { written: 5, dropped: 1 });
    });
}

#[test]
fn i6_output_after_idle_busy_without_idle_and_idle_twice() {
    violates("I6", "`stream` after idle", |evidence| {
        let stored = "a 1\n";
        evidence.history = {
            let history = History::default();
            history.invoke(1, "b", Asked::default());
            history.add(1, "b", reply(REPLY));
            history.invoke(1, "a", Asked::default());
            for entry in [status("busy"), reply(REPLY), status("idle"), text_of(stored)] {
                history.add(1, "a", entry);
            }
            history
        };
    });
    violates("I6", "never idle", |evidence| evidence.history.add(2, "a", status("busy")));
    violates("I6", "unexpected `idle`", |evidence| evidence.history.add(2, "b", status("idle")));
    let evidence = good();
    let late = Entry::Saw { msg_type: "stream".into(), content: json!({ "text": "a" }), is_late: true };
    evidence.history.add(1, "a", late);
    assert_eq!(violations(&evidence), Vec::<String>::new());
}

#[test]
fn i7_a_settled_promise_that_changes_or_that_no_road_leads_to() {
    violates("I7", "became", |evidence| last(evidence, 0).promise.settled_at = Some(time(9)));
    violates("I7", "became None", |evidence| {
        let mut extra = evidence.snapshots[0].executions[0].promise.clone();
        extra.id = extra.id.with_call(1);
        evidence.snapshots[0].calls.push(extra);
    });
    violates("I7", "started before it was made", |evidence| {
        for snapshot in &mut evidence.snapshots {
            snapshot.executions[0].promise.started_at = Some(time(0));
        }
    });
    violates("I7", "settled without time or value", |evidence| {
        last(evidence, 1).promise.settled_at = None;
    });
}

#[test]
fn i8_a_line_of_somebody_else() {
    violates("I8", "stored for a", |evidence| {
        for snapshot in &mut evidence.snapshots {
            snapshot.executions[0].events[0].1 = Arc::new(stream("b 1\n"));
        }
        let history = History::default();
        for key in ["a", "b"] {
            history.invoke(1, key, Asked { token: Some(key.into()), ..Asked::default() });
            history.add(1, key, reply(REPLY));
        }
        evidence.history = history;
    });
    let evidence = good();
    evidence.history.add(2, "b", text_of("a 1\n"));
    assert!(violations(&evidence).iter().any(|what| what.starts_with("I8: seen for b")));
}

#[test]
fn i9_a_promise_that_is_open_at_rest() {
    let mut evidence = good();
    let stored = last(&mut evidence, 0);
    stored.promise.id = PromiseId::execution(SessionId(1), 3);
    stored.promise.key = None;
    (stored.promise.state, stored.promise.value, stored.promise.settled_at) = (State::Started, None, None);
    assert!(violations(&evidence).iter().any(|what| what == "I9: s1.e3 is still started"));
    evidence.is_busy = true;
    assert!(!violations(&evidence).iter().any(|what| what.starts_with("I9")));
}

#[test]
fn i10_a_damaged_store_a_panic_and_an_error_that_nobody_expected() {
    violates("I10", "row 3 missing", |evidence| {
        evidence.snapshots[0].damage.push("row 3 missing from index".into());
    });
    violates("I10", "panicked", |evidence| {
        evidence.errors_expected = true;
        evidence.log.push("thread 'main' panicked at".into());
    });
    let line = "12:01 ERROR cob_kernel: promise not settled".to_owned();
    violates("I10", "not settled", |evidence| evidence.log.push(line.clone()));
    let mut evidence = good();
    (evidence.log, evidence.errors_expected) = (vec![line], true);
    assert_eq!(violations(&evidence), Vec::<String>::new());
}
