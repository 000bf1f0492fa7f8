//! The handle to one worker: its frames and its output as one ordered sequence of events, and its end.
//!
//! **Invariant (output before result):** a frame leaves [`Worker::next`] only after every byte that was written to
//! the two pipes before it. The worker says how many those are ([`cob_protocol::frame::Position`]); they already
//! lie in the pipe when the frame arrives, so nothing ever has to be waited for. (But see `staging`: of a session that
//! survives, more may lie in a pipe than can be looked at before something is recorded.)

mod ending;
mod order;
mod surviving;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cob_protocol::frame::{Envelope, Frame, StreamName};
use cob_protocol::handshake::{Hello, Ready};
use cob_protocol::limits::{START_OUTPUT_BYTES_MAX, WORKER_START_MS_MAX};
use rustix::process::Signal;
use tokio::net::UnixStream;

use crate::drain::Drain;
use crate::enclosure::Enclosure;
use crate::exit::Exit;
use crate::frame_reader::{FrameReader, ReadError};
use crate::frame_writer::{FrameWriter, Lane, SendError};
use crate::frozen::OnTheirWay;
use crate::household::Household;
use crate::life::Life;
use crate::page::SharedPage;
use crate::parked::Parked;
use crate::spawn::{Ends, Program};
use crate::staging::Receipt;
use crate::start_error::StartError;
use crate::survival::Survival;
use order::Taken;

/// What a worker does, in the order it did it.
#[derive(Debug)]
pub enum WorkerEvent {
    /// It wrote to stdout or stderr.
    Output(StreamName, Bytes),
    /// It sent a frame.
    Frame(Frame, Vec<Bytes>),
    /// It is gone, and everything it wrote has been given out.
    Gone(Exit),
}

/// One worker process.
pub struct Worker {
    program: String,
    life: Life,
    reader: FrameReader,
    writer: FrameWriter,
    stdout: Drain,
    stderr: Drain,
    page: SharedPage,
    frames: VecDeque<Envelope>,
    /// Which stream comes first until the next frame with a place: the one the worker said it writes.
    leading: StreamName,
    /// The leading pipe was read after everything that is held of the other one.
    leading_read: bool,
    /// The socket was found empty after the last look at the pipes.
    socket_dry: bool,
    /// Why we kill it, if it gave us a reason: how it ended, then.
    cause: Option<Exit>,
    /// We killed it, for whatever reason: its limits had nothing to do with it.
    is_killed: bool,
    ending: Ending,
    on_their_way: OnTheirWay,
    enclosure: Enclosure,
    lifeline: OwnedFd,
    /// Number of the last frame that was given out, and of the last that came.
    given_frames: u64,
    came_frames: u64,
    /// What is needed besides if it survives this process.
    survival: Option<Survival>,
}

/// What a worker is made of.
pub(crate) struct Parts {
    pub(crate) program: String,
    pub(crate) life: Life,
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
    pub(crate) stdout: Drain,
    pub(crate) stderr: Drain,
    pub(crate) enclosure: Enclosure,
    pub(crate) lifeline: OwnedFd,
}

/// How far the end of the worker has come.
#[derive(Debug)]
enum Ending {
    Alive,
    /// The process is gone; whatever else belonged to it is being ended.
    Gone(Exit),
    /// Nothing of it is left; what it wrote into pipes and socket is being brought out.
    Cleared(Exit),
}

impl Worker {
    /// Starts a worker and greets it. [`Worker::ready`] waits for its answer.
    ///
    /// # Errors
    /// [`StartError::Spawn`] when the program cannot be started.
    pub fn start(program: &Program, hello: Hello) -> Result<Self, StartError> {
        Parked::start(program)?.greet(hello, None)
    }

