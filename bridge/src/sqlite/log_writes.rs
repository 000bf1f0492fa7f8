//! A layer between SQLite and the system that writes the frames of a commit to the log at once.
//!
//! SQLite writes each page of a commit with two calls, one of 24 bytes and one of 4096. On ext4 in a virtual machine
//! seven pages took 65 µs so, and 5 µs in one call: most of what a commit costs. So what is appended to the log is held
//! back until the frame comes that ends the commit (its head says so), or something else is done to the log.
//!
//! **Invariant:** when the write of a commit's last frame returns, everything before it has been given to the system,
//! or the error is returned. So a commit is never announced that is not written; and one that is cut off by the death
//! of the process is one that did not happen.
//!
//! **Whoever opens a database through it switches spilling off** ([`NO_SPILL`]): then SQLite writes frames nowhere but
//! in a commit, and nothing is ever held back when that has returned. What a transaction spills would be held back
//! beyond its rollback, and come out over the frames that another program has written there since.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use rusqlite::ffi;

/// As soon as so much is held back, it is written.
const HELD_BYTES_MAX: usize = 1 << 16;
/// Head of the log.
const LOG_HEAD_BYTES: i64 = 32;
/// Head of a frame in the log.
const HEAD_BYTES: usize = 24;
const PAGE_BYTES: usize = 4096;
const FRAME_BYTES: usize = HEAD_BYTES + PAGE_BYTES;
/// The layer below takes less than 128 KiB at once.
const _: () = assert!(HELD_BYTES_MAX + FRAME_BYTES < 1 << 17);
/// What is to be done to every connection that uses this layer; see the module.
pub(super) const NO_SPILL: &str = "PRAGMA cache_spill = OFF";
const NAME: &CStr = c"cob-log";
/// Our part of the memory that SQLite gives for a file; the file below follows it.
const OUR_BYTES: usize = 32;

#[repr(C)]
struct LogFile {
    base: ffi::sqlite3_file,
    log: *mut Log,
}

struct Log {
    below: *mut ffi::sqlite3_file,
    held: Vec<u8>,
    /// Where the held bytes belong.
    at: i64,
    /// Where the next frame is to be appended.
    end: i64,
    /// The frame whose head came last ends a commit.
    ends_commit: bool,
}

/// Makes the layer known to SQLite; its name, or `None` if SQLite will not have it.
pub(super) fn register() -> Option<&'static str> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let is_registered = *REGISTERED.get_or_init(|| {
        // SAFETY: SQLite gives its default layer, which lives as long as the process; ours is leaked, so it does too.
        unsafe {
            let below = ffi::sqlite3_vfs_find(std::ptr::null());
            if below.is_null() || size_of::<LogFile>() > OUR_BYTES {
                return false;
            }
            let ours = Box::leak(Box::new(*below));
            ours.zName = NAME.as_ptr();
            ours.pNext = std::ptr::null_mut();
            ours.szOsFile = (*below).szOsFile + OUR_BYTES as c_int;
            ours.xOpen = Some(open);
            ffi::sqlite3_vfs_register(ours, 0) == ffi::SQLITE_OK
        }
    });
    is_registered.then(|| NAME.to_str().unwrap_or_default())
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives memory of `szOsFile` bytes, aligned for every type: ours, then that of the file below. A
    // file that is no log has all of it for itself and never comes back here.
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
        let Some(open) = vfs.as_ref().and_then(|vfs| vfs.xOpen) else { return ffi::SQLITE_CANTOPEN };
        if flags & ffi::SQLITE_OPEN_WAL == 0 {
            return open(vfs, name, file, flags, out_flags);
        }
        let ours = file.cast::<LogFile>();
        (*ours).base.pMethods = std::ptr::null();
        let below = file.cast::<u8>().add(OUR_BYTES).cast::<ffi::sqlite3_file>();
        let code = open(vfs, name, below, flags, out_flags);
        if code == ffi::SQLITE_OK {
            let log = Log { below, held: Vec::new(), at: 0, end: -1, ends_commit: false };
            (*ours).log = Box::into_raw(Box::new(log));
            (*ours).base.pMethods = &raw const METHODS;
        } else if !(*below).pMethods.is_null()
            && let Some(close) = (*(*below).pMethods).xClose
        {
            close(below);
        }
        code
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

impl Log {
    /// The log of a file of ours.
    ///
    /// # Safety
    /// `file` was opened by [`open`] with these methods, and is not closed; SQLite uses a file from one thread at a time.
    unsafe fn of<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Self {
        // SAFETY: as above: the pointer was made from a box, which is given back by `close` only.
        unsafe { &mut *(*file.cast::<LogFile>()).log }
    }

