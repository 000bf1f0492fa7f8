//! Crash points: named places where a test can make a process die, exactly there.
//!
//! `crash_point!("settled_before_reply")` marks one. In a release build it is nothing at all; in a development build
//! it tells the hook that the process installed when it started, if it did (`cob` does, for `COB_CRASH_AT`). This
//! file kills nobody: it is the table, and the wire between a place in any crate and that hook.

/// Every crash point and what has happened when a process dies there. A name that is not here does not compile; one
/// that no code passes is refused by a test.
pub const POINTS: &[(&str, &str)] = &[
    // --- A request on its way in -----------------------------------------------------------------------------
    ("request_read", "a request was read and believed; nothing is recorded"),
    ("promise_committed", "its promise is recorded; nothing was sent to a worker, nobody was told"),
    ("start_committed", "that it starts is recorded; its frame has not left"),
    ("frame_sent", "its frame was handed to the worker's socket"),
    // --- Sessions of a server --------------------------------------------------------------------------------
    ("session_opened", "a session is recorded; who asked for it was not told"),
    ("branches_opened", "the branches of a session are recorded; none of them has a worker"),
    // --- The writer of the store -----------------------------------------------------------------------------
    ("commit_begins", "groups were taken from the queue; the store has not seen them"),
    ("commit_half", "inside a transaction, with one more of its groups written"),
    ("commit_done", "a transaction was committed; nobody was told"),
    // --- Bundles ---------------------------------------------------------------------------------------------
    ("bundle_begun", "a bundle is to be written; nothing of it is"),
    ("chunk_written", "one more chunk has its name; no row names it"),
    ("chunks_synced", "all its chunks and their names are on the disk; no row names them"),
    ("bundle_row_before", "its rows are in a transaction that is not committed"),
    ("bundle_row_after", "it is there; nobody was told"),
    ("bundle_removed", "its rows are given up; its chunks are all there"),
    ("chunk_removed", "a chunk that nothing names is gone; others may follow"),
    ("import_checked", "the manifest of an imported bundle is believed; nothing of it is written"),
    ("import_read", "all its chunks are written; no row names them"),
    ("export_written", "a bundle is written out as a whole; it does not have its name"),
    // --- Output on its way out -------------------------------------------------------------------------------
    ("event_committed", "an event is recorded; it was neither broadcast nor acknowledged to the worker"),
    ("event_sent", "an event was broadcast; the worker does not know"),
    ("done_read", "the worker said that an execution ended; its settlement is not recorded"),
    ("settled_before_reply", "a promise is settled; its reply has not left"),
    ("reply_sent", "the reply has left; idle has not"),
    // --- Questions -------------------------------------------------------------------------------------------
    ("call_committed", "a question is recorded; nobody was asked"),
    ("answer_committed", "its answer is recorded; the code does not have it"),
    // --- Pipes of a surviving session ------------------------------------------------------------------------
    ("output_peeked", "printed bytes were looked at; nothing of them is recorded"),
    ("output_committed", "they are recorded; they are still in the pipe"),
    ("output_intended", "the page says that some are about to move; they are still in the pipe"),
    ("output_moved", "they are in the receipt, and counted"),
    ("output_emptied", "the receipt is empty; the page says that some are about to move"),
    ("output_settled", "nothing is under way any more"),
    // --- A worker that outlives its server -------------------------------------------------------------------
    ("custody_deposited", "a custodian holds the worker; the store does not know where"),
    ("custody_fetched", "a new server has the descriptors; the custodian knows of no new socket"),
    ("custody_moved", "the custodian knows of the new socket; the worker does not"),
    ("worker_attached", "the worker has its new socket, and said how far it is"),
    // --- Start -----------------------------------------------------------------------------------------------
    ("store_opened", "the store is locked and open; nothing was recovered"),
    ("recovered", "what the store held is settled or queued again; nobody was let in"),
];

/// Whether [`POINTS`] has a row with this name: for [`crash_point!`], at compile time.
#[must_use]
pub const fn is_listed(name: &str) -> bool {
    let mut rest = POINTS;
    while let [(listed, _), more @ ..] = rest {
        if is_same(listed.as_bytes(), name.as_bytes()) {
            return true;
        }
        rest = more;
    }
    false
}

const fn is_same(mut one: &[u8], mut other: &[u8]) -> bool {
    while let ([a, more_of_one @ ..], [b, more_of_other @ ..]) = (one, other) {
        if *a != *b {
            return false;
        }
        (one, other) = (more_of_one, more_of_other);
    }
    one.is_empty() && other.is_empty()
}

/// Marks a place of [`POINTS`](crate::crash::POINTS).
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {{
        const { assert!($crate::crash::is_listed($name), "no row of this name in protocol/src/crash.rs") };
        #[cfg(debug_assertions)]
        $crate::crash::passed($name);
    }};
}

#[cfg(debug_assertions)]
mod hook {
    use std::sync::OnceLock;

    static HOOK: OnceLock<fn(&'static str)> = OnceLock::new();

    /// From now on `hook` is told of every crash point that is passed, by whichever thread. The first one stays.
    pub fn install(hook: fn(&'static str)) {
        let _ = HOOK.set(hook);
    }

    /// A point is passed.
    pub fn passed(name: &'static str) {
        if let Some(hook) = HOOK.get() {
            hook(name);
        }
    }
}

#[cfg(debug_assertions)]
pub use hook::{install, passed};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    #[cfg(debug_assertions)]
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own_and_says_what_has_happened() {
        let names: BTreeSet<_> = POINTS.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), POINTS.len());
        assert!(POINTS.iter().all(|(name, meaning)| is_listed(name) && meaning.len() > 10));
        assert!(!is_listed("") && !is_listed("request_rea") && !is_listed("request_read_"));
    }

    #[test]
    #[cfg(debug_assertions)]
    fn the_hook_is_told_of_every_point_that_is_passed() {
        static PASSED: Mutex<Vec<&str>> = Mutex::new(Vec::new());
        crash_point!("request_read");
        install(|name| PASSED.lock().unwrap().push(name));
        crash_point!("commit_begins");
        crash_point!("commit_done");

        assert_eq!(*PASSED.lock().unwrap(), ["commit_begins", "commit_done"]);
    }
}
