//! The main loop: one frame after the other.

use std::io;

use bytes::Bytes;
use cob_protocol::frame::{
    Answer, Comm, Done, DoneStatus, Envelope, Execute, ExecutionNumber, Failure, Frame, Load, Outcome,
    Parked, RequestNumber, question_target,
};
use cob_protocol::handshake::{Hello, Ready, VERSIONS};
use cob_protocol::json::Json;

use crate::bundle::BundleReader;
use crate::confinement;
use crate::executor::{Executor, Finished, Interpreter};
use crate::inbox::Filled;
use crate::interrupt::{self, Between};
use crate::process;
use crate::surroundings::Surroundings;
use crate::worker::Worker;
use crate::zygote::Stubborn;

/// Why a worker ended in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The host asked for it.
    Shutdown,
    /// The host is gone.
    HostGone,
    /// No code can run here; one line that says why.
    Unusable(String),
}

impl Ending {
    /// Ends the process, in the way that tells the host which one it was.
    pub fn exit(&self) -> ! {
        match self {
            Self::Unusable(reason) => process::give_up(reason),
            Self::HostGone | Self::Shutdown => process::exit_now(process::EXIT_QUIETLY),
        }
    }
}

/// Serves the host until it asks to end or is gone.
pub fn run<I: Interpreter, E: Executor>(worker: &Worker, interpreter: &I, executor: &mut E) -> Ending {
    let (confinement, stubborn) = Default::default();
    let mut session = Session { worker, interpreter, executor, confinement, stubborn };
    if let Err(ending) = session.shake_hands(false) {
        return ending;
    }
    loop {
        let Some(envelope) = session.next() else { return Ending::HostGone };
        if let Some(ending) = session.serve(envelope) {
            return ending;
        }
    }
}

fn check(hello: &Hello, resumes: bool) -> Result<(), String> {
    VERSIONS.agree(hello.versions).map_err(|error| {
        format!("the kernel speaks other versions of the frame protocol than this worker: {error}")
    })?;
    match (hello.resumes, resumes) {
        (true, false) => Err("the kernel takes a new worker for one that came of a checkpoint".to_owned()),
        (false, true) => Err("the kernel takes a worker that came of a checkpoint for a new one".to_owned()),
        _ => Ok(()),
    }
}

fn wait_for_hello<I: Interpreter>(worker: &Worker, interpreter: &I) -> Result<(Hello, Vec<Bytes>), Ending> {
    loop {
        let next = worker.inbox().take();
        match worker.accept(next) {
            Some(Envelope { frame: Frame::Hello(hello), payloads, .. }) => return Ok((hello, payloads)),
            Some(envelope) => {
                let kind = envelope.frame.kind().name();
                return Err(Ending::Unusable(format!("the first frame is `{kind}`, not `hello`")));
            }
            None => {}
        }
        if worker.catch_up(interpreter) {
            let _ = interpreter.signals();
        }
        if fill(worker, interpreter) == Filled::End {
            return Err(Ending::HostGone);
        }
    }
}

/// Blocks until something comes. Nothing runs, so whatever a signal raises is meant for nobody.
fn fill<I: Interpreter>(worker: &Worker, interpreter: &I) -> Filled {
    let waiting = worker.waiting();
    let filled = interpreter.unlocked(|| worker.fill_waiting());
    drop(waiting);
    match filled {
        Ok(filled) => filled,
        Err(error) => {
            debug_assert_eq!(error.kind(), io::ErrorKind::Interrupted);
            let _ = interpreter.signals();
            Filled::Nothing
        }
    }
}

/// A worker in its main loop.
pub(crate) struct Session<'a, I, E> {
    pub(crate) worker: &'a Worker,
    pub(crate) interpreter: &'a I,
    pub(crate) executor: &'a mut E,
    /// What confines the process, for good.
    confinement: Vec<String>,
    /// Threads that are in the way of a checkpoint.
    pub(crate) stubborn: Stubborn,
}

