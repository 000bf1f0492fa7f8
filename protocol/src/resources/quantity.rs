//! Numbers with units, as people write them: `2G`, `30s`, `64`.

use super::{Limit, LimitError};

/// What a limit is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Whole seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Pieces.
    Count,
}

/// Suffix and factor, the largest first. Durations are in milliseconds here.
const SIZES: [(&str, u64); 4] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
const DURATIONS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Unit {
    /// What may stand behind the number.
    pub(super) fn suffixes(self) -> &'static str {
        match self {
            Self::Bytes => "K, M, G or T",
            Self::Seconds => "s, m or h",
            Self::Milliseconds => "ms, s, m or h",
            Self::Count => "nothing",
        }
    }
}

/// A value in its unit, for people; `Limits::parse` reads it.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// What it is counted in.
    pub unit: Unit,
    /// How many.
    pub value: u64,
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (table, value): (&[_], _) = match self.unit {
            Unit::Bytes => (&SIZES, Some(self.value)),
            Unit::Count => (&[], Some(self.value)),
            Unit::Milliseconds => (&DURATIONS, Some(self.value)),
            Unit::Seconds => (&DURATIONS, self.value.checked_mul(1000)),
        };
        let Some(value) = value else { return write!(f, "{}s", self.value) };
        let fits = |(_, factor): &&(&str, u64)| value >= *factor && value.is_multiple_of(*factor);
        match table.iter().find(fits) {
            Some((suffix, factor)) => write!(f, "{}{suffix}", value / factor),
            None => write!(f, "{value}"),
        }
    }
}

/// `text` in the unit of `limit`.
pub(super) fn read(limit: Limit, text: &str) -> Result<u64, LimitError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    if digits.is_empty() {
        return Err(LimitError::not_a_number(limit, text));
    }
    let too_large = || LimitError::too_large(limit, text);
    let number: u64 = digits.parse().map_err(|_| too_large())?;
    let factor = factor(limit.unit(), suffix.trim()).ok_or_else(|| LimitError::unit(limit, text))?;
    let value = number.checked_mul(factor).ok_or_else(too_large)?;
    match limit.unit() {
        Unit::Seconds if value.is_multiple_of(1000) => Ok(value / 1000),
        Unit::Seconds => Err(LimitError::unit(limit, text)),
        Unit::Bytes | Unit::Milliseconds | Unit::Count => Ok(value),
    }
}

fn factor(unit: Unit, suffix: &str) -> Option<u64> {
    match unit {
        Unit::Bytes => size_factor(suffix),
        // A bare number could be either seconds or milliseconds: whoever writes it says which.
        Unit::Seconds | Unit::Milliseconds => Some(DURATIONS.iter().find(|(name, _)| *name == suffix)?.1),
        Unit::Count => suffix.is_empty().then_some(1),
    }
}

fn size_factor(suffix: &str) -> Option<u64> {
    let suffix = suffix.to_ascii_uppercase();
    let letter = suffix.strip_suffix("IB").or_else(|| suffix.strip_suffix('B')).unwrap_or(&suffix);
    match letter {
        "" if suffix != "IB" => Some(1),
        _ => Some(SIZES.iter().find(|(name, _)| *name == letter)?.1),
    }
}
