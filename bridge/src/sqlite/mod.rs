//! The store on disk: a folder with a SQLite database, its lock, the files of large events, and a ballast.
//!
//! One process writes (it holds the lock), through one connection; anybody who may read the files may look, through
//! connections of their own, and sees whole commits. A commit costs one write to the write-ahead log; only a commit
//! with a group at `power` waits for the disk.
//!
//! **Invariant:** an existing file is never replaced by an empty one. What is damaged is refused, named, and left as it
//! is.

mod audit;
mod bundles;
mod check;
mod events;
mod fault;
mod history;
mod live;
mod log_writes;
mod now;
mod open;
mod reading;
mod retention;
mod rows;
mod schema;
mod standing;
#[cfg(test)]
pub(crate) mod tests;
mod trail;
mod writing;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::crash_point;
use cob_protocol::event::EventNumber;
use cob_protocol::ids::{CheckpointId, PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::limits::{
    BALLAST_BYTES, PENDING_PROMISES_MAX, STORE_BUSY_MS_MAX, WAL_BYTES_IDLE_MAX, WAL_BYTES_MAX,
};
use cob_protocol::promise::{Durability, Promise};
use cob_protocol::time::Timestamp;
use rusqlite::Connection;

use crate::ballast::{Ballast, free_bytes};
use crate::chunks::Chunks;
use crate::history::Entry;
use crate::lock::StoreLock;
use crate::payloads::Payloads;
use crate::rules::whole_micros;
use crate::store::{
    BridgeError, Filter, Group, Outcomes, Read, Recorded, SessionRecord, SignedManifest, Store, StoreError,
    Totals, Unsettled,
};
use fault::{Fault, Outcome, Place};
use reading::Look;
use writing::{Remembered, Transaction};

pub use audit::{Broken, Head};
pub use open::OpenError;
pub use retention::{Limits, Retained};
pub use trail::AuditEntry;

/// A page of the database in the log, with its header.
const WAL_FRAME_BYTES: u64 = 4096 + 24;

/// Commits after which the length of the log is asked for, if it was not long before.
const COMMITS_UNSEEN_MAX: u32 = 32;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Its folder; made, if it is not there.
    pub folder: PathBuf,
    /// Size of its ballast; 0: none.
    pub ballast_bytes: u64,
    /// Name of the layer that SQLite reaches files through, for tests; `None`: its own.
    pub vfs: Option<String>,
    /// How long another program may hold the lock of the database before a commit fails.
    pub busy_ms: u64,
    /// Promises that may be pending.
    pub pending_max: usize,
    /// What is kept of the journal.
    pub limits: Limits,
}

impl StoreOptions {
    /// A store in `folder`, with everything else as it is by default.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            ballast_bytes: BALLAST_BYTES,
            vfs: None,
            busy_ms: STORE_BUSY_MS_MAX,
            pending_max: PENDING_PROMISES_MAX,
            limits: Limits::default(),
        }
    }
}

/// The store of one server.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    place: Place,
    vfs: Option<String>,
    payloads: Payloads,
    chunks: Arc<Chunks>,
    ballast: Ballast,
    pending_max: usize,
    /// Nothing after a failed commit, until the next one begins.
    remembered: Option<Remembered>,
    /// Whether the disk is waited for at present.
    is_power: bool,
    /// Whether everything of the write-ahead log is in the database.
    is_checkpointed: bool,
    /// Commits since the length of the log was asked for.
    unseen_commits: u32,
    retention: retention::Round,
    /// How many of the parts of the chunks were swept.
    swept_chunks: usize,
    /// Let go of last, after the database is closed.
    _lock: StoreLock,
}

impl SqliteStore {
    /// Opens a store, or makes it; brings it to the present version.
    ///
    /// # Errors
    /// [`OpenError`]; the store is as it was then.
    pub fn open(options: &StoreOptions) -> Result<Self, OpenError> {
        open::server(options)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// Another look at it, to be had while this one writes.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn reader(&self) -> Result<SqliteReader, OpenError> {
        open::reader(&self.place.folder, self.vfs.clone())
    }

    /// Its reserve.
    pub fn ballast(&mut self) -> &mut Ballast {
        &mut self.ballast
    }

