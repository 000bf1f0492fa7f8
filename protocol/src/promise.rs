//! Durable promises: their states and the only transitions between them.
//!
//! **Invariant:** a settled promise never changes. The model is that of Resonate's durable promises.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::event::EventNumber;
use crate::ids::PromiseId;
use crate::json::Json;
use crate::time::Timestamp;

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The end of a request that runs code: a cell, or a comm message.
    Execution,
    /// The answer to a question that running code asked.
    Call,
}

/// How safe a record must be before anybody is told of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Nobody waits for it: it is recorded when there is time, or in memory only.
    None,
    /// Survives the death of any process: written to the system, not to the disk.
    #[default]
    Process,
    /// Survives the loss of power: synchronised to the disk.
    Power,
}

impl Durability {
    /// The name in messages and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Process => "process",
            Self::Power => "power",
        }
    }
}

/// Where a promise stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Recorded; for an execution: waits in its session's queue.
    Pending,
    /// An execution that was handed to a worker; still pending for everybody who waits.
    Started,
    /// Settled with a value.
    Resolved,
    /// Settled with an error.
    Rejected,
    /// Interrupted, cancelled or shut down.
    RejectedCanceled,
    /// Nobody answered, or the deadline passed.
    #[serde(rename = "rejected_timedout")]
    RejectedTimedOut,
}

impl State {
    /// Every state, in the order of a promise's life.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Started,
        Self::Resolved,
        Self::Rejected,
        Self::RejectedCanceled,
        Self::RejectedTimedOut,
    ];

    /// Whether it can still change.
    #[must_use]
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Pending | Self::Started)
    }

    /// The name in messages and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Started => "started",
            Self::Resolved => "resolved",
            Self::Rejected => "rejected",
            Self::RejectedCanceled => "rejected_canceled",
            Self::RejectedTimedOut => "rejected_timedout",
        }
    }
}

/// What became of a session's state when something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Variables are as the code left them.
    Kept,
    /// Variables are gone.
    Lost,
    /// Variables are as they were at a checkpoint ([`crate::checkpoint::Restoration`]).
    Restored,
}

impl SessionState {
    /// The name in replies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Lost => "lost",
            Self::Restored => "restored",
        }
    }
}

/// A promise as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Its name.
    pub id: PromiseId,
    /// Where it stands.
    pub state: State,
    /// Idempotency key and hash of the request's body, if the asker gave a key.
    pub key: Option<Key>,
    /// How safe its records are before anybody is told of them.
    pub durability: Durability,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When it was handed to a worker.
    pub started_at: Option<Timestamp>,
    /// When it is settled as timed out, unless it was settled before.
    pub deadline: Option<Timestamp>,
    /// When it was settled: for one that timed out its deadline, whenever that was noticed.
    pub settled_at: Option<Timestamp>,
    /// Number of the last event, once settled.
    pub last_event: EventNumber,
    /// What became of the text it printed, once settled.
    pub tally: Tally,
    /// What it was settled with: the content of the reply.
    pub value: Option<Json>,
    /// What became of the session, once settled.
    pub session_state: Option<SessionState>,
    /// Head of the audit trail with its settlement, where there is a trail: SHA-256.
    pub audit: Option<[u8; 32]>,
}

/// The principal of keys that name durable channels, which no client has: their key is `NAME/out` or `NAME/in`. Such a
/// promise is made as an execution is and has events, but it is never started, and settled when the channel is closed.
pub const CHANNEL_PRINCIPAL: &str = "channel";

/// Bytes of text that an execution printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Written by the code.
    pub written: u64,
    /// Of these, not recorded: beyond what is kept.
    pub dropped: u64,
}

impl Tally {
    /// Bytes that are recorded.
    #[must_use]
    pub fn kept(self) -> u64 {
        self.written.saturating_sub(self.dropped)
    }
}

/// Names a request so that a retry finds it again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Who asked: keys of different clients never meet.
    pub principal: String,
    /// The client's own name for the request (for Jupyter clients the `msg_id`).
    pub key: String,
    /// SHA-256 of the request's body.
    pub body: [u8; 32],
}

impl Key {
    /// Whether it names a durable channel.
    #[must_use]
    pub fn is_channel(&self) -> bool {
        self.principal == CHANNEL_PRINCIPAL
    }
}

/// How a promise ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// A settled state.
    pub state: State,
    /// The content of the reply.
    pub value: Json,
    /// What became of the session.
    pub session_state: SessionState,
    /// Number of its last event: 0 for a call, which has none.
    pub last_event: EventNumber,
    /// What became of the text it printed.
    pub tally: Tally,
}

