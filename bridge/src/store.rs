//! What a store must be able to do. Everything here is synchronous, and time is an argument: the writer's thread and
//! the tests call it, nobody else.

use std::sync::Arc;

use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::event::{Event, EventNumber};
use cob_protocol::frame::StreamName;
use cob_protocol::ids::{CheckpointId, PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::limits::BALLAST_BYTES;
use cob_protocol::promise::{Durability, Key, Kind, Promise, Settlement};
use cob_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::chunks::Pinned;
use crate::history::Entry;
use crate::rules;

pub use crate::error::{BridgeError, StoreError};

/// Writes that are committed together or not at all, at one time.
#[derive(Clone, Debug)]
pub struct Group {
    /// When.
    pub now: Timestamp,
    /// How safe they must be when [`Store::commit`] returns.
    pub durability: Durability,
    /// What, in order. Each is accepted or refused for itself; a refused one changes nothing.
    pub writes: Vec<Write>,
}

/// One change.
#[derive(Clone, Debug)]
pub enum Write {
    /// A session begins. Refused when its number was used before.
    OpenSession {
        /// Its name.
        session: SessionId,
        /// What it is, for people and for whoever starts it again: a JSON object.
        about: Json,
    },
    /// Where the worker of a session can be found after the death of its server; `None`: it has none.
    Custody {
        /// The session.
        session: SessionId,
        /// The place, with its secret.
        custody: Option<Custody>,
    },
    /// How far the session's present worker is recorded: in one group with what was recorded.
    Progress {
        /// The session.
        session: SessionId,
        /// So far.
        progress: Progress,
    },
    /// A session goes on although its last server did not end it: for the audit trail.
    Recover {
        /// The session.
        session: SessionId,
    },
    /// Checkpoint numbers of a session up to this one are taken: they are never given again. One that is
    /// lower changes nothing.
    NumberCheckpoints {
        /// The session.
        session: SessionId,
        /// The last number.
        up_to: u64,
    },
    /// A bundle is there from here on; its chunks are on the disk. Refused when its number was used, or when its
    /// session has [`BUNDLES_MAX`](cob_protocol::limits::BUNDLES_MAX).
    KeepBundle(Box<BundleRecord>),
    /// A bundle is given up.
    RemoveBundle {
        /// Its name.
        checkpoint: CheckpointId,
    },
    /// A session ends in order. What is pending in it must have been settled before.
    CloseSession {
        /// The session.
        session: SessionId,
    },
    /// A promise for a request that runs code; the store numbers it.
    CreateExecution(NewExecution),
    /// A promise for a question of running code; the execution numbers its own calls, from 1.
    CreateCall {
        /// Its name.
        id: PromiseId,
        /// What is asked, and the worker's number for it: a JSON object.
        request: Json,
        /// When nobody needs to answer any more.
        deadline: Option<Timestamp>,
    },
    /// An execution is about to be handed to a worker.
    Start {
        /// Which.
        id: PromiseId,
        /// `In [count]`, for the session's next start.
        count: u32,
    },
    /// An event of an execution, which numbers them itself: `number` must be the next one.
    Append {
        /// The execution.
        id: PromiseId,
        /// From 1.
        number: EventNumber,
        /// What happened.
        event: Arc<Event>,
    },
    /// What was printed and is not an event yet, or never will be.
    Output {
        /// The execution.
        id: PromiseId,
        /// So far.
        output: OutputState,
    },
    /// A promise ends.
    Settle {
        /// Which.
        id: PromiseId,
        /// How.
        settlement: Settlement,
    },
    /// The deadline of a promise has passed; refused when it has not.
    Expire {
        /// Which.
        id: PromiseId,
        /// The content of its reply, and the rest.
        settlement: Settlement,
    },
    /// A cell enters the input history.
    HistoryInput {
        /// Its session.
        session: SessionId,
        /// The number of its execution; 0: not known.
        execution: u64,
        /// `In [line]`
        line: u32,
        /// The code.
        source: String,
    },
    /// The result of a cell, as text, enters the history.
    HistoryOutput {
        /// Its session.
        session: SessionId,
        /// `Out[line]`
        line: u32,
        /// The text.
        text: String,
    },
}

/// A bundle as it is recorded.
#[derive(Clone, Debug)]
pub struct BundleRecord {
    /// What is known of it.
    pub view: CheckpointView,
    /// What is signed of it.
    pub signed: SignedManifest,
    /// Its chunks, each once, and how long they are.
    pub chunks: Vec<(ChunkHash, u32)>,
    /// Until it is recorded no sweep takes them.
    pub(crate) _pinned: Option<Arc<Pinned>>,
}

/// What a bundle says of itself, and that we said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedManifest {
    /// JSON.
    pub body: Vec<u8>,
    /// HMAC-SHA256 of it.
    pub mac: [u8; 32],
}

/// SHA-256 of a chunk of bundles.
pub type ChunkHash = [u8; 32];

