//! What running code asks its host, and the answers. Each question is a promise of its execution.

use cob_bridge::Write;
use cob_pool::Lane;
use cob_protocol::content::InputRequest;
use cob_protocol::content::agent::ToolFailure;
use cob_protocol::error::ErrorCode;
use cob_protocol::event::Event;
use cob_protocol::frame::{Answer, Call, Outcome, RequestNumber};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::{CALL_WAIT_MS, TOOL_WAIT_MS};
use cob_protocol::message::{Channel, Outgoing};
use cob_protocol::promise::{Durability, SessionState, Settlement, State};
use cob_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::dispatch::{Joined, options_of};
use crate::outputs::Violation;
use crate::records::Effect;
use crate::request::ClientRequest;
use crate::session::{Current, Session};
use crate::telling::end_of;
use crate::tools::call_message;

/// Who answers a kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    /// The client whose code asks, or whoever comes in its place.
    Client,
    /// The client that offers the function.
    Tool,
    /// The session itself, at once.
    Host,
    /// The session, when there is something in a channel or room for it.
    Channel,
    /// The session, at once; what is asked is done when the cell has ended.
    Checkpoints,
}

impl Provider {
    /// The row of a kind; `None`: nobody.
    fn of(kind: &str) -> Option<Self> {
        match kind {
            "input" => Some(Self::Client),
            "tool" => Some(Self::Tool),
            "execution" | "tools" => Some(Self::Host),
            "checkpoint" | "checkpoints" | "restore" => Some(Self::Checkpoints),
            "channel_open" | "channel_send" | "channel_recv" | "channel_close" => Some(Self::Channel),
            _ => None,
        }
    }
}

/// A question that nobody has answered yet.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) request: RequestNumber,
    pub(crate) promise: PromiseId,
    pub(crate) ask: Ask,
    pub(crate) deadline: Timestamp,
    /// It was put to whoever offers the tool.
    pub(crate) is_put: bool,
}

/// What is asked of a client.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Input(InputArguments),
    Tool(ToolArguments),
}

impl Ask {
    /// As it was recorded.
    pub(crate) fn of(record: &CallRecord) -> Self {
        let tool = || record.arguments.read().ok().filter(|_| record.kind == "tool").map(Self::Tool);
        tool().unwrap_or_else(|| Self::Input(record.arguments.read().unwrap_or_default()))
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Tool(_) => "tool",
        }
    }

    pub(crate) fn arguments(&self) -> Json {
        match self {
            Self::Input(input) => Json::of(input),
            Self::Tool(tool) => Json::of(tool),
        }
        .unwrap_or_default()
    }

    /// Milliseconds for which it waits.
    fn patience(&self) -> u64 {
        let wanted = match self {
            Self::Input(input) => input.timeout_ms,
            Self::Tool(tool) => Some(tool.timeout_ms.unwrap_or(TOOL_WAIT_MS)),
        };
        wanted.unwrap_or(CALL_WAIT_MS).min(CALL_WAIT_MS)
    }
}

/// What the call of a tool asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToolArguments {
    pub(crate) name: String,
    arguments: Json,
    /// As above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
}

/// What `input()` asks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct InputArguments {
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    pub(crate) password: bool,
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
    pub(crate) fn of(question: &Question, answer: Answered) -> Self {
        let input = match &question.ask {
            Ask::Input(input) if matches!(answer, Answered::Password) => Some(input.clone()),
            _ => None,
        };
        Self { request: question.request, answer, input }
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
    /// How the one who was asked failed.
    Failed(ToolFailure),
    /// There was nobody to ask until it was too late.
    Unavailable(String),
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
            Self::Failed(ToolFailure { ename, evalue }) => Some(Outcome::Failed { ename, evalue }),
            Self::Unavailable(evalue) => {
                Some(Outcome::Failed { ename: ErrorCode::ToolUnavailable.ename().to_owned(), evalue })
            }
            Self::Password | Self::Canceled => None,
        }
    }

    fn state(&self) -> State {
        match self {
            Self::Value(_) | Self::Password | Self::Eof => State::Resolved,
            Self::Declined(_) | Self::Failed(_) => State::Rejected,
            Self::TimedOut | Self::Unavailable(_) => State::RejectedTimedOut,
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
        running.wait = None;
        let given_up = running.question.take();
        self.cancel_question(given_up);
        self.channels.reading = None;
        self.checkpoints.give_up_call();
        let ask = match Provider::of(&call.kind) {
            Some(Provider::Client) => call.arguments.read().ok().map(Ask::Input),
            Some(Provider::Tool) => call.arguments.read().ok().map(Ask::Tool),
            Some(Provider::Host) if call.kind == "tools" => {
                let names = Json::of(&self.tools.names()).unwrap_or_default();
                self.answer_call(call.request, Outcome::Value(names));
                return Ok(());
            }
            Some(Provider::Host) => {
                self.tell_execution(call.request, &call.kind, call.arguments);
                return Ok(());
            }
            Some(Provider::Channel) => {
                self.channel_call(&call);
                return Ok(());
            }
            Some(Provider::Checkpoints) => {
                self.checkpoint_call(call);
                return Ok(());
            }
            None => None,
        };
        match ask {
            Some(ask) => self.ask(call.request, ask),
            None => {
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
        let options = options_of(&running.request);
        let mut known = json!({
            "promise": running.promise,
            "session": running.promise.session.to_string(),
            "key": options.idempotency_key.as_ref().unwrap_or(&message.header.msg_id),
            "durability": durability,
        });
        if let Some(traceparent) = options.traceparent {
            known["traceparent"] = traceparent.into();
        }
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

    /// Records the question and puts it to whoever shall answer it.
    pub(crate) fn ask(&mut self, request: RequestNumber, ask: Ask) {
        let Some(Current::Run(running)) = &mut self.current else { return };
        running.calls += 1;
        let promise = running.promise.with_call(running.calls);
        let durability = running.durability;
        let is_for_people = matches!(ask, Ask::Input(_));
        let record = CallRecord { kind: ask.kind().to_owned(), request, arguments: ask.arguments() };
        let deadline = self.bridge.now().after_ms(i64::try_from(ask.patience()).unwrap_or(i64::MAX));
        running.question = Some(Question { request, promise, ask, deadline, is_put: false });
        self.open_call(promise, durability, record, Some(deadline));
        self.pause_clock();
        if is_for_people {
            self.ladder.asks();
        }
        self.put_question();
    }

    /// Puts the question to whoever offers the tool, or to the client whose code asks and to everybody who came back for
    /// it.
    pub(crate) fn put_question(&mut self) {
        self.put_tool_call();
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
        let Some(question @ Question { ask: Ask::Input(input), promise, .. }) = &running.question else {
            return;
        };
        let address = request.client.address.clone();
        if request.is_agents() {
            let message = call_message(question, request);
            return self.records.then(Effect::Reply { channel: Channel::Shell, address, message });
        }
        let question = InputRequest { prompt: &input.prompt, password: input.password };
        let Ok(content) = Json::of(&question) else { return };
        let metadata = crate::replies::question(*promise);
        let message = Outgoing { metadata, ..Outgoing::new("input_request", request.parent(), content) };
        self.records.then(Effect::Reply { channel: Channel::Stdin, address, message });
    }

    pub(crate) fn settle_call(&mut self, id: PromiseId, end: &CallEnd) {
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
