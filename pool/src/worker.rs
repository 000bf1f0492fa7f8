//! The handle to one worker: its frames and its output as one ordered sequence of events, and its end.
//!
//! **Invariant (output before result):** a frame leaves [`Worker::next`] only after every byte that was written to
//! the two pipes before it. The worker says how many those are ([`cob_protocol::frame::Position`]); they already
//! lie in the pipe when the frame arrives, so nothing ever has to be waited for. (But see `staging`: of a session that
//! survives, more may lie in a pipe than can be looked at before something is recorded.)

mod surviving;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cob_protocol::frame::{Envelope, Frame, Position, StreamName};
use cob_protocol::handshake::{Hello, Ready};
use cob_protocol::limits::{DISPLAY_FRAME_BYTES_MAX, START_OUTPUT_BYTES_MAX, WORKER_START_MS_MAX};
use rustix::process::Signal;
use tokio::net::UnixStream;

use crate::drain::Drain;
use crate::enclosure::Enclosure;
use crate::exit::Exit;
use crate::frame_reader::{Fill, FrameReader, ReadError};
use crate::frame_writer::{FrameWriter, Lane, SendError};
use crate::life::Life;
use crate::page::SharedPage;
use crate::parked::Parked;
use crate::spawn::{Ends, Program};
use crate::staging::Receipt;
use crate::start_error::StartError;
use crate::survival::Survival;

/// Bytes of frames taken from the socket ahead of their turn.
const FRAMES_AHEAD_BYTES: usize = DISPLAY_FRAME_BYTES_MAX;

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

/// Output that stands before a frame.
enum Before {
    Output(WorkerEvent),
    /// There is none.
    Nothing,
    /// It cannot be looked at before something is recorded.
    OutOfReach,
}

/// What a look without waiting brought.
enum Taken {
    Event(WorkerEvent),
    /// Something more was read, and has to be looked at.
    Again,
    Nothing,
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

    /// What can be given out without waiting.
    fn take(&mut self) -> Result<Taken, ReadError> {
        while let Some(front) = self.frames.front() {
            if let Some(at) = front.frame.position() {
                match self.take_output_before(at)? {
                    Before::Output(output) => return Ok(Taken::Event(output)),
                    Before::OutOfReach => return Ok(Taken::Nothing),
                    Before::Nothing => {}
                }
            }
            let Some(envelope) = self.frames.pop_front() else { break };
            self.given_frames = self.given_frames.max(envelope.sequence);
            if self.survival.is_none() {
                self.writer.acknowledge(envelope.sequence);
            }
            if let Frame::Mark(mark) = envelope.frame {
                self.leading = mark.next;
                self.leading_read = false;
                continue;
            }
            if envelope.frame.position().is_some() {
                self.leading = StreamName::Stdout;
                self.leading_read = false;
            }
            return Ok(Taken::Event(WorkerEvent::Frame(envelope.frame, envelope.payloads)));
        }
        self.take_output()
    }

    /// The two pipes, the one that is written now first.
    fn drains(&mut self) -> [&mut Drain; 2] {
        match self.leading {
            StreamName::Stdout => [&mut self.stdout, &mut self.stderr],
            StreamName::Stderr => [&mut self.stderr, &mut self.stdout],
        }
    }

    /// Output that stands before a frame and has not been given out.
    fn take_output_before(&mut self, at: Position) -> Result<Before, ReadError> {
        let (leading, page) = (self.leading, self.page.get());
        let [first, second] = match leading {
            StreamName::Stdout => [(&mut self.stdout, at.stdout), (&mut self.stderr, at.stderr)],
            StreamName::Stderr => [(&mut self.stderr, at.stderr), (&mut self.stdout, at.stdout)],
        };
        for (drain, position) in [first, second] {
            let missing = position.saturating_sub(drain.emitted());
            if missing > 0 && !drain.is_holding() {
                // The bytes are there, unless the worker lies about its position; then nothing is owed.
                drain.read(page, usize::try_from(missing).unwrap_or(usize::MAX))?;
                if drain.is_starved() {
                    return Ok(Before::OutOfReach);
                }
            }
            if missing > 0
                && let Some(bytes) = drain.pop(missing)
            {
                return Ok(Before::Output(WorkerEvent::Output(drain.stream(), bytes)));
            }
        }
        Ok(Before::Nothing)
    }

