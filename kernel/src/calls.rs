//! What running code asks its host, and the answers. Each question is a promise of its execution.

use cob_bridge::Write;
use cob_pool::Lane;
use cob_protocol::content::{ExecuteOptions, InputReply, InputRequest};
use cob_protocol::event::Event;
use cob_protocol::frame::{Answer, Call, Outcome, RequestNumber};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::CALL_WAIT_MS;
use cob_protocol::message::{Channel, Outgoing};
use cob_protocol::promise::{Durability, SessionState, Settlement, State};
use cob_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::dispatch::Joined;
use crate::outputs::Violation;
use crate::records::Effect;
use crate::request::ClientRequest;
use crate::session::{Current, Session};
use crate::telling::end_of;

/// Who answers a kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    /// The client whose code asks, or whoever comes in its place.
    Client,
    /// The session itself, at once.
    Host,
}

impl Provider {
    /// The row of a kind; `None`: nobody.
    fn of(kind: &str) -> Option<Self> {
        match kind {
            "input" => Some(Self::Client),
            "execution" => Some(Self::Host),
            _ => None,
        }
    }
}

/// A question that nobody has answered yet.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) request: RequestNumber,
    pub(crate) promise: PromiseId,
    pub(crate) input: InputArguments,
}

/// What `input()` asks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct InputArguments {
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    password: bool,
    /// Milliseconds after which nobody needs to answer any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
}

/// A question as it is recorded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CallRecord {
    pub(crate) kind: String,
    /// The worker's number for it.
    pub(crate) request: RequestNumber,
    pub(crate) arguments: Json,
}

/// The end of a question as it is recorded: what was asked is not kept any longer than that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CallEnd {
    /// The worker's number for it.
    pub(crate) request: RequestNumber,
    pub(crate) answer: Answered,
    /// What was asked, when it must be asked again if the answer does not reach the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<InputArguments>,
}

impl CallEnd {
    fn of(question: &Question, answer: Answered) -> Self {
        let is_password = matches!(answer, Answered::Password);
        Self { request: question.request, answer, input: is_password.then(|| question.input.clone()) }
    }
}

/// An answer as it is recorded. Of a password only that there was one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answered {
    Value(Json),
    Password,
    Eof,
    Declined(String),
    TimedOut,
    Canceled,
}

impl Answered {
    /// What the code gets; nothing when that was not recorded.
    pub(crate) fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Value(value) => Some(Outcome::Value(value)),
            Self::Eof => Some(Outcome::Eof("the input has ended".to_owned())),
            Self::Declined(why) => Some(Outcome::Declined(why)),
            Self::TimedOut => Some(Outcome::TimedOut("nobody answered in time".to_owned())),
            Self::Password | Self::Canceled => None,
        }
    }

    fn state(&self) -> State {
        match self {
            Self::Value(_) | Self::Password | Self::Eof => State::Resolved,
            Self::Declined(_) => State::Rejected,
            Self::TimedOut => State::RejectedTimedOut,
            Self::Canceled => State::RejectedCanceled,
        }
    }
}

impl Session {
    /// The running code asks. What it printed before is out already, because the frame carries its place.
    pub(crate) fn call(&mut self, call: Call) -> Result<(), Violation> {
        let Some(Current::Run(running)) = &mut self.current else { return Err("a call while nothing runs") };
        if call.execution != running.promise.execution {
            return Err("a call of an execution that does not run");
        }
        // Code asks one thing at a time: the question before was given up, for an interrupt or another signal.
        let given_up = running.question.take();
        self.cancel_question(given_up);
        match (Provider::of(&call.kind), call.arguments.read::<InputArguments>()) {
            (Some(Provider::Client), Ok(input)) => self.ask(call.request, input),
            (Some(Provider::Host), _) => self.tell_execution(call.request, &call.kind, call.arguments),
            _ => {
                let why = format!("this host does not know how to answer `{}`", call.kind);
                self.answer_call(call.request, Outcome::Declined(why));
            }
        }
        Ok(())
    }

    /// Code asks what it runs as.
    fn tell_execution(&mut self, request: RequestNumber, kind: &str, arguments: Json) {
        let Some(Current::Run(running)) = &mut self.current else { return };
        running.calls += 1;
        let (promise, durability) = (running.promise.with_call(running.calls), running.durability);
        let message = &running.request.message;
        let chosen = ExecuteOptions::read(&message.metadata).ok().and_then(|options| options.idempotency_key);
        let known = json!({
            "promise": running.promise,
            "session": running.promise.session.to_string(),
            "key": chosen.as_ref().unwrap_or(&message.header.msg_id),
            "durability": durability,
        });
        let answer = Answered::Value(Json::from(known.clone()));
        self.open_call(promise, durability, CallRecord { kind: kind.to_owned(), request, arguments }, None);
        self.settle_call(promise, &CallEnd { request, answer, input: None });
        self.answer_call(request, Outcome::Value(Json::from(known)));
    }

    fn open_call(
        &mut self,
        id: PromiseId,
        durability: Durability,
        record: CallRecord,
        deadline: Option<Timestamp>,
    ) {
        let request = Json::of(&record).unwrap_or_default();
        self.records.write(durability, Write::CreateCall { id, request, deadline });
        let call = id.call.unwrap_or_default();
        self.emit(id.execution, Event::CallOpened { kind: record.kind, call });
    }

