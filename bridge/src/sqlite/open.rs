//! Opening a store: who may, whether it is one, whether it is sound, which version it has.
//!
//! **Invariant:** nobody but SQLite opens the database. The system's locks on a file belong to the process and go when
//! any of its descriptors for that file is closed, so a look at the first bytes would let go of what keeps other
//! programs from clearing the write-ahead log away under a server in the same process.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cob_protocol::limits::WAL_BYTES_IDLE_MAX;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{StatVfsMountFlags, statvfs};
use thiserror::Error;

use super::fault::{Fault, Place};
use super::log_writes;
use super::reading::Look;
use super::schema::{self, APPLICATION_ID, VERSION};
use super::writing::Remembered;
use super::{SqliteReader, SqliteStore, StoreOptions, check, retention};
use crate::ballast::Ballast;
use crate::chunks::Chunks;
use crate::lock::{NotLocked, StoreLock};
use crate::payloads::{Payloads, sync};
use crate::store::StoreError;

/// Statements that are kept ready: more than there are.
const STATEMENTS_MAX: usize = 64;

/// Why a store cannot be opened. It is as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another server has it.
    #[error("store_locked: {} is in use by {}; end that server, or choose another folder",
        .folder.display(), .pid.map_or("another process".to_owned(), |pid| format!("process {pid}")))]
    Locked {
        /// The store.
        folder: PathBuf,
        /// Whose it is, if that is known.
        pid: Option<u32>,
    },
    /// A later cob wrote it.
    #[error("{} has version {found} of the schema, this cob knows versions up to {known}; \
        use the cob that wrote it, or a later one", .path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i32,
        /// The latest that this program knows.
        known: i32,
    },
    /// An earlier cob wrote it, and it is only looked at.
    #[error("{} has version {found} of the schema, to be read it must have version {known}; \
        start this cob on it once", .path.display())]
    Older {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i32,
        /// That of this program.
        known: i32,
    },
    /// Something else lies there.
    #[error("{} is no store of cob ({what}); nothing was changed. Choose another folder, or move it away",
        .path.display())]
    Foreign {
        /// What lies there.
        path: PathBuf,
        /// How that was seen.
        what: String,
    },
    /// There is none.
    #[error("there is no store in {}; give the folder of one, or start cob on it to make one", .folder.display())]
    Missing {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to user {owner}, and this is user {ours}; run cob as its owner, or choose another folder",
        .path.display())]
    Owner {
        /// What belongs to them.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
        /// Ours.
        ours: u32,
    },
    /// Permissions are missing.
    #[error("{} may not be {}; give its owner permission (chmod u+rwX), or choose another folder", .path.display(), .what)]
    Denied {
        /// What may not be used.
        path: PathBuf,
        /// `read`, `written`, …
        what: &'static str,
    },
    /// Its disk is read-only.
    #[error("{} lies on a disk that is only read; choose a folder that can be written to", .path.display())]
    ReadOnly {
        /// What cannot be written.
        path: PathBuf,
    },
    /// It is full, damaged, or the system refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What turns failures at one place into errors of it.
struct Opening {
    place: Place,
    vfs: Option<String>,
    busy_ms: u64,
}

