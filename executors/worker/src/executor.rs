//! What a language must provide to become a worker.

use std::io;
use std::os::fd::BorrowedFd;

use bytes::Bytes;
use cob_protocol::frame::{Comm, Complete, DoneStatus, Execute, Inspect, IsComplete, Outcome};
use cob_protocol::handshake::Hello;
use cob_protocol::json::Json;
use rustix::process::Pid;

use crate::process;
use crate::surroundings::Surroundings;

/// The interpreter's side of a wait: other threads of the user go on meanwhile, and signals are heard.
pub trait Interpreter {
    /// Why a wait was given up: the language's own exception.
    type Interrupt;

    /// Runs `wait` without holding the interpreter. Nothing in it may touch the interpreter.
    fn unlocked<T: Send>(&self, wait: impl FnOnce() -> T + Send) -> T;

    /// Runs what a signal asked for, after a wait was cut short.
    ///
    /// # Errors
    /// The exception of a handler: the wait must be given up.
    fn signals(&self) -> Result<(), Self::Interrupt>;

    /// Forks this process, and lets the language do what it must around that. `None` in the child.
    ///
    /// # Errors
    /// The system's reason; the process is as it was.
    fn fork(&self) -> io::Result<Option<Pid>> {
        process::fork()
    }
}

/// What `ready` tells about the language.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Jupyter's `language_info`, a JSON object.
    pub language_info: Json,
    /// A line or two for people.
    pub banner: String,
}

/// How code ended. Its outputs and its error were sent before.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: DoneStatus,
    /// Results of the user expressions: a JSON object.
    pub user_expressions: Json,
    /// Jupyter's payloads: a JSON array.
    pub payload: Json,
}

impl From<DoneStatus> for Finished {
    fn from(status: DoneStatus) -> Self {
        Self { status, user_expressions: Json::object(), payload: Json::array() }
    }
}

/// A language inside a worker. Nothing here returns an error: a failure of the executor is an outcome too.
pub trait Executor {
    /// Name and version, for logs.
    const NAME: &'static str;

    /// Prepares the session. The working directory is entered already.
    ///
    /// # Errors
    /// One line that says why no code can run here.
    fn start(&mut self, hello: &Hello, surroundings: &Surroundings) -> Result<Introduction, String>;

    /// Runs code; whatever it shows is sent meanwhile.
    fn execute(&mut self, request: &Execute, code: &str) -> Finished;

    /// Delivers a comm message; handlers of the user run.
    fn comm(&mut self, comm: &Comm, buffers: &[Bytes]) -> DoneStatus;

    /// Proposes completions: the content of a `complete_reply`.
    fn complete(&mut self, request: &Complete, code: &str) -> Outcome;

    /// Describes what stands at the cursor: the content of an `inspect_reply`.
    fn inspect(&mut self, request: &Inspect, code: &str) -> Outcome;

    /// Is the code whole? The content of an `is_complete_reply`.
    fn is_complete(&mut self, request: &IsComplete, code: &str) -> Outcome;

    /// Names, types and sizes of the variables: a JSON array. No code of the user may run for it.
    fn namespace(&mut self) -> Outcome {
        Outcome::Declined("this language does not tell what it holds".to_owned())
    }

    /// The session ends; exit hooks may run.
    fn shutdown(&mut self, restart: bool);

    /// Waits until `socket` can be read, if the language has something of its own to do meanwhile (an event
    /// loop). Returns whether it waited; if not, the worker blocks by itself.
    fn idle(&mut self, socket: BorrowedFd<'_>) -> bool {
        let _ = socket;
        false
    }
}