impl Settlement {
    /// One of a promise that has printed nothing: a call, or an execution that never began.
    #[must_use]
    pub fn silent(state: State, value: Json, session_state: SessionState) -> Self {
        Self { state, value, session_state, last_event: 0, tally: Tally::default() }
    }
}

/// What can happen to a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It was handed to a worker.
    Start,
    /// It ends.
    Settle(Settlement),
    /// Its deadline has passed: it ends as [`State::RejectedTimedOut`], at its deadline.
    Expire(Settlement),
}

/// A transition that does not exist.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// The first settlement wins.
    #[error("already_settled: the promise is {}", .0.as_str())]
    AlreadySettled(State),
    /// It was started before.
    #[error("already_started")]
    AlreadyStarted,
    /// A settlement must name a settled state.
    #[error("`{}` is no settled state", .0.as_str())]
    NotSettled(State),
    /// It has no deadline, or one that has not come.
    #[error("not_due: its deadline has not passed")]
    NotDue,
}

impl Promise {
    /// Whether it is a durable channel: it has events, and nothing runs for it.
    #[must_use]
    pub fn is_channel(&self) -> bool {
        self.key.as_ref().is_some_and(Key::is_channel)
    }

    /// Applies `operation` at time `now`; on refusal nothing has changed.
    ///
    /// # Errors
    /// [`Refused`] says which rule stands against it.
    pub fn apply(&mut self, operation: Operation, now: Timestamp) -> Result<(), Refused> {
        if self.state.is_settled() {
            return Err(Refused::AlreadySettled(self.state));
        }
        match operation {
            Operation::Start if self.state == State::Started => Err(Refused::AlreadyStarted),
            Operation::Start => {
                self.state = State::Started;
                self.started_at = Some(now.max(self.created_at));
                Ok(())
            }
            Operation::Settle(end) if !end.state.is_settled() => Err(Refused::NotSettled(end.state)),
            Operation::Settle(end) => {
                // A clock that stepped back must not settle a promise before it was made.
                self.end(end, now.max(self.created_at));
                Ok(())
            }
            Operation::Expire(end) => {
                let due = self.deadline.filter(|deadline| *deadline <= now).ok_or(Refused::NotDue)?;
                self.end(Settlement { state: State::RejectedTimedOut, ..end }, due.max(self.created_at));
                Ok(())
            }
        }
    }

    fn end(&mut self, end: Settlement, at: Timestamp) {
        let Settlement { state, value, session_state, last_event, tally } = end;
        self.state = state;
        self.value = Some(value);
        self.session_state = Some(session_state);
        self.last_event = last_event;
        self.tally = tally;
        self.settled_at = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::SessionId;
    use crate::time::{Clock, SystemClock};

    fn operations() -> impl Strategy<Value = Operation> {
        let states = prop::sample::select(vec![
            State::Pending,
            State::Started,
            State::Resolved,
            State::Rejected,
            State::RejectedCanceled,
            State::RejectedTimedOut,
        ]);
        let end = |state| Settlement::silent(state, Json::object(), SessionState::Kept);
        prop_oneof![
            Just(Operation::Start),
            Just(Operation::Expire(end(State::RejectedTimedOut))),
            states.prop_map(move |state| Operation::Settle(end(state))),
        ]
    }

    proptest! {
        #[test]
        fn a_settled_promise_never_changes(
            operations in prop::collection::vec(operations(), 0..20),
            due in prop::option::of(any::<bool>()),
        ) {
            let now = SystemClock.now();
            let deadline = due.map(|due| now.after_ms(if due { -1 } else { 1000 }));
            let mut promise = Promise {
                id: PromiseId::execution(SessionId(1), 1),
                state: State::Pending,
                key: None,
                durability: Durability::Process,
                created_at: now,
                started_at: None,
                deadline,
                settled_at: None,
                last_event: 0,
                tally: Tally::default(),
                value: None,
                session_state: None,
                audit: None,
            };
            for operation in operations {
                let before = promise.clone();
                let result = promise.apply(operation, now);
                if before.state.is_settled() {
                    prop_assert_eq!(result, Err(Refused::AlreadySettled(before.state)));
                }
                if result.is_err() {
                    prop_assert_eq!(&promise, &before);
                }
                prop_assert_eq!(promise.state.is_settled(), promise.value.is_some());
            }
        }
    }
}
