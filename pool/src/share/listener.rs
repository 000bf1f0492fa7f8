//! The keeping half.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use cob_protocol::limits::{ACCEPT_BACKOFF_MS, POOL_CONNECTIONS_MAX, STORE_LOCK_WAIT_MS};
use cob_protocol::resources::Limits;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt,
};
use rustix::process::geteuid;
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use super::client::encode;
use super::lent::Lent;
use super::wire::{Ask, ProgramText, Reply};
use crate::life::Parent;
use crate::limits::Cgroups;
use crate::packets::Packets;
use crate::pool::{Cold, Pool};
use crate::readiness::watch;
use crate::slots::Origin;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// What workers are made of: those of another build are of no use to whoever asks.
#[derive(Clone, Debug)]
pub struct Build {
    /// As whoever asks names it.
    pub name: String,
    /// Code that is handed to their program.
    pub image: Option<&'static [u8]>,
}

/// Where other processes ask for workers.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
    path: PathBuf,
    /// Held as long as we listen: whoever holds it is the one server.
    _lock: File,
}

/// Why nobody can be served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody else does already.
    #[error("another server keeps warm workers here already: process {pid}")]
    Taken {
        /// Its process id, as it wrote it down.
        pid: String,
    },
    /// The folder is not ours alone.
    #[error("{path} {reason}; remove it, or name another folder in COB_RUNTIME_DIR")]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system refuses.
    #[error("cannot use the folder {path}: {source}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The name of the socket in its folder.
const SOCKET: &str = "pool";

impl Listener {
    /// The socket in `folder`.
    #[must_use]
    pub fn path_in(folder: &Path) -> PathBuf {
        folder.join(SOCKET)
    }

    /// Listens in `folder`, which is made if it does not exist and must be closed to others.
    ///
    /// # Errors
    /// [`ListenError`]; nothing was changed then.
    pub fn bind(folder: &Path) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Io { path: folder.to_owned(), source };
        private_folder(folder)?;
        let lock = lock(folder).map_err(failed)?.map_err(|pid| ListenError::Taken { pid })?;
        let path = Self::path_in(folder);
        // Left behind by a server that was killed: nobody holds its lock any more.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let socket = listening(&path).map_err(failed)?;
        Ok(Self { socket, path, _lock: lock })
    }

    /// Ends what servers before us left behind, but for workers that somebody else has. Says how many processes
    /// that were.
    pub async fn sweep(&self) -> usize {
        tokio::task::spawn_blocking(|| Cgroups::detect().sweep()).await.unwrap_or_default()
    }

    /// Serves whoever asks, from `pool`; for ever. `builds` are what its workers are made of, and `ceiling` is what no
    /// session may exceed.
    pub async fn serve(&self, pool: &Pool, builds: &[Build], ceiling: &Limits) {
        let builds: Arc<[Build]> = builds.into();
        let room = Arc::new(Semaphore::new(POOL_CONNECTIONS_MAX));
        loop {
            // It is never closed.
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let accepted = self.socket.async_io(Interest::READABLE, |socket| {
                Ok(accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
            });
            let connection = match accepted.await {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection");
                    // It waits there still, and would keep us busy with nothing else.
                    tokio::time::sleep(Duration::from_millis(ACCEPT_BACKOFF_MS)).await;
                    continue;
                }
            };
            let server = Server {
                pool: pool.clone(),
                builds: Arc::clone(&builds),
                ceiling: ceiling.clone(),
                lent: Lent::default(),
            };
            tokio::spawn(async move {
                if let Err(error) = server.serve(connection).await {
                    tracing::warn!(%error, "a connection that asked for a worker is closed");
                }
                drop(place);
            });
        }
    }
}

