//! `cob attach`: everything that happens in a session, as it happens, and a prompt for code of one's own.

mod prompt;

use std::io::{self, IsTerminal};

use clap::Args;
use cob_clients::agent::{AgentConnection, AgentError, Call, EventNotice, Message};
use cob_protocol::event::{Event, EventNumber};
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::limits::AGENT_CREDIT;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::prompt::{Entry, Prompt, Typed};
use super::checkpoint::told::came_back;
use super::exec::{Output, answer, explain};
use super::figures::{inert, text};
use super::remote::{self, Server, ask, fresh_name};
use super::{Failure, block_on};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The session (s1)
    #[arg(value_name = "SESSION", value_parser = remote::session)]
    session: SessionId,
    /// Show also what happened before, from this execution on
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    block_on(attach(options))?
}

async fn attach(options: Options) -> Result<(), Failure> {
    let mut signals = signal(SignalKind::interrupt())
        .map_err(|error| Failure::Failed(format!("signals cannot be watched: {error}")))?;
    let mut connection = options.server.connect().await?;
    let look = json!({ "session_id": options.session.to_string() });
    let info = ask(&mut connection, "session_info", &look).await?;
    let from = match options.from {
        Some(from) => from,
        None => next_execution(&mut connection, options.session, &info["session"]).await?,
    };
    let mut attached = Attached::new(connection, options.session, from);
    attached.subscribe().await?;
    attached.greet(&info["session"]);
    attached.run(&mut signals).await
}

/// The one that runs, or else the first that is yet to come.
async fn next_execution(
    connection: &mut AgentConnection,
    session: SessionId,
    info: &Value,
) -> Result<u64, Failure> {
    let number = |id: &Value| id.as_str()?.parse::<PromiseId>().ok().map(|id| id.execution);
    if let Some(running) = number(&info["running"]) {
        return Ok(running);
    }
    let mut last = 0;
    loop {
        let mut request = json!({ "session_id": session.to_string(), "kind": "execution" });
        if last > 0 {
            request["after"] = json!(PromiseId::execution(session, last));
        }
        let page = ask(connection, "promise_list", request).await?;
        let found = page["promises"]
            .as_array()
            .and_then(|page| page.last())
            .and_then(|view| number(&view["promise"]));
        match found {
            Some(number) if number > last => last = number,
            _ => return Ok(last + 1),
        }
    }
}

/// Somebody who looks on, and types.
struct Attached {
    connection: AgentConnection,
    session: SessionId,
    output: Output,
    prompt: Prompt,
    subscription: String,
    /// Events that no new credit was given for.
    consumed: u64,
    /// The execution that is shown, and its next event: what a subscription begins with that replaces a lost one.
    at: (u64, EventNumber),
    own: Own,
    /// Somebody else's execution is on the screen.
    is_occupied: bool,
    /// The execution on the screen has told itself why it failed.
    has_shown_error: bool,
    /// The end of the input was typed: what runs is waited for.
    is_leaving: bool,
}

/// What became of the cell that was typed last.
#[derive(Debug, PartialEq, Eq)]
enum Own {
    Nothing,
    /// Is it whole? The `msg_id` of the question, and the cell.
    Asked(String, String),
    /// Sent with this `msg_id`.
    Sent(String),
    Runs(PromiseId),
}

/// What a turn brings.
enum Turn {
    Message(Message),
    Typed(Typed),
    Interrupt,
}

impl Attached {
    fn new(connection: AgentConnection, session: SessionId, from: u64) -> Self {
        Self {
            connection,
            session,
            output: Output::new(),
            prompt: Prompt::new(io::stdin().is_terminal() && io::stderr().is_terminal()),
            subscription: String::new(),
            consumed: 0,
            at: (from.max(1), 1),
            own: Own::Nothing,
            is_occupied: false,
            has_shown_error: false,
            is_leaving: false,
        }
    }

    fn greet(&mut self, info: &Value) {
        if self.prompt.is_terminal() {
            self.output.note(&format!(
                "{} is {}; type code, an empty line ends a block, :quit leaves and the session goes on",
                self.session,
                inert(&text(&info["state"]))
            ));
        }
    }

    async fn subscribe(&mut self) -> Result<(), Failure> {
        let request =
            json!({ "session_id": self.session.to_string(), "from": self.at.0, "credit": AGENT_CREDIT });
        self.consumed = 0;
        self.subscription = self.connection.send("subscribe", request).await.map_err(remote::failure)?;
        Ok(())
    }

