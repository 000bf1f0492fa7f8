//! The two tables of C functions that make a VFS. Each function finds its file, asks the disk, and passes on to the
//! system's VFS what is not about bytes.
#![allow(unsafe_code, reason = "SQLite calls a VFS through tables of C functions")]

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::{ptr, slice};

use rusqlite::ffi;

use super::Shared;
use super::disk::{Call, Failure, State};

/// Our part of a file; that of the system's VFS follows in the same allocation.
#[repr(C)]
pub(super) struct Handle {
    base: ffi::sqlite3_file,
    open: *mut Open,
}

/// What we know of an open file.
struct Open {
    shared: Arc<Shared>,
    path: PathBuf,
    life: u64,
    is_journal: bool,
}

/// The functions of the VFS itself; names, sizes and data are filled in by the caller.
pub(super) fn table() -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs {
        iVersion: 0,
        szOsFile: 0,
        mxPathname: 0,
        pNext: ptr::null_mut(),
        zName: ptr::null(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(wait),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
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
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// What lies below a VFS of ours, and what it shares with its test.
///
/// # Safety
/// `vfs` is a table that `Disk::new` registered and that SQLite still knows.
unsafe fn shared<'a>(vfs: *mut ffi::sqlite3_vfs) -> &'a Shared {
    // SAFETY: the data of such a table is the inside of an `Arc` that its `Disk` holds.
    unsafe { &*(*vfs).pAppData.cast::<Shared>() }
}

/// # Safety
/// `file` was opened by [`open`] and is not closed.
unsafe fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a Open {
    // SAFETY: `open` put a box there, which `close` takes away.
    unsafe { &*(*file.cast::<Handle>()).open }
}

/// The part of the system's VFS.
///
/// # Safety
/// `file` has room for both parts, as `szOsFile` says.
unsafe fn below(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: it begins right behind ours; both are aligned like pointers.
    unsafe { file.cast::<u8>().add(size_of::<Handle>()).cast() }
}

/// Calls a method of the system's file.
macro_rules! pass {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite calls this with a file that `open` has opened, and so the one below is open too; the
        // arguments are SQLite's own and are passed on as they came.
        unsafe {
            let below = below($file);
            match (*(*below).pMethods).$method {
                Some(method) => method(below $(, $argument)*),
                None => ffi::SQLITE_IOERR,
            }
        }
    }};
}

/// Calls a function of the system's VFS.
macro_rules! ask {
    ($vfs:expr, $function:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite calls this with our table and its own arguments, which are passed on as they came.
        unsafe {
            let below = shared($vfs).below;
            match (*below).$function {
                Some(function) => function(below $(, $argument)*),
                None => ffi::SQLITE_ERROR,
            }
        }
    }};
}

fn path_of(name: *const c_char) -> PathBuf {
    // SAFETY: SQLite's names end with a NUL.
    let name = unsafe { CStr::from_ptr(name) };
    Path::new(OsStr::from_bytes(name.to_bytes())).to_owned()
}

fn number(value: ffi::sqlite3_int64) -> usize {
    usize::try_from(value).unwrap_or(0)
}

fn code(failure: Failure, otherwise: c_int) -> c_int {
    match failure {
        Failure::Eio => otherwise,
        Failure::Enospc | Failure::Short => ffi::SQLITE_FULL,
    }
}

impl Open {
    /// Does something with the disk, unless this file is dead or the call must fail.
    fn with(
        &self,
        call: Call,
        error: c_int,
        act: impl FnOnce(&mut State, Option<Failure>) -> c_int,
    ) -> c_int {
        let mut state = self.shared.state();
        if state.life != self.life {
            return error;
        }
        let failure = state.calls(call);
        if state.has_power { act(&mut state, failure) } else { error }
    }
}