pub(super) fn server(options: &StoreOptions) -> Result<SqliteStore, OpenError> {
    let folder = make_folder(&options.folder)?;
    let vfs = options.vfs.clone().or_else(|| log_writes::register().map(str::to_owned));
    let opening = Opening { place: Place::new(&folder), vfs, busy_ms: options.busy_ms };
    must_be_ours(&folder)?;
    let lock = opening.lock()?;
    if !opening.exists()? {
        opening.make()?;
    }
    let database = &opening.place.database;
    must_be_ours(database)?;
    let connection = opening.connect(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    opening.must_be_writable(&connection)?;
    // An empty file is an empty database to SQLite, and what comes next would make it one.
    opening.version(&connection)?;
    opening.prepare(&connection)?;
    opening.migrate(&connection)?;
    let payloads = Payloads::new(folder.join("payloads"));
    opening.sound(check::at_start(Look { connection: &connection, payloads: &payloads }))?;
    let remembered = opening.sound(Remembered::read(&connection))?;
    let chunks = Arc::new(Chunks::new(folder.join("chunks")));
    chunks.publish(remembered.bundles);
    for files in [&payloads, &chunks.files] {
        files.clear_unfinished();
    }
    let mut ballast = Ballast::new(folder.join("ballast"), options.ballast_bytes);
    // A store without reserve is better than none; whoever keeps an eye on the disk sees that it is not held.
    let _ = ballast.restore();
    Ok(SqliteStore {
        connection,
        place: opening.place,
        vfs: opening.vfs,
        payloads,
        chunks,
        ballast,
        pending_max: options.pending_max,
        remembered: Some(remembered),
        is_power: false,
        is_checkpointed: false,
        unseen_commits: 0,
        retention: retention::Round::default(),
        swept_chunks: 0,
        _lock: lock,
    })
}

pub(super) fn reader(folder: &Path, vfs: Option<String>) -> Result<SqliteReader, OpenError> {
    let missing = |_| OpenError::Missing { folder: folder.to_owned() };
    let folder = folder.canonicalize().map_err(missing)?;
    let opening = Opening { place: Place::new(&folder), vfs, busy_ms: 1_000 };
    let database = &opening.place.database;
    if !opening.exists()? {
        return Err(OpenError::Missing { folder });
    }
    let connection = opening.connect(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    match opening.version(&connection)? {
        VERSION => {}
        found => return Err(OpenError::Older { path: database.clone(), found, known: VERSION }),
    }
    opening.expect_schema(&connection, VERSION)?;
    let payloads = Payloads::new(folder.join("payloads"));
    let chunks = Arc::new(Chunks::new(folder.join("chunks")));
    Ok(SqliteReader { connection, place: opening.place, payloads, chunks })
}

fn make_folder(folder: &Path) -> Result<PathBuf, OpenError> {
    let failed = |error| file_error(&Place::new(folder), folder, error);
    match DirBuilder::new().mode(0o700).recursive(true).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(OpenError::Foreign { path: folder.to_owned(), what: "it is no folder".to_owned() })
        }
        Err(error) => Err(failed(error)),
        // An absolute path, also because SQLite takes a name that begins with `file:` for a URI.
        Ok(()) => folder.canonicalize().map_err(failed),
    }
}

fn must_be_ours(path: &Path) -> Result<(), OpenError> {
    let place = Place::new(path);
    let owner = fs::metadata(path).map_err(|error| file_error(&place, path, error))?.uid();
    let ours = rustix::process::geteuid().as_raw();
    if owner == ours { Ok(()) } else { Err(OpenError::Owner { path: path.to_owned(), owner, ours }) }
}

fn file_error(place: &Place, path: &Path, error: io::Error) -> OpenError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::PermissionDenied => OpenError::Denied { path, what: "read and written" },
        io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly { path },
        _ => OpenError::Store(place.store_error(Fault::File(path, error))),
    }
}

impl Opening {
    fn file(&self, path: &Path, error: io::Error) -> OpenError {
        file_error(&self.place, path, error)
    }

    fn fault(&self, fault: Fault) -> OpenError {
        let database = self.place.database.clone();
        match fault {
            Fault::Sql(rusqlite::Error::SqliteFailure(failure, _))
                if matches!(
                    failure.code,
                    ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied
                ) =>
            {
                // Or the files beside it.
                OpenError::Denied { path: database, what: "read and written" }
            }
            Fault::Sql(rusqlite::Error::SqliteFailure(failure, _))
                if failure.code == ErrorCode::NotADatabase =>
            {
                let what = "it does not begin as a database of SQLite does".to_owned();
                OpenError::Foreign { path: database, what }
            }
            fault => OpenError::Store(self.place.store_error(fault)),
        }
    }

    fn sound<T>(&self, result: Result<T, Fault>) -> Result<T, OpenError> {
        result.map_err(|fault| self.fault(fault))
    }

    fn sql<T>(&self, result: rusqlite::Result<T>) -> Result<T, OpenError> {
        result.map_err(|error| self.fault(error.into()))
    }

    fn lock(&self) -> Result<StoreLock, OpenError> {
        let path = self.place.folder.join("lock");
        StoreLock::take(&path).map_err(|reason| match reason {
            NotLocked::Held { pid } => OpenError::Locked { folder: self.place.folder.clone(), pid },
            NotLocked::Failed(error) => self.file(&path, error),
        })
    }

