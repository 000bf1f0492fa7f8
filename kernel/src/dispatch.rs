//! From a verified message to the handler that deals with it.
//!
//! What needs no worker and tells only what the kernel knows is answered at once, also while code runs. Everything
//! else waits its turn in the session's queue. Busy is published before and idle after every request, whatever
//! becomes of it.

use bytes::Bytes;
use cob_bridge::{Bridge, Created, NewExecution, Write};
use cob_pool::Lane;
use cob_protocol::content::{
    CommInfoRequest, ExecuteOptions, ExecuteRequest, ExecutionState, HistoryRequest,
};
use cob_protocol::crash_point;
use cob_protocol::error::ErrorCode;
use cob_protocol::frame::{Comm, CommAction, Frame, RequestNumber};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::SESSION_WAITING_MAX;
use cob_protocol::message::Outgoing;
use cob_protocol::promise::{Durability, Key, Promise, SessionState};
use cob_protocol::registry::Request;

use crate::arrivals::{Arrival, Arrived, Creation, Fate};
use crate::queue::Turn;
use crate::records::Effect;
use crate::replies;
use crate::request::ClientRequest;
use crate::session::{Current, Session};
use crate::telling::status;

/// What is said of a request whose session went back at once.
pub(crate) const WENT_BACK: &str = "the session went back to a checkpoint before its turn came";

/// A request that waits its turn.
pub(crate) struct Queued {
    pub(crate) request: ClientRequest,
    pub(crate) work: Work,
    /// Of requests that run code.
    pub(crate) promised: Option<Promised>,
    pub(crate) priority: i32,
}

impl Queued {
    pub(crate) fn new(request: ClientRequest, work: Work, promised: Option<Promised>) -> Self {
        let priority = match work {
            Work::Execute(_) => options_of(&request).priority,
            _ => 0,
        };
        Self { request, work, promised, priority }
    }
}

impl Turn for Queued {
    fn priority(&self) -> i32 {
        self.priority
    }

    fn is_next(&self) -> bool {
        self.promised.is_some_and(|promised| promised.is_started)
    }
}

/// What was asked for beside the code, of a request that was found to be readable.
pub(crate) fn options_of(request: &ClientRequest) -> ExecuteOptions {
    ExecuteOptions::read(&request.message.metadata).unwrap_or_default()
}

/// The promise of a request that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promised {
    pub(crate) id: PromiseId,
    pub(crate) durability: Durability,
    /// It is recorded as started, or is about to be, before anything that comes after it.
    pub(crate) is_started: bool,
}

/// A request that waits for an execution which another one asked for.
pub(crate) struct Joined {
    pub(crate) promise: PromiseId,
    /// Without its content: all that is needed of it is where its reply goes.
    pub(crate) request: ClientRequest,
    /// It is the same message once more, for which the session is busy already.
    pub(crate) is_resent: bool,
}

pub(crate) enum Work {
    Execute(ExecuteRequest),
    Comm(Box<Comm>),
    Ask(Question, String),
    History(HistoryRequest),
    CommInfo(CommInfoRequest),
}

/// A question about code, without the code.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    Complete { cursor: usize },
    Inspect { cursor: usize, detail: u8 },
    IsComplete,
}

impl Question {
    fn frame(self, request: RequestNumber) -> Frame {
        use cob_protocol::frame::{Complete, Inspect, IsComplete};
        match self {
            Self::Complete { cursor } => Complete { request, cursor }.into(),
            Self::Inspect { cursor, detail } => Inspect { request, cursor, detail }.into(),
            Self::IsComplete => IsComplete { request }.into(),
        }
    }
}

impl Session {
    /// Takes a request in: answers it, or puts it into the queue.
    pub(crate) fn accept(&mut self, request: ClientRequest) {
        self.activity.asked();
        let message = &request.message;
        match Request::read(&message.header.msg_type, request.channel, &message.content) {
            Ok(body) => self.sort(request, body),
            Err(error) => self.refuse_unreadable(&request, &error),
        }
    }