// --- Files ---------------------------------------------------------------------------------------------------

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: `file` is memory of SQLite's with room for both parts; without methods it counts as not open.
    unsafe { (*file).pMethods = ptr::null() };
    if name.is_null() {
        // Temporary files survive nothing, so theirs is the system's VFS alone, in the memory of both parts.
        return ask!(vfs, xOpen, name, file, flags, out_flags);
    }
    // SAFETY: the table is registered as long as it is called.
    let shared = unsafe { shared(vfs) };
    let path = path_of(name);
    let life = {
        let mut state = shared.state();
        if !state.has_power || state.calls(Call::Open).is_some() {
            return ffi::SQLITE_CANTOPEN;
        }
        state.life
    };
    let is_new = !path.exists();
    // SAFETY: its room was made by us; the name and the flags are SQLite's.
    let below = unsafe { below(file) };
    let outcome = ask!(vfs, xOpen, name, below, flags, out_flags);
    if outcome != ffi::SQLITE_OK {
        return outcome;
    }
    if shared.state().open(&path, is_new).is_err() {
        pass!(file, xClose);
        return ffi::SQLITE_CANTOPEN;
    }
    shared.open.fetch_add(1, Ordering::Relaxed);
    let is_journal = flags & (ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL) != 0;
    // SAFETY: the data of the table is the inside of an `Arc`; one more owner is counted first.
    let shared = unsafe {
        Arc::increment_strong_count(shared);
        Arc::from_raw(shared)
    };
    let open = Box::into_raw(Box::new(Open { shared, path, life, is_journal }));
    // SAFETY: as above; now it is open.
    unsafe {
        (*file.cast::<Handle>()).open = open;
        (*file).pMethods = &raw const METHODS;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let outcome = pass!(file, xClose);
    // SAFETY: `open` made the box, and SQLite closes a file once.
    let open = unsafe { Box::from_raw((*file.cast::<Handle>()).open) };
    open.shared.open.fetch_sub(1, Ordering::Relaxed);
    outcome
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    count: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite calls this with an open file and a buffer of that length.
    let (open, buffer) =
        unsafe { (opened(file), slice::from_raw_parts_mut(buffer.cast::<u8>(), number(count.into()))) };
    buffer.fill(0);
    open.with(Call::Read, ffi::SQLITE_IOERR_READ, |state, failure| match failure {
        Some(_) => ffi::SQLITE_IOERR_READ,
        None if state.read(&open.path, number(at), buffer) < buffer.len() => ffi::SQLITE_IOERR_SHORT_READ,
        None => ffi::SQLITE_OK,
    })
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite calls this with an open file and that many bytes.
    let (open, bytes) =
        unsafe { (opened(file), slice::from_raw_parts(bytes.cast::<u8>(), number(count.into()))) };
    open.with(Call::Write, ffi::SQLITE_IOERR_WRITE, |state, failure| {
        match failure {
            None => state.write(&open.path, number(at), bytes),
            Some(Failure::Short) => {
                let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
                state.write(&open.path, number(at), half);
            }
            Some(_) => {}
        }
        failure.map_or(ffi::SQLITE_OK, |failure| code(failure, ffi::SQLITE_IOERR_WRITE))
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls this with an open file.
    let open = unsafe { opened(file) };
    open.with(Call::Truncate, ffi::SQLITE_IOERR_TRUNCATE, |state, failure| match failure {
        Some(_) => ffi::SQLITE_IOERR_TRUNCATE,
        None => {
            state.resize(&open.path, number(length));
            ffi::SQLITE_OK
        }
    })
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite calls this with an open file.
    let open = unsafe { opened(file) };
    open.with(Call::Sync, ffi::SQLITE_IOERR_FSYNC, |state, failure| match failure {
        Some(failure) => {
            state.forget_pending(&open.path);
            code(failure, ffi::SQLITE_IOERR_FSYNC)
        }
        None => match state.sync(&open.path, open.is_journal) {
            Ok(()) => ffi::SQLITE_OK,
            Err(_) => ffi::SQLITE_IOERR_FSYNC,
        },
    })
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls this with an open file.
    let open = unsafe { opened(file) };
    let state = open.shared.state();
    let length = state.length(&open.path).filter(|_| state.life == open.life);
    let Some(length) = length.and_then(|length| length.try_into().ok()) else {
        return ffi::SQLITE_IOERR_FSTAT;
    };
    // SAFETY: SQLite wants the size there.
    unsafe { *size = length };
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    pass!(file, xCheckReservedLock, out)
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, what: c_int, argument: *mut c_void) -> c_int {
    match what {
        // These are about the bytes of the real file, which are not what processes see.
        ffi::SQLITE_FCNTL_SIZE_HINT | ffi::SQLITE_FCNTL_CHUNK_SIZE | ffi::SQLITE_FCNTL_MMAP_SIZE => {
            ffi::SQLITE_NOTFOUND
        }
        _ => pass!(file, xFileControl, what, argument),
    }
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    // A torn write harms no byte beside it; nothing else is promised.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    pass!(file, xShmMap, region, bytes, extend, out)
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, at: c_int, count: c_int, flags: c_int) -> c_int {
    pass!(file, xShmLock, at, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: SQLite calls this with an open file.
    unsafe {
        let below = below(file);
        if let Some(barrier) = (*(*below).pMethods).xShmBarrier {
            barrier(below);
        }
    }
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, is_deleted: c_int) -> c_int {
    pass!(file, xShmUnmap, is_deleted)
}

// --- Names ---------------------------------------------------------------------------------------------------

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, with_folder: c_int) -> c_int {
    // SAFETY: the table is registered as long as it is called.
    let mut state = unsafe { shared(vfs) }.state();
    if state.calls(Call::Delete).is_some() {
        return ffi::SQLITE_IOERR_DELETE;
    }
    match state.remove(&path_of(name), with_folder != 0) {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(_) => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the table is registered as long as it is called.
    let length = unsafe { shared(vfs) }.state().length(&path_of(name));
    match length.filter(|_| flags == ffi::SQLITE_ACCESS_EXISTS) {
        Some(length) => {
            // An empty file counts as none, as the system's VFS has it.
            // SAFETY: SQLite wants the answer there.
            unsafe { *out = c_int::from(length > 0) };
            ffi::SQLITE_OK
        }
        None => ask!(vfs, xAccess, name, flags, out),
    }
}

unsafe extern "C" fn full_pathname(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    bytes: c_int,
    out: *mut c_char,
) -> c_int {
    ask!(vfs, xFullPathname, name, bytes, out)
}

// --- The rest ------------------------------------------------------------------------------------------------

unsafe extern "C" fn randomness(vfs: *mut ffi::sqlite3_vfs, bytes: c_int, out: *mut c_char) -> c_int {
    ask!(vfs, xRandomness, bytes, out)
}

unsafe extern "C" fn wait(vfs: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    ask!(vfs, xSleep, micros)
}

unsafe extern "C" fn current_time(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    ask!(vfs, xCurrentTime, out)
}

unsafe extern "C" fn last_error(vfs: *mut ffi::sqlite3_vfs, bytes: c_int, out: *mut c_char) -> c_int {
    ask!(vfs, xGetLastError, bytes, out)
}

unsafe extern "C" fn current_time_int64(vfs: *mut ffi::sqlite3_vfs, out: *mut ffi::sqlite3_int64) -> c_int {
    ask!(vfs, xCurrentTimeInt64, out)
}
