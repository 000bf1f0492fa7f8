//! What it costs to read along: executions with two events and a live follower each, one after the other and many at a
//! time; the same with a thousand followers of other promises; and a reader of the whole session.
//!
//! `cargo run --release -p cob-bridge --example follow [ROUNDS]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use cob_bridge::{Bridge, BridgeError, Created, Feed, NewExecution, StoreOptions, Write, Written};
use cob_protocol::event::Event;
use cob_protocol::frame::StreamName;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{Durability, SessionState, Settlement, State};
use cob_protocol::time::SystemClock;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const SESSION: SessionId = SessionId(1);
const IDLE: u64 = 1000;
const TOGETHER: usize = 64;

fn main() -> Result<(), Failure> {
    let rounds = std::env::args().nth(1).map_or(Ok(5000), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build()?;
    let clock = Arc::new(SystemClock);
    runtime.block_on(async {
        for is_idle in [false, true] {
            let bridge = Bridge::in_memory(clock.clone());
            measure(&name("in memory", is_idle), bridge, rounds, is_idle).await?;
            let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
            let bridge = Bridge::open(&StoreOptions::new(folder.path()), clock.clone())?;
            measure(&name("on disk", is_idle), bridge, rounds, is_idle).await?;
        }
        Ok(())
    })
}

fn name(what: &str, is_idle: bool) -> String {
    format!("{what}, {} idle followers", if is_idle { 2 * IDLE } else { 0 })
}

/// What this process has used of its processors.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

async fn measure(what: &str, bridge: Bridge, rounds: usize, is_idle: bool) -> Result<(), Failure> {
    let open = Write::OpenSession { session: SESSION, about: Json::object() };
    drop(bridge.submit(Durability::Process, vec![open]).await?);
    let mut others = Vec::new();
    for number in 0..IDLE {
        let session = SessionId(2 + number);
        let open = Write::OpenSession { session, about: Json::object() };
        drop(bridge.submit(Durability::Process, vec![open]).await?);
        let id = create(&bridge, session, 0).await?;
        if is_idle {
            others.push((bridge.follow_new(id), bridge.follow_session(session, 1)));
        }
    }
    let used = processor_time();
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let before = Instant::now();
        execution(&bridge, round).await?;
        times.push(before.elapsed());
    }
    report(&format!("{what}: one by one"), times);
    let each = (processor_time() - used).as_secs_f64() * 1e6 / rounds.max(1) as f64;
    println!("{what}: {each:.1} us of processor time each");

    let mut reader = bridge.follow_session(SESSION, rounds as u64 + 1);
    let reading = tokio::spawn(async move {
        let (mut ended, mut calls) = (0, 0);
        while ended < rounds / TOGETHER * TOGETHER {
            let items = reader.next(1 << 20).await?;
            calls += 1;
            ended += items.iter().filter(|item| matches!(item, Feed::Ended(_))).count();
        }
        Ok::<_, BridgeError>((Instant::now(), calls))
    });
    let before = Instant::now();
    let mut tasks = Vec::new();
    for task in 0..TOGETHER {
        let bridge = bridge.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..rounds / TOGETHER {
                execution(&bridge, task * rounds + round).await?;
            }
            Ok::<_, Failure>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let rate = |spent: Duration| (rounds / TOGETHER * TOGETHER) as f64 / spent.as_secs_f64();
    println!("{what}: {TOGETHER} at a time: {:.0} executions/s", rate(before.elapsed()));
    let (at, calls) = reading.await??;
    println!("{what}: read as a session: {:.0} executions/s in {calls} portions", rate(at - before));
    drop(others);
    bridge.close().await;
    Ok(())
}

/// Recorded, followed, two events, settled; all of it heard.
async fn execution(bridge: &Bridge, round: usize) -> Result<(), Failure> {
    let id = create(bridge, SESSION, round).await?;
    let mut follower = bridge.follow_new(id);
    let event = |number| {
        let event = Event::Stream { name: StreamName::Stdout, text: "hello\n".into() };
        Write::Append { id, number, event: Arc::new(event) }
    };
    drop(bridge.submit(Durability::Process, vec![event(1)]));
    let silent = Settlement::silent(State::Resolved, Json::object(), SessionState::Kept);
    let settle = Write::Settle { id, settlement: Settlement { last_event: 2, ..silent } };
    drop(bridge.submit(Durability::Process, vec![event(2), settle]));
    let mut count = 0;
    loop {
        let events = follower.next(16).await?;
        count += events.len();
        if events.is_empty() {
            break;
        }
    }
    if count != 2 || follower.settled().is_none() {
        return Err(format!("{id} had {count} events").into());
    }
    Ok(())
}

async fn create(bridge: &Bridge, session: SessionId, round: usize) -> Result<PromiseId, Failure> {
    let new = NewExecution {
        session,
        key: None,
        durability: Durability::Process,
        deadline: None,
        request: Json::of(&format!("print({round})")).ok(),
        start: Some(round as u32 + 1),
    };
    let mut outcomes = bridge.submit(Durability::Process, vec![Write::CreateExecution(new)]).await?;
    match outcomes.pop() {
        Some(Ok(Written::Created(Created::New(id)))) => Ok(id),
        other => Err(format!("{other:?}").into()),
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at =
        |part: usize| times.get(times.len() * part / 1000).map_or(0, |time| time.as_nanos()) as f64 / 1e3;
    println!("{what}: p50 {:.1} us, p90 {:.1} us, p99 {:.1} us", at(500), at(900), at(990));
}
