//! Durable promises: their states and the only transitions between them.
//!
//! **Invariant:** a settled promise never changes. The model is that of Resonate's durable promises.

use thiserror::Error;

use crate::event::EventNumber;
use crate::ids::PromiseId;
use crate::json::Json;
use crate::time::Timestamp;

/// Where a promise stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    RejectedTimedOut,
}

impl State {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// Variables are as the code left them.
    Kept,
    /// Variables are gone.
    Lost,
}

impl SessionState {
    /// The name in replies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Lost => "lost",
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
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When it was settled.
    pub settled_at: Option<Timestamp>,
    /// Number of the last event, once settled.
    pub last_event: EventNumber,
    /// What it was settled with: the content of the reply.
    pub value: Option<Json>,
    /// What became of the session, once settled.
    pub session_state: Option<SessionState>,
}

/// Names a request so that a retry finds it again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Who asked: keys of different clients never meet.
    pub principal: String,
    /// The client's own name for the request (for Jupyter clients the `msg_id`).
    pub key: String,
    /// SHA-256 of the request's body.
    pub body: [u8; 32],
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
}

/// What can happen to a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It was handed to a worker.
    Start,
    /// It ends.
    Settle(Settlement),
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
}

impl Promise {
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
                Ok(())
            }
            Operation::Settle(end) if !end.state.is_settled() => Err(Refused::NotSettled(end.state)),
            Operation::Settle(end) => {
                self.state = end.state;
                self.value = Some(end.value);
                self.session_state = Some(end.session_state);
                // A clock that stepped back must not settle a promise before it was made.
                self.settled_at = Some(now.max(self.created_at));
                Ok(())
            }
        }
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
        prop_oneof![
            Just(Operation::Start),
            states.prop_map(|state| Operation::Settle(Settlement {
                state,
                value: Json::object(),
                session_state: SessionState::Kept
            })),
        ]
    }

    proptest! {
        #[test]
        fn a_settled_promise_never_changes(operations in prop::collection::vec(operations(), 0..20)) {
            let now = SystemClock.now();
            let mut promise = Promise {
                id: PromiseId::execution(SessionId(1), 1),
                state: State::Pending,
                key: None,
                created_at: now,
                settled_at: None,
                last_event: 0,
                value: None,
                session_state: None,
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
