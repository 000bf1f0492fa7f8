//! `cob logs`: the output of executions, from the server that runs, else from a store that nobody or another process has
//! open.

mod remote;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use cob_bridge::{BridgeError, Filter, Read, SqliteReader, StoreWatch};
use cob_protocol::event::EventNumber;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::limits::{READ_BYTES_MAX, READ_EVENTS_MAX};
use cob_protocol::promise::Kind;

use self::remote::Shown;
use super::printer::Printer;
use super::remote::Server;
use super::{Failure, block_on, state};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A session (s1) or an execution of it (s1.e7) [default: the newest session]
    id: Option<String>,
    /// The folder of a store [default: the server is asked when one runs, else the store that was used last]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Begin with this event of the execution
    #[arg(long, value_name = "NUMBER")]
    from: Option<EventNumber>,
    /// Show also what is yet to come, until the execution or the session has ended
    #[arg(long, short)]
    follow: bool,
    /// One event per line, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    let unknown = match options.id.as_deref().filter(|_| options.store.is_none()) {
        Some(id) => match block_on(from_server(id, &options))?? {
            Shown::Everything => return Ok(()),
            Shown::Nothing(unknown) => unknown,
        },
        None => None,
    };
    match (from_store(options), unknown) {
        // Neither has it: then the server is who was asked.
        (Err(Failure::Usage(_)), Some(unknown)) => Err(unknown),
        (shown, _) => shown,
    }
}

/// From the server, when one runs. What it does not know may be recorded in the store of a kernel.
async fn from_server(id: &str, options: &Options) -> Result<Shown, Failure> {
    let (session, execution) = parse(id)?;
    if options.from.is_some() && execution.is_none() {
        return Err(Failure::usage(FROM));
    }
    let Some(connection) = options.server.running().await? else { return Ok(Shown::Nothing(None)) };
    let from = options.from.unwrap_or(1).max(1);
    let wanted = remote::Wanted { session, execution, from, follows: options.follow };
    let printer = Printer::new(io::stdout(), options.json, io::stdout().is_terminal());
    remote::show(connection, wanted, printer).await
}

fn from_store(options: Options) -> Result<(), Failure> {
    let folder = state::chosen(options.store)?;
    // Before the first look, so that nothing is written between look and wait.
    let mut watch = options.follow.then(|| StoreWatch::new(&folder)).transpose().map_err(|error| {
        Failure::Failed(format!("cannot watch {} for what is written to it: {error}", folder.display()))
    })?;
    let mut store = SqliteReader::open(&folder).map_err(state::not_opened)?;
    let place = Place::find(options.id.as_deref(), options.from, &mut store)?;
    let out = io::stdout().lock();
    let printer = Printer::new(out, options.json, io::stdout().is_terminal());
    let mut reading = Reading { place, printer, is_damaged: false };
    loop {
        match reading.pass(&mut store, watch.is_none()) {
            Ok(Progress::Waits) => {}
            // A reader that has seen enough (`| head`) is no failure.
            Ok(Progress::Ended) | Err(Stop::Unread) => break,
            Err(Stop::Store(error)) => return Err(Failure::failed(error)),
        }
        let Some(watch) = &mut watch else { break };
        watch.wait().map_err(|error| Failure::Failed(format!("cannot watch the store: {error}")))?;
    }
    if reading.is_damaged { Err(Failure::Silent(1)) } else { Ok(()) }
}

const FROM: &str = "--from counts the events of one execution: name it, as in s1.e7";

/// What is shown, and how far it was.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    session: SessionId,
    /// Only this one.
    execution: Option<u64>,
    /// The one that is being shown.
    at: Option<PromiseId>,
    /// The last one that was shown to its end.
    after: Option<PromiseId>,
    next: EventNumber,
}

impl Place {
    fn find(id: Option<&str>, from: Option<EventNumber>, store: &mut impl Read) -> Result<Self, Failure> {
        let sessions = store.sessions().map_err(Failure::failed)?;
        let (session, execution) = match id {
            Some(id) => parse(id)?,
            None => {
                let newest = sessions.last().ok_or_else(|| Failure::usage("no session is recorded here"))?;
                (newest.session, None)
            }
        };
        if !sessions.iter().any(|known| known.session == session) {
            return Err(Failure::Usage(format!("no session {session} is recorded here")));
        }
        let at = execution.map(|execution| PromiseId::execution(session, execution));
        if from.is_some() && at.is_none() {
            return Err(Failure::usage(FROM));
        }
        if let Some(id) = at
            && store.promise(id).map_err(Failure::failed)?.is_none()
        {
            return Err(Failure::Usage(format!("no execution {id} is recorded here")));
        }
        Ok(Self { session, execution, at, after: None, next: from.unwrap_or(1).max(1) })
    }
}

