//! The same from a server that runs: of one execution, or of all in a session.

use std::io::{self, Write};
use std::time::Duration;

use cob_clients::agent::{AgentConnection, AgentError, EventNotice, Message};
use cob_protocol::event::EventNumber;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::limits::AGENT_CREDIT;
use cob_protocol::time::{Clock, SystemClock, Timestamp};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::cli::Failure;
use crate::cli::figures::{inert, text};
use crate::cli::printer::Printer;
use crate::cli::remote::failure;

/// Without following: a server that has sent nothing for so long has sent what there is of an execution that runs.
const QUIET: Duration = Duration::from_millis(300);

/// What is to be shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) session: SessionId,
    /// Only this one.
    pub(super) execution: Option<u64>,
    pub(super) from: EventNumber,
    pub(super) follows: bool,
}

/// Shows it.
pub(super) async fn show<W: Write>(
    connection: AgentConnection,
    wanted: Wanted,
    printer: Printer<W>,
) -> Result<Shown, Failure> {
    let mut reading = Reading { connection, printer, begun: SystemClock.now() };
    let shown = match wanted.execution {
        Some(number) => {
            let id = PromiseId::execution(wanted.session, number);
            reading.execution(id, wanted.from, wanted.follows).await
        }
        None if wanted.follows => {
            let subject = json!({ "session_id": wanted.session.to_string() });
            let at = At::Session { number: 1, next: 1 };
            reading.subscription(subject, at, true).await
        }
        None => reading.all(wanted.session).await,
    };
    match shown {
        // A reader that has seen enough (`| head`) is no failure.
        Ok(()) | Err(Stop::Unread) => Ok(Shown::Everything),
        Err(Stop::Unknown(failure)) => Ok(Shown::Nothing(Some(failure))),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Shown {
    Everything,
    /// No server runs, or the one that does knows nothing of that name.
    Nothing(Option<Failure>),
}

/// Why no more is shown.
enum Stop {
    Unread,
    Unknown(Failure),
    Failed(Failure),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Unread
    }
}

impl From<AgentError> for Stop {
    fn from(error: AgentError) -> Self {
        match error.code() {
            Some("unknown_session" | "unknown_promise") => Self::Unknown(failure(error)),
            _ => Self::Failed(failure(error)),
        }
    }
}

/// What is the next to be shown.
#[derive(Clone, Copy, Debug)]
enum At {
    Execution { next: EventNumber },
    Session { number: u64, next: EventNumber },
}

impl At {
    fn from(self) -> u64 {
        match self {
            Self::Execution { next } => next,
            Self::Session { number, .. } => number,
        }
    }

    /// Goes past an event, unless it was shown before.
    fn pass(&mut self, id: PromiseId, event: EventNumber) -> bool {
        let is_new = match self {
            Self::Execution { next } => event >= *next,
            Self::Session { number, next } => (id.execution, event) >= (*number, *next),
        };
        if is_new {
            *self = match self {
                Self::Execution { .. } => Self::Execution { next: event + 1 },
                Self::Session { .. } => Self::Session { number: id.execution, next: event + 1 },
            };
        }
        is_new
    }
}

struct Reading<W> {
    connection: AgentConnection,
    printer: Printer<W>,
    /// Without following: what was recorded later is yet to come.
    begun: Timestamp,
}

impl<W: Write> Reading<W> {
    /// Everything there is of a session.
    async fn all(&mut self, session: SessionId) -> Result<(), Stop> {
        let mut request = json!({ "session_id": session.to_string(), "kind": "execution" });
        loop {
            let page: Value = self.connection.request("promise_list", &request).await?.read()?;
            let views = page["promises"].as_array().map(Vec::as_slice).unwrap_or_default();
            let Some(last) = views.last() else { return Ok(()) };
            request["after"] = last["promise"].clone();
            for view in views {
                let id = view["promise"].as_str().and_then(|text| text.parse().ok());
                if let Some(id) = id {
                    self.execution(id, 1, false).await?;
                }
            }
        }
    }

    async fn execution(&mut self, id: PromiseId, from: EventNumber, follows: bool) -> Result<(), Stop> {
        self.subscription(json!({ "promise": id }), At::Execution { next: from }, follows).await
    }

    /// One subscription to its end, across connections that are lost.
    async fn subscription(&mut self, subject: Value, mut at: At, follows: bool) -> Result<(), Stop> {
        let mut id = self.subscribe(&subject, at).await?;
        let mut consumed = 0;
        loop {
            if consumed >= AGENT_CREDIT / 2 {
                self.connection.send("credit", json!({ "subscription": id, "credit": consumed })).await?;
                consumed = 0;
            }
            let message = match self.next(follows).await {
                Some(Ok(message)) => message,
                Some(Err(error)) if error.is_lost() => {
                    self.connection.regain().await?;
                    (id, consumed) = (self.subscribe(&subject, at).await?, 0);
                    continue;
                }
                Some(Err(error)) => return Err(error.into()),
                None => return self.leave(&id).await,
            };
            match message.msg_type.as_str() {
                "event" => {
                    let notice = EventNotice::of(&message)?;
                    if notice.subscription == id {
                        consumed += 1;
                        if !follows && notice.at.parse().is_ok_and(|at: Timestamp| at > self.begun) {
                            return self.leave(&id).await;
                        }
                        self.event(&notice, &mut at)?;
                    }
                }
                "gap" => self.gap(&message)?,
                "subscribe_reply" => drop(message.accepted()?),
                "subscription_end" if self.is_end(&message, &id)? => return Ok(()),
                _ => {}
            }
        }
    }

    async fn subscribe(&mut self, subject: &Value, at: At) -> Result<String, AgentError> {
        let mut request = subject.clone();
        request["from"] = json!(at.from());
        request["credit"] = json!(AGENT_CREDIT);
        self.connection.send("subscribe", request).await
    }

    /// The next message; `None` when nothing comes and nobody waits for what is yet to come.
    async fn next(&mut self, follows: bool) -> Option<Result<Message, AgentError>> {
        if follows {
            return Some(self.connection.next().await);
        }
        timeout(QUIET, self.connection.next()).await.ok()
    }

    async fn leave(&mut self, subscription: &str) -> Result<(), Stop> {
        let content = json!({ "subscription": subscription });
        // It may have ended this moment.
        let _ = self.connection.request("unsubscribe", content).await;
        self.printer.flush().map_err(Stop::from)
    }

    fn event(&mut self, notice: &EventNotice, at: &mut At) -> Result<(), Stop> {
        if at.pass(notice.promise, notice.number)
            && let Some(event) = &notice.event
        {
            self.printer.event(notice.promise, notice.number, &notice.at, event)?;
            self.printer.flush()?;
        }
        Ok(())
    }

    fn gap(&mut self, message: &Message) -> Result<(), Stop> {
        let gap: Value = message.read()?;
        let (id, next) = (inert(&text(&gap["promise"])), text(&gap["next"]));
        Ok(self.printer.note(&format!("[the events of {id} before {next} are no longer kept]"))?)
    }

    fn is_end(&mut self, message: &Message, subscription: &str) -> Result<bool, Stop> {
        let end: Value = message.read()?;
        if end["subscription"] != subscription {
            return Ok(false);
        }
        if let Some(why) = end["error"]["evalue"].as_str() {
            self.printer.note(&format!("[{}]", inert(why)))?;
            return Err(Stop::Failed(Failure::Silent(1)));
        }
        self.printer.flush()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown_before_is_not_shown_again() {
        let id = |number| PromiseId::execution(SessionId(1), number);
        let mut at = At::Execution { next: 3 };
        assert_eq!([2, 3, 3, 4].map(|event| at.pass(id(9), event)), [false, true, false, true]);
        let mut at = At::Session { number: 1, next: 1 };
        let events = [(1, 1), (1, 2), (2, 1), (1, 3), (2, 1), (2, 2)];
        let shown = events.map(|(execution, event)| at.pass(id(execution), event));
        assert_eq!(shown, [true, true, true, false, false, true]);
        assert_eq!(at.from(), 2);
    }
}
