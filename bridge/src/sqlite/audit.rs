//! The audit trail: what happened, in an order that nobody can change without being found out.
//!
//! Every row carries a SHA-256 over the hash of the row before it (of 32 zeros for the first) and over all of its own
//! columns, in this encoding: `previous hash | seq: u64 | at: i64 | what | subject | details`, numbers in big-endian
//! order, texts as UTF-8 behind their length as a u64. Every session keeps the hash of its last row, and every settled
//! promise that of its own settlement, which its asker was told; so rows that were changed, removed, inserted, exchanged or cut off
//! at the end are found, and a trail that was rewritten as a whole does not agree with what askers were told.
//!
//! A row is written by the transaction that makes the change. Rows are never removed.

use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::promise::{Kind, Promise};
use cob_protocol::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::fault::{Fault, Outcome};
use super::rows::name;
use super::standing::Sessions;
use crate::rules::kind;
use crate::store::NewExecution;

/// The end of the trail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Number of the last row; 0: there is none.
    pub seq: i64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// The trail is not what was written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the audit trail is broken at row {seq}: {what}")]
pub struct Broken {
    /// The first row that is wrong.
    pub seq: i64,
    /// What is wrong with it.
    pub what: String,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    SessionOpened,
    SessionClosed,
    Accepted,
    Started,
    Settled,
    CallOpened,
    CallSettled,
    Recovered,
}

impl Deed {
    fn as_str(self) -> &'static str {
        match self {
            Self::SessionOpened => "session_opened",
            Self::SessionClosed => "session_closed",
            Self::Accepted => "accepted",
            Self::Started => "started",
            Self::Settled => "settled",
            Self::CallOpened => "call_opened",
            Self::CallSettled => "call_settled",
            Self::Recovered => "recovered",
        }
    }
}

/// What is written down of it: of secrets and answers nothing, of code its hash.
#[derive(Default, Serialize)]
pub(super) struct Details<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

impl<'a> Details<'a> {
    pub(super) fn accepted(new: &'a NewExecution) -> Self {
        match &new.key {
            Some(key) => Self {
                principal: Some(&key.principal),
                key: Some(&key.key),
                body: Some(hex::encode(key.body)),
                ..Self::default()
            },
            None => {
                Self { body: new.request.as_ref().map(|request| sha(request.as_str())), ..Self::default() }
            }
        }
    }

    pub(super) fn text(text: &str) -> Self {
        Self { body: Some(sha(text)), ..Self::default() }
    }

    pub(super) fn started(count: u32) -> Self {
        Self { count: Some(count), ..Self::default() }
    }

    pub(super) fn settled(promise: &'a Promise) -> Self {
        let state = Some(promise.state.as_str());
        if kind(promise.id) == Kind::Call {
            // Even the hash of an answer would give a short password away.
            return Self { state, ..Self::default() };
        }
        Self {
            state,
            session_state: promise.session_state.map(|state| state.as_str()),
            last_event: Some(promise.last_event),
            value: promise.value.as_ref().map(|value| sha(value.as_str())),
            ..Self::default()
        }
    }
}

fn sha(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Who it happened to.
pub(super) enum Subject {
    Session(SessionId),
    Promise(PromiseId),
}

impl Subject {
    /// The session that it is, or belongs to.
    pub(super) fn session(&self) -> SessionId {
        match self {
            Self::Session(session) => *session,
            Self::Promise(id) => id.session,
        }
    }
}

const INSERT: &str =
    "INSERT INTO audit (seq, at, what, subject, details, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// Adds a row; `head` becomes it.
pub(super) fn record(
    connection: &Connection,
    head: &mut Head,
    at: Timestamp,
    deed: Deed,
    subject: &Subject,
    details: &Details<'_>,
) -> Outcome<()> {
    let subject = match subject {
        Subject::Session(session) => session.to_string(),
        Subject::Promise(id) => id.to_string(),
    };
    let details =
        serde_json::to_string(details).map_err(|error| Fault::Damaged(format!("an audit row: {error}")))?;
    let seq = head.seq + 1;
    let hash = hash(&head.hash, seq, at.micros(), deed.as_str(), &subject, &details);
    connection.prepare_cached(INSERT)?.execute(params![
        seq,
        at.micros(),
        deed.as_str(),
        subject,
        details,
        hash.as_slice()
    ])?;
    *head = Head { seq, hash };
    Ok(())
}

fn hash(previous: &[u8; 32], seq: i64, at: i64, what: &str, subject: &str, details: &str) -> [u8; 32] {
    let mut sum = Sha256::new();
    sum.update(previous);
    sum.update(seq.cast_unsigned().to_be_bytes());
    sum.update(at.to_be_bytes());
    for text in [what, subject, details] {
        sum.update((text.len() as u64).to_be_bytes());
        sum.update(text.as_bytes());
    }
    sum.finalize().into()
}

/// The end of the trail.
pub(super) fn head(connection: &Connection) -> Outcome<Head> {
    let sql = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    let head = |row: &rusqlite::Row<'_>| Ok(Head { seq: row.get(0)?, hash: row.get(1)? });
    Ok(connection.prepare_cached(sql)?.query_row([], head).optional()?.unwrap_or_default())
}

const ROWS: &str = "SELECT seq, at, what, subject, details, hash FROM audit ORDER BY seq";
const SETTLED: &str = "SELECT state, audit FROM promises WHERE session = ?1 AND execution = ?2 AND call = ?3";
const UNWITNESSED: &str = "SELECT count(*) FROM promises WHERE audit IS NOT NULL";

/// Goes through the whole trail.
pub(super) fn verify(connection: &Connection) -> Outcome<Result<Head, Broken>> {
    let snapshot = connection.unchecked_transaction()?;
    let mut head = Head::default();
    let mut witnessed = 0;
    let mut statement = snapshot.prepare(ROWS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let broken = |what: &str| Ok(Err(Broken { seq: head.seq + 1, what: what.to_owned() }));
        let (what, subject): (String, String) = (row.get(2)?, row.get(3)?);
        let (seq, found): (i64, [u8; 32]) = (row.get(0)?, row.get(5)?);
        if seq != head.seq + 1 {
            return broken("it is missing");
        }
        if hash(&head.hash, seq, row.get(1)?, &what, &subject, &row.get::<_, String>(4)?) != found {
            return broken("its hash is not that of what it says and of the row before it");
        }
        if matches!(what.as_str(), "settled" | "call_settled") {
            if settled_with(&snapshot, &subject)? != Some(found) {
                return broken("the promise that it names was told another hash");
            }
            witnessed += 1;
        }
        head = Head { seq, hash: found };
    }
    let last =
        Sessions::all(&snapshot)?.into_iter().map(|session| session.kept.audit).max_by_key(|head| head.seq);
    if last.unwrap_or_default() != head {
        return Ok(Err(Broken { seq: head.seq + 1, what: "the trail was cut off or grown here".to_owned() }));
    }
    let told: i64 = snapshot.query_row(UNWITNESSED, [], |row| row.get(0))?;
    if told != witnessed {
        return Ok(Err(Broken {
            seq: head.seq,
            what: "promises were settled that it does not name".to_owned(),
        }));
    }
    Ok(Ok(head))
}

fn settled_with(connection: &Connection, subject: &str) -> Outcome<Option<[u8; 32]>> {
    let Some(name) = subject.parse().ok().and_then(name) else { return Ok(None) };
    let mut statement = connection.prepare_cached(SETTLED)?;
    let hash = statement.query_row(name, |row| row.get::<_, Option<[u8; 32]>>(1)).optional()?;
    Ok(hash.flatten())
}
