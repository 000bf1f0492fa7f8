//! Points in time, and where they come from.

use std::fmt;

use jiff::Timestamp as Instant;

/// A point in wall time; written as ISO 8601 in UTC with microseconds, as Jupyter wants its dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(Instant);

impl Timestamp {
    /// Microseconds since 1970.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0.as_microsecond()
    }

    /// The point so many microseconds after 1970; the nearest one that can be written, if it is beyond that.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        let limit = if micros < 0 { Instant::MIN } else { Instant::MAX };
        Self(Instant::from_microsecond(micros).unwrap_or(limit))
    }

    /// The point `milliseconds` later; the last one there is, if that is too far.
    #[must_use]
    pub fn after_ms(self, milliseconds: i64) -> Self {
        Self::from_micros(self.micros().saturating_add(milliseconds.saturating_mul(1000)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = jiff::Error;

    /// Reads ISO 8601, as it is written here.
    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse().map(Self)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where the time comes from: the system, or a test.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_iso_8601_with_microseconds() {
        let time = Timestamp(Instant::from_microsecond(1_700_000_000_000_001).unwrap());
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.000001Z");
        assert_eq!(time.micros(), 1_700_000_000_000_001);
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
