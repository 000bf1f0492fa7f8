//! From a verified message to the handler that deals with it.
//!
//! What needs no worker and tells only what the kernel knows is answered at once, also while code runs. Everything
//! else waits its turn in the session's queue. Busy is published before and idle after every request, whatever
//! becomes of it.

use bytes::Bytes;
use cob_bridge::{BridgeError, Created};
use cob_pool::Lane;
use cob_protocol::content::{
    AbortedReply, CommInfoRequest, ErrorReply, ExecuteRequest, ExecutionState, HistoryRequest,
};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::ErrorText;
use cob_protocol::frame::{Comm, CommAction, Frame, RequestNumber};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::SESSION_WAITING_MAX;
use cob_protocol::promise::{Key, SessionState, Settlement, State};
use cob_protocol::registry::{self, Request, RequestError};

use crate::request::{Client, ClientRequest};
use crate::session::{Current, Session, WorkerState};

/// A request that waits its turn.
pub(crate) struct Queued {
    pub(crate) request: ClientRequest,
    pub(crate) work: Work,
}

pub(crate) enum Work {
    Execute { body: ExecuteRequest, promise: PromiseId },
    Comm { comm: Box<Comm>, promise: PromiseId },
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
    pub(crate) async fn accept(&mut self, request: ClientRequest) {
        let message = &request.message;
        match Request::read(&message.header.msg_type, request.channel, &message.content) {
            Ok(body) => self.sort(request, body).await,
            Err(error) => self.refuse_unreadable(&request, &error),
        }
    }

