//! What a language must provide to become a worker.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use bytes::Bytes;
use cob_protocol::checkpoint::Finding;
use cob_protocol::frame::{Comm, Complete, DoneStatus, Execute, Inspect, IsComplete, Outcome};
use cob_protocol::handshake::Hello;
use cob_protocol::json::Json;
use rustix::process::Pid;

use crate::bundle::{BundleReader, BundleWriter};
use crate::surroundings::Surroundings;
use crate::{fork, process};

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

    /// Forks a process that is nobody's child here, and lets the language do what it must around that. `true` in it.
    ///
    /// # Errors
    /// The system's reason; the process is as it was.
    fn fork_away(&self) -> io::Result<bool> {
        fork::fork_away()
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

    /// The process is about to be frozen: what is in the way of a checkpoint, and what it will not hold. Threads and
    /// child processes are counted elsewhere, and so is what is shared, unless something of the same kind is told
    /// here. Nothing that blocks: whatever makes a fork cheaper is done now.
    fn before_freeze(&mut self) -> Vec<Finding> {
        vec![Finding {
            kind: "language".to_owned(),
            text: "this language keeps no checkpoints in memory".to_owned(),
            blocks: true,
        }]
    }

    /// Child processes that a copy of this one can do without: they are not in the way of a checkpoint.
    fn helpers(&mut self) -> Vec<u32> {
        Vec::new()
    }

    /// Descriptors that a copy of this process has its own of: they are not shared with it.
    fn renewed(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// In the process that is a checkpoint, right after the fork.
    fn frozen(&mut self) {}

    /// No checkpoint of this process is left.
    fn unfreeze(&mut self) {}

    /// In a worker that was forked off a checkpoint, before it says `ready`: it must differ from its siblings (random
    /// numbers, secrets), and go on in its surroundings.
    ///
    /// # Errors
    /// One line that says why no code can run here.
    fn resume(&mut self, hello: &Hello, surroundings: &Surroundings) -> Result<Introduction, String> {
        self.start(hello, surroundings)
    }

    /// Writes down everything that the session holds, in a process that was forked for it and ends then. What cannot be
    /// saved is no failure: the outline says so.
    ///
    /// # Errors
    /// A sentence: nothing of it is of use.
    fn save(&mut self, bundle: &mut BundleWriter) -> Result<(), String> {
        let _ = bundle;
        Err("this language keeps no durable checkpoints".to_owned())
    }

    /// Takes a bundle in: a [`cob_protocol::checkpoint::Loaded`], or declined with the reasons why it does not fit.
    fn load(&mut self, bundle: &mut BundleReader, force: bool) -> Outcome {
        let _ = (bundle, force);
        Outcome::Declined("this language keeps no durable checkpoints".to_owned())
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
