//! What the bridge asks of the store beside commits: one that waits for nothing, and an orderly end.

use std::time::Duration;

use cob_protocol::limits::WAL_BYTES_MAX;

use super::{SqliteStore, write_group};
use crate::store::{Group, Outcomes, StoreError};

impl SqliteStore {
    /// Commits a group if nothing has to be waited for. `None`: nothing was recorded.
    ///
    /// The first commit into an empty log waits for the disk whatever the durability, since the head of the log must
    /// not be younger than what follows it; one into a log that is too long would empty it, which waits too.
    ///
    /// # Errors
    /// [`StoreError::Unsynced`]: somebody else has emptied the log, so the disk was waited for after all.
    pub(crate) fn commit_now(&mut self, group: &Group, busy_ms: u64) -> Result<Option<Outcomes>, StoreError> {
        if self.is_checkpointed || !(1..WAL_BYTES_MAX).contains(&self.wal_bytes()) {
            return Ok(None);
        }
        if self.connection.busy_timeout(Duration::ZERO).is_err() {
            return Ok(None);
        }
        let result = self.in_transaction(false, |transaction| write_group(transaction, group));
        // It fails for closed connections only.
        let _ = self.connection.busy_timeout(Duration::from_millis(busy_ms));
        self.unseen_commits = self.unseen_commits.saturating_add(1);
        match result {
            Err(error @ StoreError::Unsynced { .. }) => Err(error),
            result => Ok(result.ok()),
        }
    }

    /// Moves the whole write-ahead log into the database, also while others read.
    ///
    /// # Errors
    /// As those of [`SqliteStore::maintain`].
    pub(crate) fn empty_log(&mut self) -> Result<(), StoreError> {
        if self.is_checkpointed { Ok(()) } else { self.checkpoint().map(drop) }
    }
}