    /// Whether there is a database; its absence beside what belongs to one is no reason to make an empty one.
    fn exists(&self) -> Result<bool, OpenError> {
        let Place { folder, database } = &self.place;
        match fs::metadata(database) {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.file(database, error)),
            Err(_) => {}
        }
        for left in ["cob.db-wal", "payloads", "chunks"] {
            if folder.join(left).exists() {
                let what = format!("it is missing, and {left} beside it is not");
                return Err(self.place.corrupt(what).into());
            }
        }
        Ok(false)
    }

    /// Makes an empty database. It gets its name when it is whole, so that one without content is always a damaged
    /// one.
    fn make(&self) -> Result<(), OpenError> {
        let Place { folder, database } = &self.place;
        let unfinished = folder.join("unfinished.db");
        for left in ["unfinished.db", "unfinished.db-wal", "unfinished.db-shm", "unfinished.db-journal"] {
            let left = folder.join(left);
            match fs::remove_file(&left) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.file(&left, error)),
                _ => {}
            }
        }
        let failed = |error| self.file(&unfinished, error);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
        let connection = self.connect(&unfinished, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        self.sql(self.fill(&connection))?;
        connection.close().map_err(|(_, error)| self.fault(error.into()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&unfinished, database).map_err(failed)?;
        sync(folder).map_err(|error| self.file(folder, error))
    }

    fn fill(&self, connection: &Connection) -> rusqlite::Result<()> {
        let transaction = connection.unchecked_transaction()?;
        schema::migrate(&transaction, 0, VERSION)?;
        transaction.commit()?;
        connection.pragma_update(None, "journal_mode", "WAL")
    }

    fn connect(&self, path: &Path, how: OpenFlags) -> Result<Connection, OpenError> {
        let flags = how | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let connection = self.sql(match &self.vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs.as_str()),
            None => Connection::open_with_flags(path, flags),
        })?;
        self.sql(connection.busy_timeout(Duration::from_millis(self.busy_ms)))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // Nothing in the schema of a strange file is to be executed, and no broken page believed.
        let careful = "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;";
        self.sql(connection.execute_batch(careful))?;
        self.sql(connection.execute_batch(log_writes::NO_SPILL))?;
        Ok(connection)
    }

    /// Where it may not write, SQLite only reads, without a word.
    fn must_be_writable(&self, connection: &Connection) -> Result<(), OpenError> {
        if !self.sql(connection.is_readonly("main"))? {
            return Ok(());
        }
        let path = self.place.database.clone();
        let disk = statvfs(&path).map_err(|error| self.file(&path, error.into()))?;
        match disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
            true => Err(OpenError::ReadOnly { path }),
            false => Err(OpenError::Denied { path, what: "written" }),
        }
    }

    fn prepare(&self, connection: &Connection) -> Result<(), OpenError> {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        let mode = self.sql(mode)?;
        if mode != "wal" {
            let what = format!("it keeps a journal of kind `{mode}` instead of a write-ahead log");
            return Err(self.place.corrupt(what).into());
        }
        // A log that became long is cut when it begins anew. Not to nothing: to write over what is there takes half of
        // the time of a commit that has to get room from the file system.
        let settings = format!(
            "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -8192; \
             PRAGMA journal_size_limit = {WAL_BYTES_IDLE_MAX};"
        );
        self.sql(connection.execute_batch(&settings))
    }

    /// The version of a database that is one of ours, and not later than we are.
    fn version(&self, connection: &Connection) -> Result<i32, OpenError> {
        let number =
            |pragma: &str| self.sql(connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0)));
        let path = self.place.database.clone();
        let (application, found) = (number("application_id")?, number("user_version")?);
        if application != APPLICATION_ID {
            let what = format!("its application id is {application:#x}");
            return Err(OpenError::Foreign { path, what });
        }
        match found {
            ..=0 => Err(self.place.corrupt(format!("it says that it has version {found}")).into()),
            found if found > VERSION => Err(OpenError::Newer { path, found, known: VERSION }),
            found => Ok(found),
        }
    }

    fn expect_schema(&self, connection: &Connection, version: i32) -> Result<(), OpenError> {
        let (found, expected) =
            (self.sql(schema::objects(connection))?, self.sql(schema::expected(version))?);
        if found == expected {
            return Ok(());
        }
        let odd = expected.iter().find(|object| !found.contains(object));
        let odd = odd.or_else(|| found.iter().find(|object| !expected.contains(object)));
        let name = odd.map_or("", |(_, name, _)| name);
        Err(self.place.corrupt(format!("its schema is not that of version {version}: see {name}")).into())
    }

    fn migrate(&self, connection: &Connection) -> Result<(), OpenError> {
        let found = self.version(connection)?;
        self.expect_schema(connection, found)?;
        if found == VERSION {
            return Ok(());
        }
        self.sql(connection.execute_batch("PRAGMA synchronous = FULL"))?;
        let transaction = self.sql(connection.unchecked_transaction())?;
        self.sql(schema::migrate(&transaction, found, VERSION))?;
        self.expect_schema(&transaction, VERSION)?;
        self.sql(transaction.commit())?;
        self.sql(connection.execute_batch("PRAGMA synchronous = NORMAL"))
    }
}
