//! Works with the bundles of the store in a folder, and says so after each step: somebody to be traced and killed.
//!
//! `bundle-writer FOLDER (save|delete) NUMBER…`, `bundle-writer FOLDER export|import NUMBER FILE`. With
//! `COB_CRASH_AT=name[:n]` it kills itself when it passes that crash point for the `n`-th time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "it is a test")]

use std::io::Write as _;
use std::path::Path;

use cob_tests::bundles::{id, open, save};

#[tokio::main]
async fn main() {
    #[cfg(debug_assertions)]
    crash::arm();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| -> u64 { arguments[place].parse().unwrap() };
    let bridge = open(Path::new(&arguments[0])).await.unwrap();
    let bundles = bridge.bundles().unwrap();
    say("ready");
    match arguments[1].as_str() {
        "export" => {
            bundles.export(id(number(2)), Path::new(&arguments[3])).await.unwrap();
            say("exported");
        }
        "import" => {
            bundles.import(id(number(2)), Path::new(&arguments[3]), None).await.unwrap();
            say("imported");
        }
        what => {
            for place in 2..arguments.len() {
                match what {
                    "save" => drop(save(&bundles, number(place)).await.unwrap()),
                    _ => bundles.delete(id(number(place))).await.unwrap(),
                }
                say(&format!("{what}d {}", number(place)));
            }
        }
    }
    // What was given up goes when the writer has nothing else to do.
    let kept = bridge.metrics().bundles.bundles;
    while kept == 0 && bridge.metrics().bundles.chunks > 0 {
        tokio::task::yield_now().await;
    }
    drop(bundles);
    bridge.close().await;
}

/// One `write(2)`.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[cfg(debug_assertions)]
mod crash {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    static POINT: OnceLock<(String, u64)> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    pub(super) fn arm() {
        let Ok(wanted) = std::env::var("COB_CRASH_AT") else { return };
        let (name, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        POINT.set((name.to_owned(), nth.parse().unwrap())).unwrap();
        cob_protocol::crash::install(passed);
    }

    fn passed(name: &'static str) {
        if let Some((wanted, nth)) = POINT.get()
            && name == wanted
            && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *nth
        {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
    }
}
