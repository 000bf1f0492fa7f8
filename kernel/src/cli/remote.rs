//! The server that a command talks to, and what it says when the server says no.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use clap::Args;
use cob_clients::agent::{
    AgentConnection, AgentError, Message, Refusal, ServerFile, ServerFileError, ServerPlace,
};
use cob_protocol::error::{ErrorCode, Fault};
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::time::SystemClock;
use serde::Serialize;
use serde_json::Value;

use super::{Failure, runtime};

#[derive(Clone, Debug, Args)]
pub(crate) struct Server {
    /// The server: its address, or the path of its server.json. The key of a tcp address is taken from COB_SERVER_KEY
    /// [default: COB_SERVER, else the one of the runtime folder]
    #[arg(long = "server", value_name = "URL|FILE")]
    named: Option<String>,
}

impl Server {
    /// The text that names it, unless it is the one of the runtime folder.
    fn name(&self) -> Option<String> {
        let surroundings = || std::env::var("COB_SERVER").ok().filter(|name| !name.is_empty());
        self.named.clone().or_else(surroundings)
    }

    /// What the server of the runtime folder wrote about itself; `None` when another one was named.
    pub(crate) fn file(&self) -> Option<ServerFile> {
        if self.name().is_some() {
            return None;
        }
        ServerFile::read(&ServerFile::path_in(&runtime::folder())).ok()
    }

    /// Says hello to it.
    pub(crate) async fn connect(&self) -> Result<AgentConnection, Failure> {
        self.running().await?.ok_or_else(none_runs)
    }

    /// The same; `None` when no server was named and none runs.
    pub(crate) async fn running(&self) -> Result<Option<AgentConnection>, Failure> {
        if let Some(name) = self.name() {
            return open(&place(&name)?).await.map(Some).map_err(failure);
        }
        let path = ServerFile::path_in(&runtime::folder());
        let place = match ServerFile::read(&path) {
            Ok(file) => ServerPlace::of(&file).map_err(failure)?,
            Err(ServerFileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(Failure::failed(error)),
        };
        match open(&place).await {
            Ok(connection) => Ok(Some(connection)),
            // What a server left behind that was killed.
            Err(AgentError::NoServer { source, .. }) if is_gone(&source) => Ok(None),
            Err(error) => Err(failure(error)),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

fn place(name: &str) -> Result<ServerPlace, Failure> {
    let key = std::env::var("COB_SERVER_KEY").unwrap_or_default();
    ServerPlace::named(name, key).map_err(|error| {
        Failure::Usage(format!("{error}\n  Name an address (ipc://…, tcp://…) or the path of a server.json."))
    })
}

async fn open(place: &ServerPlace) -> Result<AgentConnection, AgentError> {
    AgentConnection::open(place, fresh_name(), None, Arc::new(SystemClock)).await
}

/// A name that nobody else has.
pub(crate) fn fresh_name() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// No server was named, and none runs.
pub(crate) fn none_runs() -> Failure {
    let folder = runtime::folder();
    Failure::Failed(format!("no server runs in {}; start one with `cob serve`", folder.display()))
}

/// One request of a command that has nothing else to do.
pub(crate) async fn ask(
    connection: &mut AgentConnection,
    msg_type: &'static str,
    content: impl Serialize,
) -> Result<Value, Failure> {
    let reply = connection.request(msg_type, content).await.and_then(|reply: Message| reply.read());
    reply.map_err(failure)
}

/// What went wrong, with what to do about it, and whose fault it is.
pub(crate) fn failure(error: AgentError) -> Failure {
    match error {
        AgentError::Refused(refusal) => refused(&refusal),
        AgentError::NoServer { .. } => Failure::Failed(format!("{error}; `cob serve` starts one")),
        AgentError::Endpoint(_) => Failure::usage(error),
        error => Failure::failed(error),
    }
}

fn refused(refusal: &Refusal) -> Failure {
    let mut text = if refusal.message.is_empty() { refusal.ename.clone() } else { refusal.message.clone() };
    if !refusal.hint.is_empty() {
        text.push_str(&format!("\n  {}", refusal.hint));
    }
    let row = ErrorCode::ALL.iter().find(|row| row.code() == refusal.code);
    match row.map(|row| row.fault()) {
        Some(Fault::Client) => Failure::Usage(text),
        _ => Failure::Failed(text),
    }
}

/// A line for whoever reads it; nobody is no failure.
pub(crate) fn say(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// `s1`
pub(crate) fn session(text: &str) -> Result<SessionId, String> {
    text.parse().map_err(|_| "not a session; one looks like s1, and `cob sessions` lists them".to_owned())
}

/// `s1.e7`
pub(crate) fn execution(text: &str) -> Result<PromiseId, String> {
    let id: Option<PromiseId> = text.parse().ok().filter(|id: &PromiseId| id.call.is_none());
    id.ok_or_else(|| "not an execution; one looks like s1.e7".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &str) -> Refusal {
        Refusal {
            ename: "E".into(),
            message: "no".into(),
            code: code.into(),
            hint: "Ask again.".into(),
            retry_after_ms: None,
        }
    }

    #[test]
    fn whose_fault_it_is_says_the_exit_code_and_the_hint_stands_below() {
        let Failure::Usage(text) = refused(&refusal("unknown_session")) else { unreachable!() };
        assert_eq!(text, "no\n  Ask again.");
        for code in ["busy", "worker_lost", "a code of the future"] {
            assert!(matches!(refused(&refusal(code)), Failure::Failed(_)), "{code}");
        }
    }

    #[test]
    fn sessions_and_executions_are_told_apart() {
        assert_eq!(session("s7"), Ok(SessionId(7)));
        assert_eq!(execution("s7.e3"), Ok(PromiseId::execution(SessionId(7), 3)));
        assert!(["s7.e3", "7", ""].iter().all(|text| session(text).is_err()));
        assert!(["s7", "s7.e3.c1", "e3"].iter().all(|text| execution(text).is_err()));
    }
}
