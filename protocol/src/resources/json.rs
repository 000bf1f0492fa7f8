//! Limits as a JSON object: `{"memory": 2147483648, "time": "30s"}`. A number is in the unit of its row, a text as
//! in [`Limits::parse`], `null` is the same as leaving it out.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Limit, LimitError, Limits};

impl Serialize for Limits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.iter().count()))?;
        for (limit, value) in self.iter() {
            map.serialize_entry(limit.name(), &value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Rows)
    }
}

struct Rows;

impl<'de> Visitor<'de> for Rows {
    type Value = Limits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of limits, for example {\"memory\": \"512M\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Limits, A::Error> {
        let mut limits = Limits::default();
        while let Some(name) = map.next_key::<String>()? {
            let limit = Limit::named(&name).map_err(A::Error::custom)?;
            if let Some(value) = map.next_value_seed(Value(limit))? {
                limits.put(limit, value).map_err(A::Error::custom)?;
            }
        }
        Ok(limits)
    }
}

/// The value of one row.
struct Value(Limit);

impl Value {
    fn settle<E: Error>(value: Result<u64, LimitError>) -> Result<Option<u64>, E> {
        value.map(Some).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<u64>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Value {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.0;
        write!(f, "a whole number or a text for {}, for example \"{}\"", limit.name(), limit.example())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Option<u64>, E> {
        Self::settle(self.0.check(value, &value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Option<u64>, E> {
        let given = value.to_string();
        match u64::try_from(value) {
            Ok(value) => Self::settle(self.0.check(value, &given)),
            Err(_) => Self::settle(Err(LimitError::too_small(self.0, &given))),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Option<u64>, E> {
        Self::settle(Err(LimitError::not_a_number(self.0, &value.to_string())))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<u64>, E> {
        Self::settle(self.0.read(text.trim()))
    }

    fn visit_unit<E: Error>(self) -> Result<Option<u64>, E> {
        Ok(None)
    }
}
