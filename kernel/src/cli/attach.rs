//! `cob kernel --session`: a front end shares a session of the server. The server has the channels; this process is what
//! the front end believes to be its kernel.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use cob_clients::agent::{AgentConnection, AgentError, ServerFile, ServerPlace};
use cob_clients::notebook::ConnectionFile;
use cob_kernel::request::Command;
use cob_kernel::server::{REASON_RESTARTED, REASON_SHUTDOWN};
use cob_pool::FolderWatch;
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::limits::{REATTACH_MS, REATTACH_MS_MAX};
use cob_protocol::time::SystemClock;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use super::language::Language;
use super::{Failure, language, runtime};

/// Which session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// One of this front end's own, which ends with it. Started again with the same connection file, it is the same one.
    New,
    /// One that is open.
    Open(SessionId),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new"),
            Self::Open(session) => session.fmt(f),
        }
    }
}

/// `new`, or the name of a session.
pub(crate) fn wanted(text: &str) -> Result<Wanted, String> {
    match text {
        "new" => Ok(Wanted::New),
        name => name.parse().map(Wanted::Open).map_err(|_| {
            format!("`{name}` is neither `new` nor the name of a session, which looks like s7; `cob sessions` lists them")
        }),
    }
}

/// The server that COB_SERVER names, else the one of the runtime folder.
fn place() -> Result<ServerPlace, AgentError> {
    match std::env::var("COB_SERVER").ok().filter(|named| !named.is_empty()) {
        Some(named) => ServerPlace::named(&named, std::env::var("COB_SERVER_KEY").unwrap_or_default()),
        None => ServerPlace::of(&ServerFile::read(&ServerFile::path_in(&runtime::folder()))?),
    }
}

/// Tells when the next server is there, if that server says so in a file.
fn watch() -> Option<FolderWatch> {
    let folder = match std::env::var("COB_SERVER").ok().filter(|named| !named.is_empty()) {
        Some(named) if named.contains("://") => return None,
        Some(named) => Path::new(&named).parent()?.to_owned(),
        None => runtime::folder(),
    };
    FolderWatch::new(&folder)
        .map_err(|error| tracing::debug!(%error, "the server's file is not watched"))
        .ok()
}

/// A front end's place in a session.
struct Attachment {
    connection: AgentConnection,
    client: String,
    wanted: Wanted,
    session: SessionId,
    /// The same as long as this process lives: replies find their way by it, also after the server was started again.
    number: u64,
    file: Value,
    /// Names the session that is this front end's own.
    key: String,
    language: Language,
    environment: Value,
    checkpoints: Option<Value>,
}

/// What a session is opened with that is the front end's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct New<'a> {
    /// Its language, and what is different about it.
    pub(crate) wanted: &'a language::Wanted,
    /// What it does about checkpoints.
    pub(crate) checkpoints: Option<&'a Json>,
}

/// How an attachment came to its end.
enum Ended {
    /// The server said that it has.
    Detached(String),
    /// The server is gone, or about to be.
    Lost(AgentError),
    /// This process is to end.
    Told,
}

#[derive(Deserialize)]
struct Opened {
    #[serde(with = "cob_protocol::ids::session_text")]
    session_id: SessionId,
}

#[derive(Deserialize)]
struct Detached {
    attachment: u64,
    reason: String,
}