    /// Bytes that may still be written to its disk.
    ///
    /// # Errors
    /// [`StoreError::Failed`]
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let folder = &self.place.folder;
        free_bytes(folder).map_err(|error| self.place.store_error(Fault::File(folder.clone(), error)))
    }

    /// Moves the write-ahead log into the database if it has grown. This waits for the disk, so it is for when nobody
    /// waits for a commit; a commit does it itself only when the log has become very long.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is lost by it but time, [`StoreError::Unsynced`] excepted.
    pub fn maintain(&mut self) -> Result<(), StoreError> {
        // The size of the file says only that the log is not longer, and to ask takes as long as a small commit.
        if self.unseen_commits < COMMITS_UNSEEN_MAX && self.wal_bytes() <= 2 * WAL_BYTES_IDLE_MAX {
            return Ok(());
        }
        self.unseen_commits = 0;
        let frames_max = WAL_BYTES_IDLE_MAX / WAL_FRAME_BYTES;
        if self.is_checkpointed || self.log("NOOP")?.0 <= frames_max || !self.checkpoint()? {
            return Ok(());
        }
        // The next write begins the log anew, and waits until the disk has its header: measured 4 ms. Better now, for
        // one that changes nothing, than for somebody's commit.
        match self.connection.pragma_update(None, "user_version", schema::VERSION) {
            Err(error) => match self.place.store_error(error.into()) {
                error @ StoreError::Unsynced { .. } => Err(error),
                _ => Ok(()),
            },
            Ok(()) => Ok(()),
        }
    }

    /// One bounded step of forgetting what is too old or too much; to be called again while it says that there is
    /// more. What is not settled is not touched, and promises stay.
    ///
    /// # Errors
    /// As those of [`Store::commit`]; nothing was forgotten then.
    pub fn retain(&mut self, now: Timestamp, limits: &Limits) -> Result<Retained, StoreError> {
        retention::step(self, now, limits)
    }

    /// One bounded step of removing the files of bundles that are given up, and those that no bundle names; to be
    /// called again while it says that there is more.
    ///
    /// # Errors
    /// As those of [`Store::commit`]; what is there stays there.
    pub fn discard(&mut self) -> Result<bool, StoreError> {
        bundles::discard(self)
    }

    /// Its chunks.
    pub(crate) fn chunks(&self) -> &Arc<Chunks> {
        &self.chunks
    }

    /// Size of the file of the log, which is cut to [`WAL_BYTES_IDLE_MAX`] when the log begins anew.
    fn wal_bytes(&self) -> u64 {
        let mut path = self.place.database.clone().into_os_string();
        path.push("-wal");
        fs::metadata(path).map_or(0, |metadata| metadata.len())
    }

    /// Moves the log into the database; whether all of it. Passive: whoever reads an old state goes on with it, and
    /// what it needs stays until the next time.
    fn checkpoint(&mut self) -> Result<bool, StoreError> {
        let (frames, moved) = self.log("PASSIVE")?;
        self.is_checkpointed = frames == moved;
        Ok(self.is_checkpointed)
    }

    /// How many frames the log has, and how many of them are in the database.
    fn log(&self, mode: &str) -> Result<(u64, u64), StoreError> {
        let pragma = format!("PRAGMA wal_checkpoint({mode})");
        let frames = |row: &rusqlite::Row<'_>, column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let result = self.connection.query_row(&pragma, [], |row| Ok((frames(row, 1)?, frames(row, 2)?)));
        result.map_err(|error| self.place.store_error(error.into()))
    }

    /// All of it or nothing.
    fn in_transaction<T>(
        &mut self,
        is_power: bool,
        work: impl FnOnce(&mut Transaction<'_>) -> Outcome<T>,
    ) -> Result<T, StoreError> {
        let result = self.attempt(is_power, work);
        if result.is_err() {
            // What is remembered may be ahead of the database.
            self.remembered = None;
            if !self.connection.is_autocommit() {
                // It fails only where SQLite has rolled back by itself.
                let _ = self.connection.execute_batch("ROLLBACK");
            }
        }
        result.map_err(|fault| self.place.store_error(fault))
    }

    fn attempt<T>(
        &mut self,
        is_power: bool,
        work: impl FnOnce(&mut Transaction<'_>) -> Outcome<T>,
    ) -> Outcome<T> {
        let connection = &self.connection;
        if is_power != self.is_power {
            // Within a transaction it would have no effect.
            let level = if is_power { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            connection.execute_batch(level)?;
            self.is_power = is_power;
        }
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let remembered = match &mut self.remembered {
            Some(remembered) => remembered,
            nothing => nothing.insert(Remembered::read(connection)?),
        };
        let mut transaction = Transaction {
            connection,
            remembered,
            payloads: &self.payloads,
            pending_max: self.pending_max,
            is_power,
            now: Timestamp::from_micros(0),
        };
        let done = work(&mut transaction)?;
        transaction.remembered.flush(connection)?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        self.is_checkpointed = false;
        self.unseen_commits += 1;
        transaction.remembered.committed();
        self.chunks.publish(transaction.remembered.bundles);
        Ok(done)
    }

    fn look(&self) -> Look<'_> {
        Look { connection: &self.connection, payloads: &self.payloads }
    }
}

impl Store for SqliteStore {
    fn discard(&mut self) -> Result<bool, StoreError> {
        bundles::discard(self)
    }

    fn commit(&mut self, groups: &[Group]) -> Result<Vec<Outcomes>, StoreError> {
        let is_power = groups.iter().any(|group| group.durability == Durability::Power);
        let outcomes = self.in_transaction(is_power, |transaction| {
            groups.iter().map(|group| write_group(transaction, group)).collect::<Outcome<_>>()
        })?;
        if self.wal_bytes() <= WAL_BYTES_MAX {
            return Ok(outcomes);
        }
        // The commit stands whatever becomes of this, except that a disk that does not synchronise is not to be
        // believed any more.
        match self.checkpoint() {
            Err(error @ StoreError::Unsynced { .. }) => Err(error),
            _ => Ok(outcomes),
        }
    }
}

fn write_group(transaction: &mut Transaction<'_>, group: &Group) -> Outcome<Outcomes> {
    transaction.now = whole_micros(group.now);
    let write = |write| match transaction.write(write) {
        Ok(written) => Ok(Ok(written)),
        Err(Fault::Refused(error)) => Ok(Err(error)),
        Err(fault) => Err(fault),
    };
    let outcomes = group.writes.iter().map(write).collect();
    crash_point!("commit_half");
    outcomes
}

/// A look into a store, also while its server lives, and from another process.
#[derive(Debug)]
pub struct SqliteReader {
    connection: Connection,
    place: Place,
    payloads: Payloads,
    chunks: Arc<Chunks>,
}

impl SqliteReader {
    /// Opens the store in `folder` to be looked at.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        open::reader(folder, None)
    }

    /// Goes through everything that is stored; this takes as long as reading the whole store.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the first thing that is not what was written.
    pub fn verify(&mut self) -> Result<(), StoreError> {
        check::whole(self.look(), &self.chunks).map_err(|fault| self.place.store_error(fault))
    }

    /// Goes through the audit trail; gives its end.
    ///
    /// # Errors
    /// [`BridgeError::Store`] if it cannot be read; inside, the first row that is not what was written.
    pub fn verify_audit(&mut self) -> Result<Result<Head, Broken>, BridgeError> {
        audit::verify(&self.connection).map_err(|fault| self.place.bridge_error(fault))
    }

    pub(crate) fn chunks(&self) -> &Arc<Chunks> {
        &self.chunks
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.place.folder
    }

    fn look(&self) -> Look<'_> {
        Look { connection: &self.connection, payloads: &self.payloads }
    }
}