    fn sort(&mut self, request: ClientRequest, body: Request) {
        let queued = match body {
            Request::KernelInfo(_) => return self.kernel_info(request),
            Request::Connect(_) => return self.at_once(&request, |session| session.connect(&request)),
            Request::Usage(_) => return self.at_once(&request, |session| session.usage(&request)),
            Request::Interrupt(_) => {
                return self.at_once(&request, |session| {
                    session.interrupt();
                    session.reply(&request, "interrupt_reply", ok());
                });
            }
            Request::Shutdown(body) => return self.shutdown_request(&request, body.restart),
            // Answers have a channel of their own, and are not requests.
            Request::Input(_) => return,
            Request::Execute(body) => {
                crash_point!("request_read");
                return self.promise(request, Work::Execute(body));
            }
            Request::CommOpen(body) => {
                let target = (Some(body.target_name), body.target_module);
                return self.enqueue_comm(request, CommAction::Open, body.comm_id, target, body.data);
            }
            Request::CommMsg(body) => {
                return self.enqueue_comm(request, CommAction::Msg, body.comm_id, (None, None), body.data);
            }
            Request::CommClose(body) => {
                return self.enqueue_comm(request, CommAction::Close, body.comm_id, (None, None), body.data);
            }
            Request::Complete(body) => {
                let cursor = body.cursor();
                Work::Ask(Question::Complete { cursor }, body.code)
            }
            Request::Inspect(body) => {
                let cursor = body.cursor();
                Work::Ask(Question::Inspect { cursor, detail: body.detail_level }, body.code)
            }
            Request::IsComplete(body) => Work::Ask(Question::IsComplete, body.code),
            Request::History(body) => Work::History(body),
            Request::CommInfo(body) => Work::CommInfo(body),
        };
        self.enqueue(request, queued);
    }

    fn enqueue(&mut self, request: ClientRequest, work: Work) {
        if let Some((code, why)) = self.over() {
            return self.refuse(Queued::new(request, work, None), code, why);
        }
        self.queue_bytes += request.bytes();
        if self.arrivals.is_empty() {
            self.queue.push(Queued::new(request, work, None));
        } else {
            self.arrivals.push(Arrival { request, work, creation: None, fate: Fate::Runs });
        }
    }

    fn enqueue_comm(
        &mut self,
        request: ClientRequest,
        action: CommAction,
        comm_id: String,
        (target_name, target_module): (Option<String>, Option<String>),
        data: Json,
    ) {
        let comm = Comm {
            action,
            // The promise names it.
            execution: 0,
            comm_id,
            target_name,
            target_module,
            data,
            metadata: request.message.metadata.clone(),
            parent: request.parent(),
            at: Default::default(),
        };
        self.promise(request, Work::Comm(Box::new(comm)));
    }

    /// Asks for the promise of a request that runs code.
    fn promise(&mut self, request: ClientRequest, work: Work) {
        self.ask_for_promise(request, work, false);
    }

    fn ask_for_promise(&mut self, request: ClientRequest, work: Work, is_again: bool) {
        let options = match ExecuteOptions::read(&request.message.metadata) {
            Ok(options) => options,
            Err(why) => {
                return self.at_once(&request, |session| {
                    session.reply_error(&request, ErrorCode::BadRequest, &why, SessionState::Kept);
                });
            }
        };
        if let Some((code, why)) = self.over() {
            return self.refuse(Queued::new(request, work, None), code, why);
        }
        self.pay_debts();
        self.records.submit();
        let durability = options.durability.unwrap_or(self.config.durability);
        // Nothing stands before it: one commit records that it was accepted and that it starts.
        let starts_now = self.is_free() && self.queue.is_empty() && self.arrivals.is_empty();
        let start = starts_now.then(|| self.count_of(&work));
        let now = self.bridge.now();
        let execution = NewExecution {
            session: self.config.id,
            key: Some(request.key(&options)),
            durability,
            deadline: options.deadline_ms.map(|ms| now.after_ms(i64::try_from(ms).unwrap_or(i64::MAX))),
            request: request.record(),
            start,
        };
        let is_one_of_many = !self.arrivals.is_empty() || !self.inputs.shell.is_empty();
        let submit = if is_one_of_many { Bridge::submit_one_of_many } else { Bridge::submit };
        let submitted = submit(&self.bridge, durability, vec![Write::CreateExecution(execution)]);
        self.queue_bytes += request.bytes();
        let creation = Creation { submitted, durability, is_started: starts_now, is_again };
        let arrival = Arrival { request, work, creation: Some(creation), fate: Fate::Runs };
        if is_again { self.arrivals.put_back(arrival) } else { self.arrivals.push(arrival) }
    }

