//! What agents are told when something is not done: one shape, whatever went wrong.

use cob_bridge::{BridgeError, BundleError};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::ErrorText;
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::limits::REFUSAL_BYTES_MAX;
use serde::Serialize;

use crate::request::Refusal;
use crate::telling::{refusal_code, store_code};

#[derive(Serialize)]
struct Content<'a> {
    status: &'static str,
    #[serde(flatten)]
    error: &'a ErrorText,
    code: &'static str,
    hint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl Refusal {
    /// The content of a reply.
    pub(crate) fn content(&self) -> Json {
        let content = Content {
            status: "error",
            error: &ErrorText::coded(self.code, cut(&self.why)),
            code: self.code.code(),
            hint: self.code.hint(),
            retry_after_ms: self.code.retry_after_ms(),
        };
        Json::of(&content).unwrap_or_default()
    }

    pub(crate) fn bad(why: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, why)
    }

    pub(crate) fn busy(why: impl Into<String>) -> Self {
        Self::new(ErrorCode::Busy, why)
    }

    pub(crate) fn closed(session: SessionId) -> Self {
        Self::new(ErrorCode::SessionClosed, format!("the session {session} is closed"))
    }
}

/// A sentence may quote what a client has sent, and that may be as long as a message.
fn cut(why: &str) -> &str {
    why.get(..why.floor_char_boundary(REFUSAL_BYTES_MAX)).unwrap_or(why)
}

impl From<BridgeError> for Refusal {
    fn from(error: BridgeError) -> Self {
        let code = match &error {
            BridgeError::Unknown(_) => ErrorCode::UnknownPromise,
            BridgeError::UnknownSession(_) => ErrorCode::UnknownSession,
            other => refusal_code(other),
        };
        Self::new(code, error.to_string())
    }
}

impl From<BundleError> for Refusal {
    fn from(error: BundleError) -> Self {
        let code = match &error {
            BundleError::NoStore => ErrorCode::BadRequest,
            BundleError::Unknown(_) => ErrorCode::UnknownCheckpoint,
            BundleError::Full(_) => ErrorCode::CheckpointLimit,
            BundleError::Untrusted(_) => ErrorCode::UntrustedBundle,
            BundleError::Damaged(_) => ErrorCode::DamagedBundle,
            BundleError::Store(error) => store_code(error),
            _ => ErrorCode::CheckpointFailed,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use cob_protocol::limits::RETRY_AFTER_MS;
    use serde_json::Value;

    use super::*;

    #[test]
    fn only_what_passes_by_itself_says_when_to_ask_again() {
        let busy: Value = Refusal::busy("full").content().read().unwrap();
        assert_eq!((busy["status"].as_str(), busy["code"].as_str()), (Some("error"), Some("busy")));
        assert_eq!(busy["retry_after_ms"], RETRY_AFTER_MS);
        let bad: Value = Refusal::bad("no \"such\" field").content().read().unwrap();
        assert!(bad.get("retry_after_ms").is_none());
        assert_eq!(
            (bad["ename"].as_str(), bad["evalue"].as_str()),
            (Some("BadRequest"), Some("no \"such\" field"))
        );
        assert!(bad["traceback"].is_array() && bad["hint"].is_string());
    }
}
