//! What a client may ask of cob beyond Jupyter: in the metadata of an `execute_request`, under `cob`.

use serde::Deserialize;
use serde_json::Value;

use crate::json::Json;
use crate::limits::{ID_BYTES_MAX, PRIORITY_MIN};
use crate::promise::Durability;

/// `metadata.cob` of an `execute_request`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecuteOptions {
    /// Names the request, whatever its `msg_id` and whichever client sends it: with the same key and the same content it
    /// runs once.
    pub idempotency_key: Option<String>,
    /// How safe its records must be before anybody is told of them.
    pub durability: Option<Durability>,
    /// Milliseconds from its arrival after which it ends as timed out, wherever it stands.
    pub deadline_ms: Option<u64>,
    /// Before those with a lower one in the queue, as long as these are not overtaken too often.
    #[serde(default)]
    pub priority: i32,
    /// Bytes of text that are kept of it, if that is less than the session's limit.
    pub output_limit: Option<u64>,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
}

impl ExecuteOptions {
    /// Reads them out of a message's metadata.
    ///
    /// # Errors
    /// A sentence that names what cannot be read.
    pub fn read(metadata: &Json) -> Result<Self, String> {
        // Nearly no message has any, and those that have none should not pay for being looked through.
        if !metadata.as_str().contains("\"cob\"") {
            return Ok(Self::default());
        }
        let metadata: Value = metadata.read().map_err(|error| format!("metadata: {error}"))?;
        let Some(options) = metadata.get("cob") else { return Ok(Self::default()) };
        let options = Self::deserialize(options).map_err(|error| format!("metadata.cob: {error}"))?;
        if options.idempotency_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > ID_BYTES_MAX) {
            return Err(format!("idempotency_key has 1 to {ID_BYTES_MAX} bytes"));
        }
        if options.priority.abs() > PRIORITY_MIN.abs() {
            return Err(format!("priority is {PRIORITY_MIN} to {}", -PRIORITY_MIN));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ExecuteOptions, String> {
        ExecuteOptions::read(&Json::parse(text).unwrap())
    }

    #[test]
    fn what_is_absent_is_not_asked_for() {
        for text in ["{}", r#"{"cob": {}}"#, r#"{"note": "\"cob\""}"#, r#"{"tags": ["cob"]}"#] {
            assert_eq!(read(text), Ok(ExecuteOptions::default()), "{text}");
        }
        let options = read(r#"{"cob": {"idempotency_key": "k", "durability": "power", "deadline_ms": 5}}"#);
        let options = options.unwrap();
        assert_eq!(options.idempotency_key.as_deref(), Some("k"));
        assert_eq!((options.durability, options.deadline_ms), (Some(Durability::Power), Some(5)));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, named) in [
            (r#"{"cob": {"durability": "paper"}}"#, "paper"),
            (r#"{"cob": {"idempotancy_key": "k"}}"#, "idempotancy_key"),
            (r#"{"cob": {"idempotency_key": ""}}"#, "1 to"),
            (r#"{"cob": []}"#, "metadata.cob"),
            (r#"{"cob": {"deadline_ms": -1}}"#, "deadline_ms"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(named) || error.contains("-1"), "{text}: {error}");
        }
    }
}