    /// `In [count]` of work that starts now.
    pub(crate) fn count_of(&self, work: &Work) -> u32 {
        let counts = matches!(work, Work::Execute(body) if body.store_history && !body.silent);
        self.count + u32::from(counts)
    }

    /// It is known what became of a request's promise.
    pub(crate) fn arrived(&mut self, arrived: Arrived) {
        if matches!(arrived.created, Some(Ok(Created::New(_)))) {
            crash_point!("promise_committed");
        }
        let Arrived { request, work, created, durability, is_started, is_again, fate } = arrived;
        let promised = match created {
            None => None,
            Some(Ok(Created::New(id))) => {
                if request.is_agents() && matches!(work, Work::Execute(_)) {
                    self.outlet.accepted(&request, id, durability, None);
                }
                Some(Promised { id, durability, is_started })
            }
            Some(Ok(Created::Joined(known))) => {
                self.queue_bytes -= request.bytes();
                if request.is_agents() && matches!(work, Work::Execute(_)) {
                    return self.join_agent(&request, &known);
                }
                // It was replied to between the look of the store and now: the store has its value by now.
                if known.value.is_none() && !is_again && !self.is_open(known.id) {
                    return self.ask_for_promise(request, work, true);
                }
                return self.join(request, &work, &known);
            }
            Some(Err(error)) => {
                self.queue_bytes -= request.bytes();
                return self.refuse_bridge(&request, &error);
            }
        };
        let refusal = if self.is_stopping() {
            Some(self.farewell())
        } else {
            match fate {
                Fate::Restarted => {
                    Some((ErrorCode::Restarted, "the session was restarted before its turn came"))
                }
                Fate::WentBack => Some((ErrorCode::Restarted, WENT_BACK)),
                Fate::Runs | Fate::Aborted => None,
            }
        };
        if let Some((code, why)) = refusal {
            self.queue_bytes -= request.bytes();
            let state = if fate == Fate::WentBack { SessionState::Restored } else { SessionState::Lost };
            return self.refuse_in(Queued::new(request, work, promised), code, why, state);
        }
        let queued = Queued::new(request, work, promised);
        if fate == Fate::Aborted {
            return self.abort(queued);
        }
        self.queue.push(queued);
    }

    /// Whether an execution waits, runs, or has ended and was not replied to.
    fn is_open(&self, id: PromiseId) -> bool {
        let is_current = matches!(&self.current, Some(Current::Run(running)) if running.promise == id);
        let is_ending = self.is_ending() && self.contexts.latest() == id.execution;
        is_current
            || is_ending
            || self.is_held(id)
            || self.queue.iter().any(|queued| queued.promised.is_some_and(|known| known.id == id))
    }

    /// Why nothing is taken any more, if that is so.
    pub(crate) fn over(&self) -> Option<(ErrorCode, &'static str)> {
        (self.is_stopping() || self.is_draining).then(|| self.farewell())
    }

