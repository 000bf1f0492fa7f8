//! `history_request`.

use serde::Deserialize;

/// `history_request`
#[derive(Clone, Debug, Deserialize)]
pub struct HistoryRequest {
    /// Whether outputs are wanted too.
    #[serde(default)]
    pub output: bool,
    /// How entries are chosen.
    #[serde(flatten)]
    pub access: HistoryAccess,
}

/// How entries are chosen.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "hist_access_type", rename_all = "lowercase")]
pub enum HistoryAccess {
    /// The last `n`.
    Tail {
        /// How many.
        #[serde(default = "ten")]
        n: Option<i64>,
    },
    /// Lines of one session.
    Range {
        /// The session; 0 is the current one, negative counts back from it.
        #[serde(default)]
        session: Option<i64>,
        /// First line.
        #[serde(default)]
        start: Option<i64>,
        /// Line after the last; absent: to the end.
        #[serde(default)]
        stop: Option<i64>,
    },
    /// Lines that match.
    Search {
        /// Glob: `*` and `?`.
        #[serde(default)]
        pattern: Option<String>,
        /// At most so many, from the end.
        #[serde(default)]
        n: Option<i64>,
        /// Each text once.
        #[serde(default)]
        unique: bool,
    },
}

fn ten() -> Option<i64> {
    Some(10)
}
