//! The rules of a store, on the plain one, and its bounds.

use cob_protocol::frame::StreamName;
use cob_protocol::promise::{Durability, Key, Refused, SessionState, Settlement, State};

use super::*;
use crate::store::{Custody, Filter, Progress, Read};

const SESSION: SessionId = SessionId(1);

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn store() -> MemoryStore {
    let mut store = MemoryStore::default();
    write(&mut store, Write::OpenSession { session: SESSION, about: Json::object() }).unwrap();
    store
}

fn write(store: &mut MemoryStore, write: Write) -> Result<Written, BridgeError> {
    let group = Group { now: at(1_000), durability: Durability::Process, writes: vec![write] };
    store.commit(&[group]).unwrap().remove(0).remove(0)
}

fn request(key: Option<(&str, u8)>) -> NewExecution {
    NewExecution {
        session: SESSION,
        key: key.map(|(key, body)| Key { principal: "p".into(), key: key.into(), body: [body; 32] }),
        durability: Durability::Process,
        deadline: None,
        request: None,
        start: None,
    }
}

fn create(store: &mut MemoryStore, new: NewExecution) -> PromiseId {
    match write(store, Write::CreateExecution(new)).unwrap() {
        Written::Created(Created::New(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn resolved() -> Settlement {
    Settlement::silent(State::Resolved, Json::object(), SessionState::Kept)
}

fn settle(store: &mut MemoryStore, id: PromiseId) {
    write(store, Write::Settle { id, settlement: resolved() }).unwrap();
}

fn append(
    store: &mut MemoryStore,
    id: PromiseId,
    number: EventNumber,
    bytes: usize,
) -> Result<(), BridgeError> {
    let event = Arc::new(Event::Stream { name: StreamName::Stdout, text: "x".repeat(bytes) });
    write(store, Write::Append { id, number, event }).map(drop)
}

#[test]
fn p10_a_retry_joins_the_same_execution_and_gets_the_stored_reply() {
    let mut store = store();
    let id = create(&mut store, request(Some(("a", 1))));
    settle(&mut store, id);
    let again = write(&mut store, Write::CreateExecution(request(Some(("a", 1))))).unwrap();
    let Written::Created(Created::Joined(known)) = again else { panic!("{again:?}") };
    assert_eq!((known.id, known.value), (id, Some(Json::object())));
}

#[test]
fn p09_a_key_cannot_name_two_requests() {
    let mut store = store();
    create(&mut store, request(Some(("a", 1))));
    let error = write(&mut store, Write::CreateExecution(request(Some(("a", 2))))).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&"01".repeat(32)) && text.contains(&"02".repeat(32)), "{text}");
    assert_eq!(store.totals().unwrap().executions, 1);
}

#[test]
fn a_closed_or_unknown_session_takes_nothing() {
    let mut store = store();
    write(&mut store, Write::CloseSession { session: SESSION }).unwrap();
    let refused = write(&mut store, Write::CreateExecution(request(None)));
    assert_eq!(refused, Err(BridgeError::UnknownSession(SESSION)));
    let again = write(&mut store, Write::OpenSession { session: SESSION, about: Json::object() });
    assert_eq!(again, Err(BridgeError::Exists("s1".into())));
    let unknown = write(&mut store, Write::CloseSession { session: SessionId(9) });
    assert_eq!(unknown, Err(BridgeError::UnknownSession(SessionId(9))));
}

#[test]
fn a_deadline_settles_only_once_it_has_passed() {
    let mut store = store();
    let id = create(&mut store, NewExecution { deadline: Some(at(900)), ..request(None) });
    let late = create(&mut store, NewExecution { deadline: Some(at(1_001)), ..request(None) });
    assert_eq!(store.next_due().unwrap(), Some((id, at(900))));
    let expired = write(&mut store, Write::Expire { id, settlement: resolved() }).unwrap();
    let Written::Settled(promise) = expired else { panic!("{expired:?}") };
    assert_eq!(promise.state, State::RejectedTimedOut);
    let early = write(&mut store, Write::Expire { id: late, settlement: resolved() });
    assert_eq!(early, Err(BridgeError::Refused { id: late, refused: Refused::NotDue }));
}

#[test]
fn events_are_numbered_from_one_without_gaps_also_after_the_settlement() {
    let mut store = store();
    let id = create(&mut store, request(None));
    for number in 1..=3 {
        append(&mut store, id, number, 1).unwrap();
    }
    let skipped = append(&mut store, id, 5, 1);
    assert_eq!(skipped, Err(BridgeError::Misnumbered { id, expected: 4, given: 5 }));
    settle(&mut store, id);
    append(&mut store, id, 4, 1).unwrap();
    let numbers: Vec<_> = store.events(id, 2, 2, 1000).unwrap().iter().map(|event| event.number).collect();
    assert_eq!(numbers, [2, 3]);
}

#[test]
fn an_execution_does_not_end_before_its_events() {
    let mut store = store();
    let id = create(&mut store, request(None));
    append(&mut store, id, 1, 1).unwrap();
    let claimed = Settlement { last_event: 3, ..resolved() };
    let refused = write(&mut store, Write::Settle { id, settlement: claimed.clone() });
    assert_eq!(refused, Err(BridgeError::Incomplete { id, claimed: 3, recorded: 1 }));
    for number in 2..=3 {
        append(&mut store, id, number, 1).unwrap();
    }
    write(&mut store, Write::Settle { id, settlement: claimed }).unwrap();
    assert_eq!(store.promise(id).unwrap().unwrap().last_event, 3);
}

#[test]
fn a_session_without_a_worker_has_no_progress() {
    let mut store = store();
    let custody = Some(Custody { socket: "/c".into(), secret: "x".into() });
    write(&mut store, Write::Custody { session: SESSION, custody }).unwrap();
    let progress = Progress { frames: 3, stdout: 4, stderr: 5 };
    write(&mut store, Write::Progress { session: SESSION, progress }).unwrap();
    assert_eq!(store.sessions().unwrap().remove(0).progress, progress);
    write(&mut store, Write::Custody { session: SESSION, custody: None }).unwrap();
    assert_eq!(store.sessions().unwrap().remove(0).progress, Progress::default());
}

#[test]
fn calls_are_promises_of_their_execution() {
    let mut store = store();
    let id = create(&mut store, request(None));
    let call =
        |number| Write::CreateCall { id: id.with_call(number), request: Json::object(), deadline: None };
    write(&mut store, call(1)).unwrap();
    assert_eq!(write(&mut store, call(1)), Err(BridgeError::Exists("s1.e1.c1".into())));
    let unsettled: Vec<_> = store.unsettled(SESSION).unwrap().into_iter().map(|u| u.promise.id).collect();
    assert_eq!(unsettled, [id, id.with_call(1)]);
    settle(&mut store, id);
    assert!(matches!(write(&mut store, call(2)), Err(BridgeError::Refused { .. })));
    let page = Filter { after: Some(id), ..Filter::default() };
    assert_eq!(store.promises(&page).unwrap().len(), 1);
}

#[test]
fn the_journal_forgets_its_oldest_events_and_says_so() {
    let mut store = store();
    let id = create(&mut store, request(None));
    let count = 40;
    for number in 1..=count {
        append(&mut store, id, number, MEMORY_JOURNAL_BYTES_MAX / 20).unwrap();
    }
    assert!(store.journal_bytes <= MEMORY_JOURNAL_BYTES_MAX);
    let Err(BridgeError::Forgotten { first, .. }) = store.events(id, 1, 10, 1) else { panic!("kept all") };
    assert!(first > 1);
    assert_eq!(store.events(id, count, 10, 1).unwrap().len(), 1);
}

#[test]
fn settled_promises_are_forgotten_oldest_first_and_never_pending_ones() {
    let mut store = store();
    let pending = create(&mut store, request(None));
    let oldest = create(&mut store, request(None));
    append(&mut store, oldest, 1, 10).unwrap();
    settle(&mut store, oldest);
    for _ in 0..MEMORY_SETTLED_MAX {
        let id = create(&mut store, request(None));
        settle(&mut store, id);
    }
    assert_eq!(store.promise(oldest).unwrap(), None);
    assert!(store.promise(pending).unwrap().is_some());
    let totals = store.totals().unwrap();
    assert_eq!((totals.executions, totals.events, totals.event_bytes), (1, 0, 0));
}

#[test]
fn the_output_of_a_cell_finds_its_input() {
    let mut store = store();
    for line in [1, 2] {
        let input = Write::HistoryInput {
            session: SESSION,
            execution: line.into(),
            line,
            source: format!("x{line}"),
        };
        write(&mut store, input).unwrap();
    }
    write(&mut store, Write::HistoryOutput { session: SESSION, line: 1, text: "1".into() }).unwrap();
    let entry = |line, output| Entry { line, source: format!("x{line}"), output };
    let expected = [(SESSION, entry(1, Some("1".into()))), (SESSION, entry(2, None))];
    assert_eq!(store.history(10).unwrap(), expected);
    assert_eq!(store.history(1).unwrap(), expected[1..]);
}
