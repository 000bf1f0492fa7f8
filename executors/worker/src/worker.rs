//! What running code can do in a worker: print, send frames, ask the host.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use bytes::Bytes;
use cob_protocol::codec::CodecError;
use cob_protocol::frame::{
    Answer, Call, Envelope, ExecutionNumber, Frame, Log, Mark, Outcome, Ping, Pong, Stream, StreamName,
    call_number,
};
use cob_protocol::json::Json;
use cob_protocol::limits::{STREAM_EVENT_BYTES_MAX, UNACKNOWLEDGED_BYTES_MAX};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::descriptors::Descriptors;
use crate::executor::Interpreter;
use crate::inbox::{Filled, Inbox};
use crate::interrupt;
use crate::link::Link;
use crate::nudge::Waiting;
use crate::outbox::{Outbox, SendError};
use crate::output::{self, Output};
use crate::page;
use crate::parents::Parents;
use crate::process::{self, EXIT_PROTOCOL, EXIT_QUIETLY, HeldSignals};

/// The one worker of this process.
#[derive(Debug)]
pub struct Worker {
    pub(crate) link: Arc<Link>,
    pub(crate) output: Output,
    pub(crate) outbox: Outbox,
    /// Never locked while code of the user can run. Others than the main thread lock it only to get hold of a new
    /// socket, and wait for nothing meanwhile.
    inbox: Arc<Mutex<Inbox>>,
    parents: Parents,
    pub(crate) running: AtomicU64,
    requests: AtomicU64,
    main: ThreadId,
}

impl Worker {
    /// Makes this process a worker; the calling thread becomes its main thread. `deliver` interrupts the code
    /// of the language and must be async-signal-safe.
    ///
    /// # Errors
    /// When the shared page cannot be mapped or the system refuses a hook.
    pub fn new(descriptors: Descriptors, deliver: fn()) -> io::Result<Self> {
        Self::keeping(descriptors, deliver, UNACKNOWLEDGED_BYTES_MAX)
    }

    /// A worker that keeps no more than `bytes_max` of frames that the kernel has not recorded.
    ///
    /// # Errors
    /// See [`Worker::new`].
    pub fn keeping(descriptors: Descriptors, deliver: fn(), bytes_max: usize) -> io::Result<Self> {
        let Descriptors { socket, page: memory, stdout, stderr } = descriptors;
        let page = page::map(memory)?;
        process::watch_forks([socket.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()])?;
        interrupt::set_up(page, deliver);
        interrupt::install()?;
        let link = Arc::new(Link::new(socket, page));
        let inbox = Arc::new(Mutex::new(Inbox::new(Arc::clone(&link))));
        Ok(Self {
            output: Output::new(page, stdout, stderr),
            outbox: Outbox::new(Arc::clone(&link), Arc::clone(&inbox), bytes_max),
            inbox,
            link,
            parents: Parents::default(),
            running: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            main: thread::current().id(),
        })
    }

    /// The execution that runs, or 0.
    #[must_use]
    pub fn running(&self) -> ExecutionNumber {
        self.running.load(Ordering::Relaxed)
    }

    /// The client's header of an execution, if it was not too long ago.
    #[must_use]
    pub fn parent(&self, execution: ExecutionNumber) -> Option<Json> {
        self.parents.get(execution)
    }

    /// Sends a frame, with its place among the output.
    ///
    /// # Errors
    /// [`SendError::Interrupted`] before anything was sent; [`SendError::Codec`] when the frame is too large.
    pub fn send<I: Interpreter>(
        &self,
        interpreter: &I,
        frame: impl Into<Frame>,
        payloads: &[Bytes],
    ) -> Result<(), SendError<I::Interrupt>> {
        self.outbox.send(interpreter, &self.output, frame.into(), payloads)
    }

    /// Sends a frame that belongs to no code: a signal does not take it back.
    ///
    /// # Errors
    /// When the frame is too large or malformed.
    pub fn tell<I: Interpreter>(
        &self,
        interpreter: &I,
        frame: impl Into<Frame>,
        payloads: &[Bytes],
    ) -> Result<(), CodecError> {
        let frame = frame.into();
        loop {
            match self.send(interpreter, frame.clone(), payloads) {
                Ok(()) | Err(SendError::Io(_)) => return Ok(()),
                Err(SendError::Codec(error)) => return Err(error),
                Err(SendError::Interrupted(_)) => {}
            }
        }
    }