    /// Records the question and puts it to the client that runs the code.
    pub(crate) fn ask(&mut self, request: RequestNumber, input: InputArguments) {
        let Some(Current::Run(running)) = &mut self.current else { return };
        running.calls += 1;
        let promise = running.promise.with_call(running.calls);
        let durability = running.durability;
        let record =
            CallRecord { kind: "input".to_owned(), request, arguments: Json::of(&input).unwrap_or_default() };
        let patience = input.timeout_ms.unwrap_or(CALL_WAIT_MS).min(CALL_WAIT_MS);
        let deadline = self.bridge.now().after_ms(i64::try_from(patience).unwrap_or(i64::MAX));
        running.question = Some(Question { request, promise, input });
        self.open_call(promise, durability, record, Some(deadline));
        self.pause_clock();
        self.ladder.asks();
        self.put_question();
    }

    /// Puts the question to the client whose code asks, and to everybody who came back for it.
    pub(crate) fn put_question(&mut self) {
        let Some(Current::Run(running)) = &self.current else { return };
        // Whoever asked for the same execution again may be the only one who is still there.
        let mut asked = vec![running.request.clone()];
        for Joined { promise, request, .. } in &self.joined {
            if *promise == running.promise && asked.iter().all(|known| known.client != request.client) {
                asked.push(request.clone());
            }
        }
        asked.iter().for_each(|request| self.put_question_to(request));
    }

    /// A client came back for an execution that waits for an answer: it may be the one to give it.
    pub(crate) fn ask_again(&mut self, execution: PromiseId, request: &ClientRequest) {
        if matches!(&self.current, Some(Current::Run(running)) if running.promise == execution) {
            self.put_question_to(request);
        }
    }

    fn put_question_to(&mut self, request: &ClientRequest) {
        let Some(Current::Run(running)) = &self.current else { return };
        let Some(Question { input, promise, .. }) = &running.question else { return };
        let question = InputRequest { prompt: &input.prompt, password: input.password };
        let Ok(content) = Json::of(&question) else { return };
        let metadata = crate::replies::question(*promise);
        let message = Outgoing { metadata, ..Outgoing::new("input_request", request.parent(), content) };
        let identity = request.client.identity.clone();
        self.records.then(Effect::Reply { channel: Channel::Stdin, identity, message });
    }

    /// An answer came in, from whichever client: the first one counts.
    pub(crate) fn take_answer(&mut self, reply: &ClientRequest) {
        let Ok(InputReply { value, eof, declined, promise }) = serde_json::from_slice(&reply.message.content)
        else {
            tracing::warn!("an input_reply that cannot be read was dropped");
            return;
        };
        let question = match &mut self.current {
            Some(Current::Run(running)) => {
                running.question.take_if(|question| promise.is_none_or(|promise| promise == question.promise))
            }
            _ => None,
        };
        let Some(question) = question else {
            tracing::debug!("already_settled: an input_reply came when nothing was asked");
            return;
        };
        let answer = Json::of(&value).unwrap_or_default();
        let answered = match declined {
            Some(why) => Answered::Declined(why),
            None if eof => Answered::Eof,
            None if question.input.password => Answered::Password,
            None => Answered::Value(answer.clone()),
        };
        self.resume_clock();
        let is_password = matches!(answered, Answered::Password);
        self.settle_question(&question, answered.clone());
        let outcome = if is_password { Some(Outcome::Value(answer)) } else { answered.outcome() };
        if let Some(outcome) = outcome {
            self.answer_call(question.request, outcome);
        }
    }

    /// Nobody answered in time; whether it is this that the running code asks.
    pub(crate) fn time_out_question(&mut self, id: PromiseId) -> bool {
        let question = match &mut self.current {
            Some(Current::Run(running)) => running.question.take_if(|question| question.promise == id),
            _ => None,
        };
        let Some(question) = question else { return false };
        self.resume_clock();
        self.settle_question(&question, Answered::TimedOut);
        self.answer_call(question.request, Outcome::TimedOut("nobody answered in time".to_owned()));
        true
    }

    /// The execution ended before its question was answered.
    pub(crate) fn cancel_question(&mut self, question: Option<Question>) {
        if let Some(question) = question {
            self.settle_question(&question, Answered::Canceled);
        }
    }

    fn settle_question(&mut self, question: &Question, answered: Answered) {
        // The worker, which may not have moved to this server yet, need not be answered again.
        self.recalled.take_if(|recalled| recalled.request == question.request);
        self.settle_call(question.promise, &CallEnd::of(question, answered));
    }

    fn settle_call(&mut self, id: PromiseId, end: &CallEnd) {
        let state = end.answer.state();
        let value = Json::of(end).unwrap_or_default();
        let settlement = Settlement::silent(state, value, SessionState::Kept);
        self.write_surely(self.config.durability, end_of(id, settlement));
        self.emit(id.execution, Event::CallClosed { call: id.call.unwrap_or_default(), state });
    }

    pub(crate) fn answer_call(&mut self, request: RequestNumber, outcome: Outcome) {
        self.send(Answer { request, outcome }.into(), Vec::new(), Lane::Control);
    }
}
