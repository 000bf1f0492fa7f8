//! One execution on a terminal: its output, its questions, Ctrl-C.

use std::io::{self, IsTerminal, Stderr, Stdout, Write};

use cob_clients::agent::{
    AgentConnection, AgentError, Call, EventNotice, Execute, Execution, Message, Outcome, Step,
};
use cob_protocol::event::{Event, EventNumber};
use cob_protocol::frame::StreamName;
use cob_protocol::ids::PromiseId;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::cli::checkpoint::told::came_back;
use crate::cli::printer::Printer;
use crate::cli::progress::Progress;
use crate::cli::run::{INTERRUPTED, exit_code};
use crate::cli::{Failure, remote, terminal};

/// How it ended for whoever looked on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Ran(u8),
    /// The person has left it.
    Left(Option<PromiseId>),
    /// Whoever read us has gone: so do we, as any filter would.
    Unread(Option<PromiseId>),
}

impl Ending {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Ran(code) => *code,
            Self::Left(_) => INTERRUPTED,
            Self::Unread(_) => 1,
        }
    }

    /// What goes on without us, if the session does.
    pub(super) fn remains(&self) -> Option<PromiseId> {
        match self {
            Self::Ran(_) => None,
            Self::Left(promise) | Self::Unread(promise) => *promise,
        }
    }
}

/// What code prints, where it belongs: escape sequences only to terminals.
#[derive(Debug)]
pub(crate) struct Output {
    out: Printer<Stdout>,
    err: Printer<Stderr>,
}

impl Output {
    pub(crate) fn new() -> Self {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            out: Printer::new(io::stdout(), false, io::stdout().is_terminal()),
            err: Printer::new(io::stderr(), false, colours),
        }
    }

    /// Shows an event; fails when nobody reads any more.
    pub(crate) fn event(&mut self, promise: PromiseId, number: EventNumber, event: &Event) -> io::Result<()> {
        let is_error = match event {
            Event::Stream { name: StreamName::Stderr, .. } => true,
            Event::Error(_) => {
                self.out.fresh_line()?;
                true
            }
            _ => false,
        };
        if is_error {
            self.out.flush()?;
            self.err.event(promise, number, "", event)
        } else {
            self.out.event(promise, number, "", event)?;
            self.out.flush()
        }
    }

    /// A line of our own.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = self.out.fresh_line().and_then(|()| self.out.flush());
        let _ = self.err.note(text);
    }

    pub(crate) fn is_mid_line(&self) -> bool {
        self.out.is_mid_line() || self.err.is_mid_line()
    }
}

/// An execution that is shown as it happens.
pub(super) struct Follow<'a> {
    connection: &'a mut AgentConnection,
    json: bool,
    output: Output,
    progress: Progress,
    promise: Option<PromiseId>,
    has_shown_error: bool,
    /// How often the person wanted it to stop.
    interrupts: u32,
    /// A question that the person has before them.
    asking: Option<(PromiseId, JoinHandle<Option<String>>)>,
    /// An answer that the server has not confirmed.
    unconfirmed: Option<(PromiseId, Value)>,
}

/// What a turn brings.
enum Turn {
    Step(Step),
    Interrupt,
    Typed(PromiseId, Option<String>),
    Quiet,
}

impl<'a> Follow<'a> {
    pub(super) fn new(connection: &'a mut AgentConnection, json: bool) -> Self {
        Self {
            connection,
            json,
            output: Output::new(),
            progress: Progress::new(),
            promise: None,
            has_shown_error: false,
            interrupts: 0,
            asking: None,
            unconfirmed: None,
        }
    }

    /// Runs it to its end, or until the person leaves it.
    pub(super) async fn run(mut self, request: Execute) -> Result<Ending, Failure> {
        let mut signals = signal(SignalKind::interrupt())
            .map_err(|error| Failure::Failed(format!("signals cannot be watched: {error}")))?;
        let session = request.session_id;
        let mut execution = Execution::begin(self.connection, request).await.map_err(remote::failure)?;
        loop {
            let ending = match self.turn(&mut execution, &mut signals).await.map_err(remote::failure)? {
                Turn::Step(step) => self.step(step).await?,
                Turn::Interrupt => self.interrupt().await?,
                Turn::Typed(call, typed) => {
                    self.answered(call, typed).await?;
                    None
                }
                Turn::Quiet => {
                    if self.progress.is_curious() {
                        let look = json!({ "session_id": session.to_string() });
                        self.send("session_info", look).await?;
                    }
                    if self.asking.is_none() && !self.output.is_mid_line() {
                        self.progress.show();
                    }
                    None
                }
            };
            if let Some(ending) = ending {
                self.progress.clear();
                return Ok(ending);
            }
        }
    }

