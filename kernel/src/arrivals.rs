//! Requests on their way into the queue: the promise of each is being recorded. They enter the queue in the order in
//! which they came, also those that need no promise.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use cob_bridge::{BridgeError, Created, Submitted, Written};
use cob_protocol::promise::Durability;

use crate::dispatch::Work;
use crate::request::{Client, ClientRequest};

/// A request whose promise has been asked for.
pub(crate) struct Arrival {
    pub(crate) request: ClientRequest,
    pub(crate) work: Work,
    /// Absent for requests that run no code.
    pub(crate) creation: Option<Creation>,
    /// The session was restarted since: it is not run.
    pub(crate) fate: Fate,
}

pub(crate) struct Creation {
    pub(crate) submitted: Submitted,
    pub(crate) durability: Durability,
    /// It is recorded as started too.
    pub(crate) is_started: bool,
    /// It was asked for before.
    pub(crate) is_again: bool,
}

/// An arrival, and what became of its promise.
pub(crate) struct Arrived {
    pub(crate) request: ClientRequest,
    pub(crate) work: Work,
    pub(crate) created: Option<Result<Created, BridgeError>>,
    pub(crate) durability: Durability,
    pub(crate) is_started: bool,
    pub(crate) is_again: bool,
    pub(crate) fate: Fate,
}

/// What becomes of an arrival once its promise is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It waits its turn.
    Runs,
    /// Its session was restarted meanwhile.
    Restarted,
    /// Its session went back to a checkpoint meanwhile.
    WentBack,
    /// Something of its client failed meanwhile.
    Aborted,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Arrivals {
    waiting: VecDeque<Arrival>,
}

impl Arrivals {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn push(&mut self, arrival: Arrival) {
        self.waiting.push_back(arrival);
    }

    /// One that has just left, and has not arrived yet after all: those behind it do not overtake it.
    pub(crate) fn put_back(&mut self, arrival: Arrival) {
        self.waiting.push_front(arrival);
    }

    /// None of those that are here shall be run: their session is restarted, or goes back.
    pub(crate) fn condemn(&mut self, fate: Fate) {
        self.waiting.iter_mut().for_each(|arrival| arrival.fate = fate);
    }

    /// The executions of a client that are here shall not be run: one before them has failed.
    pub(crate) fn abort(&mut self, client: &Client) {
        let theirs = self.waiting.iter_mut().filter(|arrival| {
            arrival.fate == Fate::Runs
                && arrival.request.client.is(client)
                && matches!(arrival.work, Work::Execute(_))
        });
        theirs.for_each(|arrival| arrival.fate = Fate::Aborted);
    }

    /// The next one whose promise is decided; for ever nothing when none waits. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Arrived {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Arrived> {
        let Some(front) = self.waiting.front_mut() else { return Poll::Pending };
        let outcome = match &mut front.creation {
            None => None,
            Some(creation) => match Pin::new(&mut creation.submitted).poll(context) {
                Poll::Ready(outcome) => Some(outcome),
                Poll::Pending => return Poll::Pending,
            },
        };
        let Some(Arrival { request, work, creation, fate }) = self.waiting.pop_front() else {
            return Poll::Pending;
        };
        let created = outcome.map(|outcome| {
            let written = outcome?.pop().unwrap_or(Err(cob_bridge::StoreError::Closed.into()))?;
            match written {
                Written::Created(created) => Ok(created),
                Written::Done | Written::Settled(_) => Err(cob_bridge::StoreError::Closed.into()),
            }
        });
        let durability = creation.as_ref().map_or(Durability::None, |creation| creation.durability);
        let is_started = creation.as_ref().is_some_and(|creation| creation.is_started);
        let is_again = creation.is_some_and(|creation| creation.is_again);
        Poll::Ready(Arrived { request, work, created, durability, is_started, is_again, fate })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use cob_bridge::{Bridge, NewExecution, Write};
    use cob_protocol::content::CommInfoRequest;
    use cob_protocol::ids::{PromiseId, SessionId};
    use cob_protocol::json::Json;
    use cob_protocol::message::{Channel, Header, Incoming};
    use cob_protocol::time::SystemClock;
    use serde_json::json;

