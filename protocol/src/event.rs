//! Events: the numbered outputs of an execution, as the journal keeps them and clients get them.

use serde::{Deserialize, Serialize};

use crate::frame::StreamName;
use crate::json::Json;
use crate::promise::State;

/// Number of an event within its execution, from 1.
pub type EventNumber = u64;

/// One output of an execution. JSON parts are whole Jupyter contents, built once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Text on stdout or stderr.
    Stream {
        /// Which of the two.
        name: StreamName,
        /// The text.
        text: String,
    },
    /// `display_data` content.
    Display(Json),
    /// `update_display_data` content.
    UpdateDisplay(Json),
    /// `execute_result` content.
    Result(Json),
    /// Remove the output so far.
    ClearOutput {
        /// Only when the next output arrives.
        wait: bool,
    },
    /// The code failed.
    Error(ErrorText),
    /// The code asked its host; the answer comes by the promise of the call.
    CallOpened {
        /// `input`.
        kind: String,
        /// The number of the call within the execution.
        call: u64,
    },
    /// A question of the code has been settled.
    CallClosed {
        /// The number of the call within the execution.
        call: u64,
        /// How: the state of its promise.
        state: State,
    },
    /// Stream text was dropped because the execution printed more than is kept.
    Truncated {
        /// Bytes the code wrote.
        written: u64,
        /// Bytes kept.
        kept: u64,
        /// Bytes dropped.
        dropped: u64,
    },
    /// An item of a durable channel.
    Data(Json),
    /// The last one: nothing of the execution follows but late output.
    Done {
        /// Number of the event before this one.
        last: EventNumber,
    },
}

/// What people see of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorText {
    /// Name of the error's type.
    pub ename: String,
    /// Its message.
    pub evalue: String,
    /// Lines for people, with ANSI colours.
    pub traceback: Vec<String>,
}

impl Event {
    /// The name of its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stream { .. } => "stream",
            Self::Display(_) => "display",
            Self::UpdateDisplay(_) => "update_display",
            Self::Result(_) => "result",
            Self::ClearOutput { .. } => "clear_output",
            Self::Error(_) => "error",
            Self::CallOpened { .. } => "call_opened",
            Self::CallClosed { .. } => "call_closed",
            Self::Truncated { .. } => "truncated",
            Self::Data(_) => "data",
            Self::Done { .. } => "done",
        }
    }

    /// What the event weighs in the journal, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let payload = match self {
            Self::Stream { text, .. } => text.len(),
            Self::Display(json) | Self::UpdateDisplay(json) | Self::Result(json) | Self::Data(json) => {
                json.as_str().len()
            }
            Self::Error(error) => {
                error.ename.len()
                    + error.evalue.len()
                    + error.traceback.iter().map(String::len).sum::<usize>()
            }
            Self::CallOpened { .. }
            | Self::CallClosed { .. }
            | Self::ClearOutput { .. }
            | Self::Truncated { .. }
            | Self::Done { .. } => 0,
        };
        payload + 64
    }
}
