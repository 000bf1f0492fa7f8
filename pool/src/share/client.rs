//! The asking half.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cob_protocol::limits::POOL_ANSWER_MS_MAX;
use cob_protocol::resources::Limits;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustix::process::{Pid, geteuid};
use serde_json::Value;
use thiserror::Error;

use super::elsewhere::Elsewhere;
use super::wire::{Ask, ProgramText, Reply};
use crate::enclosure::Enclosure;
use crate::environment::Environment;
use crate::lease::{LeaseError, Leased, Origin, Request};
use crate::life::{Parent, Process};
use crate::packets::Packets;
use crate::parked::Parked;
use crate::spawn::Ends;
use crate::tree::Tree;

/// A pool that another process of this user may be keeping.
#[derive(Clone, Debug)]
pub struct SharedPool {
    path: PathBuf,
    build: String,
}

/// What became of a request.
enum Answer {
    Worker(Box<(Parked, Origin, (Limits, Value))>),
    None,
    Forbidden(String),
}

/// A pool that cannot be asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InfoError {
    /// Nobody listens.
    #[error(
        "no server keeps warm workers here (nothing answers at {path}: {source}); start one with `cob serve`"
    )]
    Absent {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It answered something else than asked.
    #[error("the server at {path} cannot be understood: {reason}")]
    Strange {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl SharedPool {
    /// The one at `path`. `build` names the program that workers must come from.
    #[must_use]
    pub fn at(path: PathBuf, build: String) -> Self {
        Self { path, build }
    }

    /// A warm worker; `None` when there is no pool, or it has none for this request. Then start one yourself.
    ///
    /// # Errors
    /// When a worker was given but its session could not be set up.
    pub async fn lease(&self, request: &Request) -> Result<Option<Leased>, LeaseError> {
        let (parked, origin, limits) = match self.ask_for_worker(request).await {
            Ok(Answer::Worker(granted)) => *granted,
            Ok(Answer::None) => return Ok(None),
            Ok(Answer::Forbidden(reason)) => return Err(LeaseError::Limits { reason }),
            Err(error) => {
                tracing::debug!(%error, path = %self.path.display(), "no warm worker from a server");
                return Ok(None);
            }
        };
        Leased::greet(parked, origin, limits, request).await.map(Some).or_else(|error| {
            // It died before it was ready, which says nothing about the next one.
            tracing::info!(%error, "a warm worker was of no use; starting one");
            Ok(None)
        })
    }

    async fn ask_for_worker(&self, request: &Request) -> io::Result<Answer> {
        let connection = self.connect()?;
        // What the environment does not depend on stays here: it reaches the worker with its `hello`.
        let program = Environment::of(&request.program).zygote(None);
        let ask = Ask::Lease {
            build: self.build.clone(),
            program: ProgramText::of(&program),
            limits: request.limits.clone(),
        };
        let (reply, descriptors) = exchange(&connection, &ask).await?;
        let (pid, marker, was_warm, limits, enforced) = match reply {
            Reply::Leased { pid, marker, was_warm, limits, enforced } => {
                (pid, marker, was_warm, limits, enforced)
            }
            Reply::Refused { reason } => {
                tracing::debug!(reason, "the server gives no worker");
                return Ok(Answer::None);
            }
            Reply::Forbidden { reason } => return Ok(Answer::Forbidden(reason)),
            Reply::Cleared { .. } | Reply::Info { .. } => return Err(strange("an answer to something else")),
        };
        let enforced = serde_json::from_str(&enforced).map_err(io::Error::other)?;
        let name = request.program.name();
        let mut parked = adopt(name, pid, descriptors)?;
        let tree = Tree::of(pid, &marker, &parked.pipes());
        parked.marker = marker;
        parked.enclosure = Enclosure::Elsewhere(Elsewhere::first(connection, pid, tree, &enforced));
        let origin = if was_warm { Origin::Warm } else { Origin::Forked };
        Ok(Answer::Worker(Box::new((parked, origin, (limits, enforced)))))
    }

    /// What the pool holds and has done: a JSON document, see [`crate::Info`].
    ///
    /// # Errors
    /// When nobody answers, or nobody who knows.
    pub async fn info(&self) -> Result<String, InfoError> {
        let strange = |reason: String| InfoError::Strange { path: self.path.clone(), reason };
        let connection =
            self.connect().map_err(|source| InfoError::Absent { path: self.path.clone(), source })?;
        match exchange(&connection, &Ask::Info).await {
            Ok((Reply::Info { json }, _)) => Ok(json),
            Ok(_) => Err(strange("an answer to something else".to_owned())),
            Err(error) => Err(strange(error.to_string())),
        }
    }

    fn connect(&self) -> io::Result<Packets> {
        let socket = connected(&self.path)?;
        if sockopt::socket_peercred(&socket)?.uid != geteuid() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
        }
        Packets::new(socket)
    }
}

/// Connects to whoever listens at `path`.
pub(super) fn connected(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

pub(crate) fn encode(message: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    rmp_serde::to_vec_named(message).map_err(io::Error::other)
}

fn strange(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Asks and waits for the answer, for a while.
async fn exchange(connection: &Packets, ask: &Ask) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let answered = async {
        connection.send(&encode(ask)?, &[]).await?;
        receive(connection).await
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
    tokio::time::timeout(Duration::from_millis(POOL_ANSWER_MS_MAX), answered).await.map_err(|_| late())?
}

pub(super) async fn receive(connection: &Packets) -> io::Result<(Reply, Vec<OwnedFd>)> {
    let (packet, descriptors) = connection.receive().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let reply = rmp_serde::from_slice(&packet).map_err(|error| strange(&error.to_string()))?;
    Ok((reply, descriptors))
}

/// Makes a worker of the descriptors of [`Reply::Leased`].
fn adopt(program: String, pid: u32, descriptors: Vec<OwnedFd>) -> io::Result<Parked> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let (Some(pid), Ok([socket, stdout, stderr, page, lifeline, pidfd, status])) =
        (pid, <[OwnedFd; 7]>::try_from(descriptors))
    else {
        return Err(strange("a worker without its descriptors"));
    };
    let process = Process { pid, pidfd, parent: Parent::Zygote(status) };
    Parked::of(program, process, Ends { socket, stdout, stderr, page, lifeline })
}
