//! The worker: a language whose state is a number, and whose code is a verb.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use bytes::Bytes;
use cob_protocol::bundle::{Outline, Runtime};
use cob_protocol::checkpoint::{Finding, Loaded};
use cob_protocol::frame::{Comm, Complete, DoneStatus, Execute, Inspect, IsComplete, Outcome, StreamName};
use cob_protocol::handshake::Hello;
use cob_protocol::json::Json;
use cob_worker::bundle::{BundleReader, BundleWriter};
use cob_worker::descriptors::Descriptors;
use cob_worker::run::{Ending, run};
use cob_worker::{Executor, Finished, Interpreter, Introduction, Surroundings, Worker};
use rustix::process::{WaitId, WaitIdOptions, waitid};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static CHILDREN: AtomicU32 = AtomicU32::new(0);

struct Plain;

impl Interpreter for Plain {
    type Interrupt = ();

    fn unlocked<T: Send>(&self, wait: impl FnOnce() -> T + Send) -> T {
        wait()
    }

    fn signals(&self) -> Result<(), ()> {
        if INTERRUPTED.swap(false, Ordering::Relaxed) { Err(()) } else { Ok(()) }
    }
}

pub fn main() -> ! {
    let descriptors = Descriptors::take().unwrap();
    let worker = Worker::new(descriptors, || INTERRUPTED.store(true, Ordering::Relaxed)).unwrap();
    let counter = &mut Counter {
        worker: &worker,
        value: 0,
        unfrozen: 0,
        children: Vec::new(),
        helpers: Vec::new(),
        kept: HashMap::new(),
    };
    match run(&worker, &Plain, counter) {
        Ending::Unusable(reason) => {
            cob_worker::output::write_last_words(&reason);
            std::process::exit(78)
        }
        Ending::Shutdown | Ending::HostGone => std::process::exit(0),
    }
}

struct Counter<'a> {
    worker: &'a Worker,
    value: u64,
    unfrozen: u64,
    children: Vec<Child>,
    helpers: Vec<u32>,
    kept: HashMap<&'static str, OwnedFd>,
}

impl Counter<'_> {
    /// What the code says, to be printed.
    fn follow(&mut self, code: &str) -> String {
        let (verb, rest) = code.split_once(' ').unwrap_or((code, ""));
        match verb {
            "add" => self.value += rest.parse::<u64>().unwrap(),
            "raw" => drop(rustix::io::write(unsafe_fd(1), rest.as_bytes()).unwrap()),
            "redirect" => {
                let file = std::fs::File::create(rest).unwrap();
                self.kept.insert("stdout", rustix::io::fcntl_dupfd_cloexec(unsafe_fd(1), 20).unwrap());
                replace_stdout(&file.into());
            }
            "restore" => replace_stdout(&self.kept["stdout"]),
            "thread" => {
                let (begun, is_begun) = channel();
                thread::spawn(move || {
                    begun.send(()).unwrap();
                    loop {
                        thread::park();
                    }
                });
                is_begun.recv().unwrap();
            }
            "child" => {
                let mut cat = Command::new("cat");
                self.children.push(cat.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
            }
            "helper" => self.helpers.extend(self.children.iter().map(Child::id)),
            "reap" => self.children.drain(..).for_each(|mut child| {
                drop(child.stdin.take());
                child.wait().unwrap();
            }),
            "end" => {
                for child in &mut self.children {
                    drop(child.stdin.take());
                    let id = rustix::process::Pid::from_child(child);
                    waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
                }
            }
            "watch" => watch_children(),
            "adopt" => rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap(),
            "wait" => {
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                let child = match waitid(WaitId::All, options) {
                    Ok(Some(_)) => "a child",
                    Ok(None) => "a child that runs",
                    Err(_) => "no child",
                };
                return format!("{child}, {} signals", CHILDREN.swap(0, Ordering::Relaxed));
            }
            other => panic!("no verb {other}"),
        }
        if verb == "add" { (self.value + self.unfrozen).to_string() } else { String::new() }
    }
}

impl Executor for Counter<'_> {
    const NAME: &'static str = "counter 1";

    fn start(&mut self, _: &Hello, _: &Surroundings) -> Result<Introduction, String> {
        Ok(Introduction { language_info: Json::object(), banner: "started".to_owned() })
    }

    fn execute(&mut self, _: &Execute, code: &str) -> Finished {
        let said = self.follow(code);
        let origin = self.worker.running();
        self.worker.print(&Plain, StreamName::Stdout, origin, &said).unwrap();
        DoneStatus::Ok.into()
    }

    fn before_freeze(&mut self) -> Vec<Finding> {
        Vec::new()
    }

    fn helpers(&mut self) -> Vec<u32> {
        self.helpers.clone()
    }

    fn frozen(&mut self) {
        // Inert: neither comes anywhere.
        self.worker.log(&Plain, "error", "a checkpoint speaks");
        let _ = self.worker.print(&Plain, StreamName::Stdout, 0, "a checkpoint prints");
    }

    fn unfreeze(&mut self) {
        self.unfrozen += 1;
    }

    fn resume(&mut self, _: &Hello, _: &Surroundings) -> Result<Introduction, String> {
        Ok(Introduction { language_info: Json::object(), banner: "resumed".to_owned() })
    }

    fn save(&mut self, bundle: &mut BundleWriter) -> Result<(), String> {
        if self.value == 13 {
            return Err("nobody saves a thirteen".to_owned());
        }
        let said = |error: std::io::Error| error.to_string();
        bundle.write(&self.value.to_be_bytes()).map_err(said)?;
        bundle.end_blob().map_err(said)?;
        // Whole pieces, and more than a pipe takes at once.
        bundle.write(&vec![7; 3 << 20]).map_err(said)?;
        bundle.end_blob().map_err(said)?;
        let outline = Outline {
            language: "counter".to_owned(),
            runtime: Runtime::default(),
            components: Vec::new(),
            missing: Vec::new(),
            extra: Json::object().read().unwrap(),
        };
        bundle.finish(&outline).map_err(said)
    }

    fn load(&mut self, bundle: &mut BundleReader, _: bool) -> Outcome {
        let mut loaded = || -> std::io::Result<Outcome> {
            let language = heard(|| bundle.outline())?.language;
            let blob = heard(|| bundle.blob())?.unwrap_or_default();
            self.value = u64::from_be_bytes(blob.try_into().map_err(|_| std::io::Error::other("no number"))?);
            let mut bytes = 0;
            while let Some(blob) = heard(|| bundle.blob())? {
                bytes += blob.len();
            }
            let restored = vec![language, bytes.to_string()];
            Ok(Outcome::Value(Json::of(&Loaded { restored, ..Loaded::default() }).unwrap()))
        };
        loaded().unwrap_or_else(|error| Outcome::Declined(error.to_string()))
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

/// Calls again until no signal comes in between, or one that is meant for this.
fn heard<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                Plain.signals().map_err(|()| std::io::Error::other("interrupted"))?;
            }
            other => return other,
        }
    }
}

fn unsafe_fd(number: i32) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: standard output is open.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }
}

fn replace_stdout(with: &OwnedFd) {
    // SAFETY: both are open, and standard output has no owner.
    let mut stdout = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(1) });
    rustix::io::dup2(with, &mut stdout).unwrap();
    assert_ne!(with.as_raw_fd(), 1);
}

/// Counts what tells of children.
fn watch_children() {
    extern "C" fn count(_: i32) {
        CHILDREN.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler only counts.
    unsafe { libc::signal(libc::SIGCHLD, count as *const () as libc::sighandler_t) };
}