    /// Says something to the operator; what is too long is cut.
    pub fn log<I: Interpreter>(&self, interpreter: &I, level: &str, text: &str) {
        let text = text.get(..text.floor_boundary(STREAM_EVENT_BYTES_MAX)).unwrap_or_default();
        let log = Log { level: level.to_owned(), text: text.to_owned() };
        // A short log cannot be too large.
        let _ = self.tell(interpreter, log, &[]);
    }

    /// Writes text of the execution `origin` (0: not known) to a stream.
    ///
    /// What the running code writes goes to the pipe, everything else in a frame that names its execution.
    ///
    /// # Errors
    /// See [`Output::write`] and [`Worker::send`].
    pub fn print<I: Interpreter>(
        &self,
        interpreter: &I,
        stream: StreamName,
        origin: ExecutionNumber,
        text: &str,
    ) -> Result<(), SendError<I::Interrupt>> {
        if process::is_child() {
            return self.output.write(interpreter, stream, text.as_bytes());
        }
        if origin != 0 && origin != self.running() {
            return self.print_late(interpreter, stream, origin, text);
        }
        if self.output.needs_mark(stream) {
            // The place itself is filled in where the frame gets its number.
            self.send(interpreter, Mark { at: Default::default(), next: stream }, &[])?;
        }
        self.output.set_active(stream);
        let written = self.output.write(interpreter, stream, text.as_bytes());
        if matches!(&written, Err(SendError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe)
            && self.host_is_gone()
        {
            process::exit_now(EXIT_QUIETLY);
        }
        written
    }

    fn print_late<I: Interpreter>(
        &self,
        interpreter: &I,
        name: StreamName,
        execution: ExecutionNumber,
        mut text: &str,
    ) -> Result<(), SendError<I::Interrupt>> {
        while !text.is_empty() {
            let (part, rest) = text.split_at(text.floor_boundary(STREAM_EVENT_BYTES_MAX));
            let payload = Bytes::copy_from_slice(part.as_bytes());
            let frame = Stream { execution, name, at: Default::default() };
            self.send(interpreter, frame, &[payload])?;
            text = rest;
        }
        Ok(())
    }

    /// Asks the host and waits for its answer. Meanwhile other frames are put aside, in order.
    ///
    /// # Errors
    /// The interrupt that gave the wait up, or [`SendError::Codec`] for arguments that are too large.
    pub fn call<I: Interpreter>(
        &self,
        interpreter: &I,
        kind: String,
        arguments: Json,
    ) -> Result<Outcome, SendError<I::Interrupt>> {
        let execution = self.running();
        if let Some(reason) = self.cannot_call(execution) {
            return Ok(Outcome::Declined(reason.to_owned()));
        }
        loop {
            let outcome = self.ask(interpreter, execution, kind.clone(), arguments.clone())?;
            if outcome != Outcome::Again {
                return Ok(outcome);
            }
        }
    }

    fn ask<I: Interpreter>(
        &self,
        interpreter: &I,
        execution: ExecutionNumber,
        kind: String,
        arguments: Json,
    ) -> Result<Outcome, SendError<I::Interrupt>> {
        let request = call_number(self.requests.fetch_add(1, Ordering::Relaxed) + 1, &kind);
        let call = Call { request, execution, kind, arguments, at: Default::default() };
        // Before it is sent: a kernel that comes in between would take it for given up.
        self.inbox().await_answer(Some(request));
        let outcome =
            self.send(interpreter, call, &[]).and_then(|()| self.wait_for_answer(interpreter, request));
        self.inbox().await_answer(None);
        outcome
    }

    fn wait_for_answer<I: Interpreter>(
        &self,
        interpreter: &I,
        request: u64,
    ) -> Result<Outcome, SendError<I::Interrupt>> {
        loop {
            if let Some(outcome) = self.take_answer(interpreter, request) {
                return Ok(outcome);
            }
            self.wait_for_bytes(interpreter).map_err(SendError::Interrupted)?;
        }
    }

    fn cannot_call(&self, execution: ExecutionNumber) -> Option<&'static str> {
        if process::is_child() {
            Some("a forked process cannot ask")
        } else if thread::current().id() != self.main {
            Some("only the main thread can ask")
        } else if execution == 0 {
            Some("no execution is running that could ask")
        } else {
            None
        }
    }

