//! The table of cells: what is typed and what comes of it, in the `.md` files beside this one.
//!
//! Each case is a session of its own, in a worker process: this program, started once more. It has no harness, since
//! a worker must be a process with one thread. Arguments that are no flags select cases by a part of `file: title`.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic)]

mod case;
mod host;
mod play;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use case::Case;

/// Sessions at once: enough to keep two processors busy.
const AT_ONCE: usize = 4;

fn main() {
    if std::env::args_os().skip(1).eq(host::WORKER) {
        cob_javascript::main();
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let cases: Vec<Case> = cases()
        .into_iter()
        .filter(|case| filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter)))
        .collect();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = play::play(case) {
                        failures.lock().unwrap().push(format!("---- {} ----\n{why}\n", case.name));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    for failure in &failures {
        println!("{failure}");
    }
    let (all, failed) = (cases.len(), failures.len());
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} passed; {failed} failed; 0 ignored", all - failed);
    std::process::exit(i32::from(failed > 0));
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cells");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|path| {
            case::parse(&path.file_stem().unwrap().to_string_lossy(), &std::fs::read_to_string(path).unwrap())
        })
        .collect()
}
