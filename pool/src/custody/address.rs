//! Where a custodian listens. The system takes only short names of sockets, and a store may lie deep: a long one is
//! named by its folder's descriptor.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cob_protocol::limits::POOL_ANSWER_MS_MAX;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt,
};

/// Longest name that every system takes.
const NAME_BYTES_MAX: usize = 100;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A name for `path` that the system takes, for as long as the folder beside it is open.
fn short(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().as_bytes().len() <= NAME_BYTES_MAX {
        return Ok((path.to_owned(), None));
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_PATH).open(folder)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok((short, Some(folder)))
}

/// Connects to whoever listens at `path`. Waits on this thread while too many others do, at most
/// [`POOL_ANSWER_MS_MAX`].
pub(super) fn reach(path: &Path) -> io::Result<OwnedFd> {
    let (name, _folder) = short(path)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let patience = Duration::from_millis(POOL_ANSWER_MS_MAX);
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
    connect(&socket, &SocketAddrUnix::new(&name)?)?;
    Ok(socket)
}

/// Listens at `path`, for this user only: the mask of the process must say so.
pub(super) fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let (name, _folder) = short(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(&name)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}