/// A request for an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewExecution {
    /// Where it is to run.
    pub session: SessionId,
    /// Names the request.
    pub key: Option<Key>,
    /// How safe its records shall be.
    pub durability: Durability,
    /// When it is settled as timed out at the latest.
    pub deadline: Option<Timestamp>,
    /// Everything that is needed to run it and to reply to it: a JSON object. Absent: it is not run after a restart.
    pub request: Option<Json>,
    /// Recorded as started by the same write, with this count: nothing stands before it.
    pub start: Option<u32>,
}

/// Where a worker can be fetched by the next server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custody {
    /// Path of the custodian's socket.
    pub socket: String,
    /// What it must be told: good for one attachment.
    pub secret: String,
}

/// How far a worker is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Number of its last frame.
    pub frames: u64,
    /// Bytes of its stdout.
    pub stdout: u64,
    /// Bytes of its stderr.
    pub stderr: u64,
}

/// What an execution printed besides its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputState {
    /// Bytes written so far.
    pub written: u64,
    /// Of these, dropped for good.
    pub dropped: u64,
    /// Of these, recorded in events.
    pub head: u64,
    /// The end of the rest, which becomes events when the execution ends.
    pub tail: Vec<(StreamName, String)>,
    /// The beginning of a character whose rest has not come: of stdout, of stderr.
    #[serde(default)]
    pub incomplete: [Vec<u8>; 2],
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is done.
    Done,
    /// Of [`Write::CreateExecution`].
    Created(Created),
    /// Of [`Write::Settle`] and [`Write::Expire`]: the promise as it now stands, for ever.
    Settled(Box<Promise>),
}

/// What became of a request for an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// Recorded; whoever asked shall see to it that it is settled.
    New(PromiseId),
    /// The key named this one: wait for it, or give its value.
    Joined(Box<Promise>),
}

/// A place where promises and events are recorded.
pub trait Store: Send {
    /// Commits groups together; the outcome of every write, by group.
    ///
    /// # Errors
    /// [`StoreError`]: nothing of any of the groups was recorded.
    fn commit(&mut self, groups: &[Group]) -> Result<Vec<Outcomes>, StoreError>;

    /// The same for one group, on the thread of whoever submits it: only when that takes no waiting, for the disk, for
    /// a lock or for anything else. `None`: nothing was recorded, and [`Store::commit`] will say why if it cannot.
    ///
    /// # Errors
    /// [`StoreError::Unsynced`], which must not be tried again: the second time the system says that all is well.
    fn commit_now(&mut self, _group: &Group) -> Result<Option<Outcomes>, StoreError> {
        Ok(None)
    }