    async fn run(mut self, signals: &mut Signal) -> Result<(), Failure> {
        loop {
            if self.own == Own::Nothing {
                if self.is_leaving {
                    return Ok(());
                }
                self.prompt.offer(!self.is_occupied);
            }
            let is_over = match self.turn(signals).await {
                Ok(Turn::Message(message)) => self.message(&message).await?,
                Ok(Turn::Typed(typed)) => self.typed(typed).await?,
                Ok(Turn::Interrupt) => self.interrupt().await?,
                Err(error) if error.is_lost() => self.regain().await.map(|()| false)?,
                Err(error) => return Err(remote::failure(error)),
            };
            if is_over {
                return Ok(());
            }
        }
    }

    async fn turn(&mut self, signals: &mut Signal) -> Result<Turn, AgentError> {
        if self.consumed >= AGENT_CREDIT / 2 {
            let more = json!({ "subscription": self.subscription, "credit": self.consumed });
            self.connection.send("credit", more).await?;
            self.consumed = 0;
        }
        tokio::select! {
            biased;
            _ = signals.recv() => Ok(Turn::Interrupt),
            message = self.connection.next() => message.map(Turn::Message),
            typed = self.prompt.typed() => Ok(Turn::Typed(typed)),
        }
    }

    async fn regain(&mut self) -> Result<(), Failure> {
        self.output.note("[the connection to the server was lost]");
        self.connection.regain().await.map_err(remote::failure)?;
        self.output.note("[it is there again]");
        self.is_occupied = false;
        // What was under way is shown by the subscription, whoever asked for it.
        if let Own::Asked(..) | Own::Sent(_) = self.own {
            self.own = Own::Nothing;
        }
        self.subscribe().await
    }

    /// Shows what the server tells; says whether that was all.
    async fn message(&mut self, message: &Message) -> Result<bool, Failure> {
        let content: Value = message.read().map_err(remote::failure)?;
        match message.msg_type.as_str() {
            "event" => self.event(EventNotice::of(message).map_err(remote::failure)?)?,
            "execution_began" => self.began(&content),
            "execution_ended" => self.ended(&content["promise"]),
            "session_restored" if content["subscription"] == self.subscription.as_str() => {
                self.prompt.give_way();
                self.output.note(&format!("[{}: {}]", self.session, came_back(&content["restored"])));
            }
            "gap" => self.output.note("[some events are no longer kept]"),
            "subscription_end" if content["subscription"] == self.subscription.as_str() => {
                self.output.note(&format!("[{}: {}]", self.session, inert(&text(&content["reason"]))));
                return Ok(true);
            }
            "call" => self.called(message.read().map_err(remote::failure)?),
            _ if message.parent.is_empty() => {}
            _ => self.reply(message, &content).await?,
        }
        Ok(false)
    }

    /// What answers a request of ours.
    async fn reply(&mut self, message: &Message, content: &Value) -> Result<(), Failure> {
        match (message.msg_type.as_str(), &self.own) {
            ("is_complete_reply", Own::Asked(id, _)) if *id == message.parent => {
                let Own::Asked(_, cell) = std::mem::replace(&mut self.own, Own::Nothing) else {
                    return Ok(());
                };
                if content["status"] == "incomplete" && !self.is_leaving {
                    self.prompt.more(cell);
                    return Ok(());
                }
                // What is wrong with it says Python.
                self.execute(cell).await
            }
            ("ack", Own::Sent(id)) if *id == message.parent => {
                let promise = content["promise"].as_str().and_then(|text| text.parse().ok());
                self.own = promise.map_or(Own::Nothing, Own::Runs);
                Ok(())
            }
            ("execute_reply", Own::Sent(id)) if *id == message.parent => {
                self.own = Own::Nothing;
                self.output.note(&explain(content));
                Ok(())
            }
            ("subscribe_reply", _) => message.clone().accepted().map(drop).map_err(remote::failure),
            _ => {
                if let Err(AgentError::Refused(refusal)) = message.clone().accepted()
                    && message.msg_type != "execute_reply"
                {
                    self.output.note(&format!("cob: {}", refusal.message));
                }
                Ok(())
            }
        }
    }