impl<I: Interpreter, E: Executor> Session<'_, I, E> {
    /// In a worker that came of a checkpoint.
    pub(crate) fn resume(&mut self) -> Option<Ending> {
        self.shake_hands(true).err()
    }

    fn shake_hands(&mut self, resumes: bool) -> Result<(), Ending> {
        let (worker, interpreter) = (self.worker, self.interpreter);
        // A frame of fixed size cannot be too large.
        let _ = worker.tell(interpreter, Parked {}, &[]);
        let (hello, payloads) = wait_for_hello(worker, interpreter)?;
        check(&hello, resumes).map_err(Ending::Unusable)?;
        if hello.survives {
            worker.survive();
        }
        // Inherited by what is forked, and never entered twice.
        if hello.confined && self.confinement.is_empty() {
            self.confinement = confinement::enter();
        }
        let surroundings = Surroundings::enter(&hello, &payloads).map_err(Ending::Unusable)?;
        // Whatever a signal asked for before is meant for nobody.
        let _ = interpreter.signals();
        let introduction = if resumes {
            self.executor.resume(&hello, &surroundings)
        } else {
            self.executor.start(&hello, &surroundings)
        };
        let introduction = introduction.map_err(Ending::Unusable)?;
        worker.inbox().handshake_done();
        let ready = Ready {
            versions: VERSIONS,
            executor: E::NAME.to_owned(),
            pid: std::process::id(),
            language_info: introduction.language_info,
            banner: introduction.banner,
            confinement: self.confinement.clone(),
        };
        worker.tell(interpreter, ready, &[]).map_err(|error| Ending::Unusable(error.to_string()))
    }

    /// The next frame, or `None` when the host is gone.
    fn next(&mut self) -> Option<Envelope> {
        loop {
            let next = self.worker.inbox().take();
            if let Some(envelope) = self.worker.accept(next) {
                return Some(envelope);
            }
            if self.worker.catch_up(self.interpreter) {
                let _ = self.interpreter.signals();
                continue;
            }
            let is_filled = {
                let _waiting = self.worker.waiting();
                let _between = Between::begin();
                self.executor.idle(self.worker.socket())
            };
            let filled = if is_filled {
                leave_if_child();
                self.worker.inbox().fill()
            } else {
                fill(self.worker, self.interpreter)
            };
            if filled == Filled::End {
                return None;
            }
        }
    }

    fn serve(&mut self, envelope: Envelope) -> Option<Ending> {
        let Envelope { frame, payloads, .. } = envelope;
        match frame {
            Frame::Execute(execute) => self.execute(&execute, &payloads),
            Frame::Comm(comm) => self.comm(&comm, &payloads),
            Frame::Complete(request) => {
                self.asked(request.request, |executor| executor.complete(&request, &source(&payloads)))
            }
            Frame::Inspect(request) => {
                self.asked(request.request, |executor| executor.inspect(&request, &source(&payloads)))
            }
            Frame::IsComplete(request) => {
                self.asked(request.request, |executor| executor.is_complete(&request, &source(&payloads)))
            }
            Frame::Freeze(freeze) => return self.freeze(freeze.force),
            Frame::Unfreeze(_) => self.executor.unfreeze(),
            Frame::Load(load) => self.load(&load),
            Frame::Namespace(request) => self.asked(request.request, |executor| executor.namespace()),
            Frame::Ping(ping) => self.worker.pong(self.interpreter, &ping),
            Frame::Shutdown(shutdown) => {
                self.executor.shutdown(shutdown.restart);
                leave_if_child();
                return Some(Ending::Shutdown);
            }
            // The answer to a call that was given up.
            Frame::Answer(_) => {}
            other => {
                let text = format!("a frame `{}` is not for a worker", other.kind().name());
                self.worker.log(self.interpreter, "warn", &text);
            }
        }
        leave_if_child();
        None
    }

    fn execute(&mut self, execute: &Execute, payloads: &[Bytes]) {
        let code = source(payloads);
        let finished =
            self.guarded(execute.execution, &execute.parent, |executor| executor.execute(execute, &code));
        self.worker.done(self.interpreter, execute.execution, finished);
    }

    fn comm(&mut self, comm: &Comm, payloads: &[Bytes]) {
        let finished =
            self.guarded(comm.execution, &comm.parent, |executor| executor.comm(comm, payloads).into());
        self.worker.done(self.interpreter, comm.execution, finished);
    }

    /// Runs code that can be interrupted, and nothing else but it.
    fn guarded(
        &mut self,
        execution: ExecutionNumber,
        parent: &Json,
        run: impl FnOnce(&mut E) -> Finished,
    ) -> Finished {
        self.open_gate();
        self.worker.begin(execution, parent.clone());
        let finished = if self.worker.is_interrupted(execution) {
            self.worker.interrupted_before_start(self.interpreter, execution)
        } else {
            run(self.executor)
        };
        leave_if_child();
        self.interpreter.unlocked(process::flush_c_stdio);
        self.worker.end();
        let _ = self.interpreter.signals();
        finished
    }

    /// Answers a question about code. It may take long (a large namespace, a slow file system), so it can be
    /// interrupted as well.
    fn asked(&mut self, request: RequestNumber, answer: impl FnOnce(&mut E) -> Outcome) {
        self.open_gate();
        let target = question_target(request);
        interrupt::set_current(target);
        let outcome = if self.worker.is_interrupted(target) {
            Outcome::Declined("interrupted before it was looked at".to_owned())
        } else {
            answer(self.executor)
        };
        interrupt::set_current(0);
        let _ = self.interpreter.signals();
        self.worker.answer(self.interpreter, request, outcome);
    }

    fn load(&mut self, load: &Load) {
        let stream = self.worker.inbox().beside.take_stream();
        self.asked(load.request, |executor| match stream {
            Some(stream) => executor.load(&mut BundleReader::new(stream), load.force),
            None => Outcome::Declined("no bundle came with the order to load one".to_owned()),
        });
    }

    fn open_gate(&self) {
        // A signal that came while nothing ran, or for what ran before, is meant for nobody.
        let _ = self.interpreter.signals();
        if let Err(error) = interrupt::install() {
            let text = format!("cannot install the handler of SIGINT: {error}");
            self.worker.log(self.interpreter, "error", &text);
        }
    }
}

