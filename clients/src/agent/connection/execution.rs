//! Code that runs: its events in order, its questions, its outcome, across connections that are lost.
//!
//! A retry is always safe, because every request carries an idempotency key: a lost connection is opened again, and the
//! execution followed from the last event that was seen.

use cob_protocol::event::{Event, EventNumber};
use cob_protocol::ids::{PromiseId, SessionId, session_text};
use cob_protocol::json::Json;
use cob_protocol::limits::{AGENT_CREDIT, RECONNECTS_MAX};
use cob_protocol::promise::Durability;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{AgentConnection, AgentError, EventNotice, Message};

/// What is to run.
#[derive(Clone, Debug, Serialize)]
pub struct Execute {
    /// Where.
    #[serde(with = "session_text")]
    pub session_id: SessionId,
    /// Source text.
    pub code: String,
    /// With the same key and content it runs once.
    pub idempotency_key: String,
    /// Whether `input()` asks this client.
    pub allow_stdin: bool,
    /// Milliseconds after which it ends as timed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// How safe its records must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// Bytes of text that are kept of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_limit: Option<u64>,
    /// Before those with a lower one in the queue.
    pub priority: i32,
    /// Events that may be sent at once.
    credit: u64,
}

impl Execute {
    /// Code for a session, under a key that no other request has.
    #[must_use]
    pub fn new(session_id: SessionId, code: String, idempotency_key: String) -> Self {
        Self {
            session_id,
            code,
            idempotency_key,
            allow_stdin: false,
            deadline_ms: None,
            durability: None,
            output_limit: None,
            priority: 0,
            credit: AGENT_CREDIT,
        }
    }
}

/// Code asks this client.
#[derive(Clone, Debug, Deserialize)]
pub struct Call {
    /// What is to be answered.
    pub promise: PromiseId,
    /// `input` or `tool`.
    pub kind: String,
    /// For input: `prompt` and `password`.
    #[serde(default)]
    pub arguments: Json,
}

/// How an execution ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The content of the reply.
    pub reply: Json,
}

/// What happens to an execution.
#[derive(Debug)]
pub enum Step {
    /// It is recorded, now or (`joined`) by an earlier request with the same key.
    Accepted {
        /// Its name.
        promise: PromiseId,
        /// Whether it was there before.
        joined: bool,
    },
    /// An output, in order.
    Event(EventNotice),
    /// Events that the server has forgotten.
    Gap {
        /// The first of them.
        from: EventNumber,
        /// The first that is still there.
        next: EventNumber,
    },
    /// The code asks: answer by [`AgentConnection::request`] with `answer`.
    Asked(Call),
    /// The connection was lost, and is there again.
    Reconnected,
    /// Something that does not belong to this execution.
    Other(Message),
    /// It is over, and all of its events were given out.
    Ended(Outcome),
}

/// An execution that is followed.
#[derive(Debug)]
pub struct Execution {
    request: Execute,
    /// The message that asked for it on this connection; empty once it is only followed.
    asked_by: String,
    subscription: String,
    promise: Option<PromiseId>,
    next: EventNumber,
    /// Events that no new credit was given for.
    consumed: u64,
    reply: Option<Json>,
    /// The number of the last event, once that is known.
    last: Option<EventNumber>,
    /// No more events come.
    is_drained: bool,
    /// The connection is gone, or not ready to go on yet.
    is_cut: bool,
    /// How often it was opened again since the last event.
    resumed: u32,
}

impl Execution {
    /// Asks for code to be run.
    ///
    /// # Errors
    /// As [`AgentConnection::send`]; whether it is accepted is the first step.
    pub async fn begin(connection: &mut AgentConnection, request: Execute) -> Result<Self, AgentError> {
        let id = connection.send("execute_request", &request).await?;
        Ok(Self {
            request,
            asked_by: id.clone(),
            subscription: id,
            promise: None,
            next: 1,
            consumed: 0,
            reply: None,
            last: None,
            is_drained: false,
            is_cut: false,
            resumed: 0,
        })
    }

    /// Its name, once it is recorded.
    #[must_use]
    pub fn promise(&self) -> Option<PromiseId> {
        self.promise
    }

    /// What happens next. A lost connection is opened again a bounded number of times. Cancel-safe.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when it is not accepted; [`AgentError::Lost`] or [`AgentError::NoServer`] when the server
    /// stays away.
    pub async fn next(&mut self, connection: &mut AgentConnection) -> Result<Step, AgentError> {
        loop {
            if let Some(reply) = self.reply.clone().filter(|_| self.has_everything()) {
                return Ok(Step::Ended(Outcome { reply }));
            }
            if self.is_cut {
                match self.resume(connection).await {
                    Err(error) if error.is_lost() && self.resumed < RECONNECTS_MAX => continue,
                    done => return done.map(|()| Step::Reconnected),
                }
            }
            match self.advance(connection).await {
                Err(error) if error.is_lost() && self.resumed < RECONNECTS_MAX => self.is_cut = true,
                Ok(None) => {}
                Ok(Some(step)) => return Ok(step),
                Err(error) => return Err(error),
            }
        }
    }