    /// Output that no frame stands before: only when none can still be in the socket.
    fn take_output(&mut self) -> Result<Taken, ReadError> {
        if !self.socket_dry || self.held_until().is_some() {
            return Ok(Taken::Nothing);
        }
        let is_leading_read = self.leading_read;
        let [first, second] = self.drains();
        if let Some(bytes) = first.pop(u64::MAX) {
            return Ok(Taken::Event(WorkerEvent::Output(first.stream(), bytes)));
        }
        if is_leading_read && let Some(bytes) = second.pop(u64::MAX) {
            return Ok(Taken::Event(WorkerEvent::Output(second.stream(), bytes)));
        }
        if !second.is_holding() {
            return Ok(Taken::Nothing);
        }
        // What was written to the leading stream before the bytes that we hold lies in its pipe by now, and the
        // frames before that in the socket.
        self.leading_read = true;
        let page = self.page.get();
        match self.leading {
            StreamName::Stdout => self.stdout.read(page, usize::MAX)?,
            StreamName::Stderr => self.stderr.read(page, usize::MAX)?,
        };
        self.take_frames()?;
        Ok(Taken::Again)
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

    /// Takes frames until the socket is empty, or enough of them wait.
    fn take_frames(&mut self) -> Result<(), ReadError> {
        self.socket_dry = false;
        let mut bytes = 0;
        loop {
            while let Some(envelope) = self.reader.decoded()? {
                bytes += envelope.payloads.iter().map(Bytes::len).sum::<usize>();
                if let Some(envelope) = self.welcome(envelope)? {
                    self.frames.push_back(envelope);
                }
            }
            if bytes > FRAMES_AHEAD_BYTES || self.frames.len() > 1024 {
                return Ok(());
            }
            match self.reader.fill()? {
                Fill::Some => {}
                Fill::Dry => break,
                Fill::Ended => {
                    // Nobody is left to talk to; if the process is not on its way out already, end it.
                    self.life.kill();
                    break;
                }
            }
        }
        self.socket_dry = true;
        Ok(())
    }

    /// After the end: everything that still lies in pipes and socket. A transport that broke has no more frames.
    fn take_remains(&mut self) {
        let page = self.page.get();
        let _ = self.stdout.read(page, usize::MAX);
        let _ = self.stderr.read(page, usize::MAX);
        let _ = self.take_frames();
        self.socket_dry = true;
    }

    fn look_at_life(&mut self) {
        if let (Some(exit), Ending::Alive) = (self.life.ended(), &self.ending) {
            self.ending = Ending::Gone(self.cause.take().unwrap_or(exit));
        }
    }

    /// After the end of the process: ends what it left behind, and asks what the session's limits had to do with it.
    async fn clear(&mut self) {
        if let Ending::Gone(exit) = &self.ending {
            let exit = exit.clone();
            let verdict = self.enclosure.clear(exit.clone(), self.life.cpu_ms()).await;
            self.ending = Ending::Cleared(if self.is_killed { exit } else { verdict });
        }
    }

    /// How the worker ended, once everything it left has been given out.
    fn finished(&mut self) -> Option<Exit> {
        let Ending::Cleared(exit) = &self.ending else { return None };
        let exit = exit.clone();
        self.take_remains();
        let drains = [&self.stdout, &self.stderr];
        let is_empty = drains.iter().all(|drain| !drain.is_holding() && !drain.is_starved());
        (is_empty && self.frames.is_empty()).then_some(exit)
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
