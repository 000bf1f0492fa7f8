//! **The table** of error codes: what went wrong, whose fault it is, and what to do.
//!
//! A code is stable and meant for machines; `ename` is what a notebook shows; the hint stands apart from the
//! message so that a client can show it elsewhere.

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
    BadRequest "bad_request" Client "Compare the message with the Jupyter messaging specification.";
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
    ShuttingDown "shutting_down" Client "Start the kernel again.";
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
}