    /// The next thing that happens.
    async fn turn(&mut self, execution: &mut Execution, signals: &mut Signal) -> Result<Turn, AgentError> {
        let asking = &mut self.asking;
        let typed = async {
            match asking {
                Some((call, line)) => (*call, line.await.unwrap_or_default()),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = signals.recv() => Ok(Turn::Interrupt),
            step = execution.next(self.connection) => step.map(Turn::Step),
            (call, typed) = typed => Ok(Turn::Typed(call, typed)),
            () = self.progress.due() => Ok(Turn::Quiet),
        }
    }

    async fn step(&mut self, step: Step) -> Result<Option<Ending>, Failure> {
        match step {
            Step::Accepted { promise, joined } => {
                self.promise = Some(promise);
                let _ = self.line(|| json!({ "type": "accepted", "promise": promise, "joined": joined }));
                if self.interrupts > 0 {
                    self.cancel().await?;
                }
            }
            Step::Event(notice) => return Ok(self.event(&notice)),
            Step::Gap { from, next } => {
                self.note(&format!("[the events {from} to {} are no longer kept]", next.saturating_sub(1)));
            }
            Step::Reconnected => {
                self.note("[the connection to the server was lost and is there again]");
                if self.interrupts > 0 && self.promise.is_some() {
                    self.cancel().await?;
                }
            }
            Step::Asked(call) => self.asked(call).await?,
            Step::Other(message) => self.other(&message),
            Step::Ended(outcome) => return Ok(Some(self.ended(&outcome))),
        }
        Ok(None)
    }

    fn event(&mut self, notice: &EventNotice) -> Option<Ending> {
        let event = notice.event.as_ref()?;
        self.has_shown_error |= matches!(event, Event::Error(_));
        let (promise, number) = (notice.promise, notice.number);
        let shown = if self.json {
            self.line(|| {
                json!({ "type": "event", "promise": promise, "number": number, "at": notice.at, "event": event })
            })
        } else {
            self.progress.clear();
            self.output.event(promise, number, event)
        };
        shown.is_err().then_some(Ending::Unread(self.promise))
    }

    fn ended(&mut self, outcome: &Outcome) -> Ending {
        self.progress.clear();
        let reply: Value = outcome.reply.read().unwrap_or_default();
        let code = if self.interrupts > 0 { INTERRUPTED } else { exit_code(&reply) };
        let is_ok = reply["status"] == "ok";
        let promise = self.promise;
        let _ = self.line(|| {
            json!({ "type": "end", "promise": promise, "status": if is_ok { "ok" } else { "error" },
                             "exit_code": code, "reply": reply })
        });
        if !is_ok && !self.has_shown_error && !self.json {
            self.output.note(&explain(&reply));
        }
        // An error that tells of it does not tell what is missing.
        let is_told = reply["session_state"] == "restored" && !reply["restored"]["missing"].is_array();
        if reply["restored"].is_object() && !is_told && !self.json {
            self.output.note(&format!("cob: the session is {}", came_back(&reply["restored"])));
        }
        Ending::Ran(code)
    }

    async fn asked(&mut self, call: Call) -> Result<(), Failure> {
        if call.kind != "input" {
            return Ok(());
        }
        // Put to us again: what was answered did not arrive.
        if let Some((_, answer)) = self.unconfirmed.as_ref().filter(|(asked, _)| *asked == call.promise) {
            return self.send("answer", answer.clone()).await;
        }
        self.progress.clear();
        let arguments: Value = call.arguments.read().unwrap_or_default();
        let prompt = arguments["prompt"].as_str().unwrap_or_default().to_owned();
        let password = arguments["password"].as_bool().unwrap_or_default();
        // A line that is still waited for answers the newer question.
        if let Some((asked, _)) = &mut self.asking {
            *asked = call.promise;
            eprint!("{prompt}");
        } else {
            let line = tokio::task::spawn_blocking(move || terminal::ask(&prompt, password));
            self.asking = Some((call.promise, line));
        }
        Ok(())
    }

    async fn answered(&mut self, call: PromiseId, typed: Option<String>) -> Result<(), Failure> {
        self.asking = None;
        let answer = answer(call, typed);
        self.unconfirmed = Some((call, answer.clone()));
        self.send("answer", answer).await
    }

    /// The first one stops the code, the second one leaves it.
    async fn interrupt(&mut self) -> Result<Option<Ending>, Failure> {
        self.progress.clear();
        if self.asking.is_some() {
            // The question stays where it is.
            eprintln!();
        }
        self.interrupts += 1;
        match (self.interrupts, self.promise) {
            (1, None) => Ok(None),
            (1, Some(_)) => self.cancel().await.map(|()| None),
            (_, promise) => {
                self.finish_line();
                Ok(Some(Ending::Left(promise)))
            }
        }
    }

    async fn cancel(&mut self) -> Result<(), Failure> {
        self.send("cancel", json!({ "promise": self.promise })).await
    }

    async fn send(&mut self, msg_type: &'static str, content: Value) -> Result<(), Failure> {
        match self.connection.send(msg_type, content).await {
            // The next step finds out, and connects again.
            Err(error) if error.is_lost() => Ok(()),
            sent => sent.map(drop).map_err(remote::failure),
        }
    }

    /// Replies to what was sent beside the execution.
    fn other(&mut self, message: &Message) {
        if message.msg_type == "answer_reply" {
            self.unconfirmed = None;
        }
        match (message.msg_type.as_str(), self.promise) {
            ("session_info_reply", Some(promise)) => {
                let info: Value = message.read().unwrap_or_default();
                self.progress.learn(promise, &info["session"]);
            }
            ("cancel_reply" | "answer_reply", _) => match message.clone().accepted() {
                // It was over before: its end is on its way.
                Err(AgentError::Refused(refusal)) if refusal.code != "already_settled" => {
                    self.note(&format!("cob: {}", refusal.message));
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn note(&mut self, text: &str) {
        self.progress.clear();
        if self.json {
            eprintln!("{text}");
        } else {
            self.output.note(text);
        }
    }

    /// Ends the line that the output is in the middle of.
    fn finish_line(&mut self) {
        if self.output.is_mid_line() {
            eprintln!();
        }
    }

    /// A line for machines; fails when nobody reads any more.
    fn line(&self, value: impl FnOnce() -> Value) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{}", value())?;
        out.flush()
    }
}

/// The content of an `answer` with what was typed.
pub(crate) fn answer(call: PromiseId, typed: Option<String>) -> Value {
    match typed {
        Some(text) => json!({ "promise": call, "value": text }),
        None => json!({ "promise": call, "eof": true }),
    }
}

/// A failure that the code has not told itself.
pub(crate) fn explain(reply: &Value) -> String {
    let text = |name: &str| reply[name].as_str().unwrap_or_default();
    let mut lines = match (text("ename"), text("evalue")) {
        ("", _) => format!("cob: it ended as `{}`", text("status")),
        (name, "") => format!("cob: {name}"),
        (_, message) => format!("cob: {message}"),
    };
    if !text("hint").is_empty() {
        lines.push_str(&format!("\n  {}", text("hint")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_was_typed_or_the_end_of_the_input() {
        let call: PromiseId = "s1.e2.c3".parse().unwrap();
        assert_eq!(answer(call, Some("x".into())), json!({ "promise": "s1.e2.c3", "value": "x" }));
        assert_eq!(answer(call, None), json!({ "promise": "s1.e2.c3", "eof": true }));
    }

    #[test]
    fn a_failure_is_explained_with_what_to_do() {
        let lost = json!({ "status": "error", "ename": "WorkerLost", "evalue": "it died", "hint": "Again." });
        assert_eq!(explain(&lost), "cob: it died\n  Again.");
        assert_eq!(explain(&json!({ "status": "error", "ename": "X", "evalue": "" })), "cob: X");
        assert_eq!(explain(&json!({ "status": "aborted" })), "cob: it ended as `aborted`");
    }

    #[test]
    fn whoever_leaves_was_interrupted() {
        let promise = "s1.e2".parse().ok();
        let endings = [Ending::Ran(3), Ending::Left(promise), Ending::Unread(promise)];
        assert_eq!(endings.each_ref().map(Ending::exit_code), [3, 130, 1]);
        assert_eq!(endings.each_ref().map(Ending::remains), [None, promise, promise]);
    }
}
