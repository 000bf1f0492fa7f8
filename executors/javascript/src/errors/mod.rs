//! Why code stopped, and how that is told.

mod frames;
pub(crate) mod sources;
mod telling;

use deno_core::v8;

use crate::here::Interrupted;
use crate::transform::SyntaxError;

pub(crate) use telling::{tell_stopped, tell_uncaught};

/// Why there is no value.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It was told to.
    Interrupted,
    /// The heap is used up. The session goes on: what the code held on to is free again.
    OutOfMemory,
    /// It ran between executions and did not end.
    Overdue,
    /// It waits for what nothing will ever bring about.
    NeverSettles,
    /// An exception that nobody caught.
    Thrown(v8::Global<v8::Value>),
    /// It is no code.
    NoCode(SyntaxError),
    /// The runtime could not run it; a sentence.
    Failed(String),
}

impl From<Interrupted> for Stop {
    fn from(_: Interrupted) -> Self {
        Self::Interrupted
    }
}

/// An error as Jupyter has it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) traceback: Vec<String>,
}
