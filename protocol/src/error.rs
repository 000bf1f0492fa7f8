//! **The table** of error codes: what went wrong, whose fault it is, and what to do.
//!
//! A code is stable and meant for machines; `ename` is what a notebook shows; the hint stands apart from the
//! message so that a client can show it elsewhere.

use crate::limits::RETRY_AFTER_MS;
use crate::promise::SessionState;

/// Who can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request was wrong.
    Client,
    /// The code that ran was wrong.
    Code,
    /// A limit was reached.
    Limit,
    /// The worker failed.
    Worker,
    /// cob failed.
    Server,
}

macro_rules! errors {
    ($($name:ident $code:literal $fault:ident $hint:literal;)*) => {
        /// A row of the table. The name of the variant is the `ename` clients see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $(#[doc = concat!("`", $code, "`: ", $hint)] $name,)* }

        impl ErrorCode {
            /// Every row.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable name for machines.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The name in a notebook.
            #[must_use]
            pub fn ename(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Who can mend it.
            #[must_use]
            pub fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }

            /// What to do about it.
            #[must_use]
            pub fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }
    };
}

errors! {
    BadRequest "bad_request" Client "Compare the message with docs/agent-protocol.md, or what front ends send with Jupyter's messaging specification.";
    RequestTooLarge "request_too_large" Limit "Send the data in smaller pieces, or let the code read it from a file.";
    KeyReused "key_reused" Client "Use a new msg_id or idempotency key for another request.";
    Busy "busy" Limit "Wait until running work has ended, then try again.";
    WorkerStartFailed "worker_start_failed" Worker "Run `cob doctor`; it checks the interpreter and says what it lacks.";
    WorkerLost "worker_lost" Worker "The variables are gone: run the cells that define them again.";
    WorkerStalled "worker_stalled" Worker "Something stopped the worker (SIGSTOP). The variables are gone: run the cells that define them again.";
    InterruptedByForce "interrupted_by_force" Code "The code did not react to the interrupt and was killed. The variables are gone: run the cells that define them again.";
    MemoryLimit "memory_limit" Limit "Let the code use less memory, or ask for a session with a higher limit.";
    CpuLimit "cpu_limit" Limit "Let the code compute less, or ask for a session with a higher limit.";
    TimeLimit "time_limit" Limit "Let the cell do less, or ask for a session with a higher limit.";
    DiskLimit "disk_limit" Limit "Delete files in the working directory, or ask for a session with a higher limit.";
    ExecutionLost "execution_lost" Server "cob went away while the code ran or was about to, and its worker did not come back. Whether it ran to its end is not known; look at what it was to change before you run it again under a new id.";
    DeadlinePassed "deadline_passed" Limit "Ask for a later deadline, or let the cell do less.";
    StoreFull "store_full" Server "Make room on the disk of the store; nothing was run, and requests are taken again as soon as there is room.";
    StoreBusy "store_busy" Server "Another program holds the lock of the store. Try again once it has let go.";
    StoreFailed "store_failed" Server "The store cannot be written. See the server's log, and run `cob doctor`.";
    InvalidLimit "invalid_limit" Client "Write limits as name=value, for example memory=2G,time=30s; `cob kernel --help` lists the names.";
    NotGreeted "not_greeted" Client "Send a hello_request first on every connection, also after a reconnect.";
    UnsupportedVersion "unsupported_version" Client "Use a client of a version that the server speaks; `cob --version` tells the server's.";
    Forbidden "forbidden" Client "It belongs to another principal: connect as that one, or as the operator.";
    UnknownSession "unknown_session" Client "`cob sessions` lists those that are open.";
    UnknownPromise "unknown_promise" Client "Look for it with promise_list; a promise is named s1.e7, a call of it s1.e7.c2.";
    UnknownSubscription "unknown_subscription" Client "It has ended, or was made on another connection: subscribe again from the last event you have.";
    AlreadySettled "already_settled" Client "The first answer counts; ask for the promise to see it.";
    NotSettled "not_settled" Client "Wait again; the promise is still open.";
    SessionClosed "session_closed" Client "Open another session; what was recorded of this one can still be read.";
    Restarted "restarted" Client "The session was restarted and its variables are gone; run it again under a new key.";
    Canceled "canceled" Client "It was cancelled before its turn came; nothing of it was run.";
    ToolUnavailable "tool_unavailable" Client "Connect the client that registers the tool, or call one that is registered.";
    UnknownCheckpoint "unknown_checkpoint" Client "`checkpoint_list` (`cob checkpoint list`) tells which there are; automatic ones go when newer ones come.";
    CheckpointRefused "checkpoint_refused" Code "Let the code end what cannot be kept (threads, child processes), or force the checkpoint and accept that this is lost.";
    CheckpointLimit "checkpoint_limit" Limit "Drop checkpoints that are not needed any more, or ask for a session with a larger budget.";
    CheckpointFailed "checkpoint_failed" Worker "The session goes on as it was; the server's log says more.";
    IncompatibleCheckpoint "incompatible_checkpoint" Client "Restore it with the interpreter and the packages that it was made with, or force it and look at what is missing.";
    UntrustedBundle "untrusted_bundle" Client "Only import what comes from somebody you trust, since a restore runs its code; then give the key it was made with.";
    DamagedBundle "damaged_bundle" Server "What was stored is not what was written; use another checkpoint.";
    SlowSubscriber "slow_subscriber" Limit "Read faster or grant less credit; subscribe again from the last event you have.";
    ShuttingDown "shutting_down" Client "Start the kernel again.";
}

impl ErrorCode {
    /// What to do about it, by what became of the variables: nobody is told that they are gone when they are back.
    #[must_use]
    pub fn hint_in(self, session: SessionState) -> &'static str {
        match (self, session) {
            (Self::WorkerLost, SessionState::Restored) => {
                "The variables are those of the checkpoint again: go on from there."
            }
            (Self::WorkerStalled, SessionState::Restored) => {
                "Something stopped the worker (SIGSTOP). The variables are those of the checkpoint again: go on from there."
            }
            (Self::InterruptedByForce, SessionState::Restored) => {
                "The code did not react to the interrupt and was killed. The variables are those of the checkpoint again: go on from there."
            }
            (Self::Restarted, SessionState::Restored) => {
                "The session went back to a checkpoint; if this is still wanted, run it again under a new key."
            }
            _ => self.hint(),
        }
    }

    /// Milliseconds after which one may ask again, for what passes by itself.
    #[must_use]
    pub fn retry_after_ms(self) -> Option<u64> {
        (self == Self::Busy).then_some(RETRY_AFTER_MS)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_every_one_has_a_hint() {
        let codes: HashSet<_> = ErrorCode::ALL.iter().map(|e| e.code()).collect();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        assert!(ErrorCode::ALL.iter().all(|e| e.hint().ends_with('.')));
    }

    #[test]
    fn nobody_is_told_that_variables_are_gone_when_they_are_back() {
        for code in ErrorCode::ALL {
            assert_eq!(code.hint_in(SessionState::Lost), code.hint());
            assert!(!code.hint_in(SessionState::Restored).contains("gone"), "{}", code.code());
        }
    }
}
