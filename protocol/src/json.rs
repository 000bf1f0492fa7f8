//! JSON that is carried, not read: text that was checked once and is embedded as it stands.

use std::fmt;

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A well-formed JSON text.
///
/// In frames it travels as a string, in JSON documents it is embedded verbatim. Both ways of reading it check the
/// syntax, so a worker cannot smuggle a broken document into a client's message.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Box<str>);

impl Json {
    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// The syntax error of `text`, with its position.
    pub fn parse(text: impl Into<Box<str>>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        serde_json::from_str::<IgnoredAny>(&text)?;
        Ok(Self(text))
    }

    /// Writes `value` as JSON.
    ///
    /// # Errors
    /// What the value's own `Serialize` refuses (a map whose keys are not strings).
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(|text| Self(text.into()))
    }

    /// As [`Json::of`], for a text of about so many bytes: a long one is not moved while it grows.
    ///
    /// # Errors
    /// As [`Json::of`].
    pub fn of_about(value: &impl Serialize, bytes: usize) -> Result<Self, serde_json::Error> {
        let mut text = Vec::with_capacity(bytes);
        serde_json::to_writer(&mut text, value)?;
        let text = String::from_utf8(text).map_err(serde::ser::Error::custom)?;
        Ok(Self(text.into()))
    }

    /// `{}`.
    #[must_use]
    pub fn object() -> Self {
        Self("{}".into())
    }

    /// `[]`.
    #[must_use]
    pub fn array() -> Self {
        Self("[]".into())
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, to be sent.
    #[must_use]
    pub fn into_bytes(self) -> bytes::Bytes {
        String::from(self.0).into()
    }

    /// Reads the text as `T`.
    ///
    /// # Errors
    /// When the document has another shape than `T`.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::object()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        Self(value.to_string().into())
    }
}

/// Tells a JSON serializer, which can embed a document, from a binary one, which carries a string.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            match serde_json::from_str::<&RawValue>(&self.0) {
                Ok(raw) => raw.serialize(serializer),
                Err(error) => Err(serde::ser::Error::custom(error)),
            }
        } else {
            serializer.serialize_str(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.get().into()))
        } else {
            Self::parse(Box::<str>::deserialize(deserializer)?).map_err(D::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_json_does_not_pass_either_way() {
        assert!(Json::parse("{\"a\":1").is_err());
        let packed = rmp_serde::to_vec("{\"a\":").unwrap();
        assert!(rmp_serde::from_slice::<Json>(&packed).is_err());
    }

    #[test]
    fn a_document_is_embedded_as_it_stands() {
        let json = Json::parse("{\"b\": 1,  \"a\":[1.0]}").unwrap();
        assert_eq!(serde_json::to_string(&json).unwrap(), json.as_str());
        let packed = rmp_serde::to_vec(&json).unwrap();
        assert_eq!(rmp_serde::from_slice::<Json>(&packed).unwrap(), json);
    }
}
