//! A worker that waits for its session: it runs, its transport stands, nobody has greeted it yet.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cob_protocol::codec::FrameDecoder;
use cob_protocol::frame::Frame;
use cob_protocol::handshake::Hello;
use cob_protocol::limits::{START_OUTPUT_BYTES_MAX, WORKER_START_MS_MAX};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::enclosure::Enclosure;
use crate::life::{Life, Process};
use crate::spawn::{Ends, Program, spawn_worker, transport};
use crate::start_error::StartError;
use crate::tree::MARKER;
use crate::worker::Worker;

/// See the module. Dropping it kills the worker.
#[derive(Debug)]
pub(crate) struct Parked {
    /// What it runs, for messages.
    pub(crate) program: String,
    pub(crate) life: Life,
    pub(crate) ends: Ends,
    pub(crate) enclosure: Enclosure,
    /// The value of [`MARKER`] in the environment of its session.
    pub(crate) marker: String,
}

/// What a worker that was forked finds around it; one that was started got it from the system.
#[derive(Debug)]
pub(crate) struct Surroundings<'a>(pub(crate) &'a Program);

impl Surroundings<'_> {
    /// The payloads of a `hello`.
    fn payloads(&self, marker: &str) -> Vec<Bytes> {
        let directory = match &self.0.directory {
            Some(directory) => directory.clone(),
            None => std::env::current_dir().unwrap_or_else(|_| "/".into()),
        };
        vec![self.block(marker), Bytes::copy_from_slice(directory.as_os_str().as_bytes())]
    }

    /// The payloads of a `hello` to a worker that has surroundings already: what shall be different.
    pub(crate) fn changes(&self, marker: &str) -> Vec<Bytes> {
        let directory =
            self.0.directory.as_ref().map_or(&b""[..], |directory| directory.as_os_str().as_bytes());
        vec![self.block(marker), Bytes::copy_from_slice(directory)]
    }

    /// The variable by which what a worker starts is known, as the only one of an environment.
    pub(crate) fn marker(marker: &str) -> Bytes {
        block([(OsStr::new(MARKER), OsStr::new(marker))])
    }

    fn block(&self, marker: &str) -> Bytes {
        let own = (OsStr::new(MARKER), OsStr::new(marker));
        let variables = self.0.environment.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
        block(variables.filter(|(name, _)| *name != MARKER).chain([own]))
    }
}

fn block<'a>(variables: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>) -> Bytes {
    let mut block = Vec::new();
    for (name, value) in variables {
        block.extend_from_slice(name.as_bytes());
        block.push(b'=');
        block.extend_from_slice(value.as_bytes());
        block.push(0);
    }
    Bytes::from(block)
}

impl Parked {
    /// Starts the program itself.
    ///
    /// # Errors
    /// [`StartError::Spawn`] when it cannot be started.
    pub(crate) fn start(program: &Program) -> Result<Self, StartError> {
        let name = program.name();
        let failed = |source| StartError::Spawn { program: name.clone(), source };
        let (ends, theirs) = transport().map_err(failed)?;
        let marker = marker();
        let child = spawn_worker(program, theirs, &marker).map_err(failed)?;
        let process = Process::ours(child).map_err(failed)?;
        let parked = Self::of(name.clone(), process, ends).map_err(failed)?;
        Ok(Self { marker, ..parked })
    }

    /// A process that exists already.
    pub(crate) fn of(program: String, process: Process, ends: Ends) -> io::Result<Self> {
        let enclosure = Enclosure::default();
        Ok(Self { program, life: Life::watch(process)?, ends, enclosure, marker: marker() })
    }

    /// Waits until the worker says that it waits.
    ///
    /// # Errors
    /// [`StartError`] when it ends first or takes too long.
    pub(crate) async fn settled(&mut self) -> Result<(), StartError> {
        let deadline = Duration::from_millis(WORKER_START_MS_MAX);
        let program = self.program.clone();
        let failed = |source| StartError::Spawn { program: program.clone(), source };
        let socket = self.ends.socket.try_clone().and_then(crate::readiness::watch).map_err(failed)?;
        let mut decoder = FrameDecoder::new();
        let mut is_open = true;
        let outcome = tokio::time::timeout(deadline, async {
            loop {
                if let Some(exit) = self.life.ended() {
                    return Ok(Some(exit));
                }
                tokio::select! {
                    biased;
                    changed = self.life.changed() => changed?,
                    ready = socket.readable(), if is_open => drop(ready?),
                }
                match look(&socket, &mut decoder)? {
                    Look::Parked => return Ok(None),
                    Look::Closed if is_open => {
                        // Nobody is left to talk to; how it ends says more.
                        is_open = false;
                        self.life.kill();
                    }
                    Look::Closed | Look::Nothing => {}
                }
            }
        })
        .await;
        match outcome {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(exit))) => Err(StartError::Ended { program, exit, output: self.said() }),
            Ok(Err(source)) => Err(StartError::Spawn { program, source }),
            Err(_) => Err(StartError::TimedOut { program, output: self.said() }),
        }
    }

    /// What tells its output pipes from all others.
    pub(crate) fn pipes(&self) -> Vec<u64> {
        let inode = |pipe| rustix::fs::fstat(pipe).map(|stat| stat.st_ino);
        [&self.ends.stdout, &self.ends.stderr].into_iter().filter_map(|pipe| inode(pipe).ok()).collect()
    }

    /// What it wrote so far, for a message.
    fn said(&self) -> String {
        let mut text = Vec::new();
        for pipe in [&self.ends.stderr, &self.ends.stdout] {
            let mut part = vec![0; START_OUTPUT_BYTES_MAX];
            if let Ok(count) = rustix::io::read(pipe, &mut part[..]) {
                text.extend_from_slice(&part[..count]);
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Gives it its session.
    ///
    /// # Errors
    /// [`StartError::Spawn`] when the event loop takes no more descriptors.
    pub(crate) fn greet(
        self,
        hello: Hello,
        surroundings: Option<&Surroundings<'_>>,
    ) -> Result<Worker, StartError> {
        let payloads = surroundings.map_or_else(Vec::new, |it| it.payloads(&self.marker));
        Worker::greet(self, hello, payloads)
    }
}

/// A value of [`MARKER`] that no other worker on this host has.
fn marker() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static BEGAN: LazyLock<u128> =
        LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()));
    format!("{}-{}-{}", std::process::id(), *BEGAN, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What a look at the socket of a worker that nobody has greeted brought.
enum Look {
    Parked,
    Nothing,
    Closed,
}

/// Anything else than `parked` before a `hello` is a broken worker.
fn look(socket: &AsyncFd<OwnedFd>, decoder: &mut FrameDecoder) -> io::Result<Look> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    loop {
        let frame = decoder.next_frame().map_err(|error| invalid(error.to_string()))?;
        match frame.map(|envelope| envelope.frame) {
            Some(Frame::Parked(_)) => return Ok(Look::Parked),
            Some(other) => {
                let kind = other.kind().name();
                return Err(invalid(format!("protocol violation: a frame `{kind}` before it was greeted")));
            }
            None => {}
        }
        let mut bytes = [0; 256];
        match socket.try_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut bytes)?)) {
            Ok(0) => return Ok(Look::Closed),
            Ok(count) => decoder.push(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Look::Nothing),
            Err(error) => return Err(error),
        }
    }
}