    fn has_everything(&self) -> bool {
        self.is_drained || self.last.is_some_and(|last| self.next > last)
    }

    async fn advance(&mut self, connection: &mut AgentConnection) -> Result<Option<Step>, AgentError> {
        if self.consumed >= AGENT_CREDIT / 2 {
            let more = json!({ "subscription": self.subscription, "credit": self.consumed });
            connection.send("credit", &more).await?;
            self.consumed = 0;
        }
        let message = connection.next().await?;
        self.take(message)
    }

    fn take(&mut self, message: Message) -> Result<Option<Step>, AgentError> {
        let is_mine = !message.parent.is_empty() && message.parent == self.asked_by;
        match message.msg_type.as_str() {
            "ack" if is_mine => self.accepted(&message).map(Some),
            "execute_reply" if is_mine => self.replied(message).map(|()| None),
            "subscribe_reply" if message.parent == self.subscription => message.accepted().map(|_| None),
            "event" => {
                let notice = EventNotice::of(&message)?;
                if notice.subscription != self.subscription {
                    return Ok(Some(Step::Other(message)));
                }
                Ok(self.event(notice))
            }
            "gap" | "subscription_end" => {
                let about: About = message.read()?;
                if about.subscription != self.subscription {
                    return Ok(Some(Step::Other(message)));
                }
                self.about(about)
            }
            "call" => {
                let call: Call = message.read()?;
                let is_mine = self.promise.is_some_and(|promise| {
                    PromiseId::execution(call.promise.session, call.promise.execution) == promise
                });
                Ok(Some(if is_mine { Step::Asked(call) } else { Step::Other(message) }))
            }
            _ => Ok(Some(Step::Other(message))),
        }
    }

    fn accepted(&mut self, message: &Message) -> Result<Step, AgentError> {
        #[derive(Deserialize)]
        struct Ack {
            promise: PromiseId,
            #[serde(default)]
            joined: bool,
        }
        let Ack { promise, joined } = message.read()?;
        self.promise = Some(promise);
        Ok(Step::Accepted { promise, joined })
    }

    fn replied(&mut self, message: Message) -> Result<(), AgentError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Metadata {
            cob: Cob,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Cob {
            last_event: Option<EventNumber>,
        }
        if self.promise.is_none() {
            // Refused before there was anything.
            let message = message.accepted()?;
            self.reply = Some(message.read()?);
            self.is_drained = true;
            return Ok(());
        }
        let metadata: Metadata = message.metadata.read().unwrap_or_default();
        self.reply = Some(message.read()?);
        self.last = metadata.cob.last_event;
        Ok(())
    }

    fn event(&mut self, notice: EventNotice) -> Option<Step> {
        self.consumed += 1;
        if notice.number < self.next {
            return None;
        }
        self.next = notice.number + 1;
        self.resumed = 0;
        self.is_drained |= matches!(notice.event, Some(Event::Done { .. }));
        Some(Step::Event(notice))
    }

    fn about(&mut self, about: About) -> Result<Option<Step>, AgentError> {
        if let (Some(from), Some(next)) = (about.from, about.next) {
            self.next = self.next.max(next);
            return Ok(Some(Step::Gap { from, next }));
        }
        if let Some(error) = about.error {
            return Err(AgentError::Refused(error));
        }
        self.is_drained = true;
        if let Some(view) = about.promise.and_then(|view| view.read::<View>().ok()) {
            self.reply = self.reply.take().or(view.value);
        }
        if self.reply.is_none() && self.asked_by.is_empty() {
            // Neither a reply nor a view will come on this connection.
            return Err(AgentError::Lost("the server ended the subscription".to_owned()));
        }
        Ok(None)
    }

    /// Connects again, and goes on after the last event that was seen.
    async fn resume(&mut self, connection: &mut AgentConnection) -> Result<(), AgentError> {
        self.resumed += 1;
        connection.regain().await?;
        let (asked_by, subscription) = match self.promise {
            Some(promise) => {
                let from = json!({ "promise": promise, "from": self.next, "credit": AGENT_CREDIT });
                (String::new(), connection.send("subscribe", &from).await?)
            }
            // The same key: what was recorded already is joined.
            None => {
                let id = connection.send("execute_request", &self.request).await?;
                (id.clone(), id)
            }
        };
        (self.asked_by, self.subscription, self.consumed) = (asked_by, subscription, 0);
        self.is_cut = false;
        Ok(())
    }
}

/// A `gap` or a `subscription_end`.
#[derive(Deserialize)]
struct About {
    subscription: String,
    from: Option<EventNumber>,
    next: Option<EventNumber>,
    promise: Option<Json>,
    error: Option<super::Refusal>,
}

#[derive(Deserialize)]
struct View {
    value: Option<Json>,
}
