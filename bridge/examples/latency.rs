//! How long it takes from a submission to its answer, as a session sees it: from a task on a runtime with one thread.
//!
//! Between two steps some time passes, as between the two commits of a cell.
//!
//! `cargo run --release -p cob-bridge --example latency [ROUNDS]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use cob_bridge::{Bridge, Created, MemoryStore, NewExecution, StoreOptions, Write, Written};
use cob_protocol::event::Event;
use cob_protocol::frame::StreamName;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{Durability, SessionState, Settlement, State};
use cob_protocol::time::SystemClock;

const SESSION: SessionId = SessionId(1);

/// Between two steps: what a client and a worker take.
const BETWEEN: Duration = Duration::from_micros(150);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(5000), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clock = Arc::new(SystemClock);
    runtime.block_on(async {
        measure("in memory, no thread", &Bridge::in_memory(clock.clone()), Durability::Process, rounds).await;
        let look = || Ok(Box::<MemoryStore>::default() as Box<dyn cob_bridge::Read>);
        match Bridge::over("memory", MemoryStore::default(), look, clock.clone()) {
            Ok(bridge) => measure("in memory, writer's thread", &bridge, Durability::Process, rounds).await,
            Err(error) => println!("{error}"),
        }
        for (what, durability) in [("on disk", Durability::Process), ("on disk, power", Durability::Power)] {
            let folder = tempfile::tempdir()?;
            let rounds = if durability == Durability::Power { rounds / 10 } else { rounds };
            let bridge = Bridge::open(&StoreOptions::new(folder.path()), clock.clone())?;
            measure(what, &bridge, durability, rounds).await;
        }
        Ok(())
    })
}

/// A cell: created and started, then one event and the end, each answered before the next.
async fn measure(what: &str, bridge: &Bridge, durability: Durability, rounds: usize) {
    let open = Write::OpenSession { session: SESSION, about: Json::object() };
    drop(bridge.submit(durability, vec![open]).await);
    let (mut begins, mut ends) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for round in 0..rounds {
        let before = Instant::now();
        let Some(id) = create(bridge, durability, round).await else { return println!("{what}: refused") };
        begins.push(before.elapsed());
        pass();
        let before = Instant::now();
        let event = Arc::new(Event::Stream { name: StreamName::Stdout, text: "hello\n".into() });
        let settlement = Settlement::silent(State::Resolved, Json::object(), SessionState::Kept);
        let writes = vec![Write::Append { id, number: 1, event }, Write::Settle { id, settlement }];
        drop(bridge.submit(durability, writes).await);
        ends.push(before.elapsed());
        pass();
    }
    bridge.close().await;
    for (step, times) in [("begin", &mut begins), ("end", &mut ends)] {
        times.sort();
        let at =
            |part: usize| times.get(times.len() * part / 1000).map_or(0, |time| time.as_nanos()) as f64 / 1e3;
        println!("{what:28} {step:6} p50 {:7.1} us  p90 {:7.1} us  p99 {:7.1} us", at(500), at(900), at(990));
    }
}

/// Lets the time pass without giving up the processor: a thread that sleeps is measured elsewhere.
fn pass() {
    let before = Instant::now();
    while before.elapsed() < BETWEEN {
        std::hint::spin_loop();
    }
}

async fn create(bridge: &Bridge, durability: Durability, round: usize) -> Option<PromiseId> {
    let new = NewExecution {
        session: SESSION,
        key: None,
        durability,
        deadline: None,
        request: Json::of(&format!("print({round})")).ok(),
        start: Some(round as u32 + 1),
    };
    let outcomes = bridge.submit(durability, vec![Write::CreateExecution(new)]).await.ok()?;
    match outcomes.into_iter().next()?.ok()? {
        Written::Created(Created::New(id)) => Some(id),
        _ => None,
    }
}
