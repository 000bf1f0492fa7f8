//! The handle that a server has on its custodian.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cob_protocol::crash_point;
use cob_protocol::limits::{CUSTODY_NOTE_BYTES_MAX, POOL_ANSWER_MS_MAX};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::CustodyError;
use super::address::reach;
use super::secret::unique;
use super::wire::{Ask, Asked, Replied, Reply};
use crate::orphans::Awaited;
use crate::packets::{Packets, send};
use crate::readiness::watch;
use crate::share::encode;
use crate::spawn::{Program, spawn_custodian};
use crate::worker::Worker;

/// Requests to one custodian that wait their turn.
const ASKS_MAX: usize = 64;

/// What the names of sockets begin with.
const NAME: &str = "custodian-";

/// A custodian, as its server sees it. When the last handle is gone, it thinks that the server is.
#[derive(Clone, Debug)]
pub struct Custodian(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    pid: Pid,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    asks: mpsc::Sender<Question>,
    /// The connection, for what is not answered.
    socket: OwnedFd,
    last: AtomicU64,
}

/// Where a worker can be found after the death of its server.
#[derive(Clone, PartialEq, Eq)]
pub struct Deposit {
    /// The custodian's socket.
    pub socket: PathBuf,
    /// What it must be told: good for one server.
    pub secret: String,
}

/// Something asked, and who waits for the answer.
struct Question {
    asked: Asked,
    descriptors: Vec<OwnedFd>,
    answer: oneshot::Sender<io::Result<(Reply, Vec<OwnedFd>)>>,
}

