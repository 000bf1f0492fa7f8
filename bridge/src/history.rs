//! What was typed: the input history of a session, for `history_request`.

use std::collections::{HashSet, VecDeque};

use cob_protocol::content::HistoryAccess;
use cob_protocol::limits::{HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX};

/// The session number of the history that is being written.
pub const CURRENT_SESSION: i64 = 1;

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `In [line]`
    pub line: u32,
    /// Its source.
    pub source: String,
    /// Text of its result, if it had one.
    pub output: Option<String>,
}

/// The cells of one session, oldest first.
#[derive(Debug, Default)]
pub struct History {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl History {
    /// Remembers a cell; the oldest ones make room for it.
    pub fn push(&mut self, line: u32, source: String) {
        self.bytes += source.len();
        self.entries.push_back(Entry { line, source, output: None });
        while self.entries.len() > HISTORY_ENTRIES_MAX
            || (self.bytes > HISTORY_BYTES_MAX && self.entries.len() > 1)
        {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.source.len() + oldest.output.map_or(0, |text| text.len());
        }
    }

    /// Remembers the result of the last cell.
    pub fn set_output(&mut self, text: String) {
        if let Some(last) = self.entries.back_mut() {
            self.bytes += text.len();
            last.output = Some(text);
        }
    }

    /// The entries a client asks for.
    #[must_use]
    pub fn query(&self, access: &HistoryAccess) -> Vec<&Entry> {
        match access {
            HistoryAccess::Tail { n } => last(self.entries.iter().collect(), n.unwrap_or(10)),
            HistoryAccess::Range { session, start, stop } => {
                if !matches!(session.unwrap_or(0), 0 | CURRENT_SESSION) {
                    return Vec::new();
                }
                let start = start.unwrap_or(0).max(0);
                let stop = stop.unwrap_or(i64::MAX);
                self.entries.iter().filter(|e| (start..stop).contains(&i64::from(e.line))).collect()
            }
            HistoryAccess::Search { pattern, n, unique } => {
                let pattern: Vec<char> = pattern.as_deref().unwrap_or("*").chars().collect();
                let mut found: Vec<&Entry> =
                    self.entries.iter().filter(|e| glob(&pattern, &e.source)).collect();
                if *unique {
                    // The latest of equal texts stays, at its place.
                    let mut seen = HashSet::new();
                    found.reverse();
                    found.retain(|e| seen.insert(&e.source));
                    found.reverse();
                }
                last(found, n.unwrap_or(i64::MAX))
            }
        }
    }
}

fn last(mut entries: Vec<&Entry>, n: i64) -> Vec<&Entry> {
    let n = usize::try_from(n).unwrap_or(0);
    entries.split_off(entries.len().saturating_sub(n))
}

/// Whether the whole `text` matches a pattern of `*` and `?`. Linear in memory, never worse than their product in
/// time: on a mismatch only the last star is tried again.
fn glob(pattern: &[char], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || Some(c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    p = *at + 1;
                    t = *from;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(cells: &[&str]) -> History {
        let mut history = History::default();
        for (i, cell) in cells.iter().enumerate() {
            history.push(i as u32 + 1, (*cell).to_owned());
        }
        history
    }

    #[track_caller]
    fn lines(history: &History, access: HistoryAccess) -> Vec<u32> {
        history.query(&access).iter().map(|e| e.line).collect()
    }

    fn search(pattern: &str, n: Option<i64>, unique: bool) -> HistoryAccess {
        HistoryAccess::Search { pattern: Some(pattern.into()), n, unique }
    }

    #[test]
    fn tail_range_and_search_choose_what_jupyter_says() {
        let history = history(&["1+2+3", "x", "1+2", "x"]);
        assert_eq!(lines(&history, HistoryAccess::Tail { n: Some(2) }), [3, 4]);
        assert_eq!(lines(&history, HistoryAccess::Tail { n: Some(-2) }), [0u32; 0]);
        let range = |session, start, stop| HistoryAccess::Range { session, start, stop };
        assert_eq!(lines(&history, range(Some(1), Some(2), Some(3))), [2]);
        assert_eq!(lines(&history, range(None, Some(3), None)), [3, 4]);
        assert_eq!(lines(&history, range(Some(-1), None, None)), [0u32; 0]);
        assert_eq!(lines(&history, search("1?2*", None, false)), [1, 3]);
        assert_eq!(lines(&history, search("x", None, true)), [4]);
        assert_eq!(lines(&history, search("*", Some(1), false)), [4]);
    }

    #[test]
    fn a_pattern_of_many_stars_ends_soon() {
        let pattern: Vec<char> = "*a".repeat(50).chars().collect();
        assert!(!glob(&pattern, &"a".repeat(49)));
        assert!(glob(&pattern, &"a".repeat(5000)));
    }

    #[test]
    fn memory_is_bounded_by_count_and_bytes() {
        let mut history = History::default();
        for line in 0..HISTORY_ENTRIES_MAX as u32 + 5 {
            history.push(line, String::new());
        }
        assert_eq!(history.entries.len(), HISTORY_ENTRIES_MAX);
        for line in 0..3 {
            history.push(line, "x".repeat(HISTORY_BYTES_MAX - 10));
        }
        assert_eq!(history.entries.len(), 1);
    }
}