    /// One step of what can wait until nobody waits: longer than a commit, but bounded. Says whether there is more.
    ///
    /// # Errors
    /// As above; what was recorded is as it was.
    fn tidy(&mut self, _now: Timestamp) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// One bounded step of removing what is given up already and still takes room. Says whether there is more.
    ///
    /// # Errors
    /// As above; what was recorded is as it was.
    fn discard(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Free space on its disk; `None`: it has no disk, or cannot tell.
    fn free_bytes(&mut self) -> Option<u64> {
        None
    }

    /// How much space is kept in reserve.
    fn ballast_bytes(&self) -> u64 {
        BALLAST_BYTES
    }

    /// Whether space is kept in reserve.
    fn has_ballast(&mut self) -> bool {
        true
    }

    /// Gives up the space that was kept in reserve.
    fn release_ballast(&mut self) {}

    /// Keeps space in reserve again; says whether there was room for it.
    fn restore_ballast(&mut self) -> bool {
        true
    }

    /// Ends in order: little is left to be done when it is opened again. Nothing is written after that.
    ///
    /// # Errors
    /// As above; what was recorded is as it was.
    fn close(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The outcome of every write of a group.
pub type Outcomes = Vec<Result<Written, BridgeError>>;

/// What can be asked of a store. A reader sees whole commits only.
pub trait Read: Send {
    /// The promise, if it is known.
    ///
    /// # Errors
    /// [`BridgeError::Store`], here and below.
    fn promise(&mut self, id: PromiseId) -> Result<Option<Promise>, BridgeError>;

    /// The promise that a key names.
    ///
    /// # Errors
    /// As above.
    fn find(
        &mut self,
        session: SessionId,
        principal: &str,
        key: &str,
    ) -> Result<Option<Promise>, BridgeError>;

    /// What was asked for, as it was recorded; kept until the promise is settled.
    ///
    /// # Errors
    /// As above.
    fn request(&mut self, id: PromiseId) -> Result<Option<Json>, BridgeError>;

    /// Promises in the order of their names.
    ///
    /// # Errors
    /// As above.
    fn promises(&mut self, filter: &Filter) -> Result<Vec<Promise>, BridgeError>;

    /// Events of an execution from number `from` on: at least one if there is one, at most `count_max`, and not many
    /// more bytes than `bytes_max`.
    ///
    /// # Errors
    /// As above; [`BridgeError::Unknown`]; [`BridgeError::Forgotten`] when the journal no longer has that number.
    fn events(
        &mut self,
        id: PromiseId,
        from: EventNumber,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Recorded>, BridgeError>;

    /// Every session, oldest first.
    ///
    /// # Errors
    /// As above.
    fn sessions(&mut self) -> Result<Vec<SessionRecord>, BridgeError>;

    /// The session, if there ever was one with this number.
    ///
    /// # Errors
    /// As above.
    fn session(&mut self, session: SessionId) -> Result<Option<SessionRecord>, BridgeError>;

    /// What was not settled, in the order of its creation; with what is needed to go on.
    ///
    /// # Errors
    /// As above.
    fn unsettled(&mut self, session: SessionId) -> Result<Vec<Unsettled>, BridgeError>;

    /// The unsettled promise whose deadline is next, if there is one.
    ///
    /// # Errors
    /// As above.
    fn next_due(&mut self) -> Result<Option<(PromiseId, Timestamp)>, BridgeError>;

    /// Counts of unsettled promises, and how much is stored.
    ///
    /// # Errors
    /// As above.
    fn totals(&mut self) -> Result<Totals, BridgeError>;

    /// The last cells that were typed, at most so many, oldest first.
    ///
    /// # Errors
    /// As above.
    fn history(&mut self, count_max: usize) -> Result<Vec<(SessionId, Entry)>, BridgeError>;

    /// The same of one session.
    ///
    /// # Errors
    /// As above.
    fn history_of(&mut self, session: SessionId, count_max: usize) -> Result<Vec<Entry>, BridgeError>;

    /// What an execution ran, if that is in the history.
    ///
    /// # Errors
    /// As above.
    fn source_of(&mut self, id: PromiseId) -> Result<Option<Entry>, BridgeError>;

    /// Bundles of a session, or of all, in the order of their names.
    ///
    /// # Errors
    /// As above.
    fn bundles(&mut self, session: Option<SessionId>) -> Result<Vec<CheckpointView>, BridgeError>;

    /// What is signed of a bundle, if it is known. Nobody has verified it yet.
    ///
    /// # Errors
    /// As above.
    fn bundle(&mut self, checkpoint: CheckpointId) -> Result<Option<SignedManifest>, BridgeError>;
}

/// Which promises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this session.
    pub session: Option<SessionId>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only settled ones, or only those that are not.
    pub is_settled: Option<bool>,
    /// Only those after this one, for the next page.
    pub after: Option<PromiseId>,
    /// At most so many; 0: no bound.
    pub count_max: usize,
}

impl Filter {
    /// Whether it lets this promise through; the bound on their number aside.
    #[must_use]
    pub fn matches(&self, promise: &Promise) -> bool {
        self.session.is_none_or(|session| session == promise.id.session)
            && self.kind.is_none_or(|kind| kind == rules::kind(promise.id))
            && self.is_settled.is_none_or(|is_settled| is_settled == promise.state.is_settled())
            && self.after.is_none_or(|after| after < promise.id)
    }
}

/// An event in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its number.
    pub number: EventNumber,
    /// When it was recorded.
    pub at: Timestamp,
    /// What happened.
    pub event: Arc<Event>,
}

/// A session as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its name.
    pub session: SessionId,
    /// What it is: a JSON object.
    pub about: Json,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ended in order.
    pub closed_at: Option<Timestamp>,
    /// Where its worker can be fetched.
    pub custody: Option<Custody>,
    /// How far that worker is recorded.
    pub progress: Progress,
    /// The highest `In [count]` so far.
    pub count: u32,
    /// Number of its last execution.
    pub executions: u64,
    /// The highest number of a checkpoint that was given.
    pub checkpoints: u64,
}

impl SessionRecord {
    /// One that begins.
    #[must_use]
    pub fn new(session: SessionId, about: Json, created_at: Timestamp) -> Self {
        Self {
            session,
            about,
            created_at,
            closed_at: None,
            custody: None,
            progress: Progress::default(),
            count: 0,
            executions: 0,
            checkpoints: 0,
        }
    }
}

/// A promise that waits to be settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// It.
    pub promise: Promise,
    /// What was asked for.
    pub request: Option<Json>,
    /// The number that its next event will have.
    pub next_event: EventNumber,
    /// What it printed besides its events.
    pub output: OutputState,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Executions that wait or run, and durable channels that are open.
    pub executions: u64,
    /// Questions without an answer.
    pub calls: u64,
    /// When the oldest unsettled promise was made: microseconds since 1970.
    pub oldest_micros: Option<i64>,
    /// Promises of every kind and state.
    pub promises: u64,
    /// Events that are kept.
    pub events: u64,
    /// Bytes of these events.
    pub event_bytes: u64,
}
