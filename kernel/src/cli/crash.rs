//! `COB_CRASH_AT=name[:n]`: this process dies, as by `kill -9`, when it passes that crash point for the `n`-th time.
//! For tests of recovery; not in release builds.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use cob_protocol::crash;
use rustix::process::{Signal, getpid, kill_process};

struct Fate {
    name: String,
    passages: AtomicU32,
}

static FATE: OnceLock<Fate> = OnceLock::new();

/// Reads the variable, before anything else begins; ends the process if it names no point.
pub(crate) fn arm() {
    let Some(wanted) = std::env::var_os("COB_CRASH_AT") else { return };
    let wanted = wanted.to_string_lossy();
    let (name, passages) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    let passages = passages.parse().ok().filter(|passages| *passages > 0);
    let Some(passages) = passages.filter(|_| crash::is_listed(name)) else {
        eprintln!("cob: COB_CRASH_AT: `{wanted}` is no crash point");
        std::process::exit(2);
    };
    let fate = Fate { name: name.to_owned(), passages: AtomicU32::new(passages) };
    if FATE.set(fate).is_ok() {
        crash::install(meet);
    }
}

fn meet(name: &'static str) {
    let Some(fate) = FATE.get().filter(|fate| fate.name == name) else { return };
    if fate.passages.fetch_sub(1, Ordering::Relaxed) == 1 {
        // Not an abort: nothing may be written, flushed or unlinked on the way.
        let _ = kill_process(getpid(), Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