/// Makes `folder` if it does not exist, and makes sure that nobody else can enter it.
///
/// # Errors
/// [`ListenError`]; nothing was changed then.
pub fn private_folder(folder: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Io { path: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let unsafe_because = |reason| ListenError::Unsafe { path: folder.to_owned(), reason };
    let metadata = folder.symlink_metadata().map_err(failed)?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
        return Err(unsafe_because("belongs to another user"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(unsafe_because("can be entered by other users"));
    }
    Ok(())
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn lock(folder: &Path) -> io::Result<Result<File, String>> {
    let path = folder.join("lock");
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    let got = match file.try_lock() {
        Err(TryLockError::WouldBlock) if comes_free(&file) => Ok(()),
        other => other,
    };
    match got {
        Ok(()) => {
            file.set_len(0)?;
            io::Write::write_all(&mut &file, std::process::id().to_string().as_bytes())?;
            Ok(Ok(file))
        }
        Err(TryLockError::WouldBlock) => Ok(Err(std::fs::read_to_string(&path)?)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the lock comes free in a moment. A server that was killed while it started a process leaves the lock with
/// that process until it runs its program.
fn comes_free(file: &File) -> bool {
    let (got, waiting) = sync_channel(1);
    let Ok(file) = file.try_clone() else { return false };
    // In a thread, because waiting for a lock knows no limit. One that comes too late is let go of at once.
    let wait = move || {
        if file.lock().is_ok() && got.send(()).is_err() {
            let _ = file.unlock();
        }
    };
    let waits = std::thread::Builder::new().spawn(wait).is_ok();
    waits && waiting.recv_timeout(Duration::from_millis(STORE_LOCK_WAIT_MS)).is_ok()
}

fn listening(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    watch(socket)
}

/// One connection.
struct Server {
    pool: Pool,
    builds: Arc<[Build]>,
    ceiling: Limits,
    lent: Lent,
}

impl Server {
    async fn serve(mut self, socket: OwnedFd) -> io::Result<()> {
        if sockopt::socket_peercred(&socket)?.uid != geteuid() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
        }
        let mut connection = Packets::new(socket)?;
        let ended = self.answer(&mut connection).await;
        // Whoever had the workers is gone, and with it everything that belonged to them.
        self.lent.clear_all().await;
        ended
    }

    async fn answer(&mut self, connection: &mut Packets) -> io::Result<()> {
        while let Some((packet, _)) = connection.receive().await? {
            let ask = rmp_serde::from_slice(&packet)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            match ask {
                Ask::Lease { build, program, limits } => {
                    self.lend(connection, &build, program, limits).await?
                }
                Ask::Clear { pid, exit, cpu_ms } => {
                    let exit = self.lent.clear(pid, exit, cpu_ms).await;
                    tell(connection, &Reply::Cleared { pid, exit }).await?;
                }
                Ask::Join { pid, marker, pipes } => self.lent.join(pid, &marker, &pipes),
                Ask::Spare { pid } => self.lent.spare(pid),
                Ask::Forget { pid, is_lost } => self.lent.forget(pid, is_lost),
                Ask::Keep { owner } => self.lent.keep(owner),
                Ask::Info => {
                    let json = serde_json::to_string(&self.pool.info().await).map_err(io::Error::other)?;
                    tell(connection, &Reply::Info { json }).await?;
                }
            }
        }
        Ok(())
    }

    async fn lend(
        &mut self,
        connection: &Packets,
        build: &str,
        program: ProgramText,
        limits: Limits,
    ) -> io::Result<()> {
        let refuse = async |reason: String| tell(connection, &Reply::Refused { reason }).await;
        let Some(image) = self.builds.iter().find(|known| known.name == build).map(|known| known.image)
        else {
            return refuse("the server is another version of cob; restart it".to_owned()).await;
        };
        if self.lent.has_begun() {
            return refuse("this connection has a worker already".to_owned()).await;
        }
        let limits = match limits.within(&self.ceiling) {
            Ok(limits) => limits,
            Err(error) => {
                let reason = error.to_string();
                return tell(connection, &Reply::Forbidden { reason }).await;
            }
        };
        let program = program.program(image);
        let mut grant = match self.pool.take(&program, Cold::Refused).await {
            Ok(grant) => grant,
            Err(error) => return refuse(error.to_string()).await,
        };
        if grant.origin == Origin::Cold {
            // Its zygote went away while the request waited; a child of this process cannot change hands.
            return refuse("there is no zygote to fork any more".to_owned()).await;
        }
        let enforced = grant.parked.enclosure.apply(grant.parked.life.pid(), &limits);
        let enforced = serde_json::to_string(&enforced).map_err(io::Error::other)?;
        let process = grant.parked.life.hand_over()?;
        let Parent::Zygote(status) = &process.parent else { return Ok(()) };
        let ends = &grant.parked.ends;
        let descriptors =
            [&ends.socket, &ends.stdout, &ends.stderr, &ends.page, &ends.lifeline, &process.pidfd, status]
                .map(|descriptor| descriptor.as_fd());
        let pid = grant.parked.life.pid();
        let owner = sockopt::socket_peercred(connection.socket())?.pid.as_raw_nonzero().get().unsigned_abs();
        grant.parked.enclosure.lend_to(owner);
        let was_warm = grant.origin == Origin::Warm;
        let reply = encode(&Reply::Leased {
            pid,
            marker: grant.parked.marker.clone(),
            was_warm,
            limits: limits.clone(),
            enforced,
        })?;
        // If it does not arrive, the lifeline closes with us, and the worker ends.
        connection.send(&reply, &descriptors).await?;
        grant.parked.enclosure.outlive();
        self.lent.begin(pid, std::mem::take(&mut grant.parked.enclosure), limits);
        Ok(())
    }
}

async fn tell(connection: &Packets, reply: &Reply) -> io::Result<()> {
    connection.send(&encode(reply)?, &[]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_comes_free_in_a_moment_is_waited_for_and_another_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap().unwrap();
        assert_eq!(lock(folder.path()).unwrap().unwrap_err(), std::process::id().to_string());
        let second = std::thread::spawn({
            let folder = folder.path().to_owned();
            move || lock(&folder).unwrap().is_ok()
        });
        drop(first);
        assert!(second.join().unwrap());
    }
}
