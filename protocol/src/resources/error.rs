//! What can be wrong with limits that are asked for: each is one sentence that says what to write instead.

use super::{Amount, Limit};
use crate::error::ErrorCode;

/// Characters of somebody's text that an error repeats.
const QUOTED_CHARS_MAX: usize = 40;
/// Names longer than this are not compared with ours.
const COMPARED_CHARS_MAX: usize = 24;

/// What is wrong with limits that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// No such limit.
    #[error("there is no limit {name:?}: {}", meant(*.suggestion))]
    UnknownName {
        /// What was written.
        name: String,
        /// What was probably meant.
        suggestion: Option<&'static str>,
    },
    /// The value is no whole number.
    #[error("{} is not a whole number: write for example {}", pair(*.limit, .given), example(*.limit))]
    NotANumber {
        /// The limit it was meant for.
        limit: Limit,
        /// What was written.
        given: String,
    },
    /// The unit is missing, unknown, or too fine.
    #[error(
        "{} has the wrong unit: {} may follow the number, for example {}",
        pair(*.limit, .given), .limit.unit().suffixes(), example(*.limit)
    )]
    Unit {
        /// The limit it was meant for.
        limit: Limit,
        /// What was written.
        given: String,
    },
    /// Less than makes sense.
    #[error(
        "{} is too small: at least {}, for example {}",
        pair(*.limit, .given), amount(*.limit, .limit.least()), example(*.limit)
    )]
    TooSmall {
        /// The limit it was meant for.
        limit: Limit,
        /// What was written.
        given: String,
    },
    /// More than makes sense.
    #[error(
        "{} is too large: at most {}, for example {}",
        pair(*.limit, .given), amount(*.limit, .limit.most()), example(*.limit)
    )]
    TooLarge {
        /// The limit it was meant for.
        limit: Limit,
        /// What was written.
        given: String,
    },
    /// More than the operator allows.
    #[error(
        "{}={} is more than this server allows: at most {}={}",
        .limit.name(), amount(*.limit, *.value), .limit.name(), amount(*.limit, *.most)
    )]
    AboveCeiling {
        /// The limit.
        limit: Limit,
        /// What was asked for, in its unit.
        value: u64,
        /// What is allowed, in its unit.
        most: u64,
    },
    /// The same limit twice.
    #[error("{} is named twice: write it once, for example {}", .limit.name(), example(*.limit))]
    Twice {
        /// The limit.
        limit: Limit,
    },
    /// The whole text is longer than any list of limits can be.
    #[error("the list of limits is too long: write each limit once, for example memory=512M,time=30s")]
    TooLong,
}

impl LimitError {
    /// The row of the table of errors.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        ErrorCode::InvalidLimit
    }

    pub(super) fn unknown(name: &str) -> Self {
        Self::UnknownName { name: quote(name), suggestion: nearest(name) }
    }

    pub(super) fn not_a_number(limit: Limit, given: &str) -> Self {
        Self::NotANumber { limit, given: quote(given) }
    }

    pub(super) fn unit(limit: Limit, given: &str) -> Self {
        Self::Unit { limit, given: quote(given) }
    }

    pub(super) fn too_small(limit: Limit, given: &str) -> Self {
        Self::TooSmall { limit, given: quote(given) }
    }

    pub(super) fn too_large(limit: Limit, given: &str) -> Self {
        Self::TooLarge { limit, given: quote(given) }
    }
}

fn quote(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn pair(limit: Limit, given: &str) -> String {
    format!("{}={given}", limit.name())
}

fn example(limit: Limit) -> String {
    pair(limit, limit.example())
}

fn amount(limit: Limit, value: u64) -> Amount {
    Amount { unit: limit.unit(), value }
}

fn meant(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(name) => format!("write {name}"),
        None => format!("write one of {}", Limit::NAMES.join(", ")),
    }
}

/// The name that was probably meant: one that differs in a few letters, or that is part of what was written.
fn nearest(name: &str) -> Option<&'static str> {
    let name: Vec<char> = name.to_lowercase().chars().take(COMPARED_CHARS_MAX + 1).collect();
    if name.is_empty() || name.len() > COMPARED_CHARS_MAX {
        return None;
    }
    let text: String = name.iter().collect();
    let distance = |known: &&&str| distance(&name, known);
    let close = Limit::NAMES.iter().min_by_key(distance).filter(|known| distance(known) <= known.len() / 3);
    let related =
        |known: &&&str| known.starts_with(&text) || text.starts_with(**known) || text.contains(**known);
    close.or_else(|| Limit::NAMES.iter().find(related)).copied()
}

/// Letters to change, add or leave out (Levenshtein).
fn distance(left: &[char], right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (line, a) in left.iter().enumerate() {
        let mut diagonal = line;
        let mut before = line + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(right.chars()) {
            let above = *cell;
            *cell = (diagonal + usize::from(*a != b)).min(above + 1).min(before + 1);
            diagonal = above;
            before = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