impl Worker {
    fn done<I: Interpreter>(&self, interpreter: &I, execution: ExecutionNumber, finished: Finished) {
        let Finished { status, user_expressions, payload } = finished;
        let done = Done { execution, status, user_expressions, payload, at: Default::default() };
        let Err(error) = self.tell(interpreter, done, &[]) else { return };
        // An execution must end, whatever its extras are.
        self.log(interpreter, "warn", &format!("user expressions and payload are left out: {error}"));
        let Finished { user_expressions, payload, .. } = status.into();
        let done = Done { execution, status, user_expressions, payload, at: Default::default() };
        let _ = self.tell(interpreter, done, &[]);
    }

    fn answer<I: Interpreter>(&self, interpreter: &I, request: RequestNumber, outcome: Outcome) {
        if let Err(error) = self.tell(interpreter, Answer { request, outcome }, &[]) {
            let outcome = Outcome::Declined(error.to_string());
            let _ = self.tell(interpreter, Answer { request, outcome }, &[]);
        }
    }

    fn interrupted_before_start<I: Interpreter>(
        &self,
        interpreter: &I,
        execution: ExecutionNumber,
    ) -> Finished {
        self.fail(interpreter, execution, "KeyboardInterrupt", "interrupted before it began");
        DoneStatus::Interrupted.into()
    }

    /// Answers a request that there is no room for.
    pub(crate) fn refuse<I: Interpreter>(&self, interpreter: &I, envelope: Envelope) {
        const REASON: &str = "too many requests wait behind a question of the running code";
        match envelope.frame {
            Frame::Execute(Execute { execution, .. }) | Frame::Comm(Comm { execution, .. }) => {
                self.fail(interpreter, execution, "TooManyRequests", REASON);
                self.done(interpreter, execution, DoneStatus::Error.into());
            }
            Frame::Complete(cob_protocol::frame::Complete { request, .. })
            | Frame::Inspect(cob_protocol::frame::Inspect { request, .. })
            | Frame::IsComplete(cob_protocol::frame::IsComplete { request, .. })
            | Frame::Namespace(cob_protocol::frame::Namespace { request }) => {
                self.answer(interpreter, request, Outcome::Declined(REASON.to_owned()));
            }
            Frame::Load(Load { request, .. }) => {
                drop(self.inbox().beside.take_stream());
                self.answer(interpreter, request, Outcome::Declined(REASON.to_owned()));
            }
            // Whoever waits for the checkpoint sees that its socket is closed.
            Frame::Freeze(_) => drop(self.inbox().beside.take_control()),
            _ => {}
        }
    }

    fn fail<I: Interpreter>(&self, interpreter: &I, execution: ExecutionNumber, ename: &str, evalue: &str) {
        let failure = Failure {
            execution,
            ename: ename.to_owned(),
            evalue: evalue.to_owned(),
            traceback: vec![format!("{ename}: {evalue}")],
            at: Default::default(),
        };
        let _ = self.tell(interpreter, failure, &[]);
    }
}

/// Code of the user forked, and its child came back to us: it has no business here.
fn leave_if_child() {
    if process::is_child() {
        process::flush_c_stdio();
        process::exit_now(process::EXIT_QUIETLY);
    }
}

/// The source text of a request.
fn source(payloads: &[Bytes]) -> String {
    String::from_utf8_lossy(payloads.first().map_or(&[], Bytes::as_ref)).into_owned()
}