    /// Sends `hello` to a worker that waits for it.
    pub(crate) fn greet(parked: Parked, hello: Hello, payloads: Vec<Bytes>) -> Result<Self, StartError> {
        let Parked { program, life, ends, enclosure, marker } = parked;
        let Ends { socket, stdout, stderr, page, lifeline } = ends;
        let failed = |source| StartError::Spawn { program: program.clone(), source };
        let socket = UnixStream::from_std(std::os::unix::net::UnixStream::from(socket)).map_err(failed)?;
        let (read, write) = socket.into_split();
        let map = SharedPage::map(&page).map_err(failed)?;
        let survival = match hello.survives {
            true => Some(Survival::new(marker, page, Receipt::new().map_err(failed)?)),
            false => None,
        };
        let drain = |stream, pipe| match &survival {
            Some(survival) => Drain::staged(stream, pipe, Arc::clone(&survival.receipt), 0, false),
            None => Drain::new(stream, pipe),
        };
        let parts = Parts {
            life,
            reader: FrameReader::new(read),
            writer: FrameWriter::new(write),
            stdout: drain(StreamName::Stdout, stdout).map_err(failed)?,
            stderr: drain(StreamName::Stderr, stderr).map_err(failed)?,
            enclosure,
            lifeline,
            program: program.clone(),
        };
        let mut worker = Self::assemble(parts, map, survival);
        worker.send(&hello.into(), payloads, Lane::Control).map_err(|e| failed(io::Error::other(e)))?;
        Ok(worker)
    }

    pub(crate) fn assemble(parts: Parts, page: SharedPage, survival: Option<Survival>) -> Self {
        let Parts { program, life, reader, writer, stdout, stderr, enclosure, lifeline } = parts;
        Self {
            program,
            life,
            reader,
            writer,
            stdout,
            stderr,
            page,
            frames: VecDeque::new(),
            leading: StreamName::Stdout,
            leading_read: false,
            socket_dry: false,
            cause: None,
            is_killed: false,
            ending: Ending::Alive,
            on_their_way: OnTheirWay::none(),
            enclosure,
            lifeline,
            given_frames: survival.as_ref().map_or(0, |survival| survival.recorded),
            came_frames: 0,
            survival,
        }
    }

    /// Waits for the worker's `ready`.
    ///
    /// # Errors
    /// [`StartError`] when it ends first, takes too long or speaks another version; it is killed then.
    pub async fn ready(&mut self) -> Result<Ready, StartError> {
        let mut output = Vec::new();
        let deadline = Duration::from_millis(WORKER_START_MS_MAX);
        let ended = tokio::time::timeout(deadline, async {
            loop {
                let event = self.next().await;
                // Nobody records what comes before the session, and nobody misses it.
                self.record(self.given());
                match event {
                    WorkerEvent::Output(_, bytes) if output.len() < START_OUTPUT_BYTES_MAX => {
                        output.extend_from_slice(&bytes);
                    }
                    WorkerEvent::Frame(Frame::Ready(ready), _) => break Ok(ready),
                    WorkerEvent::Gone(exit) => break Err(exit),
                    WorkerEvent::Output(..) | WorkerEvent::Frame(..) => {}
                }
            }
        })
        .await;
        let output = String::from_utf8_lossy(&output).into_owned();
        let program = self.program.clone();
        match ended {
            Ok(Ok(ready)) => {
                cob_protocol::handshake::VERSIONS.agree(ready.versions)?;
                self.reader.handshake_done();
                Ok(ready)
            }
            Ok(Err(exit)) => Err(StartError::Ended { program, exit, output }),
            Err(_) => {
                self.kill();
                Err(StartError::TimedOut { program, output })
            }
        }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.life.pid()
    }

    /// Sends a frame, or queues what the socket does not take now; [`Worker::next`] goes on writing.
    ///
    /// # Errors
    /// When the frame is too large or too much waits already. A worker that is gone is no error: its end comes as
    /// an event.
    pub fn send(&mut self, frame: &Frame, payloads: Vec<Bytes>, lane: Lane) -> Result<(), SendError> {
        self.writer.push(frame, payloads, lane)?;
        // A broken socket shows as the end of the worker.
        let _ = self.writer.flush();
        Ok(())
    }

