//! `cob sessions`: which sessions the server has.

use std::io::{self, Write};

use clap::Args;
use cob_clients::agent::{AgentConnection, AgentError};
use serde_json::{Value, json};

use super::figures::{Table, age, size, text};
use super::remote::{Server, ask, failure};
use super::{Failure, block_on};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Also those that have ended
    #[arg(long, short)]
    all: bool,
    /// One session per line, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

const NONE: &str =
    "No sessions are open. `cob exec --new --keep` opens one; `cob sessions --all` shows those that ended.";
const NEVER: &str = "There have been no sessions. `cob exec --new --keep` opens one.";

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    let sessions = block_on(async {
        let mut connection = options.server.connect().await?;
        let mut sessions = list(&mut connection, options.all).await?;
        for session in &mut sessions {
            look(&mut connection, session).await.map_err(failure)?;
        }
        Ok(sessions)
    })??;
    let mut out = io::stdout().lock();
    // A reader that has seen enough (`| head`) is no failure.
    let _ = if options.json {
        sessions.iter().try_for_each(|session| writeln!(out, "{session}"))
    } else if sessions.is_empty() {
        writeln!(out, "{}", if options.all { NEVER } else { NONE })
    } else {
        table(&sessions).write(&mut out)
    };
    Ok(())
}

/// All of them, page by page.
pub(crate) async fn list(connection: &mut AgentConnection, closed: bool) -> Result<Vec<Value>, Failure> {
    let mut sessions: Vec<Value> = Vec::new();
    loop {
        let mut request = json!({ "closed": closed });
        if let Some(last) = sessions.last() {
            request["after"] = last["session_id"].clone();
        }
        let mut reply = ask(connection, "session_list", request).await?;
        match reply["sessions"].take() {
            Value::Array(page) if !page.is_empty() => sessions.extend(page),
            _ => return Ok(sessions),
        }
    }
}

/// Asks for the rest of a session that is open; one that ends meanwhile stays as it was listed.
pub(crate) async fn look(connection: &mut AgentConnection, session: &mut Value) -> Result<(), AgentError> {
    if matches!(session["state"].as_str(), Some("closed" | "dead")) {
        return Ok(());
    }
    let about = json!({ "session_id": session["session_id"] });
    if let Some(mut info) = told(connection, "session_info", about).await? {
        *session = info["session"].take();
    }
    Ok(())
}

/// A reply; `None` when it is refused, because what it is about has ended.
pub(crate) async fn told(
    connection: &mut AgentConnection,
    msg_type: &'static str,
    content: Value,
) -> Result<Option<Value>, AgentError> {
    match connection.request(msg_type, content).await {
        Ok(reply) => reply.read().map(Some),
        Err(AgentError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// For people.
pub(crate) fn table(sessions: &[Value]) -> Table<10> {
    let head =
        ["ID", "NAME", "LANGUAGE", "STATE", "OWNER", ">AGE", ">RUN", ">QUEUE", ">MEMORY", "CHECKPOINTS"];
    let mut table = Table::new(head);
    for session in sessions {
        table.row([
            text(&session["session_id"]),
            text(&session["name"]),
            text(&session["language"]),
            text(&session["state"]),
            text(&session["principal"]),
            age(&session["created_at"]),
            text(&session["execution_count"]),
            text(&queued(session)),
            memory(session).map(size).unwrap_or_default(),
            checkpoints(session),
        ]);
    }
    table
}

/// `4 (20 MiB), from s1.k3`
pub(crate) fn checkpoints(session: &Value) -> String {
    let held = session["checkpoints"].as_u64().filter(|count| *count > 0);
    let bytes = session["checkpoint_bytes"].as_u64().unwrap_or(0);
    let told = [
        held.map(|count| format!("{count} ({})", size(bytes))),
        session["wakes_at"].as_str().map(|checkpoint| format!("wakes at {checkpoint}")),
        session["forked_from"].as_str().map(|checkpoint| format!("from {checkpoint}")),
    ];
    told.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// How many executions wait.
pub(crate) fn queued(session: &Value) -> Value {
    session["queue"].as_array().map_or(Value::Null, |queue| queue.len().into())
}

/// Resident bytes of its worker.
pub(crate) fn memory(session: &Value) -> Option<u64> {
    session["worker"]["resident_bytes"].as_u64()
}

#[cfg(test)]
mod tests {
    use cob_protocol::time::{Clock, SystemClock};

    use super::*;

    #[test]
    fn a_table_shows_each_session_and_a_dash_for_what_is_not_known() {
        let created = SystemClock.now().after_ms(-125_000).to_string();
        let sessions = [
            json!({ "session_id": "s1", "name": "data", "language": "javascript", "state": "busy", "principal": "local",
                    "created_at": created, "execution_count": 12, "queue": [{}, {}],
                    "worker": { "resident_bytes": 40 << 20 }, "checkpoints": 4, "checkpoint_bytes": 20 << 20,
                    "forked_from": "s0.k3" }),
            json!({ "session_id": "s20", "state": "closed", "principal": "ann" }),
        ];
        let expected = [
            "ID   NAME  LANGUAGE    STATE   OWNER    AGE  RUN  QUEUE  MEMORY  CHECKPOINTS",
            "s1   data  javascript  busy    local  2m05s   12      2  40 MiB  4 (20 MiB), from s0.k3",
            "s20  -     -           closed  ann        -    -      -       -  -",
        ];
        assert_eq!(table(&sessions).lines(), expected);
    }
}
