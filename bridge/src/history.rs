//! What was typed: the input history of a session and of those before it in the same store, for `history_request`.

use std::collections::{HashSet, VecDeque};

use cob_protocol::content::HistoryAccess;
use cob_protocol::ids::SessionId;
use cob_protocol::limits::{HISTORY_BYTES_MAX, HISTORY_ENTRIES_MAX};

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

/// The cells of a session and of earlier ones, oldest first.
#[derive(Debug)]
pub struct History {
    session: SessionId,
    entries: VecDeque<(SessionId, Entry)>,
    bytes: usize,
}

impl History {
    /// That of `session`, in which nothing has been typed yet.
    #[must_use]
    pub fn of(session: SessionId) -> Self {
        Self { session, entries: VecDeque::new(), bytes: 0 }
    }

    /// Remembers a cell; the oldest ones make room for it.
    pub fn push(&mut self, line: u32, source: String) {
        self.remember(self.session, Entry { line, source, output: None });
    }

    /// Remembers a cell that was typed before, in this session or in another.
    pub fn remember(&mut self, session: SessionId, entry: Entry) {
        self.bytes += entry.source.len() + entry.output.as_ref().map_or(0, String::len);
        self.entries.push_back((session, entry));
        while self.entries.len() > HISTORY_ENTRIES_MAX
            || (self.bytes > HISTORY_BYTES_MAX && self.entries.len() > 1)
        {
            let Some((_, oldest)) = self.entries.pop_front() else { break };
            self.bytes -= oldest.source.len() + oldest.output.map_or(0, |text| text.len());
        }
    }

    /// Remembers the result of the last cell.
    pub fn set_output(&mut self, text: String) {
        if let Some((_, last)) = self.entries.back_mut() {
            self.bytes += text.len();
            last.output = Some(text);
        }
    }

    /// The entries a client asks for.
    #[must_use]
    pub fn query(&self, access: &HistoryAccess) -> Vec<(SessionId, &Entry)> {
        let entries = || self.entries.iter().map(|(session, entry)| (*session, entry));
        match access {
            HistoryAccess::Tail { n } => last(entries().collect(), n.unwrap_or(10)),
            HistoryAccess::Range { session, start, stop } => {
                // 0 is this session, -1 the one before it.
                let current = i64::try_from(self.session.0).unwrap_or(i64::MAX);
                let wanted = match session.unwrap_or(0) {
                    back @ ..=0 => current.saturating_add(back),
                    number => number,
                };
                let start = start.unwrap_or(0).max(0);
                let stop = stop.unwrap_or(i64::MAX);
                entries()
                    .filter(|(session, _)| i64::try_from(session.0) == Ok(wanted))
                    .filter(|(_, entry)| (start..stop).contains(&i64::from(entry.line)))
                    .collect()
            }
            HistoryAccess::Search { pattern, n, unique } => {
                let pattern: Vec<char> = pattern.as_deref().unwrap_or("*").chars().collect();
                let mut found: Vec<(SessionId, &Entry)> =
                    entries().filter(|(_, entry)| glob(&pattern, &entry.source)).collect();
                if *unique {
                    // The latest of equal texts stays, at its place.
                    let mut seen = HashSet::new();
                    found.reverse();
                    found.retain(|(_, entry)| seen.insert(&entry.source));
                    found.reverse();
                }
                last(found, n.unwrap_or(i64::MAX))
            }
        }
    }
}

fn last<T>(mut entries: Vec<T>, n: i64) -> Vec<T> {
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
        let mut history = History::of(SessionId(2));
        history.remember(SessionId(1), Entry { line: 1, source: "before".into(), output: None });
        for (i, cell) in cells.iter().enumerate() {
            history.push(i as u32 + 1, (*cell).to_owned());
        }
        history
    }

    #[track_caller]
    fn lines(history: &History, access: HistoryAccess) -> Vec<u32> {
        history.query(&access).iter().map(|(_, entry)| entry.line).collect()
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
        assert_eq!(lines(&history, range(Some(2), Some(2), Some(3))), [2]);
        assert_eq!(lines(&history, range(Some(1), None, None)), [1]);
        assert_eq!(lines(&history, range(None, Some(3), None)), [3, 4]);
        assert_eq!(lines(&history, range(Some(-1), None, None)), [1]);
        assert_eq!(lines(&history, range(Some(-2), None, None)), [0u32; 0]);
        assert_eq!(lines(&history, search("bef*", None, false)), [1]);
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
        let mut history = History::of(SessionId(1));
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
