//! A client in the same process: what `cob run` and `cob doctor` talk to a session with.

use std::sync::Arc;

use bytes::Bytes;
use cob_bridge::Bridge;
use cob_protocol::error::ErrorCode;
use cob_protocol::json::Json;
use cob_protocol::message::{Channel, Header, Incoming, Outgoing, PROTOCOL_VERSION};
use cob_protocol::time::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::outlet::{LocalMessage, Outlet};
use crate::request::{ClientRequest, Command, InputSenders, lanes};
use crate::session::{Config, End, Session};

/// A session and its only client.
#[derive(Debug)]
pub struct LocalClient {
    senders: InputSenders,
    messages: mpsc::Receiver<LocalMessage>,
    /// Taken when its end has been told.
    session: Option<JoinHandle<End>>,
    requests: u64,
}

/// What happens while a request is handled.
#[derive(Debug)]
pub enum Happening {
    /// Something was broadcast.
    Broadcast(Outgoing),
    /// Code asks for input: answer with [`LocalClient::answer`].
    Asked {
        /// What to show.
        prompt: String,
        /// Hide what is typed.
        password: bool,
    },
    /// The request was replied to, and nothing of it follows.
    Ended(Json),
}

/// The session ended under its client.
#[derive(Debug)]
pub struct SessionEnded(pub End);

impl LocalClient {
    /// Starts a session.
    #[must_use]
    pub fn start(config: Config) -> Self {
        let (outlet, messages) = Outlet::local();
        let (senders, inputs) = lanes();
        let bridge = Bridge::in_memory(Arc::new(SystemClock));
        let session = tokio::spawn(Session::new(config, bridge, outlet, inputs).run());
        Self { senders, messages, session: Some(session), requests: 0 }
    }

    /// A handle for interrupts and shutdowns from elsewhere.
    #[must_use]
    pub fn commands(&self) -> mpsc::Sender<Command> {
        self.senders.commands.clone()
    }

    /// Sends a request; [`LocalClient::next`] tells what comes of it.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn request(&mut self, msg_type: &str, content: Value) -> Result<(), SessionEnded> {
        self.requests += 1;
        let request = request(msg_type, self.requests, Channel::Shell, content);
        match self.senders.shell.send(request).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended().await),
        }
    }

    /// The next thing that happens to the request. Cancel-safe.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn next(&mut self, reply: &mut Option<Json>) -> Result<Happening, SessionEnded> {
        loop {
            let Some(LocalMessage { channel, message }) = self.messages.recv().await else {
                return Err(self.ended().await);
            };
            match channel {
                Channel::Stdin => {
                    let question: Value = message.content.read().unwrap_or_default();
                    let prompt = question["prompt"].as_str().unwrap_or_default().to_owned();
                    return Ok(Happening::Asked { prompt, password: question["password"] == true });
                }
                Channel::Shell | Channel::Control => *reply = Some(message.content),
                Channel::Iopub if is_idle(&message) && reply.is_some() => {
                    let reply = reply.take().unwrap_or_default();
                    // The session says itself, and better, why it could not start.
                    return if is_start_failure(&reply) {
                        Err(self.ended().await)
                    } else {
                        Ok(Happening::Ended(reply))
                    };
                }
                Channel::Iopub => return Ok(Happening::Broadcast(message)),
            }
        }
    }

    /// Answers a question; `None` is the end of the input.
    pub async fn answer(&mut self, value: Option<String>) {
        self.requests += 1;
        let content = match value {
            Some(value) => json!({ "value": value }),
            None => json!({ "eof": true }),
        };
        let reply = request("input_reply", self.requests, Channel::Stdin, content);
        // It fails only when the session has ended, which the next look shows.
        let _ = self.senders.stdin.send(reply).await;
    }

    /// Ends the session.
    pub async fn shut_down(mut self) -> End {
        // It fails only when the session has ended already.
        let _ = self.senders.commands.send(Command::Shutdown).await;
        self.messages.close();
        self.ended().await.0
    }

    async fn ended(&mut self) -> SessionEnded {
        SessionEnded(match self.session.take() {
            Some(session) => session.await.unwrap_or(End::Shutdown),
            None => End::Shutdown,
        })
    }
}

fn is_start_failure(reply: &Json) -> bool {
    let content: Value = reply.read().unwrap_or_default();
    let codes = [ErrorCode::WorkerStartFailed, ErrorCode::InvalidLimit].map(ErrorCode::code);
    content["code"].as_str().is_some_and(|code| codes.contains(&code))
}

fn is_idle(message: &Outgoing) -> bool {
    message.msg_type == "status" && message.content.as_str().contains("\"idle\"")
}

fn request(msg_type: &str, number: u64, channel: Channel, content: Value) -> ClientRequest {
    let header = Header {
        msg_id: format!("local-{number}"),
        msg_type: msg_type.to_owned(),
        session: "local".to_owned(),
        username: "cob".to_owned(),
        date: SystemClock.now().to_string(),
        version: PROTOCOL_VERSION.to_owned(),
    };
    let message = Incoming {
        header_json: Json::of(&header).unwrap_or_default(),
        header,
        metadata: Json::object(),
        content: Bytes::from(content.to_string()),
        buffers: Vec::new(),
    };
    ClientRequest::new(Bytes::from_static(b"local"), channel, message)
}