impl Custodian {
    /// Starts one. `program` is what runs [`super::custodian_main`], `folder` where the next server will find it, which
    /// nobody else may enter. After the death of its server it waits for the next one for `grace`.
    ///
    /// # Errors
    /// [`CustodyError::Start`]; nothing is left of it then.
    pub async fn start(program: &Program, folder: &Path, grace: Duration) -> Result<Self, CustodyError> {
        let failed = |source| CustodyError::Start { program: program.path.display().to_string(), source };
        let folder = std::path::absolute(folder).map_err(failed)?;
        sweep(&folder);
        let path = folder.join(format!("{NAME}{}", unique().map_err(failed)?));
        let (packets, theirs) = Packets::pair().map_err(failed)?;
        let (mut child, awaited) = spawn_custodian(program, theirs).map_err(failed)?;
        let pid = Pid::from_child(&child);
        let watched = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(io::Error::from).and_then(watch);
        let pidfd = match watched {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // Its connection is closed: it ends by itself, and soon.
                drop(packets);
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(error));
            }
        };
        let custodian =
            Self::of(path.clone(), packets, pid, pidfd, Some((child, awaited))).map_err(failed)?;
        let socket = path.as_os_str().as_bytes().to_vec();
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        match custodian.ask(Ask::Begin { socket, grace_ms }, Vec::new()).await {
            Ok((Reply::Done, _)) => Ok(custodian),
            Ok((Reply::Refused { reason }, _)) => Err(failed(io::Error::other(reason))),
            Ok(_) => Err(failed(strange())),
            Err(error) => Err(failed(error)),
        }
    }

    /// The one that listens at `path`.
    pub(super) async fn at(path: &Path) -> Result<Self, CustodyError> {
        let absent = |source| CustodyError::Absent { path: path.to_owned(), source };
        let place = path.to_owned();
        let reached = tokio::task::spawn_blocking(move || reach(&place)).await;
        let socket = reached.map_err(|error| absent(io::Error::other(error)))?.map_err(absent)?;
        let peer = sockopt::socket_peercred(&socket).map_err(|error| absent(error.into()))?;
        if peer.uid != geteuid() {
            let reason = io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user");
            return Err(absent(reason));
        }
        let pidfd = pidfd_open(peer.pid, PidfdFlags::NONBLOCK).map_err(io::Error::from);
        let pidfd = pidfd.and_then(watch).map_err(absent)?;
        let packets = Packets::new(socket).map_err(absent)?;
        Self::of(path.to_owned(), packets, peer.pid, pidfd, None).map_err(absent)
    }

    fn of(
        path: PathBuf,
        packets: Packets,
        pid: Pid,
        pidfd: AsyncFd<OwnedFd>,
        child: Option<(Child, Awaited)>,
    ) -> io::Result<Self> {
        let socket = packets.socket().try_clone_to_owned()?;
        let pidfd = Arc::new(pidfd);
        let (asks, questions) = mpsc::channel(ASKS_MAX);
        tokio::spawn(serve(packets, questions));
        if let Some(child) = child {
            tokio::spawn(reap(child, Arc::clone(&pidfd)));
        }
        Ok(Self(Arc::new(Inner { path, pid, pidfd, asks, socket, last: AtomicU64::new(0) })))
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.0.path
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid.as_raw_pid().unsigned_abs()
    }

    /// Hands over duplicates of everything that `worker` has. `note` comes back to whoever takes it over.
    ///
    /// # Errors
    /// [`CustodyError`]: the worker dies with this process, then.
    pub async fn deposit(&self, worker: &Worker, note: &str) -> Result<Deposit, CustodyError> {
        if note.len() > CUSTODY_NOTE_BYTES_MAX {
            return Err(CustodyError::Note(note.len()));
        }
        let (held, descriptors) = worker.custody(note)?;
        // Before it holds the worker: whoever ends what dead servers left must not find it without an owner.
        worker.lend_to(self.pid());
        match self.ask(Ask::Deposit(Box::new(held)), descriptors).await.map_err(CustodyError::Lost)? {
            (Reply::Deposited { secret }, _) => {
                crash_point!("custody_deposited");
                worker.deposited(self.clone(), secret.clone());
                Ok(Deposit { socket: self.0.path.clone(), secret })
            }
            (Reply::Refused { reason }, _) => Err(CustodyError::Refused { reason }),
            _ => Err(CustodyError::Lost(strange())),
        }
    }

    /// The worker that is held under `secret` has ended, or shall not survive any more. Also done when a [`Worker`] is
    /// dropped.
    pub fn release(&self, secret: &str) {
        let asked = Asked { number: self.number(), ask: Ask::Release { secret: secret.to_owned() } };
        let sent = encode(&asked).and_then(|packet| send(self.connection(), &packet, &[]));
        match sent {
            // It is stopped, and has not read for long.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tracing::warn!("the custodian does not listen; it holds a worker that has ended");
            }
            // One that is gone holds nothing.
            Ok(()) | Err(_) => {}
        }
    }

    /// Whether it has gone by now.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let pidfd = self.0.pidfd.get_ref();
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        ready.is_ok_and(|count| count > 0)
    }

    /// Waits until it has gone. Its server then starts another one and deposits again.
    pub async fn lost(&self) {
        // If its end cannot be waited for, it has none that anybody sees.
        match self.0.pidfd.readable().await {
            Ok(mut ended) => ended.retain_ready(),
            Err(_) => std::future::pending().await,
        }
    }

    pub(super) async fn ask(&self, ask: Ask, descriptors: Vec<OwnedFd>) -> io::Result<(Reply, Vec<OwnedFd>)> {
        let (answer, answered) = oneshot::channel();
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let asked = Asked { number: self.number(), ask };
        let question = Question { asked, descriptors, answer };
        self.0.asks.send(question).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    fn number(&self) -> u64 {
        self.0.last.fetch_add(1, Ordering::Relaxed)
    }

    fn connection(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

impl std::fmt::Debug for Deposit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret must not get into a log.
        f.debug_struct("Deposit").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Removes what custodians left that were killed.
fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().as_bytes().starts_with(NAME.as_bytes());
        // Where somebody listens he takes it for a stranger who has nothing to say.
        if is_ours && reach(&entry.path()).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer to something else")
}

/// Asks one question after the other.
async fn serve(mut packets: Packets, mut questions: mpsc::Receiver<Question>) {
    while let Some(Question { asked, descriptors, answer }) = questions.recv().await {
        let patience = Duration::from_millis(POOL_ANSWER_MS_MAX);
        let exchanged = tokio::time::timeout(patience, exchange(&mut packets, &asked, &descriptors)).await;
        let late = || io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
        if let Err(Ok((Reply::Deposited { secret }, _))) =
            answer.send(exchanged.unwrap_or_else(|_| Err(late())))
        {
            // Nobody waits for it any more, and nobody else will ever know it.
            let ask = Asked { number: asked.number, ask: Ask::Release { secret } };
            let _ = encode(&ask).and_then(|packet| send(packets.socket(), &packet, &[]));
        }
    }
}

async fn exchange(
    packets: &mut Packets,
    asked: &Asked,
    descriptors: &[OwnedFd],
) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    packets.send(&encode(asked)?, &borrowed).await?;
    loop {
        let (packet, descriptors) = packets.receive().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let replied: Replied = rmp_serde::from_slice(&packet).map_err(|_| strange())?;
        // What somebody waited for who gave up is not for us.
        if replied.number == asked.number {
            return Ok((replied.reply, descriptors));
        }
    }
}

/// Nobody else waits for it, and it shall not stay behind as a process that has ended.
async fn reap((mut child, _awaited): (Child, Awaited), pidfd: Arc<AsyncFd<OwnedFd>>) {
    if let Ok(mut ended) = pidfd.readable().await {
        ended.retain_ready();
        let _ = child.wait();
    }
}
