//! Which executions had defined what a restore did not bring back. The kernel knows no language: it looks for what a
//! definition looks like in most. Whoever wants to run one of them again looks at it first.

use std::collections::VecDeque;

use cob_protocol::checkpoint::Missing;
use cob_protocol::content::HistoryAccess;
use cob_protocol::limits::HISTORY_ENTRIES_MAX;

use crate::session::Session;

/// What stands before a name that is being defined.
const BEFORE: &[&str] =
    &["def", "class", "import", "as", "for", "function", "let", "const", "var", "global", "enum"];

/// Which execution had which number in the history.
#[derive(Debug, Default)]
pub(super) struct Lines(VecDeque<(u64, u32)>);

impl Lines {
    pub(super) fn push(&mut self, execution: u64, line: u32) {
        self.0.push_back((execution, line));
        while self.0.len() > HISTORY_ENTRIES_MAX {
            self.0.pop_front();
        }
    }

    fn execution_of(&self, line: u32) -> Option<u64> {
        let found = self.0.binary_search_by_key(&line, |(_, line)| *line).ok()?;
        self.0.get(found).map(|(execution, _)| *execution)
    }
}

impl Session {
    /// For each name the last execution by then that seems to define it, in their order.
    pub(super) fn rebuild(&self, missing: &[Missing], count: u32) -> Vec<u64> {
        let stop = Some(i64::from(count) + 1);
        let entries = self.history.query(&HistoryAccess::Range { session: Some(0), start: None, stop });
        let last = |missing: &Missing| {
            let mut own = entries.iter().rev().map(|(_, entry)| entry);
            let entry = own.find(|entry| defines(&entry.source, &missing.name))?;
            self.checkpoints.lines.execution_of(entry.line)
        };
        let mut executions: Vec<u64> = missing.iter().filter_map(last).collect();
        executions.sort_unstable();
        executions.dedup();
        executions
    }
}

/// Whether this source seems to define this name.
fn defines(source: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    !name.is_empty()
        && source.match_indices(name).any(|(at, _)| {
            let (before, after) =
                (source.get(..at).unwrap_or(""), source.get(at + name.len()..).unwrap_or(""));
            if before.ends_with(|c| is_part(c) || c == '.') || after.starts_with(is_part) {
                return false;
            }
            let after = after.trim_start_matches([' ', '\t']);
            let is_assigned = after.starts_with('=') && !after.starts_with("==");
            // One of several: `a, b = …`, `{ a, b } = …`, `[a, b] = …`.
            let rest = after.split(['\n', ';']).next().unwrap_or("");
            let start = before.rsplit(['\n', ';']).next().unwrap_or("");
            let is_one_of = after.starts_with([',', ':', '}', ']'])
                && rest.split_once('=').is_some_and(|(names, _)| !names.contains('('))
                && !start.contains(['(', '=']);
            // Between the word and the name of a generator stands a star.
            let word = before.trim_end_matches([' ', '\t', '*']).rsplit(|c| !is_part(c)).next();
            is_assigned || is_one_of || word.is_some_and(|word| BEFORE.contains(&word))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_found_and_mere_uses_are_not() {
        for (source, is_one) in [
            ("g = open('x')", true),
            ("h = 1\n  g\t= 2", true),
            ("def g(): pass", true),
            ("class g:\n  pass", true),
            ("import g", true),
            ("import numpy as g", true),
            ("a, g = 1, 2", true),
            ("g, a = 1, 2", true),
            ("g: int = 3", true),
            ("let g = 3", true),
            ("a, g = f(1)", true),
            ("const { a, g } = f(1)", true),
            ("const [g, a] = await f()", true),
            ("function* g() {}", true),
            ("async function g() {}", true),
            ("let g: number", true),
            ("enum g { A }", true),
            ("g$ = 3", false),
            ("x = [1, g]", false),
            ("const f = (a, g) => a", false),
            ("`${g}`", false),
            ("g == 3", false),
            ("gg = 3", false),
            ("print(g)", false),
            ("x.g = 3", false),
            ("f(g, a=1)", false),
            ("next(g)", false),
        ] {
            assert_eq!(defines(source, "g"), is_one, "{source}");
        }
    }
}
