//! One write within a transaction.
//!
//! **Invariant:** a write is decided before anything is changed, so a refused one leaves no trace. One that fails
//! leaves whatever it left to the rollback of the whole transaction, and the caller forgets all that was remembered.

use std::sync::Arc;

use cob_protocol::event::{Event, EventNumber};
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{Operation, Promise};
use cob_protocol::time::Timestamp;
use rusqlite::{Connection, params};

use super::audit::{self, Deed, Details, Head, Subject};
use super::fault::{Fault, Outcome};
use super::history::Cells;
use super::live::{Live, LivePromises, by_name, one};
use super::rows::{
    EVENT_MAX, body_checksum, durability_code, name, promise_checksum, session_state_code, state_code, table,
};
use super::standing::{Session, Sessions};
use super::{bundles, events, history};
use crate::chunks::BundleMetrics;
use crate::payloads::Payloads;
use crate::rules::{
    execution_of, join, must_be_complete, must_be_execution, must_be_open, pending, whole_micros,
};
use crate::store::{BridgeError, Created, NewExecution, OutputState, Recorded, StoreError, Write, Written};

/// What is remembered between commits: nothing that is not in the database too.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// How many promises there are, and the row of the last one: none is ever removed.
    promises: i64,
    pending: usize,
    audit: Head,
    pub(super) cells: Cells,
    pub(super) sessions: Sessions,
    pub(super) bundles: BundleMetrics,
    live: LivePromises,
}

impl Remembered {
    pub(super) fn read(connection: &Connection) -> Outcome<Self> {
        let number = |sql| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
        Ok(Self {
            promises: number("SELECT coalesce(max(id), 0) FROM promises")?,
            pending: number("SELECT count(*) FROM promises WHERE state < 2")?.max(0).cast_unsigned() as usize,
            audit: audit::head(connection)?,
            cells: Cells::read(connection)?,
            bundles: bundles::metrics(connection)?,
            ..Self::default()
        })
    }

    /// The last thing before a commit.
    pub(super) fn flush(&mut self, connection: &Connection) -> Outcome<()> {
        self.sessions.flush(connection)
    }

    /// The first thing after it.
    pub(super) fn committed(&mut self) {
        self.live.let_go();
    }
}

/// A transaction that is under way.
pub(super) struct Transaction<'a> {
    pub(super) connection: &'a Connection,
    pub(super) remembered: &'a mut Remembered,
    pub(super) payloads: &'a Payloads,
    pub(super) pending_max: usize,
    pub(super) is_power: bool,
    pub(super) now: Timestamp,
}

const INSERT: &str = "INSERT INTO promises (id, session, execution, call, state, durability, created_at, started_at, \
    deadline, principal, key, body, last_event, written, dropped, checksum, request, request_checksum) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, 0, 0, ?13, ?14, ?15)";
const START: &str = "UPDATE promises SET state = ?2, started_at = ?3, checksum = ?4 WHERE id = ?1";
const SETTLE: &str = "UPDATE promises SET state = ?2, settled_at = ?3, last_event = ?4, written = ?5, dropped = ?6, \
    session_state = ?7, value = ?8, audit = ?9, checksum = ?10, \
    request = CASE call WHEN 0 THEN NULL ELSE request END, \
    request_checksum = CASE call WHEN 0 THEN NULL ELSE request_checksum END WHERE id = ?1";
const OUTPUT: &str = "INSERT INTO outputs (id, state, checksum) VALUES (?1, ?2, ?3) \
    ON CONFLICT (id) DO UPDATE SET state = ?2, checksum = ?3";