/// `s1` or `s1.e7`.
fn parse(id: &str) -> Result<(SessionId, Option<u64>), Failure> {
    let session = id.strip_prefix('s').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    if let Some(Ok(session)) = session.map(str::parse) {
        return Ok((SessionId(session), None));
    }
    match id.parse::<PromiseId>() {
        Ok(PromiseId { call: Some(_), .. }) => {
            Err(Failure::Usage(format!("{id} is a question: it has no output of its own")))
        }
        Ok(id) => Ok((id.session, Some(id.execution))),
        Err(_) => Err(Failure::Usage(format!("`{id}` is neither a session (s1) nor an execution (s1.e7)"))),
    }
}

/// Whether there will be more.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Waits,
    Ended,
}

/// Why no more is shown.
#[derive(Debug)]
enum Stop {
    /// Nobody reads the output any more.
    Unread,
    Store(BridgeError),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Unread
    }
}

impl From<BridgeError> for Stop {
    fn from(error: BridgeError) -> Self {
        Self::Store(error)
    }
}

struct Reading<W> {
    place: Place,
    printer: Printer<W>,
    /// Some event could not be shown.
    is_damaged: bool,
}

impl<W: io::Write> Reading<W> {
    /// Shows everything that is there; `once`: also of what has not ended.
    fn pass(&mut self, store: &mut impl Read, once: bool) -> Result<Progress, Stop> {
        loop {
            let Some(id) = self.place.at else {
                // The session before its executions: when it was closed by then, none will follow.
                let is_closed = is_closed(store, self.place.session)?;
                let Some(next) = next_execution(store, &self.place)? else {
                    self.printer.flush()?;
                    return Ok(if is_closed { Progress::Ended } else { Progress::Waits });
                };
                self.place.at = Some(next);
                self.place.next = 1;
                continue;
            };
            if !self.execution(store, id)? && !once {
                self.printer.flush()?;
                return Ok(Progress::Waits);
            }
            self.place.at = None;
            self.place.after = Some(id);
            if self.place.execution.is_some() {
                self.printer.flush()?;
                return Ok(Progress::Ended);
            }
        }
    }

