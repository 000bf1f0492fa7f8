//! What the handle promises, shown on a store in memory behind the writer's thread: it can be held up, and told to
//! fail.

mod disk;
mod faults;
mod faulty;
mod feed;
mod killed;
mod lifecycle;
mod order;
mod tails;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cob_protocol::event::{Event, EventNumber};
use cob_protocol::frame::StreamName;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{Durability, SessionState, Settlement, State};
use cob_protocol::time::{Clock, SystemClock, Timestamp};

use crate::store::{Created, NewExecution, Write, Written};
use crate::{Bridge, Outcomes};

const SESSION: SessionId = SessionId(1);

/// A clock that stands where a test puts it.
#[derive(Debug)]
struct SetClock(AtomicI64);

impl SetClock {
    fn at(time: Timestamp) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(time.micros())))
    }

    fn set(&self, time: Timestamp) {
        self.0.store(time.micros(), Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

fn open_session() -> Write {
    Write::OpenSession { session: SESSION, about: Json::object() }
}

fn execution(deadline: Option<Timestamp>) -> Write {
    Write::CreateExecution(NewExecution {
        session: SESSION,
        key: None,
        durability: Durability::Process,
        deadline,
        request: None,
        start: None,
    })
}

fn call(execution: PromiseId, number: u64) -> Write {
    Write::CreateCall { id: execution.with_call(number), request: Json::object(), deadline: None }
}

fn event(id: PromiseId, number: EventNumber, text: &str) -> Write {
    let event = Event::Stream { name: StreamName::Stdout, text: text.to_owned() };
    Write::Append { id, number, event: Arc::new(event) }
}

fn end(last_event: EventNumber) -> Settlement {
    Settlement { last_event, ..Settlement::silent(State::Resolved, Json::object(), SessionState::Kept) }
}

fn settle(id: PromiseId, last_event: EventNumber) -> Write {
    Write::Settle { id, settlement: end(last_event) }
}

fn expire(id: PromiseId) -> Write {
    let settlement = Settlement::silent(State::RejectedTimedOut, Json::object(), SessionState::Kept);
    Write::Expire { id, settlement }
}

#[track_caller]
fn created(outcomes: &Outcomes) -> PromiseId {
    match outcomes.last() {
        Some(Ok(Written::Created(Created::New(id)))) => *id,
        other => unreachable!("{other:?}"),
    }
}

/// Opens the session and an execution in it.
async fn begin(bridge: &Bridge) -> PromiseId {
    bridge.submit(Durability::Process, vec![open_session()]).await.unwrap();
    another(bridge).await
}

async fn another(bridge: &Bridge) -> PromiseId {
    created(&bridge.submit(Durability::Process, vec![execution(None)]).await.unwrap())
}

fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock)
}