impl Transaction<'_> {
    pub(super) fn write(&mut self, write: &Write) -> Outcome<Written> {
        match write {
            Write::OpenSession { session, about } => self.open_session(*session, about)?,
            Write::Custody { session, custody } => {
                let record = self.open(*session)?.change();
                record.custody = custody.clone();
                if custody.is_none() {
                    // Its next worker counts from 0.
                    record.progress = Default::default();
                }
            }
            Write::Progress { session, progress } => self.open(*session)?.change().progress = *progress,
            Write::Recover { session } => {
                self.open(*session)?;
                self.audit(Deed::Recovered, &Subject::Session(*session), &Details::default())?;
            }
            Write::NumberCheckpoints { session, up_to } => {
                let record = self.open(*session)?.change();
                record.checkpoints = record.checkpoints.max(*up_to);
            }
            Write::KeepBundle(bundle) => {
                self.open(bundle.view.checkpoint.session)?;
                self.keep_bundle(bundle)?;
            }
            Write::RemoveBundle { checkpoint } => self.remove_bundle(*checkpoint)?,
            Write::CloseSession { session } => {
                let now = self.now;
                self.open(*session)?.change().closed_at = Some(now);
                self.audit(Deed::SessionClosed, &Subject::Session(*session), &Details::default())?;
            }
            Write::CreateExecution(new) => return self.create_execution(new).map(Written::Created),
            Write::CreateCall { id, request, deadline } => self.create_call(*id, request, *deadline)?,
            Write::Start { id, count } => self.start(*id, *count)?,
            Write::Append { id, number, event } => self.append(*id, *number, event)?,
            Write::Output { id, output } => self.output(*id, output)?,
            Write::Settle { id, settlement } => {
                return self.settle(*id, Operation::Settle(settlement.clone()));
            }
            Write::Expire { id, settlement } => {
                return self.settle(*id, Operation::Expire(settlement.clone()));
            }
            Write::HistoryInput { session, execution, line, source } => {
                self.open(*session)?;
                history::input(self.connection, self.remembered, (*session, *execution), *line, source)?;
            }
            Write::HistoryOutput { session, line, text } => {
                self.open(*session)?;
                history::output(self.connection, self.remembered, *session, *line, text)?;
            }
        }
        Ok(Written::Done)
    }

    pub(super) fn audit(&mut self, deed: Deed, subject: &Subject, details: &Details<'_>) -> Outcome<()> {
        let Remembered { audit, sessions, .. } = &mut *self.remembered;
        audit::record(self.connection, audit, self.now, deed, subject, details)?;
        if let Some(session) = sessions.get(self.connection, subject.session())? {
            session.change_kept().audit = *audit;
        }
        Ok(())
    }

    fn open_session(&mut self, session: SessionId, about: &Json) -> Outcome<()> {
        if i64::try_from(session.0).is_err() {
            return Err(BridgeError::UnknownSession(session).into());
        }
        let sessions = &mut self.remembered.sessions;
        if sessions.get(self.connection, session)?.is_some() {
            return Err(BridgeError::Exists(session.to_string()).into());
        }
        sessions.open(self.connection, session, about, self.now)?;
        self.audit(Deed::SessionOpened, &Subject::Session(session), &Details::text(about.as_str()))
    }

    /// A session that is open.
    fn open(&mut self, session: SessionId) -> Outcome<&mut Session> {
        let found = self.remembered.sessions.get(self.connection, session)?;
        let open = found.filter(|session| session.record.closed_at.is_none());
        open.ok_or_else(|| BridgeError::UnknownSession(session).into())
    }

    fn create_execution(&mut self, new: &NewExecution) -> Outcome<Created> {
        let number = self.open(new.session)?.record.executions + 1;
        if let Some(key) = &new.key {
            let scope = params![new.session.0.cast_signed(), key.principal, key.key];
            let known = one(self.connection, "session = ?1 AND principal = ?2 AND key = ?3", scope)?;
            if let Some((_, known)) = known {
                return Ok(join(known, new)?);
            }
        }
        let id = PromiseId::execution(new.session, number);
        let mut promise = pending(id, new.durability, self.now);
        promise.key = new.key.clone();
        promise.deadline = new.deadline.map(whole_micros);
        if new.start.is_some() {
            let refused = |refused| BridgeError::Refused { id, refused };
            promise.apply(Operation::Start, self.now).map_err(refused)?;
        }
        self.insert(promise, new.request.as_ref())?;
        let session = self.open(new.session)?.change();
        session.executions = number;
        session.count = session.count.max(new.start.unwrap_or_default());
        self.audit(Deed::Accepted, &Subject::Promise(id), &Details::accepted(new))?;
        if let Some(count) = new.start {
            self.audit(Deed::Started, &Subject::Promise(id), &Details::started(count))?;
        }
        Ok(Created::New(id))
    }

    fn create_call(&mut self, id: PromiseId, request: &Json, deadline: Option<Timestamp>) -> Outcome<()> {
        let of = &self.remembered.live.get(self.connection, execution_of(id)?)?.promise;
        must_be_open(of.id, of.state)?;
        let mut promise = pending(id, of.durability, self.now);
        promise.deadline = deadline.map(whole_micros);
        if by_name(self.connection, id)?.is_some() {
            return Err(BridgeError::Exists(id.to_string()).into());
        }
        self.insert(promise, Some(request))?;
        self.audit(Deed::CallOpened, &Subject::Promise(id), &Details::text(request.as_str()))
    }

    fn insert(&mut self, promise: Promise, request: Option<&Json>) -> Outcome<()> {
        let Remembered { promises, pending, live, .. } = &mut *self.remembered;
        if *pending >= self.pending_max {
            return Err(BridgeError::Full(*pending).into());
        }
        let (session, execution, call) = name(promise.id).ok_or(BridgeError::Unknown(promise.id))?;
        let row = *promises + 1;
        let text = request.map(Json::as_str);
        let request_checksum = text.map(|text| body_checksum(table::REQUESTS, &[row], text.as_bytes()));
        self.connection.prepare_cached(INSERT)?.execute(params![
            row,
            session,
            execution,
            call,
            state_code(promise.state),
            durability_code(promise.durability),
            promise.created_at.micros(),
            promise.started_at.map(Timestamp::micros),
            promise.deadline.map(Timestamp::micros),
            promise.key.as_ref().map(|key| key.principal.as_str()),
            promise.key.as_ref().map(|key| key.key.as_str()),
            promise.key.as_ref().map(|key| key.body.as_slice()),
            promise_checksum(row, &promise),
            text,
            request_checksum
        ])?;
        *promises = row;
        *pending += 1;
        live.insert(Live { row, promise, next_event: 1 });
        Ok(())
    }

    fn start(&mut self, id: PromiseId, count: u32) -> Outcome<()> {
        must_be_execution(id)?;
        let live = self.remembered.live.get(self.connection, id)?;
        let refused = |refused| BridgeError::Refused { id, refused };
        live.promise.apply(Operation::Start, self.now).map_err(refused)?;
        let (row, promise) = (live.row, &live.promise);
        self.connection.prepare_cached(START)?.execute(params![
            row,
            state_code(promise.state),
            promise.started_at.map(Timestamp::micros),
            promise_checksum(row, promise)
        ])?;
        if let Some(session) = self.remembered.sessions.get(self.connection, id.session)? {
            let record = session.change();
            record.count = record.count.max(count);
        }
        self.audit(Deed::Started, &Subject::Promise(id), &Details::started(count))
    }

    /// Also after the settlement: what children of the code still print.
    fn append(&mut self, id: PromiseId, number: EventNumber, event: &Arc<Event>) -> Outcome<()> {
        must_be_execution(id)?;
        let live = self.remembered.live.get(self.connection, id)?;
        if number != live.next_event {
            return Err(BridgeError::Misnumbered { id, expected: live.next_event, given: number }.into());
        }
        if number > EVENT_MAX {
            let what = format!("{id} has {EVENT_MAX} events, which is all that an execution may have");
            let store = String::from("the journal");
            return Err(Fault::Refused(StoreError::Failed { store, what }.into()));
        }
        let recorded = Recorded { number, at: self.now, event: Arc::clone(event) };
        events::write(self.connection, self.payloads, live.row, &recorded, self.is_power)?;
        live.next_event += 1;
        let bytes = event.bytes() as i64;
        if let Some(session) = self.remembered.sessions.get(self.connection, id.session)? {
            let kept = session.change_kept();
            kept.events += 1;
            kept.event_bytes += bytes;
        }
        Ok(())
    }

    fn output(&mut self, id: PromiseId, output: &OutputState) -> Outcome<()> {
        must_be_execution(id)?;
        let live = self.remembered.live.get(self.connection, id)?;
        must_be_open(id, live.promise.state)?;
        let state = rmp_serde::to_vec_named(output)
            .map_err(|error| Fault::Damaged(format!("an output that cannot be encoded: {error}")))?;
        let checksum = body_checksum(table::OUTPUTS, &[live.row], &state);
        self.connection.prepare_cached(OUTPUT)?.execute(params![live.row, state, checksum])?;
        Ok(())
    }

    fn settle(&mut self, id: PromiseId, operation: Operation) -> Outcome<Written> {
        let (connection, now) = (self.connection, self.now);
        let live = self.remembered.live.get(connection, id)?;
        let refused = |refused| BridgeError::Refused { id, refused };
        must_be_complete(&live.promise, &operation, live.next_event)?;
        live.promise.apply(operation, now).map_err(refused)?;
        let (row, mut promise) = (live.row, live.promise.clone());
        let deed = if id.call.is_some() { Deed::CallSettled } else { Deed::Settled };
        self.audit(deed, &Subject::Promise(id), &Details::settled(&promise))?;
        promise.audit = Some(self.remembered.audit.hash);
        connection.prepare_cached(SETTLE)?.execute(params![
            row,
            state_code(promise.state),
            promise.settled_at.map(Timestamp::micros),
            promise.last_event.cast_signed(),
            promise.tally.written.cast_signed(),
            promise.tally.dropped.cast_signed(),
            promise.session_state.map(session_state_code),
            promise.value.as_ref().map(Json::as_str),
            promise.audit.as_ref().map(<[u8; 32]>::as_slice),
            promise_checksum(row, &promise)
        ])?;
        // Nobody goes on with it.
        connection.prepare_cached("DELETE FROM outputs WHERE id = ?1")?.execute([row])?;
        self.remembered.pending -= 1;
        self.remembered.live.settled(id);
        Ok(Written::Settled(Box::new(promise)))
    }
}
