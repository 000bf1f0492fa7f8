//! Reading along with a whole session: before, during and after; whoever is overtaken holds up nobody.

use std::collections::{BTreeMap, BTreeSet};

use cob_protocol::limits::{FEED_LATE_MAX, FEED_NEWS_MAX, FEED_PAGE};
use cob_protocol::promise::Durability::Process;
use cob_protocol::promise::{CHANNEL_PRINCIPAL, Key};

use tokio::sync::Notify;

use super::tails::{Dice, every_kind, folder};
use super::waiting::is_pending;
use super::*;
use crate::store::{BridgeError, StoreError};
use crate::{Feed, SessionFollower};

fn request(number: u64) -> Write {
    let content = serde_json::json!({ "code": format!("code {number}") });
    let record = match number % 2 {
        0 => serde_json::json!({ "principal": "alice", "content": content }),
        _ => serde_json::json!({ "content": content }),
    };
    with_request(Some(record.into()), None)
}

fn with_request(request: Option<Json>, key: Option<Key>) -> Write {
    Write::CreateExecution(NewExecution {
        session: SESSION,
        key,
        durability: Durability::Process,
        deadline: None,
        request,
        start: None,
    })
}

fn channel(name: &str) -> Write {
    let key = Key { principal: CHANNEL_PRINCIPAL.into(), key: name.into(), body: [0; 32] };
    with_request(None, Some(key))
}

fn data(id: PromiseId, number: EventNumber) -> Write {
    Write::Append { id, number, event: Arc::new(Event::Data(Json::object())) }
}

fn start(id: PromiseId) -> Vec<Write> {
    let source = format!("code {}", id.execution);
    let (execution, line) = (id.execution, id.execution as u32);
    vec![Write::Start { id, count: line }, Write::HistoryInput { session: SESSION, execution, line, source }]
}

async fn create(bridge: &Bridge, number: u64) -> PromiseId {
    let id = created(&bridge.submit(Process, vec![request(number)]).await.unwrap());
    assert_eq!(id.execution, number);
    id
}