    fn methods(&self) -> &'static ffi::sqlite3_io_methods {
        // SAFETY: the file below is open, and methods of the system's layer live as long as the process.
        unsafe { &*(*self.below).pMethods }
    }

    /// Gives to the system what is held back; what could not be given is not held any more: the commit has failed.
    fn flush(&mut self) -> c_int {
        if self.held.is_empty() {
            return ffi::SQLITE_OK;
        }
        let code = self.write_below(self.held.as_ptr().cast(), self.held.len(), self.at);
        self.held.clear();
        code
    }

    fn write_below(&self, bytes: *const c_void, count: usize, at: i64) -> c_int {
        let (Some(write), Ok(count)) = (self.methods().xWrite, c_int::try_from(count)) else {
            return ffi::SQLITE_IOERR_WRITE;
        };
        #[cfg(test)]
        if let Some((room, code)) = tests::refusal(count) {
            // SAFETY: as below; a part of the caller's bytes.
            unsafe { write(self.below, bytes, room, at) };
            return code;
        }
        // SAFETY: the file is open, and the caller's bytes are that many.
        unsafe { write(self.below, bytes, count, at) }
    }

    fn write(&mut self, bytes: &[u8], at: i64) -> c_int {
        let is_append = at == self.end;
        self.end = at.saturating_add_unsigned(bytes.len() as u64);
        let has_head = self.held.len() % FRAME_BYTES == HEAD_BYTES;
        let is_head = !has_head && bytes.len() == HEAD_BYTES && is_frame(at);
        let is_page = has_head && bytes.len() == PAGE_BYTES;
        if !is_append || !(is_head || is_page) {
            // Something else than a frame behind the last one: it goes its usual way.
            let code = self.flush();
            return if code == ffi::SQLITE_OK {
                self.write_below(bytes.as_ptr().cast(), bytes.len(), at)
            } else {
                code
            };
        }
        if self.held.is_empty() {
            self.at = at;
        }
        self.held.extend_from_slice(bytes);
        if is_head {
            // The size of the database after the commit; 0 in frames before the last.
            self.ends_commit = bytes.get(4..8).is_some_and(|size| size != [0; 4]);
            return ffi::SQLITE_OK;
        }
        if self.ends_commit || self.held.len() >= HELD_BYTES_MAX { self.flush() } else { ffi::SQLITE_OK }
    }
}

/// Whether a frame with a page of ours begins there.
fn is_frame(at: i64) -> bool {
    at >= LOG_HEAD_BYTES && (at - LOG_HEAD_BYTES) % FRAME_BYTES as i64 == 0
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite gives an open file and that many bytes.
    unsafe {
        let count = usize::try_from(count).unwrap_or(0);
        Log::of(file).write(std::slice::from_raw_parts(bytes.cast(), count), at)
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once; the box was made when it was opened.
    unsafe {
        // What it still holds belongs to no commit that was announced.
        let log = Box::from_raw((*file.cast::<LogFile>()).log);
        (*file).pMethods = std::ptr::null();
        log.methods().xClose.map_or(ffi::SQLITE_OK, |close| close(log.below))
    }
}

/// The rest goes to the file below, after what is held back.
macro_rules! below {
    ($($ours:ident $theirs:ident($($name:ident: $type:ty),*);)*) => {
        $(unsafe extern "C" fn $ours(file: *mut ffi::sqlite3_file $(, $name: $type)*) -> c_int {
            // SAFETY: SQLite gives an open file, and arguments as the file below wants them.
            unsafe {
                let log = Log::of(file);
                let code = log.flush();
                if code != ffi::SQLITE_OK {
                    return code;
                }
                log.methods().$theirs.map_or(ffi::SQLITE_OK, |call| call(log.below $(, $name)*))
            }
        })*
    };
}

below! {
    read xRead(bytes: *mut c_void, count: c_int, at: ffi::sqlite3_int64);
    truncate xTruncate(size: ffi::sqlite3_int64);
    sync_below xSync(flags: c_int);
    file_size xFileSize(size: *mut ffi::sqlite3_int64);
    lock xLock(level: c_int);
    unlock xUnlock(level: c_int);
    check_reserved_lock xCheckReservedLock(result: *mut c_int);
    file_control xFileControl(what: c_int, argument: *mut c_void);
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    #[cfg(test)]
    if tests::SYNC_FAILS.get() {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    // SAFETY: SQLite gives an open file.
    unsafe { sync_below(file, flags) }
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        let log = Log::of(file);
        log.methods().xSectorSize.map_or(4096, |call| call(log.below))
    }
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        let log = Log::of(file);
        log.methods().xDeviceCharacteristics.map_or(0, |call| call(log.below))
    }
}

#[cfg(test)]
pub(super) mod tests;