macro_rules! read_through {
    ($store:ty) => {
        impl Read for $store {
            read_through! { $store:
                promise(id: PromiseId) -> Option<Promise>;
                find(session: SessionId, principal: &str, key: &str) -> Option<Promise>;
                request(id: PromiseId) -> Option<Json>;
                promises(filter: &Filter) -> Vec<Promise>;
                events(id: PromiseId, from: EventNumber, count_max: usize, bytes_max: usize) -> Vec<Recorded>;
                sessions() -> Vec<SessionRecord>;
                session(session: SessionId) -> Option<SessionRecord>;
                unsettled(session: SessionId) -> Vec<Unsettled>;
                next_due() -> Option<(PromiseId, Timestamp)>;
                totals() -> Totals;
                history(count_max: usize) -> Vec<(SessionId, Entry)>;
                history_of(session: SessionId, count_max: usize) -> Vec<Entry>;
                source_of(id: PromiseId) -> Option<Entry>;
                bundles(session: Option<SessionId>) -> Vec<CheckpointView>;
                bundle(checkpoint: CheckpointId) -> Option<SignedManifest>;
            }
        }
    };
    ($store:ty: $($what:ident($($name:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $what(&mut self, $($name: $type),*) -> Result<$result, BridgeError> {
            self.look().$what($($name),*).map_err(|fault| self.place.bridge_error(fault))
        })*
    };
}

read_through!(SqliteStore);
read_through!(SqliteReader);
