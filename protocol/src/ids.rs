//! Names of things: sessions, promises, clients.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A session: one namespace, one worker at a time. Written `s1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u64);

/// A durable promise, named by its place: execution 7 of session 1 is `s1.e7`, its second call `s1.e7.c2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PromiseId {
    /// The session it belongs to.
    pub session: SessionId,
    /// The execution it is, or belongs to.
    pub execution: u64,
    /// The call it is, if it is one.
    pub call: Option<u64>,
}

impl PromiseId {
    /// The promise of an execution.
    #[must_use]
    pub fn execution(session: SessionId, execution: u64) -> Self {
        Self { session, execution, call: None }
    }

    /// The promise of a call made by this execution.
    #[must_use]
    pub fn with_call(self, call: u64) -> Self {
        Self { call: Some(call), ..self }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// A text that is not the name of a session.
#[derive(Debug, Error)]
#[error("`{0}` is no session id; one looks like s1")]
pub struct BadSessionId(String);

impl FromStr for SessionId {
    type Err = BadSessionId;

    fn from_str(text: &str) -> Result<Self, BadSessionId> {
        let bad = || BadSessionId(text.to_owned());
        let digits = text.strip_prefix('s').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits.ok_or_else(bad)?.parse().map(Self).map_err(|_| bad())
    }
}

/// Sessions in messages, by their names.
pub mod session_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::SessionId;

    /// Writes `s1`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(session: &SessionId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(session)
    }

    /// Reads `s1`.
    ///
    /// # Errors
    /// For any other text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SessionId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Sessions in messages that may name none.
pub mod session_text_option {
    use serde::{Deserialize, Deserializer, de::Error};

    use super::SessionId;

    /// Reads `s1`.
    ///
    /// # Errors
    /// For any other text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SessionId>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

impl fmt::Display for PromiseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.e{}", self.session, self.execution)?;
        self.call.map_or(Ok(()), |call| write!(f, ".c{call}"))
    }
}

/// A text that is not the id of a promise.
#[derive(Debug, Error)]
#[error("`{text}` is no promise id; one looks like s1.e7 or s1.e7.c2")]
pub struct BadPromiseId {
    text: String,
    #[source]
    source: Option<ParseIntError>,
}

impl FromStr for PromiseId {
    type Err = BadPromiseId;

    fn from_str(text: &str) -> Result<Self, BadPromiseId> {
        let bad = |source| BadPromiseId { text: text.to_owned(), source };
        let number = |part: Option<&str>, letter: char| -> Result<u64, BadPromiseId> {
            let digits = part.and_then(|p| p.strip_prefix(letter)).ok_or_else(|| bad(None))?;
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(bad(None));
            }
            digits.parse().map_err(|e| bad(Some(e)))
        };
        let mut parts = text.split('.');
        let session = SessionId(number(parts.next(), 's')?);
        let execution = number(parts.next(), 'e')?;
        let call = match parts.next() {
            None => None,
            part => Some(number(part, 'c')?),
        };
        if parts.next().is_some() {
            return Err(bad(None));
        }
        Ok(Self { session, execution, call })
    }
}

/// A checkpoint of a session, by its number there: `s1.k3`. Numbers are never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CheckpointId {
    /// The session it was taken of.
    pub session: SessionId,
    /// From 1.
    pub number: u64,
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.k{}", self.session, self.number)
    }
}

/// A text that is not the name of a checkpoint.
#[derive(Debug, Error)]
#[error("`{0}` is no checkpoint; one looks like s1.k3")]
pub struct BadCheckpointId(String);

impl FromStr for CheckpointId {
    type Err = BadCheckpointId;

    fn from_str(text: &str) -> Result<Self, BadCheckpointId> {
        let bad = || BadCheckpointId(text.to_owned());
        let (session, number) = text.split_once(".k").ok_or_else(bad)?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        let session = session.parse().map_err(|_| bad())?;
        Ok(Self { session, number: number.parse().map_err(|_| bad())? })
    }
}

impl From<CheckpointId> for String {
    fn from(id: CheckpointId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for CheckpointId {
    type Error = BadCheckpointId;

    fn try_from(text: String) -> Result<Self, BadCheckpointId> {
        text.parse()
    }
}

impl From<PromiseId> for String {
    fn from(id: PromiseId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for PromiseId {
    type Error = BadPromiseId;

    fn try_from(text: String) -> Result<Self, BadPromiseId> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_come_back_as_they_were_written(session: u64, execution: u64, call: Option<u64>) {
            let id = PromiseId { session: SessionId(session), execution, call };
            prop_assert_eq!(id.to_string().parse::<PromiseId>().unwrap(), id);
        }

        #[test]
        fn checkpoints_come_back_as_they_were_written(session: u64, number: u64) {
            let id = CheckpointId { session: SessionId(session), number };
            prop_assert_eq!(id.to_string().parse::<CheckpointId>().unwrap(), id);
        }

        #[test]
        fn arbitrary_text_is_a_checkpoint_or_an_error_that_shows_one(text in "[sk.0-9+-]{0,10}") {
            if let Err(error) = text.parse::<CheckpointId>() {
                prop_assert!(error.to_string().contains("s1.k3"));
            }
        }

        #[test]
        fn sessions_come_back_as_they_were_written(session: u64) {
            prop_assert_eq!(SessionId(session).to_string().parse::<SessionId>().unwrap(), SessionId(session));
        }

        #[test]
        fn arbitrary_text_is_a_session_or_an_error_that_shows_one(text in "[se.0-9+-]{0,8}") {
            if let Err(error) = text.parse::<SessionId>() {
                prop_assert!(error.to_string().contains("s1"));
            }
        }

        #[test]
        fn arbitrary_text_is_an_id_or_an_error_that_shows_one(text in "[se.c0-9+-]{0,12}") {
            if let Err(error) = text.parse::<PromiseId>() {
                prop_assert!(error.to_string().contains("s1.e7"));
            }
        }
    }
}
