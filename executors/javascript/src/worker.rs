//! The worker program.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use bytes::Bytes;
use cob_protocol::limits::JS_STACK_BYTES;
use cob_worker::Worker;
use cob_worker::descriptors::Role;
use cob_worker::process::give_up;
use cob_worker::run::run;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::engine::{Engine, watchdog};
use crate::executor::JavaScript;
use crate::here::Here;
use crate::{bundle, interrupt, random, zygote};

/// The variable that keeps the engine from caching code.
pub(crate) const NO_CACHE: &str = "V82JSC_NO_BC_CACHE";

static WORKER: OnceLock<Worker> = OnceLock::new();

/// Serves the host until the session ends. The process must have one thread.
pub fn main() -> ! {
    // SAFETY: there is no other thread. Else the engine would write the code of cells into the user's cache folder,
    // and load it unchecked.
    unsafe { std::env::set_var(NO_CACHE, "1") };
    allow_deep_recursion();
    random::set_up();
    watchdog::install().unwrap_or_else(|error| no_worker(&error));
    let role = Role::take().unwrap_or_else(|error| no_worker(&error));
    // Before the fork in a zygote: that is what makes a forked worker cheap.
    let mut engine = Engine::new();
    bundle::begin(&mut engine);
    let (descriptors, is_forked) = match role {
        Role::Worker(descriptors) => (descriptors, false),
        // From here on this is one of its workers.
        Role::Zygote(control) => {
            (zygote::serve(control, &mut engine).unwrap_or_else(|ending| ending.exit()), true)
        }
    };
    let new = Worker::new(descriptors, interrupt::deliver).unwrap_or_else(|error| no_worker(&error));
    let worker = WORKER.get_or_init(|| new);
    let mut executor = JavaScript::new(engine, worker);
    if is_forked {
        executor.warm_up().unwrap_or_else(|reason| give_up(&reason));
    }
    run(worker, &Here, &mut executor).exit()
}

/// The worker, where one is needed: there is none in a zygote.
pub(crate) fn worker() -> Option<&'static Worker> {
    WORKER.get()
}

/// What a forked worker is told of its environment: all of it, or what changes in one that `resumes`.
pub(crate) fn set_environment(variables: &[(Bytes, Bytes)], resumes: bool) {
    let kept = OsStr::new(NO_CACHE);
    let before = std::env::vars_os().map(|(name, _)| name).filter(|name| !resumes && name != kept);
    // SAFETY: the process has one thread with QuickJS, and with V8 no other reads or changes the environment.
    unsafe {
        before.for_each(|name| std::env::remove_var(name));
        // A name may begin with the sign, which the system takes and the library does not.
        for (name, value) in variables.iter().filter(|(name, _)| !name.is_empty() && !name.contains(&b'=')) {
            std::env::set_var(OsStr::from_bytes(name), OsStr::from_bytes(value));
        }
    }
}

/// The main thread's stack grows up to the limit that holds when it grows.
fn allow_deep_recursion() {
    let limit = getrlimit(Resource::Stack);
    let bytes = limit.maximum.map_or(JS_STACK_BYTES, |maximum| maximum.min(JS_STACK_BYTES));
    let current = limit.current.map_or(bytes, |current| current.max(bytes));
    let _ = setrlimit(Resource::Stack, Rlimit { current: Some(current), maximum: limit.maximum });
    // The rest is for what is below the engine's first frame and above its last one: parsers, formatters, the system.
    let kibibytes = (bytes / 4 * 3) / 1024;
    deno_core::v8_set_flags(vec![String::new(), format!("--stack-size={kibibytes}")]);
}

fn no_worker(error: &io::Error) -> ! {
    give_up(&format!("not started as a worker: {error}"))
}
