//! `cob checkpoint`: sessions as they were, to go back to and to branch off.

mod stored;
pub(super) mod told;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use cob_protocol::ids::{CheckpointId, SessionId};
use cob_protocol::limits::BRANCHES_MAX;
use serde_json::{Value, json};

use super::figures::text;
use super::remote::{self, Server, ask};
use super::{Failure, absolute, block_on};

const EXAMPLES: &str = "\
Examples:
  cob checkpoint take s7 --label clean      keep s7 as it is now
  cob checkpoint undo s7                    as it was before its last execution
  cob checkpoint restore s7 --label clean   as it was then
  cob checkpoint fork s7 --count 4          four sessions that begin where s7 stands
  cob checkpoint export s7.k3 data.cob      a durable one (take --durable), to take elsewhere

What code did elsewhere (files, mails, rows) is never undone.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Keep a session as it is, at the next moment at which no code runs
    Take {
        /// The session
        #[arg(value_name = "SESSION", value_parser = remote::session)]
        session: SessionId,
        /// What to call it
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
        /// Also in the store, where it survives everything; says what cannot be saved
        #[arg(long)]
        durable: bool,
        /// Also when something would be missing in it, such as threads
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        common: Common,
    },
    /// List the checkpoints of a session, also of one that has ended
    List {
        /// The session
        #[arg(value_name = "SESSION", value_parser = remote::session)]
        session: SessionId,
        /// The folder of a store: the durable ones in it, without a server
        #[arg(long, value_name = "DIR", conflicts_with = "named")]
        store: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Let the variables of a session be as they were
    Restore {
        /// The session
        #[arg(value_name = "SESSION", value_parser = remote::session)]
        session: SessionId,
        /// The checkpoint (s7.k3); a durable one may be of another session
        #[arg(value_name = "CHECKPOINT", value_parser = checkpoint, required_unless_present = "label")]
        checkpoint: Option<CheckpointId>,
        /// The newest one with this label instead
        #[arg(long, value_name = "TEXT", conflicts_with = "checkpoint")]
        label: Option<String>,
        #[command(flatten)]
        how: How,
        /// Of a durable one: in a fresh worker, so that nothing else is there. Otherwise what else is there stays
        #[arg(long)]
        fresh: bool,
        /// Of a durable one: also with another interpreter or other packages than it was made with
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Let the variables of a session be as they were before its last executions
    Undo {
        /// The session
        #[arg(value_name = "SESSION", value_parser = remote::session)]
        session: SessionId,
        /// How many executions
        #[arg(value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        common: Common,
    },
    /// Open sessions that begin where another one stands, or stood, and print their names
    Fork {
        /// The session
        #[arg(value_name = "SESSION", value_parser = remote::session)]
        session: SessionId,
        /// One that it has in memory [default: as it stands when no code runs]
        #[arg(long, value_name = "CHECKPOINT", value_parser = checkpoint)]
        checkpoint: Option<CheckpointId>,
        /// How many
        #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=BRANCHES_MAX as u64))]
        count: u64,
        /// What people call them; several get a number behind it
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Asked for again with the same key, they are the same sessions
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Also when something would be missing in them, such as threads
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Give checkpoints up that are not needed any more
    Drop {
        /// The checkpoints
        #[arg(value_name = "CHECKPOINT", value_parser = checkpoint, required = true)]
        checkpoints: Vec<CheckpointId>,
        #[command(flatten)]
        common: Common,
    },
    /// Put a session into the store and end its worker; the next request wakes it
    Hibernate {
        /// The session
        #[arg(value_name = "SESSION", value_parser = remote::session)]
        session: SessionId,
        /// Also when something cannot be saved, and is lost
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Write a durable checkpoint into a file on the server's host
    Export {
        /// The checkpoint
        #[arg(value_name = "CHECKPOINT", value_parser = checkpoint)]
        checkpoint: CheckpointId,
        /// The file, which must not be there yet
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The folder of a store: from there, without a server
        #[arg(long, value_name = "DIR", conflicts_with = "named")]
        store: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Take a durable checkpoint in from a file on the server's host; a restore of it runs code of whoever made it
    Import {
        /// The session that will have it
        #[arg(value_name = "SESSION", value_parser = remote::session)]
        session: SessionId,
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The bundle.key beside the store of the server that made it, unless that was this one
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
struct How {
    /// At once: what runs or waits is cancelled. Otherwise when the running code has ended
    #[arg(long)]
    now: bool,
}

/// `s7.k3`
fn checkpoint(text: &str) -> Result<CheckpointId, String> {
    text.parse().map_err(|_| {
        "not a checkpoint; one looks like s7.k3, and `cob checkpoint list` lists them".to_owned()
    })
}

/// A request, and how its reply is told.
struct Request {
    msg_type: &'static str,
    content: Value,
    tell: fn(&Value) -> String,
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    match options.action {
        Action::List { session, store: Some(store), common } => {
            show_list(&stored::list(&store, session)?, session, common.json);
            Ok(())
        }
        Action::List { session, store: None, common } => {
            let content = json!({ "session_id": session.to_string() });
            show_list(&request(&common.server, "checkpoint_list", content)?, session, common.json);
            Ok(())
        }
        Action::Export { checkpoint, file, store: Some(store), common } => {
            let reply = stored::export(&store, checkpoint, &absolute(&file)?)?;
            say(&reply, told::exported, common.json);
            Ok(())
        }
        Action::Drop { checkpoints, common } => checkpoints.into_iter().try_for_each(|checkpoint| {
            request(&common.server, "checkpoint_delete", json!({ "checkpoint": checkpoint }))?;
            let dropped = json!({ "dropped": checkpoint });
            say(&dropped, |reply| format!("{} is dropped", text(&reply["dropped"])), common.json);
            Ok(())
        }),
        action => {
            let (Request { msg_type, content, tell }, common) = read(action)?;
            say(&request(&common.server, msg_type, content)?, tell, common.json);
            Ok(())
        }
    }
}

/// What is asked of the server.
fn read(action: Action) -> Result<(Request, Common), Failure> {
    let (msg_type, content, tell, common): (_, _, fn(&Value) -> String, _) = match action {
        Action::Take { session, label, durable, force, common } => {
            let content = json!({ "session_id": session.to_string(), "durable": durable, "force": force });
            ("checkpoint", with(content, "label", label), told::taken, common)
        }
        Action::Restore { session, checkpoint, label, how, fresh, force, common } => {
            let content =
                json!({ "session_id": session.to_string(), "now": how.now, "fresh": fresh, "force": force });
            let content = with(with(content, "checkpoint", checkpoint), "label", label);
            ("restore", content, told::restored, common)
        }
        Action::Undo { session, count, how, common } => {
            let content = json!({ "session_id": session.to_string(), "undo": count, "now": how.now });
            ("restore", content, told::restored, common)
        }
        Action::Fork { session, checkpoint, count, name, key, force, common } => {
            let content = json!({ "session_id": session.to_string(), "count": count, "force": force });
            let content = with(with(content, "checkpoint", checkpoint), "name", name);
            ("fork", with(content, "idempotency_key", key), told::forked, common)
        }
        Action::Hibernate { session, force, common } => {
            let content = json!({ "session_id": session.to_string(), "force": force });
            ("hibernate", content, told::hibernated, common)
        }
        Action::Export { checkpoint, file, common, .. } => {
            let content = json!({ "checkpoint": checkpoint, "path": absolute(&file)? });
            ("checkpoint_export", content, told::exported, common)
        }
        Action::Import { session, file, key_file, common } => {
            let content = json!({ "session_id": session.to_string(), "path": absolute(&file)? });
            let key = key_file.map(key).transpose()?;
            ("checkpoint_import", with(content, "key", key), told::imported, common)
        }
        Action::List { .. } | Action::Drop { .. } => {
            return Err(Failure::failed("this is no single request"));
        }
    };
    Ok((Request { msg_type, content, tell }, common))
}

/// A field, if there is something to be said there.
fn with(mut content: Value, name: &str, value: Option<impl serde::Serialize>) -> Value {
    if let Some(value) = value {
        content[name] = json!(value);
    }
    content
}

/// The key of a store in hexadecimal digits, which is how it may be written as well.
fn key(file: PathBuf) -> Result<String, Failure> {
    let bytes = std::fs::read(&file)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))?;
    let digits = std::str::from_utf8(&bytes).ok().map(str::trim);
    Ok(match digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        Some(digits) => digits.to_owned(),
        None => hex::encode(bytes),
    })
}

fn request(server: &Server, msg_type: &'static str, content: Value) -> Result<Value, Failure> {
    let mut reply = block_on(async {
        let mut connection = server.connect().await?;
        ask(&mut connection, msg_type, content).await
    })??;
    if let Some(fields) = reply.as_object_mut() {
        fields.remove("status");
    }
    Ok(reply)
}

fn say(reply: &Value, tell: fn(&Value) -> String, json: bool) {
    remote::say(if json { reply.to_string() } else { tell(reply) });
}

fn show_list(listed: &Value, session: SessionId, json: bool) {
    let mut out = io::stdout().lock();
    // A reader that has seen enough (`| head`) is no failure.
    let _ = if json { writeln!(out, "{listed}") } else { told::list(&mut out, listed, &session.to_string()) };
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn asked(arguments: &str) -> Result<(&'static str, Value), String> {
        let line = Line::try_parse_from(["checkpoint"].into_iter().chain(arguments.split(' ')));
        let action = line.map_err(|error| error.to_string())?.options.action;
        let (request, _) = read(action).map_err(|failure| format!("{failure:?}"))?;
        Ok((request.msg_type, request.content))
    }

    #[test]
    fn what_is_typed_is_what_is_asked() {
        let take = json!({ "session_id": "s7", "label": "clean", "durable": true, "force": false });
        assert_eq!(asked("take s7 --label clean --durable"), Ok(("checkpoint", take)));
        let restore = json!({
            "session_id": "s7", "checkpoint": "s6.k3", "now": true, "fresh": true, "force": false,
        });
        assert_eq!(asked("restore s7 s6.k3 --now --fresh"), Ok(("restore", restore)));
        let label = json!({ "session_id": "s7", "label": "a", "now": false, "fresh": false, "force": true });
        assert_eq!(asked("restore s7 --label a --force"), Ok(("restore", label)));
        let undo = json!({ "session_id": "s7", "undo": 1, "now": false });
        assert_eq!(asked("undo s7"), Ok(("restore", undo)));
        assert_eq!(asked("undo s7 3").unwrap().1["undo"], 3);
        let fork = json!({
            "session_id": "s7", "count": 4, "name": "b", "idempotency_key": "k", "checkpoint": "s7.k1", "force": false,
        });
        assert_eq!(asked("fork s7 -n 4 --name b --key k --checkpoint s7.k1"), Ok(("fork", fork)));
        let hibernate = json!({ "session_id": "s7", "force": true });
        assert_eq!(asked("hibernate s7 --force"), Ok(("hibernate", hibernate)));
        let export = json!({ "checkpoint": "s7.k1", "path": "/tmp/x.cob" });
        assert_eq!(asked("export s7.k1 /tmp/x.cob"), Ok(("checkpoint_export", export)));
        let import = json!({ "session_id": "s7", "path": "/tmp/x.cob" });
        assert_eq!(asked("import s7 /tmp/x.cob"), Ok(("checkpoint_import", import)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_it_looks_like() {
        for (arguments, part) in [
            ("restore s7", "CHECKPOINT"),
            ("restore s7 clean", "s7.k3"),
            ("restore s7 s7.k1 --label a", "--label"),
            ("undo s7 0", "0"),
            ("fork s7 --count 0", "1..=256"),
            ("take 7", "s1"),
            ("drop", "CHECKPOINT"),
            ("export s7.k1 x --store y --server z", "--store"),
            ("import s7 /x --key-file /no/such/file", "/no/such/file"),
        ] {
            let error = asked(arguments).unwrap_err();
            assert!(error.contains(part), "{arguments}: {error}");
        }
    }

    #[test]
    fn a_key_is_read_as_bytes_or_as_digits() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bundle.key");
        let bytes: Vec<u8> = (100..132).collect();
        std::fs::write(&file, &bytes).unwrap();
        let digits = key(file.clone()).unwrap();
        assert_eq!(digits, hex::encode(&bytes));
        std::fs::write(&file, format!("{digits}\n")).unwrap();
        assert_eq!(key(file).unwrap(), digits);
    }
}
