//! **The one place** where what goes wrong in SQLite and on the disk becomes an error of the store.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ffi;
use rusqlite::{Error, ErrorCode};

use crate::payloads::NotRead;
use crate::store::{BridgeError, StoreError};

/// What can stop a read or a write inside the store.
#[derive(Debug)]
pub(super) enum Fault {
    /// The request is refused; the store is as it was.
    Refused(BridgeError),
    /// What was read is not what was written: the name of the row.
    Damaged(String),
    /// SQLite refused.
    Sql(Error),
    /// The system refused.
    File(PathBuf, io::Error),
}

pub(super) type Outcome<T> = Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Sql(error)
    }
}

impl From<BridgeError> for Fault {
    fn from(error: BridgeError) -> Self {
        Self::Refused(error)
    }
}

impl From<(PathBuf, io::Error)> for Fault {
    fn from((path, error): (PathBuf, io::Error)) -> Self {
        Self::File(path, error)
    }
}

/// Where a store lies, to name it in errors.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Its folder.
    pub(super) folder: PathBuf,
    /// The database in it.
    pub(super) database: PathBuf,
}

impl Place {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), database: folder.join("cob.db") }
    }

    fn store(&self) -> String {
        self.folder.display().to_string()
    }

    pub(super) fn corrupt(&self, what: impl ToString) -> StoreError {
        StoreError::Corrupt { path: self.database.display().to_string(), what: what.to_string() }
    }

    fn failed(&self, what: impl ToString) -> StoreError {
        StoreError::Failed { store: self.store(), what: what.to_string() }
    }

    /// What a fault means for whoever reads.
    pub(super) fn bridge_error(&self, fault: Fault) -> BridgeError {
        match fault {
            Fault::Refused(error) => error,
            fault => BridgeError::Store(self.store_error(fault)),
        }
    }

    /// What a fault means for the store.
    pub(super) fn store_error(&self, fault: Fault) -> StoreError {
        match fault {
            Fault::Refused(BridgeError::Store(error)) => error,
            Fault::Refused(error) => self.failed(error),
            Fault::Damaged(what) => self.corrupt(what),
            Fault::Sql(error) => self.sql_error(&error),
            Fault::File(_, error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                StoreError::Full { store: self.store() }
            }
            Fault::File(path, error) => self.failed(format!("{}: {error}", path.display())),
        }
    }

    fn sql_error(&self, error: &Error) -> StoreError {
        let Error::SqliteFailure(failure, _) = error else {
            // A column of another type than was written, or text that is none.
            return self.corrupt(error);
        };
        match (failure.code, failure.extended_code) {
            (_, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => {
                StoreError::Unsynced { store: self.store(), what: error.to_string() }
            }
            // The index of the WAL grows by itself; that it cannot means that there is no room.
            (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => {
                StoreError::Full { store: self.store() }
            }
            (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => {
                StoreError::Busy { store: self.store() }
            }
            // Names are looked up before they are written, so an index must have lost some.
            (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation, _)
            | (_, ffi::SQLITE_IOERR_CORRUPTFS) => self.corrupt(error),
            _ => self.failed(error),
        }
    }
}

impl From<NotRead> for String {
    fn from(reason: NotRead) -> Self {
        match reason {
            NotRead::Missing(path) => format!("its file {} is missing", path.display()),
            NotRead::Changed(path) => format!("its file {} is not what was written", path.display()),
            NotRead::Failed(path, error) => format!("its file {}: {error}", path.display()),
        }
    }
}