    fn event(&mut self, notice: EventNotice) -> Result<(), Failure> {
        if notice.subscription != self.subscription {
            return Ok(());
        }
        self.consumed += 1;
        let (execution, next) = self.at;
        let is_known = notice.promise.execution < execution
            || (notice.promise.execution == execution && notice.number < next);
        if is_known {
            return Ok(());
        }
        self.at = (notice.promise.execution, notice.number + 1);
        let Some(event) = &notice.event else { return Ok(()) };
        self.prompt.give_way();
        self.has_shown_error |= matches!(event, Event::Error(_));
        // Whoever read us has gone: so do we.
        self.output.event(notice.promise, notice.number, event).map_err(|_| Failure::Silent(1))
    }

    /// Somebody's code: one's own is on the screen already.
    fn began(&mut self, content: &Value) {
        self.has_shown_error = false;
        let id: Option<PromiseId> = content["promise"].as_str().and_then(|text| text.parse().ok());
        let Some(id) =
            id.filter(|id| id.execution >= self.at.0 && self.at.1 == 1 || id.execution > self.at.0)
        else {
            return;
        };
        if self.own == Own::Runs(id) || matches!(self.own, Own::Sent(_)) {
            return;
        }
        self.is_occupied = true;
        self.prompt.give_way();
        // Whose it is, if the server tells.
        let who = content["principal"]
            .as_str()
            .filter(|who| !who.is_empty())
            .map(|who| format!(" {}", inert(who)))
            .unwrap_or_default();
        let code = content["code"].as_str().unwrap_or_default();
        let lines = code.lines().map(|line| format!("{id}{who}> {}", inert(line)));
        self.output.note(&lines.collect::<Vec<_>>().join("\n"));
    }

    fn ended(&mut self, view: &Value) {
        let id: Option<PromiseId> = view["promise"].as_str().and_then(|text| text.parse().ok());
        let Some(id) = id else { return };
        self.is_occupied = false;
        if view["state"] != "resolved" && !self.has_shown_error {
            self.prompt.give_way();
            self.output.note(&format!("[{id}: {}]", inert(&text(&view["state"]))));
        }
        if id.execution >= self.at.0 {
            self.at = (id.execution + 1, 1);
        }
        if self.own == Own::Runs(id) {
            self.own = Own::Nothing;
        }
    }

    fn called(&mut self, call: Call) {
        if call.kind == "input" {
            let arguments: Value = call.arguments.read().unwrap_or_default();
            let is_password = arguments["password"].as_bool().unwrap_or_default();
            self.prompt.ask(call.promise, &text(&arguments["prompt"]), is_password);
        }
    }

    /// What was typed is an answer, a command, or code; says whether it was the last.
    async fn typed(&mut self, typed: Typed) -> Result<bool, Failure> {
        match self.prompt.take(typed) {
            Entry::Nothing => Ok(false),
            Entry::Quit => Ok(true),
            Entry::Interrupt => {
                self.send("interrupt", json!({ "session_id": self.session.to_string() })).await?;
                Ok(false)
            }
            Entry::End(rest) => {
                self.is_leaving = true;
                if !rest.trim().is_empty() {
                    self.execute(rest).await?;
                }
                Ok(false)
            }
            Entry::Answer(call, line) => {
                self.send("answer", answer(call, line)).await?;
                Ok(false)
            }
            Entry::Unfinished(cell) => {
                let question = json!({ "session_id": self.session.to_string(), "code": cell });
                let id = self.send("is_complete_request", question).await?;
                self.own = Own::Asked(id, cell);
                Ok(false)
            }
            Entry::Cell(cell) => self.execute(cell).await.map(|()| false),
        }
    }

    async fn execute(&mut self, code: String) -> Result<(), Failure> {
        let request = json!({
            "session_id": self.session.to_string(),
            "code": code,
            "allow_stdin": self.prompt.is_terminal(),
            "idempotency_key": fresh_name(),
        });
        self.own = Own::Sent(self.send("execute_request", request).await?);
        Ok(())
    }

    /// Stops what was typed last; without that, empties the prompt and says how one leaves.
    async fn interrupt(&mut self) -> Result<bool, Failure> {
        match &self.own {
            Own::Runs(promise) => {
                let content = json!({ "promise": promise });
                self.send("cancel", content).await?;
            }
            _ => {
                self.prompt.clear();
                self.output.note("(:quit leaves; :interrupt stops what runs, whoever asked for it)");
            }
        }
        Ok(false)
    }

    async fn send(&mut self, msg_type: &'static str, content: Value) -> Result<String, Failure> {
        match self.connection.send(msg_type, content).await {
            // The next turn finds out, and connects again.
            Err(error) if error.is_lost() => Ok(String::new()),
            sent => sent.map_err(remote::failure),
        }
    }
}