    use super::*;

    fn request(id: &str) -> ClientRequest {
        let header_json = Json::from(json!({ "msg_id": id, "msg_type": "execute_request", "session": "c" }));
        let header: Header = header_json.read().unwrap();
        let message = Incoming {
            header,
            header_json,
            metadata: Json::object(),
            content: Bytes::from_static(b"{}"),
            buffers: Vec::new(),
        };
        ClientRequest::new(Bytes::new(), Channel::Shell, message)
    }

    fn arrival(id: &str, creation: Option<Creation>) -> Arrival {
        let work = Work::CommInfo(CommInfoRequest { target_name: None });
        Arrival { request: request(id), work, creation, fate: Fate::Runs }
    }

    fn creation(bridge: &Bridge) -> Creation {
        let execution = NewExecution {
            session: SessionId(1),
            key: None,
            durability: Durability::Process,
            deadline: None,
            request: None,
            start: None,
        };
        let submitted = bridge.submit(Durability::Process, vec![Write::CreateExecution(execution)]);
        Creation { submitted, durability: Durability::Process, is_started: false, is_again: false }
    }

    #[tokio::test]
    async fn what_needs_no_promise_does_not_overtake_what_does() {
        let bridge = Bridge::in_memory(Arc::new(SystemClock));
        let mut arrivals = Arrivals::default();
        // No session is open yet.
        arrivals.push(arrival("refused", Some(creation(&bridge))));
        let open = Write::OpenSession { session: SessionId(1), about: Json::object() };
        bridge.submit(Durability::Process, vec![open]).await.unwrap();
        arrivals.push(arrival("made", Some(creation(&bridge))));
        arrivals.push(arrival("plain", None));
        assert_eq!(arrivals.len(), 3);
        let refused = arrivals.next().await;
        assert_eq!(refused.request.message.header.msg_id, "refused");
        assert!(matches!(refused.created, Some(Err(BridgeError::UnknownSession(_)))));
        let made = arrivals.next().await;
        let id = PromiseId::execution(SessionId(1), 1);
        assert!(matches!(made.created, Some(Ok(Created::New(found))) if found == id));
        let plain = arrivals.next().await;
        assert!(plain.created.is_none() && arrivals.is_empty());
    }

    #[tokio::test]
    async fn what_a_failure_aborts_is_also_what_is_still_being_recorded() {
        let mut arrivals = Arrivals::default();
        let execute = |id| {
            let body = serde_json::from_str("{\"code\": \"1\"}").unwrap();
            Arrival { request: request(id), work: Work::Execute(body), creation: None, fate: Fate::Runs }
        };
        let mut others = execute("another client's");
        others.request.client.session = "d".to_owned();
        let client = request("x").client;
        arrivals.push(execute("theirs"));
        arrivals.push(others);
        arrivals.push(arrival("no execution", None));
        arrivals.abort(&client);
        arrivals.push(execute("later"));
        let mut fates = Vec::new();
        while !arrivals.is_empty() {
            fates.push(arrivals.next().await.fate);
        }
        assert_eq!(fates, [Fate::Aborted, Fate::Runs, Fate::Runs, Fate::Runs]);
    }

    #[tokio::test]
    async fn a_closed_store_answers_too() {
        let bridge = Bridge::in_memory(Arc::new(SystemClock));
        bridge.close().await;
        let mut arrivals = Arrivals::default();
        arrivals.push(arrival("late", Some(creation(&bridge))));
        let late = arrivals.next().await;
        assert!(matches!(late.created, Some(Err(BridgeError::Store(cob_bridge::StoreError::Closed)))));
    }
}
