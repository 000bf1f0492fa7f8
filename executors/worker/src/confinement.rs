//! What a worker can no longer do once it is confined: reach processes that it did not start.
//!
//! Code of a session runs as the same user as the server, so nothing else would keep it from ending the server, a
//! zygote or another session with a signal. Landlock's scopes do (Linux 6.12); children inherit them, and nobody can
//! leave them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET`
const ABSTRACT_SOCKETS: u64 = 1 << 0;
/// `LANDLOCK_SCOPE_SIGNAL`
const SIGNALS: u64 = 1 << 1;
/// `LANDLOCK_CREATE_RULESET_VERSION`
const ASK_FOR_VERSION: u32 = 1 << 0;
/// The version of Landlock that brought scopes.
const SCOPES_SINCE: i64 = 6;

/// `struct landlock_ruleset_attr`
#[repr(C)]
#[derive(Default)]
struct Ruleset {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// Confines this process and everything it will start. Says what holds from now on, one sentence for each measure
/// that was asked for.
#[must_use]
pub(crate) fn enter() -> Vec<String> {
    let privileges = match no_new_privileges() {
        Ok(()) => "no program gains privileges".to_owned(),
        Err(error) => return vec![format!("not enforced: privileges of programs: {error}")],
    };
    let reach = match scope() {
        Ok(()) => "signals and abstract sockets reach only its own processes".to_owned(),
        Err(error) => format!("not enforced: signals to other processes of this user: {error}"),
    };
    vec![privileges, reach]
}

/// Needed for everything else, and keeps `sudo` and its like from undoing it.
fn no_new_privileges() -> io::Result<()> {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) }.into()).map(drop)
}

fn scope() -> io::Result<()> {
    let nothing = std::ptr::null::<Ruleset>();
    // SAFETY: with this flag no structure is read; the answer is a number.
    let version =
        check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, ASK_FOR_VERSION) })?;
    if version < SCOPES_SINCE {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "needs Landlock with scopes (Linux 6.12)"));
    }
    let ruleset = Ruleset { scoped: SIGNALS | ABSTRACT_SOCKETS, ..Ruleset::default() };
    // SAFETY: the structure is of the size that is given, and outlives the call.
    let created = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, size_of::<Ruleset>(), 0)
    };
    let fd = i32::try_from(check(created)?).map_err(io::Error::other)?;
    // SAFETY: the system has just made this descriptor for us.
    let ruleset = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}

fn check(result: libc::c_long) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
