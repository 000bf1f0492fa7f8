//! What everybody sees: `stream`, `status`, `clear_output`. Displays, results and errors are carried as they are.

use serde::Serialize;

/// `stream`
#[derive(Debug, Serialize)]
pub struct StreamContent<'a> {
    /// `stdout` or `stderr`
    pub name: &'static str,
    /// The text.
    pub text: &'a str,
}

/// `status`
#[derive(Debug, Serialize)]
pub struct StatusContent {
    /// What the kernel does.
    pub execution_state: ExecutionState,
}

/// States of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionState {
    /// Once, before anything else.
    Starting,
    /// A request is being handled.
    Busy,
    /// It was handled.
    Idle,
    /// The worker died and another is being started.
    Restarting,
    /// The worker died and there will be no other.
    Dead,
}

/// `clear_output`
#[derive(Debug, Serialize)]
pub struct ClearOutputContent {
    /// Only when the next output arrives.
    pub wait: bool,
}
