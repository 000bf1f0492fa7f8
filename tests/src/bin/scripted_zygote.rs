//! A worker and a zygote without a language: an execution prints how many sessions its process has had, and ends
//! well. Some of the forked ones die before their session begins, by the number of their fork:
//!
//! | variable | which die, and when |
//! |---|---|
//! | `PYTHONDIES_BORN` | every so many-th, before it says that it waits |
//! | `PYTHONDIES_GREETED` | every so many-th, when its session has come |
//!
//! It can be frozen, and what it holds is one blob of somewhat more than two pieces; with `SAVING` it `fails` or
//! `dies` instead of saving.
//!
//! Zygotes get these variables because they begin like those of Python.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cob_protocol::bundle::{Outline, Runtime};
use cob_protocol::checkpoint::{Finding, Loaded};
use cob_protocol::frame::{Comm, Complete, DoneStatus, Execute, Inspect, IsComplete, Outcome};
use cob_protocol::handshake::Hello;
use cob_protocol::json::Json;
use cob_protocol::limits::BUNDLE_PIECE_BYTES;
use cob_worker::bundle::{BundleReader, BundleWriter};
use cob_worker::descriptors::Role;
use cob_worker::process::{self, Pid};
use cob_worker::run::{Ending, run};
use cob_worker::zygote::{Control, Importer, park, prepare};
use cob_worker::{Executor, Finished, Interpreter, Introduction, Surroundings, Worker};
use rustix::process::{Signal, getpid, kill_process};

/// Forks so far, in the zygote; in a forked process, which one it is.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// Sessions that this process has had.
static SESSIONS: AtomicU64 = AtomicU64::new(0);

fn main() {
    let (descriptors, is_forked) = match Role::take().expect("the descriptors of a worker") {
        Role::Worker(descriptors) => (descriptors, false),
        Role::Zygote(control) => {
            let control = Control::new(control);
            if prepare(&control, &Nothing, &mut Nothing).is_err() {
                return;
            }
            (park(control, &Nothing), true)
        }
    };
    if is_forked && is_its_turn("PYTHONDIES_BORN") {
        die();
    }
    let worker = Worker::new(descriptors, || {}).expect("a worker");
    if run(&worker, &Nothing, &mut Counting { is_forked }) != Ending::Shutdown {
        std::process::exit(1);
    }
}

/// Whether this fork is one of those that the variable is about.
fn is_its_turn(variable: &str) -> bool {
    let every = std::env::var(variable).ok().and_then(|every| every.parse::<u64>().ok());
    every.is_some_and(|every| every > 0 && FORKS.load(Ordering::Relaxed).is_multiple_of(every))
}

fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    process::exit_now(1)
}

/// No language, and no modules.
struct Nothing;

impl Interpreter for Nothing {
    type Interrupt = Infallible;

    fn unlocked<T: Send>(&self, wait: impl FnOnce() -> T + Send) -> T {
        wait()
    }

    fn signals(&self) -> Result<(), Infallible> {
        Ok(())
    }

    fn fork(&self) -> io::Result<Option<Pid>> {
        FORKS.fetch_add(1, Ordering::Relaxed);
        process::fork()
    }
}

impl Importer for Nothing {
    const NAME: &'static str = "counting 1";

    fn import(&mut self, module: &str) -> Result<(), String> {
        Err(format!("there is no {module}"))
    }

    fn settle(&mut self) -> Result<(), String> {
        Ok(())
    }
}

struct Counting {
    is_forked: bool,
}

impl Executor for Counting {
    const NAME: &'static str = "counting 1";

    fn start(&mut self, _: &Hello, _: &Surroundings) -> Result<Introduction, String> {
        SESSIONS.fetch_add(1, Ordering::Relaxed);
        if self.is_forked && is_its_turn("PYTHONDIES_GREETED") {
            die();
        }
        Ok(Introduction { language_info: Json::object(), banner: String::new() })
    }

    fn execute(&mut self, _: &Execute, code: &str) -> Finished {
        use std::io::Write;
        let number = SESSIONS.load(Ordering::Relaxed);
        // Unbuffered, so that it lies in the pipe before the end is told.
        let written = writeln!(io::stdout(), "{number} {code}").and_then(|()| io::stdout().flush());
        if written.is_ok() { DoneStatus::Ok.into() } else { DoneStatus::Error.into() }
    }

    fn before_freeze(&mut self) -> Vec<Finding> {
        Vec::new()
    }

    fn save(&mut self, bundle: &mut BundleWriter) -> Result<(), String> {
        match std::env::var("SAVING").as_deref() {
            Ok("fails") => return Err("it has no numbers".to_owned()),
            Ok("dies") => die(),
            _ => {}
        }
        let failed = |error: io::Error| error.to_string();
        bundle.write(&vec![7; 2 * BUNDLE_PIECE_BYTES + 5]).map_err(failed)?;
        bundle.end_blob().map_err(failed)?;
        let outline = Outline {
            language: "counting".to_owned(),
            runtime: Runtime::default(),
            components: Vec::new(),
            missing: Vec::new(),
            extra: serde_json::Value::Null,
        };
        bundle.finish(&outline).map_err(failed)
    }

    fn load(&mut self, bundle: &mut BundleReader, _: bool) -> Outcome {
        let mut read = || -> io::Result<String> {
            bundle.outline()?;
            let bytes: usize = std::iter::from_fn(|| bundle.blob().transpose())
                .map(|blob| blob.map(|blob| blob.len()))
                .sum::<io::Result<usize>>()?;
            Ok(format!("{bytes} bytes"))
        };
        match read() {
            Ok(text) => {
                let loaded = Loaded { restored: vec![text], ..Loaded::default() };
                Json::of(&loaded).map_or_else(|error| Outcome::Declined(error.to_string()), Outcome::Value)
            }
            Err(error) => Outcome::Declined(error.to_string()),
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