/// Serves the front end of `file` until it shuts down, or the session ends.
pub(crate) async fn run(
    path: &Path,
    wanted: Wanted,
    new: New<'_>,
    mut commands: mpsc::Receiver<Command>,
) -> Result<(), Failure> {
    // What is wrong with it is said here, where the front end looks.
    ConnectionFile::read(path).map_err(Failure::usage)?;
    let file = std::fs::read(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    let file = serde_json::from_slice(&file).map_err(Failure::usage)?;
    let client = uuid::Uuid::new_v4().to_string();
    let connection = open(&client).await.map_err(failure)?;
    // Beside numbers that JSON keeps exactly.
    let number = uuid::Uuid::new_v4().as_u128() as u64 >> 11;
    let key = format!("cob kernel {}", super::absolute(path)?.display());
    let session = match wanted {
        Wanted::Open(session) => session,
        Wanted::New => SessionId(0),
    };
    let language = new.wanted.language.unwrap_or_default();
    let environment = Value::Object(new.wanted.environment(language)?);
    let checkpoints = new.checkpoints.map(Json::read).transpose().map_err(Failure::usage)?;
    let mut attachment = Attachment {
        connection,
        client,
        wanted,
        session,
        number,
        file,
        key,
        language,
        environment,
        checkpoints,
    };
    attachment.attach().await.map_err(failure)?;
    loop {
        match attachment.serve(&mut commands).await {
            Ended::Detached(reason) => return attachment.leave(&reason).await,
            Ended::Told => return attachment.leave(REASON_SHUTDOWN).await,
            Ended::Lost(error) => {
                tracing::warn!(%error, "the server is gone; waiting for the next one");
                attachment.attach_again(&mut commands).await?;
            }
        }
    }
}

/// Whether the session has ended.
fn is_closed(error: &AgentError) -> bool {
    matches!(error.code(), Some("unknown_session" | "session_closed"))
}

async fn open(client: &str) -> Result<AgentConnection, AgentError> {
    AgentConnection::open(&place()?, client.to_owned(), None, Arc::new(SystemClock)).await
}

fn failure(error: AgentError) -> Failure {
    match &error {
        AgentError::Refused(refusal) if !refusal.hint.is_empty() => {
            Failure::Failed(format!("{error}. {}", refusal.hint))
        }
        AgentError::File(_) | AgentError::NoServer { .. } => {
            Failure::Failed(format!("no server runs here ({error}); start one with `cob serve`"))
        }
        _ => Failure::failed(error),
    }
}

impl Attachment {
    async fn attach(&mut self) -> Result<(), AgentError> {
        if self.wanted == Wanted::New {
            self.open_own(&self.key.clone()).await?;
        }
        match self.bind().await {
            // It was closed since the front end first had it.
            Err(error) if self.wanted == Wanted::New && is_closed(&error) => {
                self.open_own(&format!("{} {}", self.key, self.client)).await?;
                self.bind().await
            }
            bound => bound,
        }
    }

    async fn open_own(&mut self, key: &str) -> Result<(), AgentError> {
        let mut asked = json!({ "idempotency_key": key, "language": self.language.name(), "environment": self.environment,
                    "name": "notebook" });
        if let Some(checkpoints) = &self.checkpoints {
            asked["checkpoints"] = checkpoints.clone();
        }
        let opened: Opened = self.connection.request("session_open", asked).await?.read()?;
        self.session = opened.session_id;
        Ok(())
    }

    async fn bind(&mut self) -> Result<(), AgentError> {
        let asked = json!({
            "session_id": self.session.to_string(), "attachment": self.number, "connection": self.file,
        });
        self.connection.request("session_attach", asked).await?;
        tracing::info!(session = %self.session, "attached to session");
        Ok(())
    }

    /// Waits for the end of the attachment, and hands signals on.
    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Ended {
        loop {
            tokio::select! {
                message = self.connection.next() => match message {
                    Ok(message) if message.msg_type == "session_detached" => match message.read::<Detached>() {
                        Ok(detached) if detached.attachment == self.number => {
                            return Ended::Detached(detached.reason);
                        }
                        _ => {}
                    },
                    Ok(_) => {}
                    Err(error) => return Ended::Lost(error),
                },
                command = commands.recv() => match command {
                    Some(Command::Interrupt) => {
                        let asked = json!({ "session_id": self.session.to_string() });
                        if let Err(error) = self.connection.send("interrupt", asked).await {
                            return Ended::Lost(error);
                        }
                    }
                    _ => return Ended::Told,
                },
            }
        }
    }

    /// Waits for the next server: its file says when it is there.
    async fn attach_again(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_millis(REATTACH_MS_MAX);
        // Before the first look, so that nothing comes between.
        let watch = watch();
        let news = async || match &watch {
            Some(watch) if watch.changed().await.is_ok() => {}
            _ => std::future::pending().await,
        };
        loop {
            let error = match self.attach_once().await {
                Ok(()) => return Ok(()),
                // This server will never do it.
                Err(error) if error.code().is_some_and(|code| code != "busy") => return Err(failure(error)),
                Err(error) => error,
            };
            if Instant::now() >= until {
                return Err(failure(error));
            }
            tokio::select! {
                () = news() => {}
                // It has no file, or could not take us the first time.
                () = tokio::time::sleep(Duration::from_millis(REATTACH_MS)) => {}
                command = commands.recv() => {
                    if !matches!(command, Some(Command::Interrupt)) {
                        return Err(Failure::Silent(0));
                    }
                }
            }
        }
    }

    async fn attach_once(&mut self) -> Result<(), AgentError> {
        self.connection = open(&self.client).await?;
        self.attach().await
    }

    /// Ends in order: what is this front end's own ends with it, unless it only begins again.
    async fn leave(&mut self, reason: &str) -> Result<(), Failure> {
        let session = self.session.to_string();
        let asked = match (&self.wanted, reason) {
            (_, REASON_RESTARTED) => return Ok(()),
            (Wanted::New, _) => ("session_close", json!({ "session_id": session })),
            (Wanted::Open(_), _) => ("session_detach", json!({ "attachment": self.number })),
        };
        if let Err(error) = self.connection.request(asked.0, asked.1).await {
            tracing::debug!(%error, reason, "the server knows nothing more of this front end");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_new_or_has_a_name() {
        assert_eq!(wanted("new"), Ok(Wanted::New));
        assert_eq!(wanted("s12"), Ok(Wanted::Open(SessionId(12))));
        for wrong in ["", "12", "News", "s"] {
            assert!(wanted(wrong).unwrap_err().contains("s7"), "{wrong}");
        }
    }
}