    /// Whether it ends without doing what it had to do.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_some() || self.end.is_some()
    }

    /// What is said to whoever comes too late, and of what ends with the session.
    pub(crate) fn farewell(&self) -> (ErrorCode, &'static str) {
        if self.outlet.is_server_ending() {
            (ErrorCode::ShuttingDown, "the server ends")
        } else if self.config.is_hosted {
            (ErrorCode::SessionClosed, "the session is closed")
        } else {
            (ErrorCode::ShuttingDown, "the kernel shuts down")
        }
    }

    /// A retry: the stored reply, or the same reply as everybody else when it comes.
    fn join(&mut self, mut request: ClientRequest, work: &Work, known: &Promise) {
        match &known.value {
            // It has no reply, and runs once.
            _ if matches!(work, Work::Comm(_)) => self.at_once(&request, |_| {}),
            Some(content) => {
                let message = Outgoing {
                    metadata: replies::metadata(known),
                    ..Outgoing::new("execute_reply", request.parent(), content.clone())
                };
                self.at_once(&request, |session| session.send_reply(&request, message));
            }
            None if self.joined.len() < SESSION_WAITING_MAX => {
                let is_resent = self.is_resent(&request, known);
                if !is_resent {
                    self.status(ExecutionState::Busy, &request);
                }
                self.ask_again(known.id, &request);
                (request.message.content, request.message.buffers) = Default::default();
                self.joined.push(Joined { promise: known.id, request, is_resent });
            }
            None => self.at_once(&request, |session| {
                session.reply_error(
                    &request,
                    ErrorCode::Busy,
                    "too many requests wait for the same execution",
                    SessionState::Kept,
                );
            }),
        }
    }

    /// An agent asks again: what becomes of the execution is delivered to it from the journal. What code asks its
    /// client it asks from now on where the client is now.
    fn join_agent(&mut self, request: &ClientRequest, known: &Promise) {
        self.outlet.accepted(request, known.id, known.durability, Some(known));
        let running = match &mut self.current {
            Some(Current::Run(running)) if running.promise == known.id => Some(&mut running.request),
            _ => None,
        };
        let queued = self.queue.iter_mut().filter(|queued| queued.promised.is_some_and(|p| p.id == known.id));
        for asker in running.into_iter().chain(queued.map(|queued| &mut queued.request)) {
            if asker.is_agents() {
                asker.client.address = request.client.address.clone();
            }
        }
        self.ask_again(known.id, request);
    }

    /// Whether a message that asks for this execution has come before.
    fn is_resent(&self, request: &ClientRequest, known: &Promise) -> bool {
        let header = &request.message.header;
        let is_it = |other: &ClientRequest| {
            let known = &other.message.header;
            known.msg_id == header.msg_id && known.session == header.session
        };
        let is_key = |key: &Key| key.key == header.msg_id && key.principal == header.session;
        let mut queued = self.queue.iter().map(|queued| &queued.request);
        known.key.as_ref().is_some_and(is_key)
            || matches!(&self.current, Some(Current::Run(running)) if is_it(&running.request))
            || queued.any(is_it)
            || self.joined.iter().any(|joined| is_it(&joined.request))
    }

    /// Those who wait for an execution as well.
    pub(crate) fn take_joined(&mut self, promise: PromiseId) -> Vec<Joined> {
        if self.joined.is_empty() {
            return Vec::new();
        }
        let (theirs, others) =
            std::mem::take(&mut self.joined).into_iter().partition(|joined| joined.promise == promise);
        self.joined = others;
        theirs
    }

    /// Answers those who wait for an execution as well, now; `reply` is for their own request, but for its parent.
    pub(crate) fn reply_to_joined(&mut self, promise: PromiseId, reply: &Outgoing) {
        for Joined { request, is_resent, .. } in self.take_joined(promise) {
            let message = Outgoing { parent: request.parent(), ..reply.clone() };
            self.outlet.reply(request.channel, &request.client.address, message);
            if !is_resent {
                self.perform(Effect::Publish(status(ExecutionState::Idle, request.parent())));
            }
        }
    }

    /// Starts a request whose turn has come.
    pub(crate) fn begin(&mut self, Queued { request, work, promised, .. }: Queued) {
        match (work, promised) {
            (Work::Execute(body), Some(promised)) => self.execute(request, body, promised),
            (Work::Comm(comm), Some(promised)) => self.comm(request, *comm, promised),
            (Work::Execute(_) | Work::Comm(_), None) => {
                tracing::error!("a request that runs code has no promise; it is not run");
            }
            (Work::Ask(question, code), _) => {
                self.status(ExecutionState::Busy, &request);
                self.next_question += 1;
                let number = self.next_question;
                self.current = Some(Current::Ask { request: Box::new(request), number });
                self.send(question.frame(number), vec![Bytes::from(code)], Lane::Data);
            }
            (Work::History(body), _) => {
                self.at_once(&request, |session| session.answer_history(&request, &body));
            }
            (Work::CommInfo(body), _) => {
                self.at_once(&request, |session| session.answer_comm_info(&request, &body));
            }
        }
    }

    /// Sends to the present worker, once everything before it is recorded.
    pub(crate) fn send(&mut self, frame: Frame, payloads: Vec<Bytes>, lane: Lane) {
        let generation = self.generation;
        self.records.then(Effect::Send { generation, frame: Box::new(frame), payloads, lane });
    }

    /// Busy, the answer, idle.
    pub(crate) fn at_once(&mut self, request: &ClientRequest, answer: impl FnOnce(&mut Self)) {
        self.status(ExecutionState::Busy, request);
        self.outlet.flush();
        answer(self);
        self.status(ExecutionState::Idle, request);
    }
}

pub(crate) fn ok() -> Json {
    Json::parse("{\"status\":\"ok\"}").unwrap_or_default()
}