async fn write(bridge: &Bridge, writes: Vec<Write>) {
    let outcomes = bridge.submit(Process, writes).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

/// In a word for each.
fn words(items: &[Feed]) -> Vec<String> {
    let word = |item: &Feed| match item {
        Feed::Began { promise, .. } => format!("+{}", promise.execution),
        Feed::Event { promise, recorded } => format!("{}.{}", promise.execution, recorded.number),
        Feed::Gap { promise, from, next } => format!("{}.{from}-{next}", promise.execution),
        Feed::Ended(promise) => format!("-{}", promise.id.execution),
    };
    items.iter().map(word).collect()
}

fn events_of(items: &[Feed]) -> usize {
    items.iter().filter(|item| matches!(item, Feed::Event { .. })).count()
}

async fn read(mut follower: SessionFollower, seed: u64, pace: u64) -> Vec<Feed> {
    let mut dice = Dice(seed);
    let mut all = Vec::new();
    loop {
        for _ in 0..dice.below(1 + pace) {
            tokio::task::yield_now().await;
        }
        let credit = dice.below(20) as usize;
        if dice.below(4) == 0 {
            // Given up wherever it may be.
            tokio::select! {
                biased;
                items = follower.next(credit) => {
                    let items = items.unwrap();
                    assert!(events_of(&items) <= credit);
                    if items.is_empty() {
                        return all;
                    }
                    all.extend(items);
                }
                () = tokio::task::yield_now() => {}
            }
        }
        let items = follower.next(1 + credit).await.unwrap();
        assert!(events_of(&items) <= 1 + credit);
        if items.is_empty() {
            return all;
        }
        all.extend(items);
    }
}

/// What is recorded of a session in the end.
#[derive(Default)]
struct Story {
    /// The last event of each execution, when it was settled.
    ends: BTreeMap<u64, EventNumber>,
    /// The last of all, with late output.
    lasts: BTreeMap<u64, EventNumber>,
    started: BTreeSet<u64>,
}

/// A session whose executions overtake each other, are cancelled before they begin, print late; with channels.
async fn live(bridge: &Bridge, count: u64, seed: u64, halfway: &Notify) -> Story {
    let mut dice = Dice(seed);
    let mut story = Story::default();
    let mut queue: Vec<PromiseId> = Vec::new();
    let mut channels: Vec<(PromiseId, EventNumber)> = Vec::new();
    let mut made = 0;
    while made < count || !queue.is_empty() {
        if made < count && dice.below(2) == 0 {
            let write = if dice.below(8) == 0 { channel(&format!("{made}/out")) } else { request(made + 1) };
            let is_channel = matches!(&write, Write::CreateExecution(new) if new.request.is_none());
            let id = created(&bridge.submit(Process, vec![write]).await.unwrap());
            made = id.execution;
            if made == count / 2 {
                halfway.notify_one();
            }
            if is_channel { channels.push((id, 0)) } else { queue.push(id) }
        }
        if let Some((id, last)) = channels.last_mut() {
            *last += 1;
            drop(bridge.submit(Process, vec![data(*id, *last)]));
        }
        // Some wait together, so that they overtake each other.
        if queue.is_empty() || (made < count && queue.len() < 8 && dice.below(2) == 0) {
            continue;
        }
        let id = queue.remove(dice.below(queue.len() as u64) as usize);
        let mut last = 0;
        if dice.below(6) > 0 {
            story.started.insert(id.execution);
            drop(bridge.submit(Process, start(id)));
            let most = if dice.below(10) == 0 { 300 } else { 6 };
            for _ in 0..dice.below(most) {
                last += 1;
                drop(bridge.submit(Process, vec![event(id, last, "x")]));
            }
        }
        story.ends.insert(id.execution, last);
        bridge.submit(Process, vec![settle(id, last)]).await.unwrap();
        if dice.below(3) == 0 {
            last += 1;
            drop(bridge.submit(Process, vec![event(id, last, "late")]));
        }
        story.lasts.insert(id.execution, last);
    }
    for (id, last) in channels {
        drop(bridge.submit(Process, vec![settle(id, last)]));
    }
    write(bridge, vec![Write::CloseSession { session: SESSION }]).await;
    story
}

/// Each began once and ended once, one after the other, with all of its events in order.
#[track_caller]
fn check(story: &Story, items: &[Feed], from: u64) {
    let mut current = None;
    let mut next: BTreeMap<u64, EventNumber> = BTreeMap::new();
    let mut ended = Vec::new();
    for item in items {
        match item {
            Feed::Began { promise, code, count, .. } => {
                assert_eq!(current.replace(promise.execution), None);
                assert_eq!(next.insert(promise.execution, 1), None);
                let is_started = story.started.contains(&promise.execution);
                assert_eq!(*count, is_started.then_some(promise.execution as u32));
                let text = format!("code {}", promise.execution);
                assert!(*code == Some(text) || (code.is_none() && !is_started), "{code:?}");
            }
            Feed::Event { promise, recorded } => {
                let next = next.get_mut(&promise.execution).unwrap();
                assert_eq!(recorded.number, *next, "{promise}");
                *next += 1;
            }
            Feed::Gap { .. } => unreachable!("{item:?}"),
            Feed::Ended(promise) => {
                assert_eq!(current.take(), Some(promise.id.execution));
                assert_eq!(promise.last_event, story.ends[&promise.id.execution]);
                assert!(next[&promise.id.execution] > promise.last_event, "it ended before its events");
                ended.push(promise.id.execution);
            }
        }
    }
    assert_eq!(current, None);
    ended.sort_unstable();
    assert_eq!(ended, story.ends.keys().copied().filter(|number| *number >= from).collect::<Vec<_>>());
    for (execution, next) in next {
        assert!(next <= story.lasts[&execution] + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_gets_the_whole_story_whenever_it_comes() {
    for round in 0..6 {
        let folder = folder();
        for bridge in every_kind(folder.path()) {
            write(&bridge, vec![open_session()]).await;
            let mut readers: Vec<_> = (0..5)
                .map(|reader| {
                    let from = [1, 0, 1, 30, 5][reader as usize];
                    let follower = bridge.follow_session(SESSION, from);
                    (from, tokio::spawn(read(follower, round * 10 + reader, reader * 4)))
                })
                .collect();
            let halfway = Arc::new(Notify::new());
            let during = tokio::spawn({
                let (bridge, halfway) = (bridge.clone(), Arc::clone(&halfway));
                async move {
                    halfway.notified().await;
                    read(bridge.follow_session(SESSION, 1), round, 2).await
                }
            });
            let story = live(&bridge, 120, round, &halfway).await;
            readers.push((1, during));
            for from in [1, 50] {
                readers.push((from, tokio::spawn(read(bridge.follow_session(SESSION, from), 3, 0))));
            }
            for (from, reader) in readers {
                check(&story, &reader.await.unwrap(), from);
            }
            bridge.close().await;
        }
    }
}

#[tokio::test]
async fn what_is_overtaken_appears_when_it_begins() {
    let folder = folder();
    for bridge in every_kind(folder.path()) {
        write(&bridge, vec![open_session()]).await;
        let mut follower = bridge.follow_session(SESSION, 1);
        let mut ids = Vec::new();
        for number in 1..=3 {
            ids.push(create(&bridge, number).await);
        }
        write(&bridge, vec![channel("a/out")]).await;
        assert!(is_pending(follower.next(9)).await);
        write(&bridge, start(ids[2])).await;
        assert_eq!(words(&follower.next(9).await.unwrap()), ["+3"]);
        // Cancelled while another one runs.
        write(&bridge, vec![settle(ids[0], 0)]).await;
        assert!(is_pending(follower.next(9)).await);
        write(&bridge, vec![event(ids[2], 1, "x"), settle(ids[2], 1)]).await;
        let mut seen = Vec::new();
        while seen.len() < 4 {
            seen.extend(words(&follower.next(9).await.unwrap()));
        }
        assert_eq!(seen, ["3.1", "-3", "+1", "-1"]);
        let expected = [Some("code 2".to_owned()), Some("alice".to_owned())];
        write(&bridge, start(ids[1])).await;
        let items = follower.next(9).await.unwrap();
        let [Feed::Began { promise, code, count: Some(2), principal }] = &items[..] else {
            unreachable!("{items:?}")
        };
        assert_eq!((*promise, [code.clone(), principal.clone()]), (ids[1], expected));
        write(&bridge, vec![event(ids[2], 2, "late"), settle(ids[1], 0)]).await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(words(&follower.next(9).await.unwrap()));
        }
        assert_eq!(seen, ["3.2", "-2"]);
        write(&bridge, vec![Write::CloseSession { session: SESSION }]).await;
        assert!(follower.next(9).await.unwrap().is_empty());
        assert!(follower.next(9).await.unwrap().is_empty());
        bridge.close().await;
    }
}

#[tokio::test]
async fn without_credit_beginnings_and_ends_come_and_events_wait() {
    let folder = folder();
    for bridge in every_kind(folder.path()) {
        write(&bridge, vec![open_session()]).await;
        let mut follower = bridge.follow_session(SESSION, 1);
        for number in 1..=2 {
            let id = create(&bridge, number).await;
            write(&bridge, start(id)).await;
            write(&bridge, (1..number).map(|event_number| event(id, event_number, "x")).collect()).await;
            write(&bridge, vec![settle(id, number - 1)]).await;
        }
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.extend(words(&follower.next(0).await.unwrap()));
        }
        assert_eq!(seen, ["+1", "-1", "+2"]);
        for _ in 0..20 {
            assert!(is_pending(follower.next(0)).await);
            tokio::task::yield_now().await;
        }
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(words(&follower.next(1).await.unwrap()));
        }
        assert_eq!(seen, ["2.1", "-2"]);
        bridge.close().await;
    }
}

#[tokio::test]
async fn one_who_sleeps_through_more_than_is_kept_finds_it_in_the_store() {
    let folder = folder();
    for bridge in every_kind(folder.path()) {
        write(&bridge, vec![open_session()]).await;
        let mut follower = bridge.follow_session(SESSION, 1);
        let waiting = create(&bridge, 1).await;
        assert!(is_pending(follower.next(9)).await);
        let count = (FEED_NEWS_MAX + 3 * FEED_PAGE) as u64;
        for number in 2..=count {
            let id = create(&bridge, number).await;
            write(&bridge, start(id)).await;
            write(&bridge, vec![event(id, 1, "x"), settle(id, 1)]).await;
            if number == 5 {
                write(&bridge, start(waiting)).await;
            }
        }
        write(&bridge, vec![settle(waiting, 0), Write::CloseSession { session: SESSION }]).await;
        let mut began = Vec::new();
        loop {
            let items = follower.next(1000).await.unwrap();
            if items.is_empty() {
                break;
            }
            began.extend(items.iter().filter_map(|item| match item {
                Feed::Began { promise, .. } => Some(promise.execution),
                _ => None,
            }));
        }
        assert_eq!(began.len() as u64, count);
        assert_eq!(began.iter().copied().collect::<BTreeSet<_>>(), (1..=count).collect());
        bridge.close().await;
    }
}

#[tokio::test]
async fn late_output_of_the_last_few_comes_and_that_of_older_ones_does_not() {
    let bridge = Bridge::in_memory(clock());
    write(&bridge, vec![open_session()]).await;
    let mut follower = bridge.follow_session(SESSION, 1);
    let mut ids = Vec::new();
    for number in 1..=FEED_LATE_MAX as u64 + 1 {
        let id = create(&bridge, number).await;
        write(&bridge, start(id)).await;
        write(&bridge, vec![settle(id, 0)]).await;
        assert_eq!(words(&follower.next(9).await.unwrap()), [format!("+{number}"), format!("-{number}")]);
        ids.push(id);
    }
    write(&bridge, vec![event(ids[0], 1, "late")]).await;
    assert!(is_pending(follower.next(9)).await);
    write(&bridge, vec![event(ids[1], 1, "late")]).await;
    assert_eq!(words(&follower.next(9).await.unwrap()), ["2.1"]);
    // What nobody has credit for keeps the end away.
    write(&bridge, vec![event(ids[1], 2, "late"), Write::CloseSession { session: SESSION }]).await;
    assert!(is_pending(follower.next(0)).await);
    assert_eq!(words(&follower.next(1).await.unwrap()), ["2.2"]);
    assert!(follower.next(0).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_journal_has_forgotten_is_a_gap() {
    let bridge = Bridge::in_memory(clock());
    write(&bridge, vec![open_session()]).await;
    let id = create(&bridge, 1).await;
    write(&bridge, start(id)).await;
    let large = "x".repeat(1 << 20);
    for number in 1..=6 {
        write(&bridge, vec![event(id, number, &large)]).await;
    }
    let items = bridge.follow_session(SESSION, 1).next(2).await.unwrap();
    let Feed::Gap { from: 1, next, .. } = items[1] else { unreachable!("{:?}", words(&items)) };
    assert!(next > 1);
    assert_eq!(words(&items)[2], format!("1.{next}"));
}

#[tokio::test]
async fn an_unknown_session_and_a_closed_store_are_errors() {
    let folder = folder();
    for bridge in every_kind(folder.path()) {
        let unknown = SessionId(9);
        let error = bridge.follow_session(unknown, 1).next(1).await.unwrap_err();
        assert_eq!(error, BridgeError::UnknownSession(unknown));
        write(&bridge, vec![open_session()]).await;
        let mut follower = bridge.follow_session(SESSION, 1);
        let id = create(&bridge, 1).await;
        write(&bridge, start(id)).await;
        assert_eq!(words(&follower.next(1).await.unwrap()), ["+1"]);
        bridge.close().await;
        assert_eq!(follower.next(1).await, Err(StoreError::Closed.into()));
    }
}

#[tokio::test]
async fn a_channel_has_events_and_an_end_and_is_never_started() {
    let folder = folder();
    for bridge in every_kind(folder.path()) {
        write(&bridge, vec![open_session()]).await;
        let id = created(&bridge.submit(Process, vec![channel("a/out")]).await.unwrap());
        let mut follower = bridge.follow_new(id);
        write(&bridge, vec![data(id, 1), data(id, 2)]).await;
        assert_eq!(follower.next(9).await.unwrap().len(), 2);
        // The same name is the same channel, and the other one goes on with it.
        let outcomes = bridge.submit(Process, vec![channel("a/out")]).await.unwrap();
        assert!(
            matches!(&outcomes[0], Ok(Written::Created(Created::Joined(known))) if known.id == id),
            "{outcomes:?}"
        );
        let unsettled = bridge.unsettled(SESSION).await.unwrap();
        assert_eq!((unsettled.len(), unsettled[0].next_event), (1, 3));
        assert!(unsettled[0].promise.is_channel());
        // The end of everything ends it too, with its last item.
        let settled = bridge.cancel_all(SESSION, end(0)).await.unwrap();
        assert_eq!(settled, 1);
        assert!(follower.next(9).await.unwrap().is_empty());
        assert_eq!(follower.settled().unwrap().last_event, 2);
        let outcomes = bridge.submit(Process, vec![data(id, 5)]).await.unwrap();
        assert!(matches!(outcomes[0], Err(BridgeError::Misnumbered { .. })), "{outcomes:?}");
        bridge.close().await;
    }
}

#[tokio::test]
async fn what_is_open_is_counted_by_session_also_after_a_restart() {
    let folder = folder();
    let options = crate::StoreOptions { ballast_bytes: 0, ..crate::StoreOptions::new(folder.path()) };
    let other = SessionId(2);
    let open_other = Write::OpenSession { session: other, about: Json::object() };
    let bridge = Bridge::open(&options, clock()).unwrap();
    write(&bridge, vec![open_session(), open_other]).await;
    let first = create(&bridge, 1).await;
    let second = create(&bridge, 2).await;
    write(&bridge, vec![channel("a/in"), call(first, 1)]).await;
    write(&bridge, vec![settle(second, 0)]).await;
    let counts = |bridge: &Bridge| (bridge.open_in(SESSION), bridge.open_in(other), bridge.sessions_open());
    assert_eq!(counts(&bridge), (1, 0, 2), "a call and a channel are no executions");
    bridge.close().await;
    let bridge = Bridge::open(&options, clock()).unwrap();
    assert_eq!(counts(&bridge), (1, 0, 2));
    write(&bridge, vec![settle(first.with_call(1), 0), settle(first, 0)]).await;
    write(&bridge, vec![Write::CloseSession { session: other }]).await;
    assert_eq!(counts(&bridge), (0, 0, 1));
    assert_eq!(bridge.cancel_all(SESSION, end(0)).await.unwrap(), 1, "the channel");
    assert_eq!(counts(&bridge), (0, 0, 1));
    write(&bridge, vec![Write::CloseSession { session: SESSION }]).await;
    bridge.close().await;
    let bridge = Bridge::open(&options, clock()).unwrap();
    assert_eq!(bridge.sessions_open(), 0);
    bridge.close().await;
}
