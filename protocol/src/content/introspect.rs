//! `complete_request`, `inspect_request`, `is_complete_request`. Their replies are written by the executor.

use serde::Deserialize;

/// `complete_request`
#[derive(Clone, Debug, Deserialize)]
pub struct CompleteRequest {
    /// Source text.
    pub code: String,
    /// In Unicode code points; the end when absent.
    #[serde(default)]
    pub cursor_pos: Option<i64>,
}

/// `inspect_request`
#[derive(Clone, Debug, Deserialize)]
pub struct InspectRequest {
    /// Source text.
    pub code: String,
    /// In Unicode code points; the end when absent.
    #[serde(default)]
    pub cursor_pos: Option<i64>,
    /// 0 or 1.
    #[serde(default)]
    pub detail_level: u8,
}

/// `is_complete_request`
#[derive(Clone, Debug, Deserialize)]
pub struct IsCompleteRequest {
    /// Source text.
    pub code: String,
}

/// A cursor within `code`: clients count from the start, some send nothing, a few send -1.
fn cursor(code: &str, asked: Option<i64>) -> usize {
    let end = || code.chars().count();
    match asked.map(usize::try_from) {
        Some(Ok(place)) => place.min(end()),
        Some(Err(_)) | None => end(),
    }
}

impl CompleteRequest {
    /// Place of the cursor, in code points.
    #[must_use]
    pub fn cursor(&self) -> usize {
        cursor(&self.code, self.cursor_pos)
    }
}

impl InspectRequest {
    /// Place of the cursor, in code points.
    #[must_use]
    pub fn cursor(&self) -> usize {
        cursor(&self.code, self.cursor_pos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_never_leaves_the_code() {
        assert_eq!(cursor("aé𝒳", Some(2)), 2);
        assert_eq!(cursor("aé𝒳", Some(99)), 3);
        assert_eq!(cursor("aé𝒳", Some(-1)), 3);
        assert_eq!(cursor("aé𝒳", None), 3);
    }
}