    async fn sort(&mut self, request: ClientRequest, body: Request) {
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
            Request::Shutdown(body) => return self.shutdown_request(&request, body.restart).await,
            // Answers have a channel of their own, and are not requests.
            Request::Input(_) => return,
            Request::Execute(body) => return self.enqueue_execute(request, body).await,
            Request::CommOpen(body) => {
                let target = (Some(body.target_name), body.target_module);
                return self.enqueue_comm(request, CommAction::Open, body.comm_id, target, body.data).await;
            }
            Request::CommMsg(body) => {
                return self
                    .enqueue_comm(request, CommAction::Msg, body.comm_id, (None, None), body.data)
                    .await;
            }
            Request::CommClose(body) => {
                return self
                    .enqueue_comm(request, CommAction::Close, body.comm_id, (None, None), body.data)
                    .await;
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
        self.queue_bytes += request.bytes();
        self.queue.push_back(Queued { request, work });
    }

    async fn enqueue_execute(&mut self, request: ClientRequest, body: ExecuteRequest) {
        match self.promise_for(&request).await {
            Ok(Created::New(promise)) => self.enqueue(request, Work::Execute { body, promise }),
            Ok(Created::Joined(known)) => self.join(request, known.id, known.value),
            Err(error) => self.refuse_bridge(&request, &error),
        }
    }

    async fn enqueue_comm(
        &mut self,
        request: ClientRequest,
        action: CommAction,
        comm_id: String,
        (target_name, target_module): (Option<String>, Option<String>),
        data: Json,
    ) {
        match self.promise_for(&request).await {
            Ok(Created::New(promise)) => {
                let comm = Box::new(Comm {
                    action,
                    execution: promise.execution,
                    comm_id,
                    target_name,
                    target_module,
                    data,
                    metadata: request.message.metadata.clone(),
                    parent: request.parent(),
                    at: Default::default(),
                });
                self.enqueue(request, Work::Comm { comm, promise });
            }
            // It has no reply, and runs once.
            Ok(Created::Joined(_)) => self.at_once(&request, |_| {}),
            Err(error) => self.refuse_bridge(&request, &error),
        }
    }

    /// The promise of a request that runs code; the message's own id is its idempotency key.
    async fn promise_for(&self, request: &ClientRequest) -> Result<Created, BridgeError> {
        let header = &request.message.header;
        let key = Key {
            principal: request.client.session.clone(),
            key: header.msg_id.clone(),
            body: cob_protocol::signing::body_hash(&request.message.content),
        };
        self.bridge.create_execution(self.config.id, Some(key)).await
    }

    /// A retry: the stored reply, or the same reply as everybody else when it comes.
    fn join(&mut self, request: ClientRequest, promise: PromiseId, value: Option<Json>) {
        match value {
            Some(content) => {
                self.at_once(&request, |session| session.reply(&request, "execute_reply", content));
            }
            None if self.joined.len() < SESSION_WAITING_MAX => self.joined.push((promise, request)),
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

    pub(crate) fn reply_to_joined(&mut self, promise: PromiseId, content: &Json) {
        if self.joined.is_empty() {
            return;
        }
        let (theirs, others) =
            std::mem::take(&mut self.joined).into_iter().partition(|(id, _)| *id == promise);
        self.joined = others;
        let theirs: Vec<(PromiseId, ClientRequest)> = theirs;
        for (_, request) in theirs {
            self.reply(&request, "execute_reply", content.clone());
        }
    }

    /// Starts a request whose turn has come.
    pub(crate) async fn begin(&mut self, Queued { request, work }: Queued) {
        match work {
            Work::Execute { body, promise } => self.execute(request, body, promise).await,
            Work::Comm { comm, promise } => self.comm(request, *comm, promise).await,
            Work::Ask(question, code) => {
                self.status(ExecutionState::Busy, request.parent());
                self.next_question += 1;
                let number = self.next_question;
                let sent = self.send(question.frame(number), vec![Bytes::from(code)]);
                match sent {
                    Ok(()) => self.current = Some(Current::Ask { request: Box::new(request), number }),
                    Err(why) => {
                        self.reply_error(&request, ErrorCode::RequestTooLarge, &why, SessionState::Kept);
                        self.status(ExecutionState::Idle, request.parent());
                    }
                }
            }
            Work::History(body) => self.at_once(&request, |session| session.answer_history(&request, &body)),
            Work::CommInfo(body) => {
                self.at_once(&request, |session| session.answer_comm_info(&request, &body))
            }
        }
    }

    /// Sends to the live worker; says why when the frame cannot be sent.
    pub(crate) fn send(&mut self, frame: Frame, payloads: Vec<Bytes>) -> Result<(), String> {
        match &mut self.worker {
            WorkerState::Live(worker) => {
                worker.send(&frame, payloads, Lane::Data).map_err(|error| error.to_string())
            }
            // Its end is about to be noticed; whatever is current then is lost with it.
            WorkerState::Starting(_) | WorkerState::None => Ok(()),
        }
    }

    /// Busy, the answer, idle.
    pub(crate) fn at_once(&mut self, request: &ClientRequest, answer: impl FnOnce(&mut Self)) {
        self.status(ExecutionState::Busy, request.parent());
        self.outlet.flush();
        answer(self);
        self.status(ExecutionState::Idle, request.parent());
    }

    // --- Refusals --------------------------------------------------------------------------------------------

    pub(crate) fn reply_error(
        &self,
        request: &ClientRequest,
        code: ErrorCode,
        evalue: &str,
        state: SessionState,
    ) {
        let Some(reply_type) = registry::reply_type(&request.message.header.msg_type) else { return };
        let error = ErrorText::coded(code, evalue);
        let mut reply = ErrorReply::coded(&error, code, state);
        reply.execution_count = (reply_type == "execute_reply").then_some(self.count);
        if let Ok(content) = Json::of(&reply) {
            self.reply(request, reply_type, content);
        }
    }

    fn refuse_unreadable(&mut self, request: &ClientRequest, error: &RequestError) {
        tracing::warn!(%error, channel = request.channel.as_str(), "request refused");
        self.at_once(request, |session| {
            session.reply_error(request, ErrorCode::BadRequest, &error.to_string(), SessionState::Kept);
        });
    }

    fn refuse_bridge(&mut self, request: &ClientRequest, error: &BridgeError) {
        let code = match error {
            BridgeError::KeyReused { .. } => ErrorCode::KeyReused,
            _ => ErrorCode::Busy,
        };
        self.at_once(request, |session| {
            session.reply_error(request, code, &error.to_string(), SessionState::Kept);
        });
    }

    /// Refuses everything that waits, because the session is over.
    pub(crate) async fn refuse_queue(&mut self, code: ErrorCode, why: &str) {
        let lost = SessionState::Lost;
        for request in std::mem::take(&mut self.waiting_for_ready) {
            self.at_once(&request, |session| session.reply_error(&request, code, why, lost));
        }
        self.queue_bytes = 0;
        for queued in std::mem::take(&mut self.queue) {
            let error = ErrorText::coded(code, why);
            let content = Json::of(&ErrorReply::coded(&error, code, lost)).unwrap_or_default();
            self.cancel(&queued, content, lost).await;
            self.at_once(&queued.request, |session| session.reply_error(&queued.request, code, why, lost));
        }
    }

    /// After an error: the executions that this client has queued are not run.
    pub(crate) async fn abort_queued_of(&mut self, client: &Client) {
        let is_theirs =
            |queued: &Queued| queued.request.client == *client && matches!(queued.work, Work::Execute { .. });
        let (aborted, kept) = std::mem::take(&mut self.queue).into_iter().partition(is_theirs);
        self.queue = kept;
        let aborted: std::collections::VecDeque<Queued> = aborted;
        for queued in aborted {
            self.queue_bytes -= queued.request.bytes();
            let reply = AbortedReply { status: "aborted", execution_count: self.count };
            let content = Json::of(&reply).unwrap_or_default();
            self.cancel(&queued, content.clone(), SessionState::Kept).await;
            self.at_once(&queued.request, |session| session.reply(&queued.request, "execute_reply", content));
        }
    }

    /// Settles the promise of a request that will not run.
    async fn cancel(&mut self, queued: &Queued, value: Json, session_state: SessionState) {
        let Some(promise) = queued.promise() else { return };
        let settlement = Settlement { state: State::RejectedCanceled, value: value.clone(), session_state };
        if let Err(error) = self.bridge.settle(promise, settlement).await {
            tracing::error!(%error, "promise not settled");
        }
        self.reply_to_joined(promise, &value);
    }
}

pub(crate) fn ok() -> Json {
    Json::parse("{\"status\":\"ok\"}").unwrap_or_default()
}
