//! `cob audit`: what was done through a store, and whether somebody changed what is written about it.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use cob_bridge::{AuditEntry, BridgeError, SqliteReader};
use cob_protocol::limits::READ_EVENTS_MAX;
use serde_json::{Value, json};

use super::{Failure, state};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Recompute the chain of the trail; exit code 1 when it is broken
    Verify {
        #[command(flatten)]
        store: Store,
    },
    /// Show the trail
    Show {
        #[command(flatten)]
        store: Store,
        /// One entry per line, as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct Store {
    /// The folder of the store [default: the store that was used last]
    #[arg(long = "store", value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Store {
    fn open(self) -> Result<SqliteReader, Failure> {
        SqliteReader::open(&state::chosen(self.folder)?).map_err(state::not_opened)
    }
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    match options.command {
        Command::Verify { store } => verify(&mut store.open()?),
        Command::Show { store, json } => {
            show(&mut store.open()?, &mut io::stdout().lock(), json).map_err(Failure::failed)
        }
    }
}

fn verify(store: &mut SqliteReader) -> Result<(), Failure> {
    let head = store.verify_audit().map_err(Failure::failed)?.map_err(Failure::failed)?;
    // A reader that has seen enough is no failure.
    let _ = writeln!(io::stdout(), "audit chain whole: {} entries, head {}", head.seq, hex(&head.hash));
    Ok(())
}

/// Shows page by page, until nobody reads any more.
fn show(store: &mut SqliteReader, out: &mut impl Write, json: bool) -> Result<(), BridgeError> {
    let mut after = 0;
    loop {
        let page = store.audit(after, READ_EVENTS_MAX)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.seq;
        let shown = page
            .iter()
            .try_for_each(|entry| if json { writeln!(out, "{}", line(entry)) } else { row(out, entry) });
        if shown.is_err() {
            return Ok(());
        }
    }
}

fn row(out: &mut impl Write, entry: &AuditEntry) -> io::Result<()> {
    let AuditEntry { seq, at, what, subject, details, .. } = entry;
    // JSON escapes control characters, so nothing of it reaches the terminal.
    writeln!(out, "{seq:6}  {at}  {what:15} {subject:12} {}", details.as_str())
}

fn line(entry: &AuditEntry) -> Value {
    let details: Value = entry.details.read().unwrap_or_default();
    json!({
        "seq": entry.seq,
        "at": entry.at.to_string(),
        "what": entry.what,
        "subject": entry.subject,
        "details": details,
        "hash": hex(&entry.hash),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use cob_bridge::{Group, SqliteStore, Store as _, StoreOptions, Write as Record};
    use cob_protocol::ids::SessionId;
    use cob_protocol::json::Json;
    use cob_protocol::promise::Durability;
    use cob_protocol::time::{Clock, SystemClock};

    use super::*;

    #[test]
    fn the_trail_of_a_store_in_use_is_shown_and_found_whole() {
        let folder = std::env::temp_dir().join(format!("cob-audit-{}", uuid::Uuid::new_v4()));
        let options = StoreOptions { ballast_bytes: 0, ..StoreOptions::new(&folder) };
        let mut store = SqliteStore::open(&options).unwrap();
        let session = SessionId(1);
        let writes =
            vec![Record::OpenSession { session, about: Json::object() }, Record::CloseSession { session }];
        store.commit(&[Group { now: SystemClock.now(), durability: Durability::Process, writes }]).unwrap();
        let mut reader = SqliteReader::open(&folder).unwrap();
        verify(&mut reader).unwrap();
        let mut out = Vec::new();
        show(&mut reader, &mut out, true).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["seq"], &lines[1]["what"]), (&json!(1), &json!("session_closed")));
        assert_eq!(lines[1]["hash"].as_str().unwrap().len(), 64);
        let mut out = Vec::new();
        show(&mut reader, &mut out, false).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("session_opened  s1"));
        drop(store);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
