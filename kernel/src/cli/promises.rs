//! `cob promises`: what was asked for, and what became of it.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use cob_bridge::{Filter, Read, SqliteReader};
use cob_protocol::ids::SessionId;
use cob_protocol::limits::READ_EVENTS_MAX;
use cob_protocol::promise::Promise;
use cob_protocol::time::Timestamp;
use serde_json::{Value, json};

use super::figures::inert;
use super::{Failure, state};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The folder of the store [default: the store that was used last]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Only those of this session
    #[arg(long, value_name = "s1")]
    session: Option<String>,
    /// Only those that are not settled
    #[arg(long)]
    pending: bool,
    /// One promise per line, as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    let session = options.session.as_deref().map(session).transpose()?;
    let folder = state::chosen(options.store)?;
    let mut store = SqliteReader::open(&folder).map_err(state::not_opened)?;
    let filter = Filter {
        session,
        is_settled: options.pending.then_some(false),
        count_max: READ_EVENTS_MAX,
        ..Filter::default()
    };
    let mut out = io::stdout().lock();
    let mut is_first = true;
    let shown = each_page(&mut store, filter, |page| {
        if options.json {
            page.iter().try_for_each(|promise| writeln!(out, "{}", line(promise)))
        } else {
            table(&mut out, page, std::mem::take(&mut is_first))
        }
    });
    shown.map_err(Failure::failed)
}

fn session(text: &str) -> Result<SessionId, Failure> {
    let digits = text.strip_prefix('s').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    number.map(SessionId).ok_or_else(|| Failure::Usage(format!("`{text}` is no session; one looks like s1")))
}

/// Gives all promises page by page, until `show` fails: then nobody reads any more, which is no failure.
fn each_page(
    store: &mut impl Read,
    mut filter: Filter,
    mut show: impl FnMut(&[Promise]) -> io::Result<()>,
) -> Result<(), cob_bridge::BridgeError> {
    loop {
        let page = store.promises(&filter)?;
        let Some(last) = page.last() else { return Ok(()) };
        filter.after = Some(last.id);
        if show(&page).is_err() {
            return Ok(());
        }
    }
}

/// A page for people. The columns are wide enough for what is usual; what is longer moves its own line only.
fn table(out: &mut impl Write, page: &[Promise], with_head: bool) -> io::Result<()> {
    if with_head {
        writeln!(
            out,
            "{:12} {:18} {:20} {:>9} {:>7} {:>9}  KEY",
            "ID", "STATE", "CREATED", "TOOK", "EVENTS", "PRINTED"
        )?;
    }
    for promise in page {
        let is_settled = promise.state.is_settled();
        let figure = |figure: String| if is_settled { figure } else { "-".to_owned() };
        writeln!(
            out,
            "{:12} {:18} {:20} {:>9} {:>7} {:>9}  {}",
            promise.id.to_string(),
            promise.state.as_str(),
            seconds(promise.created_at),
            took(promise).unwrap_or_else(|| "-".to_owned()),
            figure(promise.last_event.to_string()),
            figure(bytes(promise.tally.written)),
            promise.key.as_ref().map_or_else(|| "-".to_owned(), |key| inert(&key.key)),
        )?;
    }
    Ok(())
}

/// A time in whole seconds.
fn seconds(time: Timestamp) -> String {
    let text = time.to_string();
    text.split_once('.').map_or_else(|| text.clone(), |(whole, _)| format!("{whole}Z"))
}

/// From the creation to the end.
fn took(promise: &Promise) -> Option<String> {
    let micros = promise.settled_at?.micros().saturating_sub(promise.created_at.micros()).max(0);
    let ms = micros as f64 / 1e3;
    Some(match ms {
        ..10.0 => format!("{ms:.1} ms"),
        10.0..10_000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.0} s", ms / 1e3),
    })
}

fn bytes(count: u64) -> String {
    match count {
        0..10_240 => format!("{count} B"),
        10_240..10_485_760 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

/// A promise for machines.
fn line(promise: &Promise) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let value: Option<Value> = promise.value.as_ref().and_then(|value| value.read().ok());
    json!({
        "id": promise.id,
        "state": promise.state,
        "durability": promise.durability,
        "principal": promise.key.as_ref().map(|key| &key.principal),
        "key": promise.key.as_ref().map(|key| &key.key),
        "created_at": promise.created_at.to_string(),
        "started_at": time(promise.started_at),
        "deadline": time(promise.deadline),
        "settled_at": time(promise.settled_at),
        "last_event": promise.last_event,
        "tally": promise.tally,
        "session_state": promise.session_state,
        "value": value,
    })
}

#[cfg(test)]
mod tests {
    use cob_bridge::{Group, MemoryStore, NewExecution, Store, Write as Record};
    use cob_protocol::json::Json;
    use cob_protocol::promise::{Durability, Key, SessionState, Settlement, State, Tally};

    use super::*;

    const SESSION: SessionId = SessionId(1);

    fn store() -> MemoryStore {
        let mut store = MemoryStore::default();
        let at = Timestamp::from_micros(1_700_000_000_000_000);
        let commit = |store: &mut MemoryStore, now, write| {
            let group = Group { now, durability: Durability::None, writes: vec![write] };
            assert!(store.commit(&[group]).unwrap()[0][0].is_ok());
        };
        commit(&mut store, at, Record::OpenSession { session: SESSION, about: Json::object() });
        for key in ["one\x1b[2J", "two"] {
            let key = Key { principal: "me".into(), key: key.into(), body: [0; 32] };
            let new = NewExecution {
                session: SESSION,
                key: Some(key),
                durability: Durability::Process,
                deadline: None,
                request: None,
                start: None,
            };
            commit(&mut store, at, Record::CreateExecution(new));
        }
        let settlement = Settlement {
            last_event: 3,
            tally: Tally { written: 20_480, dropped: 0 },
            ..Settlement::silent(
                State::Resolved,
                Json::parse("{\"status\":\"ok\"}").unwrap(),
                SessionState::Kept,
            )
        };
        let id = "s1.e1".parse().unwrap();
        for number in 1..=3 {
            let event = std::sync::Arc::new(cob_protocol::event::Event::ClearOutput { wait: false });
            commit(&mut store, at, Record::Append { id, number, event });
        }
        commit(&mut store, at.after_ms(1500), Record::Settle { id, settlement });
        store
    }

    fn shown(show: impl Fn(&mut Vec<u8>, &[Promise]) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        let filter = Filter { count_max: 1, ..Filter::default() };
        each_page(&mut store(), filter, |page| show(&mut out, page)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_shows_what_became_of_each_and_no_escape_sequence() {
        let text = shown(|out, page| table(out, page, page[0].id.execution == 1));
        let expected = "\
ID           STATE              CREATED                   TOOK  EVENTS   PRINTED  KEY
s1.e1        resolved           2023-11-14T22:13:20Z   1500 ms       3    20 KiB  one\u{fffd}[2J
s1.e2        pending            2023-11-14T22:13:20Z         -       -         -  two
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_line_of_json_holds_the_whole_promise() {
        let text = shown(|out, page| page.iter().try_for_each(|promise| writeln!(out, "{}", line(promise))));
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["value"]["status"], "ok");
        assert_eq!((&lines[0]["id"], &lines[1]["state"]), (&json!("s1.e1"), &json!("pending")));
    }

    #[test]
    fn a_session_is_named_as_everywhere() {
        assert_eq!(session("s12").unwrap(), SessionId(12));
        for wrong in ["12", "s", "s1.e1", "s+1", ""] {
            assert!(matches!(session(wrong), Err(Failure::Usage(_))), "{wrong}");
        }
    }
}