    /// As [`Worker::send`], behind all requests and with a descriptor beside the frame.
    pub(crate) fn send_beside(&mut self, frame: &Frame, beside: OwnedFd) -> Result<(), SendError> {
        self.writer.push_beside(frame, beside, Lane::Data)?;
        let _ = self.writer.flush();
        Ok(())
    }

    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    pub(crate) fn household(&self) -> Household {
        self.enclosure.household()
    }

    pub(crate) fn on_their_way(&self) -> &OnTheirWay {
        &self.on_their_way
    }

    /// Interrupts `execution`: SIGINT to the process group, which the worker lets through only for it.
    pub fn interrupt(&self, execution: u64) {
        self.page.get().aim_interrupt(execution);
        self.life.signal_group(Signal::INT);
    }

    /// Kills the worker and its process group. Its end comes as an event.
    pub fn kill(&mut self) {
        self.is_killed = true;
        self.life.kill();
    }

    /// Kills a worker that said what it must not say; its end will name `violation`.
    pub fn condemn(&mut self, violation: &str) {
        self.kill_for(Exit::Violation(violation.to_owned()));
    }

    fn kill_for(&mut self, cause: Exit) {
        self.cause.get_or_insert(cause);
        self.kill();
    }

    /// The next thing the worker did. After [`WorkerEvent::Gone`] there is nothing more. Cancel-safe.
    pub async fn next(&mut self) -> WorkerEvent {
        loop {
            match self.take() {
                Ok(Taken::Event(event)) => return event,
                Ok(Taken::Nothing) => {}
                Ok(Taken::Again) => {
                    // A worker that floods the socket must not keep everybody else from their turn.
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(error) => self.give_up(&error),
            }
            self.clear().await;
            if let Some(exit) = self.finished() {
                return WorkerEvent::Gone(exit);
            }
            if let Err(error) = self.wait().await {
                self.give_up(&error);
            }
        }
    }

    /// Waits for something to happen, and takes what came. Awaits readiness only, so it is cancel-safe.
    async fn wait(&mut self) -> Result<(), ReadError> {
        let is_starved = self.stdout.is_starved() || self.stderr.is_starved();
        match self.ending {
            // Whoever records something drops this wait.
            Ending::Gone(_) | Ending::Cleared(_) if is_starved => return std::future::pending().await,
            Ending::Gone(_) | Ending::Cleared(_) => return Ok(()),
            Ending::Alive => {}
        }
        // A transport that failed has nothing more to say; only the end of the process is waited for.
        let is_sound = self.cause.is_none();
        let held_until = self.held_until();
        tokio::select! {
            biased;
            ready = self.reader.readable(), if is_sound && !is_starved => ready?,
            () = surviving::turn(&mut self.survival), if is_sound => {}
            () = surviving::until(held_until) => {}
            ready = self.stdout.due() => {
                ready?;
                self.stdout.take(self.page.get())?;
            }
            ready = self.stderr.due() => {
                ready?;
                self.stderr.take(self.page.get())?;
            }
            changed = self.life.changed() => {
                changed?;
                self.look_at_life();
            }
            ready = self.writer.writable(), if is_sound => {
                ready?;
                // A broken socket shows as the end of the worker.
                let _ = self.writer.flush();
            }
        }
        self.leading_read = false;
        // After the pipes, never before: a frame that stands before bytes we hold is in the socket by now.
        self.take_frames()
    }

    /// Ends a worker that cannot be talked to any more.
    fn give_up(&mut self, error: &ReadError) {
        self.kill_for(match error {
            ReadError::Codec(error) => Exit::Violation(error.to_string()),
            ReadError::Order(what) => Exit::Violation((*what).to_owned()),
            ReadError::Io(error) => Exit::Transport(error.to_string()),
        });
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("program", &self.program)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}
