//! What running code asks its host, and the answers. Each question is a promise of its execution.

use cob_pool::Lane;
use cob_protocol::content::{InputReply, InputRequest};
use cob_protocol::event::Event;
use cob_protocol::frame::{Answer, Call, Outcome, RequestNumber};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::message::{Channel, Outgoing};
use cob_protocol::promise::{SessionState, Settlement, State};
use serde::Deserialize;

use crate::outputs::Violation;
use crate::request::ClientRequest;
use crate::session::{Current, Session, WorkerState};

/// A question that nobody has answered yet.
#[derive(Debug)]
pub(crate) struct Question {
    request: RequestNumber,
    promise: PromiseId,
    is_password: bool,
}

/// What stands in for a password wherever it would be recorded.
const PASSWORD_MARKER: &str = "\"<password>\"";

#[derive(Deserialize)]
struct InputArguments {
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    password: bool,
}

impl Session {
    /// The running code asks. What it printed before is out already, because the frame carries its place.
    pub(crate) async fn call(&mut self, call: Call) -> Result<(), Violation> {
        let Some(Current::Run(running)) = &mut self.current else { return Err("a call while nothing runs") };
        if call.execution != running.promise.execution {
            return Err("a call of an execution that does not run");
        }
        // Code asks one thing at a time: the question before was given up, for an interrupt or another signal.
        let given_up = running.question.take();
        self.cancel_question(given_up).await;
        let Some(Current::Run(running)) = &mut self.current else { return Ok(()) };
        let arguments = (call.kind == "input").then(|| call.arguments.read::<InputArguments>());
        let Some(Ok(arguments)) = arguments else {
            let why = format!("this host does not know how to answer `{}`", call.kind);
            self.answer_call(call.request, Outcome::Declined(why));
            return Ok(());
        };
        let promise = match self.bridge.create_call(running.promise).await {
            Ok(promise) => promise,
            Err(error) => {
                self.answer_call(call.request, Outcome::Declined(error.to_string()));
                return Ok(());
            }
        };
        running.question = Some(Question { request: call.request, promise, is_password: arguments.password });
        self.pause_clock();
        self.ladder.asks();
        let Some(Current::Run(running)) = &self.current else { return Ok(()) };
        let (parent, identity) = (running.request.parent(), running.request.client.identity.clone());
        let opened = Event::CallOpened { kind: call.kind, call: promise.call.unwrap_or_default() };
        self.emit(call.execution, opened).await;
        self.outlet.flush();
        let question = InputRequest { prompt: &arguments.prompt, password: arguments.password };
        if let Ok(content) = Json::of(&question) {
            self.outlet.reply(Channel::Stdin, &identity, Outgoing::new("input_request", parent, content));
        }
        Ok(())
    }

    /// An answer came in, from whichever client: the first one counts.
    pub(crate) async fn take_answer(&mut self, reply: &ClientRequest) {
        let Ok(InputReply { value, eof }) = serde_json::from_slice(&reply.message.content) else {
            tracing::warn!("an input_reply that cannot be read was dropped");
            return;
        };
        let question = match &mut self.current {
            Some(Current::Run(running)) => running.question.take(),
            _ => None,
        };
        let Some(question) = question else {
            tracing::debug!("an input_reply came when nothing was asked");
            return;
        };
        self.resume_clock();
        if eof {
            self.settle_question(
                &question,
                State::Resolved,
                Json::parse("{\"eof\":true}").unwrap_or_default(),
            )
            .await;
            return self.answer_call(question.request, Outcome::Eof("the input has ended".to_owned()));
        }
        let answer = Json::of(&value).unwrap_or_default();
        let recorded = if question.is_password {
            Json::parse(PASSWORD_MARKER).unwrap_or_default()
        } else {
            answer.clone()
        };
        self.settle_question(&question, State::Resolved, recorded).await;
        self.answer_call(question.request, Outcome::Value(answer));
    }

    /// The execution ended before its question was answered.
    pub(crate) async fn cancel_question(&mut self, question: Option<Question>) {
        if let Some(question) = question {
            self.settle_question(&question, State::RejectedCanceled, Json::object()).await;
        }
    }

    async fn settle_question(&mut self, question: &Question, state: State, value: Json) {
        let settlement = Settlement { state, value, session_state: SessionState::Kept };
        if let Err(error) = self.bridge.settle(question.promise, settlement).await {
            tracing::error!(%error, "call not settled");
        }
    }

    fn answer_call(&mut self, request: RequestNumber, outcome: Outcome) {
        if let WorkerState::Live(worker) = &mut self.worker {
            let answer = Answer { request, outcome };
            if let Err(error) = worker.send(&answer.into(), Vec::new(), Lane::Control) {
                let too_large = Outcome::Declined(error.to_string());
                // An answer this small always fits.
                let _ =
                    worker.send(&Answer { request, outcome: too_large }.into(), Vec::new(), Lane::Control);
            }
        }
    }
}
