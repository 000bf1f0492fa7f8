//! `execute_request` and what answers it; `input_request` and its reply.

use serde::{Deserialize, Deserializer, Serialize};

use crate::checkpoint::Restoration;
use crate::error::ErrorCode;
use crate::event::ErrorText;
use crate::ids::PromiseId;
use crate::json::Json;
use crate::promise::SessionState;

/// `execute_request`
#[derive(Clone, Debug, Deserialize)]
pub struct ExecuteRequest {
    /// Source text.
    pub code: String,
    /// No broadcast of input and result, no history, no count.
    #[serde(default, deserialize_with = "or_default")]
    pub silent: bool,
    /// Whether the code enters the history; forced to false when silent.
    #[serde(default = "yes", deserialize_with = "or_yes")]
    pub store_history: bool,
    /// Name to expression, evaluated afterwards.
    #[serde(default)]
    pub user_expressions: Option<Json>,
    /// Whether the client can answer `input_request`.
    #[serde(default = "yes", deserialize_with = "or_yes")]
    pub allow_stdin: bool,
    /// Whether an error aborts what this client has queued.
    #[serde(default = "yes", deserialize_with = "or_yes")]
    pub stop_on_error: bool,
}

fn yes() -> bool {
    true
}

/// Some clients write `null` for what they do not care about.
fn or_yes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::deserialize(deserializer).map(|value| value.unwrap_or(true))
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// `execute_input`
#[derive(Debug, Serialize)]
pub struct ExecuteInput<'a> {
    /// Source text.
    pub code: &'a str,
    /// `In [count]`.
    pub execution_count: u32,
}

/// `execute_reply` of code that ran to its end.
#[derive(Debug, Serialize)]
pub struct ExecuteReply<'a> {
    /// `ok`
    pub status: &'static str,
    /// `In [count]`.
    pub execution_count: u32,
    /// Results of the expressions.
    pub user_expressions: &'a Json,
    /// Pager, `ask_exit` and the like.
    pub payload: &'a Json,
    /// Where its variables came from, if the session went back to a checkpoint before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<&'a Restoration>,
}

/// The reply to any request that failed; for executions with their count.
#[derive(Debug, Serialize)]
pub struct ErrorReply<'a> {
    /// `error`
    pub status: &'static str,
    /// Name, message, traceback.
    #[serde(flatten)]
    pub error: &'a ErrorText,
    /// Set when cob and not the code is the cause: the stable code of [`ErrorCode`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'static str>,
    /// Beside `busy`: when one may ask again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Beside a code: `kept`, `restored` or `lost`, what became of the variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_state: Option<&'static str>,
    /// Beside `restored`: where they are from. Beside anything else: where they had come from, if the session went back
    /// to a checkpoint before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<&'a Restoration>,
    /// `In [count]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_count: Option<u32>,
    /// Results of the expressions (none were evaluated).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_expressions: Option<&'a Json>,
    /// Pager, `ask_exit` and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<&'a Json>,
}

impl<'a> ErrorReply<'a> {
    /// The reply for an error of the code's own.
    #[must_use]
    pub fn new(error: &'a ErrorText) -> Self {
        Self {
            status: "error",
            error,
            code: None,
            hint: None,
            retry_after_ms: None,
            session_state: None,
            restored: None,
            execution_count: None,
            user_expressions: None,
            payload: None,
        }
    }

    /// The reply for an error of the table, and what became of the session.
    #[must_use]
    pub fn coded(error: &'a ErrorText, code: ErrorCode, session: SessionState) -> Self {
        Self {
            code: Some(code.code()),
            hint: Some(code.hint_in(session)),
            retry_after_ms: code.retry_after_ms(),
            session_state: Some(session.as_str()),
            ..Self::new(error)
        }
    }
}

impl ErrorText {
    /// What people see of an error of the table.
    #[must_use]
    pub fn coded(code: ErrorCode, evalue: impl Into<String>) -> Self {
        Self::coded_in(code, evalue, SessionState::Lost)
    }

    /// The same, when it is known what became of the variables.
    #[must_use]
    pub fn coded_in(code: ErrorCode, evalue: impl Into<String>, session: SessionState) -> Self {
        let evalue = evalue.into();
        let hint = code.hint_in(session).to_owned();
        let traceback = vec![format!("\x1b[31m{}\x1b[39m: {evalue}", code.ename()), hint];
        Self { ename: code.ename().to_owned(), evalue, traceback }
    }
}

/// The reply to a request that was queued when an earlier one of the same client failed.
#[derive(Debug, Serialize)]
pub struct AbortedReply {
    /// `aborted`
    pub status: &'static str,
    /// The count did not move.
    pub execution_count: u32,
}

/// `input_request`
#[derive(Debug, Serialize)]
pub struct InputRequest<'a> {
    /// What to show before the field.
    pub prompt: &'a str,
    /// Hide what is typed.
    pub password: bool,
}

/// `input_reply`
#[derive(Clone, Debug, Deserialize)]
pub struct InputReply {
    /// What was typed, without the line end.
    #[serde(default, deserialize_with = "or_default")]
    pub value: String,
    /// Ours: the one who was asked has no more to say, and the code sees an `EOFError`.
    #[serde(default)]
    pub eof: bool,
    /// Ours: the one who was asked refuses, and says why; the code sees a `cob.InputDeclined`.
    #[serde(default)]
    pub declined: Option<String>,
    /// Ours: the question that is answered, as the metadata of `input_request` names it. Absent: the one that is open.
    #[serde(default)]
    pub promise: Option<PromiseId>,
}