    /// Shows what there is of an execution; says whether it is settled and all was shown.
    fn execution(&mut self, store: &mut impl Read, id: PromiseId) -> Result<bool, Stop> {
        // Before its events: once it is settled, everything that it printed is there.
        let is_settled = store.promise(id)?.is_none_or(|promise| promise.state.is_settled());
        loop {
            match store.events(id, self.place.next, READ_EVENTS_MAX, READ_BYTES_MAX) {
                Ok(events) if events.is_empty() => return Ok(is_settled),
                Ok(events) => {
                    for recorded in events {
                        self.printer.event(id, recorded.number, &recorded.at.to_string(), &recorded.event)?;
                        self.place.next = recorded.number + 1;
                    }
                }
                Err(BridgeError::Forgotten { first, .. }) if first > self.place.next => {
                    self.printer.note(&format!("[the events of {id} before {first} are no longer kept]"))?;
                    self.place.next = first;
                }
                Err(error @ BridgeError::Damaged { .. }) => {
                    self.is_damaged = true;
                    self.printer.note(&format!("[{error}]"))?;
                    let BridgeError::Damaged { number, .. } = error else { continue };
                    self.place.next = self.place.next.max(number) + 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_closed(store: &mut impl Read, session: SessionId) -> Result<bool, BridgeError> {
    let sessions = store.sessions()?;
    let record = sessions.iter().find(|record| record.session == session);
    Ok(record.is_none_or(|record| record.closed_at.is_some()))
}

fn next_execution(store: &mut impl Read, place: &Place) -> Result<Option<PromiseId>, BridgeError> {
    let filter = Filter {
        session: Some(place.session),
        kind: Some(Kind::Execution),
        after: place.after,
        count_max: 1,
        ..Filter::default()
    };
    Ok(store.promises(&filter)?.first().map(|promise| promise.id))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cob_bridge::{Group, MemoryStore, NewExecution, Store, Write};
    use cob_protocol::event::Event;
    use cob_protocol::frame::StreamName;
    use cob_protocol::json::Json;
    use cob_protocol::promise::{Durability, SessionState, Settlement, State};
    use cob_protocol::time::{Clock, SystemClock};

    use super::*;

    const SESSION: SessionId = SessionId(1);

    fn write(store: &mut MemoryStore, write: Write) {
        let group = Group { now: SystemClock.now(), durability: Durability::None, writes: vec![write] };
        assert!(store.commit(&[group]).unwrap()[0][0].is_ok());
    }

    fn store() -> MemoryStore {
        let mut store = MemoryStore::default();
        write(&mut store, Write::OpenSession { session: SESSION, about: Json::object() });
        store
    }

    fn execute(store: &mut MemoryStore) {
        let new = NewExecution {
            session: SESSION,
            key: None,
            durability: Durability::None,
            deadline: None,
            request: None,
            start: Some(1),
        };
        write(store, Write::CreateExecution(new));
    }

    fn print(store: &mut MemoryStore, execution: u64, number: EventNumber, text: &str) {
        let id = PromiseId::execution(SESSION, execution);
        let event = Arc::new(Event::Stream { name: StreamName::Stdout, text: text.to_owned() });
        write(store, Write::Append { id, number, event });
    }

    fn settle(store: &mut MemoryStore, execution: u64) {
        let id = PromiseId::execution(SESSION, execution);
        let settlement = Settlement::silent(State::Resolved, Json::object(), SessionState::Kept);
        write(store, Write::Settle { id, settlement });
    }

    fn reading(store: &mut MemoryStore, id: Option<&str>, from: Option<u64>) -> Reading<Vec<u8>> {
        let place = Place::find(id, from, store).unwrap();
        Reading { place, printer: Printer::new(Vec::new(), false, false), is_damaged: false }
    }

    fn text(reading: &Reading<Vec<u8>>) -> String {
        String::from_utf8(reading.printer.out().clone()).unwrap()
    }

    #[test]
    fn a_session_is_shown_in_order_and_followed_until_it_is_closed() {
        let mut store = store();
        execute(&mut store);
        execute(&mut store);
        print(&mut store, 1, 1, "one\n");
        let mut reading = reading(&mut store, None, None);
        assert_eq!(reading.pass(&mut store, false).unwrap(), Progress::Waits);
        print(&mut store, 2, 1, "two\n");
        assert_eq!(reading.pass(&mut store, false).unwrap(), Progress::Waits);
        assert_eq!(text(&reading), "one\n");
        print(&mut store, 1, 2, "more\n");
        settle(&mut store, 1);
        settle(&mut store, 2);
        assert_eq!(reading.pass(&mut store, false).unwrap(), Progress::Waits);
        assert_eq!(text(&reading), "one\nmore\ntwo\n");
        write(&mut store, Write::CloseSession { session: SESSION });
        assert_eq!(reading.pass(&mut store, false).unwrap(), Progress::Ended);
    }

    #[test]
    fn one_execution_is_followed_until_it_is_settled() {
        let mut store = store();
        execute(&mut store);
        execute(&mut store);
        for (number, line) in (1..).zip(["a\n", "b\n", "c\n"]) {
            print(&mut store, 1, number, line);
        }
        let mut reading = reading(&mut store, Some("s1.e1"), Some(2));
        assert_eq!(reading.pass(&mut store, false).unwrap(), Progress::Waits);
        settle(&mut store, 1);
        assert_eq!(reading.pass(&mut store, false).unwrap(), Progress::Ended);
        assert_eq!(text(&reading), "b\nc\n");
    }

    #[test]
    fn without_following_everything_is_shown_at_once() {
        let mut store = store();
        execute(&mut store);
        execute(&mut store);
        print(&mut store, 1, 1, "one\n");
        print(&mut store, 2, 1, "two\n");
        let mut reading = reading(&mut store, Some("s1"), None);
        reading.pass(&mut store, true).unwrap();
        assert_eq!(text(&reading), "one\ntwo\n");
    }

    #[test]
    fn what_is_forgotten_is_said_and_the_rest_shown() {
        let mut store = store();
        execute(&mut store);
        for number in 1..=6 {
            print(&mut store, 1, number, &"x".repeat(1 << 20));
        }
        print(&mut store, 1, 7, "end");
        let mut reading = reading(&mut store, Some("s1.e1"), None);
        reading.pass(&mut store, true).unwrap();
        let text = text(&reading);
        assert!(text.starts_with("[the events of s1.e1 before 4 are no longer kept]\nx"), "{}", &text[..60]);
        assert!(text.ends_with("xend"));
    }

    #[test]
    fn a_wrong_name_is_answered_with_a_sentence() {
        let mut store = store();
        for (id, sentence) in [
            ("x", "neither a session"),
            ("s", "neither a session"),
            ("s99999999999999999999", "neither a session"),
            ("s2", "no session s2"),
            ("s1.e1", "no execution s1.e1"),
            ("s1.e1.c1", "a question"),
        ] {
            let Err(Failure::Usage(text)) = Place::find(Some(id), None, &mut store) else {
                unreachable!("{id} is found")
            };
            assert!(text.contains(sentence), "{text}");
        }
        assert!(Place::find(Some("s1"), Some(3), &mut store).is_err());
        assert!(Place::find(None, None, &mut MemoryStore::default()).is_err());
    }
}
