//! A disk for SQLite whose power can be cut, and that fails when a test says so.
//!
//! It is a VFS over the system's own: locks and shared memory are the real ones, reads and writes go through
//! [`disk::State`], which knows what is safe. Registered under a name of its own, so that a store in this process can
//! be opened on it.
#![allow(unsafe_code, reason = "SQLite calls a VFS through tables of C functions")]

mod disk;
mod methods;

use std::ffi::{CString, c_int, c_void};
use std::mem::size_of;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi;

pub use disk::{Call, Failure, Fault};

use crate::seed::Seed;
use disk::State;

/// A disk. Every file that is opened through its VFS is on it.
///
/// Connections must be closed before it is dropped.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    /// What SQLite knows of it; freed when nothing is open any more.
    table: *mut ffi::sqlite3_vfs,
}

/// What handles and the test have in common.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    name: CString,
    /// Handles that are open.
    open: AtomicUsize,
    below: *mut ffi::sqlite3_vfs,
}

// SAFETY: `below` is SQLite's default VFS: it lives as long as the process and may be called by any thread.
unsafe impl Send for Shared {}
// SAFETY: as above; everything else is behind a lock, atomic or never changed.
unsafe impl Sync for Shared {}
// SAFETY: `table` is only used by `drop`, and SQLite guards its list of tables with a lock.
unsafe impl Send for Disk {}
// SAFETY: as above.
unsafe impl Sync for Disk {}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// A disk that works.
    ///
    /// # Panics
    /// When SQLite cannot be set up.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = CString::new(format!("cob-disk-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
            .expect("a text without NUL");
        // SAFETY: no pointer is passed but the null that stands for the default.
        let below = unsafe {
            assert_eq!(ffi::sqlite3_initialize(), ffi::SQLITE_OK);
            ffi::sqlite3_vfs_find(ptr::null())
        };
        assert!(!below.is_null(), "SQLite has a default VFS");
        let state = Mutex::new(State::new());
        let shared = Arc::new(Shared { state, name, open: AtomicUsize::new(0), below });
        // SAFETY: `below` was found just now and stays.
        let (handle_bytes, path_bytes) = unsafe { ((*below).szOsFile, (*below).mxPathname) };
        let own_bytes = c_int::try_from(size_of::<methods::Handle>()).expect("a small struct");
        let table = Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: own_bytes + handle_bytes,
            mxPathname: path_bytes,
            zName: shared.name.as_ptr(),
            pAppData: Arc::as_ptr(&shared).cast::<c_void>().cast_mut(),
            ..methods::table()
        });
        let table = Box::into_raw(table);
        // SAFETY: the table, its name and its data live until `drop` has taken it out of SQLite's list.
        assert_eq!(unsafe { ffi::sqlite3_vfs_register(table, 0) }, ffi::SQLITE_OK);
        Self { shared, table }
    }

    /// Under which name SQLite knows it.
    ///
    /// # Panics
    /// Never: the name is ASCII.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared.name.to_str().expect("ASCII")
    }

    /// Lets a call fail from now on; `None`: nothing fails any more.
    pub fn fail(&self, fault: impl Into<Option<Fault>>) {
        self.shared.state().fail(fault.into());
    }

    /// Calls of a kind since the last [`fail`](Self::fail), or since power came on.
    #[must_use]
    pub fn count(&self, call: Call) -> u64 {
        self.shared.state().count(call)
    }

    /// Lets the power go with the `nth` change from now, in the middle of whatever that belongs to. [`cut`](Self::cut)
    /// then decides what is left.
    pub fn lose_power_at(&self, nth: u64) {
        self.shared.state().power_left = Some(nth);
    }

    /// Whether there is power.
    #[must_use]
    pub fn has_power(&self) -> bool {
        self.shared.state().has_power
    }

    /// The power goes: what is open is dead, and of what was not synchronised something is left that depends on the
    /// seed only. Close what is open, then [`power_on`](Self::power_on).
    ///
    /// # Panics
    /// When the real files cannot be written.
    pub fn cut(&self, seed: u64) {
        self.shared.state().cut(&mut Seed::new(seed)).expect("real files that can be written");
    }

    /// The process dies, as far as a disk can tell: what is open is dead, and nothing that was written is lost.
    ///
    /// # Panics
    /// When the real files cannot be written.
    pub fn kill(&self) {
        self.shared.state().kill().expect("real files that can be written");
    }

    /// The disk works again.
    ///
    /// # Panics
    /// When something of before is still open: it would be found there by whoever opens it anew.
    pub fn power_on(&self) {
        assert_eq!(self.shared.open.load(Ordering::Relaxed), 0, "files of before the cut are open");
        self.shared.state().has_power = true;
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // SAFETY: it was registered by `new`, and by nobody else.
        unsafe { ffi::sqlite3_vfs_unregister(self.table) };
        if self.shared.open.load(Ordering::Relaxed) == 0 {
            // SAFETY: it came from a box; SQLite has forgotten it, and no connection is left that could call it.
            drop(unsafe { Box::from_raw(self.table) });
        } else {
            // A test that fails drops things in any order: better a leak than a call into nowhere.
            std::mem::forget(Arc::clone(&self.shared));
        }
    }
}
