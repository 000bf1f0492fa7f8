//! A made-up language whose code is a list of verbs, one a line.
//!
//! | verb | what it does |
//! |---|---|
//! | `show COUNT BYTES` | shows so many displays, each behind one more byte of stdout |
//! | `threads COUNT BYTES` | three threads do so at once, without the stdout |
//! | `ask` | asks the host; an answer that is no value ends the code |
//! | `pause` | waits until the test says go on |

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use cob_protocol::frame::{
    Comm, Complete, Display, DoneStatus, Execute, Inspect, IsComplete, Mime, MimeEncoding, Outcome,
};
use cob_protocol::handshake::Hello;
use cob_protocol::json::Json;
use cob_worker::descriptors::Descriptors;
use cob_worker::run::{Ending, run};
use cob_worker::{Executor, Finished, Interpreter, Introduction, Surroundings, Worker};
use rustix::process::Pid;
use rustix::thread::gettid;

thread_local! {
    static INTERRUPTED: Cell<bool> = const { Cell::new(false) };
}

/// A language without an interpreter to hold. A signal reaches the thread that it was sent to.
pub struct Plain;

impl Interpreter for Plain {
    type Interrupt = ();

    fn unlocked<T: Send>(&self, wait: impl FnOnce() -> T + Send) -> T {
        wait()
    }

    fn signals(&self) -> Result<(), ()> {
        if INTERRUPTED.replace(false) { Err(()) } else { Ok(()) }
    }
}

/// What a test has of a worker in its own process.
pub struct Running {
    pub go_on: Sender<()>,
    /// The executions that were run, in order.
    pub ran: Arc<Mutex<Vec<u64>>>,
    pub thread: JoinHandle<Ending>,
    /// Where a signal reaches it.
    pub id: Pid,
}

/// Runs a worker in a thread of its own.
pub fn start(descriptors: Descriptors, bytes_max: usize) -> Running {
    let (go_on, gate) = channel();
    let ran = Arc::new(Mutex::new(Vec::new()));
    let effects = Arc::clone(&ran);
    let stdout = descriptors.stdout.try_clone().unwrap();
    let (told, id) = channel();
    let thread = thread::spawn(move || {
        told.send(gettid()).unwrap();
        let worker = Worker::keeping(descriptors, || INTERRUPTED.set(true), bytes_max).unwrap();
        let mut verbs = Verbs { worker: &worker, ran: effects, gate, stdout };
        run(&worker, &Plain, &mut verbs)
    });
    Running { go_on, ran, thread, id: id.recv().unwrap() }
}

struct Verbs<'a> {
    worker: &'a Worker,
    ran: Arc<Mutex<Vec<u64>>>,
    gate: Receiver<()>,
    stdout: OwnedFd,
}

impl Verbs<'_> {
    fn follow(&self, line: &str) -> Result<(), ()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<usize>().unwrap();
        match words[0] {
            "show" => (0..number(1)).try_for_each(|index| {
                rustix::io::write(&self.stdout, b"x").unwrap();
                show(self.worker, index as u64, number(2))
            }),
            "threads" => {
                let show_all =
                    || (0..number(1)).try_for_each(|index| show(self.worker, index as u64, number(2)));
                thread::scope(|scope| {
                    let threads = [(); 3].map(|()| scope.spawn(show_all));
                    threads.into_iter().try_for_each(|thread| thread.join().unwrap())
                })
            }
            "ask" => match self.worker.call(&Plain, "input".to_owned(), Json::object()).map_err(drop)? {
                Outcome::Value(_) => Ok(()),
                _ => Err(()),
            },
            "pause" => self.gate.recv().map_err(drop),
            other => panic!("no verb {other}"),
        }
    }
}

fn show(worker: &Worker, index: u64, bytes: usize) -> Result<(), ()> {
    let display = Display {
        execution: worker.running(),
        data: vec![Mime { mime: "x".to_owned(), encoding: MimeEncoding::Binary }],
        metadata: Json::of(&index).unwrap(),
        transient: Json::object(),
        at: Default::default(),
    };
    worker.send(&Plain, display, &[Bytes::from(vec![index as u8; bytes])]).map_err(drop)
}

impl Executor for Verbs<'_> {
    const NAME: &'static str = "verbs 1";

    fn start(&mut self, _: &Hello, _: &Surroundings) -> Result<Introduction, String> {
        Ok(Introduction { language_info: Json::object(), banner: String::new() })
    }

    fn execute(&mut self, request: &Execute, code: &str) -> Finished {
        self.ran.lock().unwrap().push(request.execution);
        match code.lines().try_for_each(|line| self.follow(line)) {
            Ok(()) => DoneStatus::Ok.into(),
            Err(()) => DoneStatus::Interrupted.into(),
        }
    }

    fn comm(&mut self, _: &Comm, _: &[Bytes]) -> DoneStatus {
        DoneStatus::Ok
    }

    fn complete(&mut self, _: &Complete, _: &str) -> Outcome {
        Outcome::Value(Json::object())
    }

    fn inspect(&mut self, _: &Inspect, _: &str) -> Outcome {
        Outcome::Value(Json::object())
    }

    fn is_complete(&mut self, _: &IsComplete, _: &str) -> Outcome {
        Outcome::Value(Json::object())
    }

    fn shutdown(&mut self, _: bool) {}
}
