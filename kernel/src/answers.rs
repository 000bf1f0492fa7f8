//! What becomes of a question: who may answer it, with what, and what the code gets.

use cob_protocol::content::InputReply;
use cob_protocol::content::agent::ToolFailure;
use cob_protocol::error::ErrorCode;
use cob_protocol::frame::Outcome;
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;

use crate::calls::{Answered, Ask, CallEnd, InputArguments, Question};
use crate::request::{Asked, ClientRequest, Given, Refusal};
use crate::session::{Current, Session};

impl Session {
    /// An answer came in, from whichever client: the first one counts.
    pub(crate) fn take_answer(&mut self, reply: &ClientRequest) {
        let Ok(InputReply { value, eof, declined, promise }) = serde_json::from_slice(&reply.message.content)
        else {
            tracing::warn!("an input_reply that cannot be read was dropped");
            return;
        };
        let question = match &mut self.current {
            Some(Current::Run(running)) => running.question.take_if(|question| {
                let is_it = promise.is_none_or(|promise| promise == question.promise);
                is_it && matches!(question.ask, Ask::Input(_))
            }),
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
            None => answered_with(&question.ask, answer.clone()),
        };
        self.close_question(&question, answered, answer);
    }

    /// An agent answers.
    pub(crate) fn answer(&mut self, id: PromiseId, given: Given, asked: Asked<()>) {
        if id.call.is_none() {
            let why = format!("{id} is no call");
            return drop(asked.send(Err(Refusal::new(ErrorCode::UnknownPromise, why))));
        }
        let Some(Current::Run(running)) = &mut self.current else { return self.explain(id, asked) };
        let Some(question) = running.question.take_if(|question| question.promise == id) else {
            return self.explain(id, asked);
        };
        match accepted(&question.ask, given) {
            Ok((answered, value)) => {
                self.close_question(&question, answered, value);
                self.report(asked, ());
            }
            Err(refusal) => {
                running.question = Some(question);
                let _ = asked.send(Err(refusal));
            }
        }
    }

    /// The first answer is recorded, and the code gets it. Of a password `value` is the only place where it is.
    fn close_question(&mut self, question: &Question, answered: Answered, value: Json) {
        self.resume_clock();
        let is_password = matches!(answered, Answered::Password);
        self.settle_question(question, answered.clone());
        let outcome = if is_password { Some(Outcome::Value(value)) } else { answered.outcome() };
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
        let answered = match &question.ask {
            Ask::Tool(tool) if !question.is_put => {
                Answered::Unavailable(format!("no client offers the tool `{}`", tool.name))
            }
            _ => Answered::TimedOut,
        };
        self.close_question(&question, answered, Json::default());
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
}

/// What is recorded of a value.
fn answered_with(ask: &Ask, value: Json) -> Answered {
    match ask {
        Ask::Input(InputArguments { password: true, .. }) => Answered::Password,
        _ => Answered::Value(value),
    }
}

/// What an agent's answer is to this question, and the value that the code gets if it gets one.
fn accepted(ask: &Ask, given: Given) -> Result<(Answered, Json), Refusal> {
    let refused = |why: &str| Err(Refusal::new(ErrorCode::BadRequest, why));
    let nothing = Json::default();
    Ok(match (ask, given) {
        (Ask::Input(_), Given::Value(value)) if !value.as_str().trim_start().starts_with('"') => {
            return refused("a question for input is answered with a text");
        }
        (_, Given::Value(value)) => (answered_with(ask, value.clone()), value),
        (Ask::Input(_), Given::Eof) => (Answered::Eof, nothing),
        (Ask::Tool(_), Given::Eof) => {
            return refused("the call of a tool is answered with a value or an error");
        }
        (_, Given::Declined(why)) => (Answered::Declined(why), nothing),
        (Ask::Tool(_), Given::Failed(failure)) => (Answered::Failed(failure), nothing),
        (Ask::Input(_), Given::Failed(ToolFailure { ename, evalue })) => {
            (Answered::Declined(format!("{ename}: {evalue}")), nothing)
        }
    })
}