    /// Goes through the frames that arrived; the answer, if it is among them.
    fn take_answer<I: Interpreter>(&self, interpreter: &I, request: u64) -> Option<Outcome> {
        if self.inbox().is_ending() {
            return Some(Outcome::Eof("the session is shutting down".to_owned()));
        }
        while let Some(envelope) = self.arrived() {
            match envelope.frame {
                Frame::Answer(Answer { request: number, outcome }) if number == request => {
                    return Some(outcome);
                }
                Frame::Ping(ping) => self.pong(interpreter, &ping),
                Frame::Shutdown(_) => {
                    self.inbox().put_first(envelope);
                    return Some(Outcome::Eof("the session is shutting down".to_owned()));
                }
                _ => {
                    let refused = self.inbox().put_back(envelope);
                    if let Err(envelope) = refused {
                        self.refuse(interpreter, *envelope);
                    }
                }
            }
        }
        None
    }

    fn arrived(&self) -> Option<Envelope> {
        let next = self.inbox().next_arrived();
        self.accept(next)
    }

    /// What came in; a host that talks nonsense ends the process.
    pub(crate) fn accept(&self, next: Result<Option<Envelope>, CodecError>) -> Option<Envelope> {
        next.unwrap_or_else(|error| {
            output::write_last_words(&format!("cob: the kernel sent what cannot be read: {error}\n"));
            process::exit_now(EXIT_PROTOCOL)
        })
    }

    /// The session outlives its server from now on.
    pub(crate) fn survive(&self) {
        self.inbox().reserve.fill();
        self.link.survive();
    }

    /// Gives a new kernel what the one before has not recorded, if there is a new one. Whether a signal came before
    /// all was done.
    pub(crate) fn catch_up<I: Interpreter>(&self, interpreter: &I) -> bool {
        self.link.is_behind() && !interpreter.unlocked(|| self.outbox.catch_up())
    }

    /// Blocks until something comes.
    ///
    /// # Errors
    /// `Interrupted` when a signal cut the wait short.
    pub(crate) fn fill_waiting(&self) -> io::Result<Filled> {
        if !self.link.survives() {
            return self.inbox().fill_waiting();
        }
        // Unlocked: another thread may find the new socket first.
        if !self.link.wait_for(PollFlags::IN) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(self.inbox().fill())
    }

    fn wait_for_bytes<I: Interpreter>(&self, interpreter: &I) -> Result<(), I::Interrupt> {
        if self.catch_up(interpreter) {
            return interpreter.signals();
        }
        // From here to the wait no signal gets lost: it is either seen now or ends the wait.
        let held = HeldSignals::hold();
        interpreter.signals()?;
        let waiting = self.waiting();
        let readable = interpreter.unlocked(|| held.readable(self.socket()));
        drop(waiting);
        if readable.is_err() {
            drop(held);
            return interpreter.signals();
        }
        if self.inbox().fill() == Filled::End {
            process::exit_now(EXIT_QUIETLY);
        }
        Ok(())
    }

    pub(crate) fn pong<I: Interpreter>(&self, interpreter: &I, ping: &Ping) {
        // A frame of fixed size cannot be too large.
        let _ = self.tell(interpreter, Pong { number: ping.number }, &[]);
    }

    pub(crate) fn begin(&self, execution: ExecutionNumber, parent: Json) {
        self.parents.remember(execution, parent);
        self.running.store(execution, Ordering::Relaxed);
        self.link.page().set_running(execution);
        interrupt::set_current(execution);
    }

    pub(crate) fn end(&self) {
        interrupt::set_current(0);
        self.link.page().set_running(0);
        self.running.store(0, Ordering::Relaxed);
    }

    /// Whether `execution` was told to stop, be it before it began.
    pub(crate) fn is_interrupted(&self, execution: ExecutionNumber) -> bool {
        self.link.page().interrupt_target() == execution
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The main thread is about to wait for the socket.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        self.link.waiting()
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.link.socket()
    }

    fn host_is_gone(&self) -> bool {
        if self.link.survives() {
            return self.inbox().is_at_end();
        }
        let mut socket = [PollFd::from_borrowed_fd(self.socket(), PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut socket, Some(&now)).is_ok_and(|count| count > 0)
    }
}

/// The largest place at or before `bytes` where a text can be cut.
trait FloorBoundary {
    fn floor_boundary(&self, bytes: usize) -> usize;
}

impl FloorBoundary for str {
    fn floor_boundary(&self, bytes: usize) -> usize {
        let mut end = bytes.min(self.len());
        while !self.is_char_boundary(end) {
            end -= 1;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!("aé".floor_boundary(2), 1);
        assert_eq!("aé".floor_boundary(3), 3);
        assert_eq!("aé".floor_boundary(9), 3);
    }
}
