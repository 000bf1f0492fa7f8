//! The text of recent cells: an error shows its line, be it that of an older cell, and functions are shown as they were
//! written.

use std::collections::VecDeque;

use cob_protocol::limits::{CELL_SOURCES_BYTES_MAX, CELL_SOURCES_MAX};

/// What the names of scripts begin with that were no files: of cells, and of expressions.
const CELL: &str = "cell_";
const EXPRESSION: &str = "expression_";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Names and texts, the oldest first.
    kept: VecDeque<(String, String)>,
    bytes: usize,
    /// The number of the last cell that was named by it alone.
    newest: u32,
    /// The next number that tells cells of the same count apart, and expressions.
    again: u64,
}

impl Sources {
    /// The name of the script of the cell `count`, which no other ever has.
    pub(crate) fn name_cell(&mut self, count: u32) -> String {
        if count > self.newest {
            self.newest = count;
            return format!("file:///{CELL}{count}.ts");
        }
        self.again += 1;
        format!("file:///{CELL}{count}_{}.ts", self.again)
    }

    /// The name of the script of an expression.
    pub(crate) fn name_expression(&mut self) -> String {
        self.again += 1;
        format!("file:///{EXPRESSION}{}.ts", self.again)
    }

    /// Keeps the text of a script. The names of those that are forgotten for it.
    pub(crate) fn keep(&mut self, name: &str, text: &str) -> Vec<String> {
        self.bytes += text.len();
        self.kept.push_back((name.to_owned(), text.to_owned()));
        let mut forgotten = Vec::new();
        while self.kept.len() > CELL_SOURCES_MAX || self.bytes > CELL_SOURCES_BYTES_MAX {
            let Some((name, text)) = self.kept.pop_front() else { break };
            self.bytes -= text.len();
            forgotten.push(name);
        }
        forgotten
    }

    /// All of them, the newest first.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().rev().map(|(_, text)| text.as_str())
    }

    /// A line of a script as people [call](told) it, counted from 1, if its text is still known.
    pub(crate) fn line(&self, name: &str, line: u32) -> Option<&str> {
        // Errors are mostly those of the last cell.
        let (_, text) = self.kept.iter().rev().find(|(known, _)| told(known) == name)?;
        text.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)
    }

    /// The name of the cell that came last.
    pub(crate) fn last(&self) -> Option<&str> {
        self.kept.back().map(|(name, _)| name.as_str())
    }
}

/// A stack as the engine writes it, with the scripts named as people [call](told) them.
pub(crate) fn told_stack(stack: &str) -> Option<String> {
    let mut parts = stack.split("file:///");
    let mut told = parts.next()?.to_owned();
    for part in parts {
        match known(part) {
            Some((name, rest)) => told.extend([&name, rest]),
            None => told.extend(["file:///", part]),
        }
    }
    (told != stack).then_some(told)
}

/// What people call a script: `<cell 5>`, `<expression>`; a module by its path.
pub(crate) fn told(name: &str) -> String {
    match name.strip_prefix("file:///").and_then(known) {
        Some((told, "")) => told,
        _ => name.strip_prefix("file://").unwrap_or(name).to_owned(),
    }
}

/// What people call the script that a text begins with, and the rest of the text.
fn known(text: &str) -> Option<(String, &str)> {
    let (number, rest) =
        text.strip_prefix(CELL).or_else(|| text.strip_prefix(EXPRESSION))?.split_once(".ts")?;
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') {
        return None;
    }
    let count = number.split('_').next().filter(|count| !count.is_empty())?;
    let told = if text.starts_with(CELL) { format!("<cell {count}>") } else { "<expression>".to_owned() };
    Some((told, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_older_cells_are_known() {
        let mut sources = Sources::default();
        let [first, again, second] = [1, 1, 2].map(|count| sources.name_cell(count));
        for (name, text) in [(&first, "a\nb"), (&again, "c"), (&second, "d")] {
            assert!(sources.keep(name, text).is_empty());
        }
        // Of two cells of one number the later one is meant.
        assert_eq!(sources.line("<cell 1>", 1), Some("c"));
        assert_eq!(sources.line("<cell 2>", 1), Some("d"));
        assert_eq!(sources.line("<cell 1>", 0), None);
        assert_eq!(sources.line("<cell 1>", 2), None);
        assert_ne!(first, again);
        assert_eq!((told(&first).as_str(), told(&again).as_str()), ("<cell 1>", "<cell 1>"));
        assert_eq!(told("file:///home/x.ts"), "/home/x.ts");
        assert_eq!(told(&sources.name_expression()), "<expression>");
        assert_ne!(sources.name_cell(1), first);
    }

    #[test]
    fn stacks_name_cells() {
        let stack =
            "E: x\n    at f (file:///cell_2.ts:1:7)\n    at file:///cell_3_1.ts:4:1\n    at file:///cell_x";
        let told = "E: x\n    at f (<cell 2>:1:7)\n    at <cell 3>:4:1\n    at file:///cell_x";
        assert_eq!(told_stack(stack).as_deref(), Some(told));
        assert_eq!(told_stack("plain"), None);
    }

    #[test]
    fn the_oldest_texts_are_forgotten() {
        let mut sources = Sources::default();
        sources.keep("file:///cell_1.ts", "a");
        let large = "x".repeat(CELL_SOURCES_BYTES_MAX);
        assert_eq!(sources.keep("file:///cell_2.ts", &large), ["file:///cell_1.ts"]);
        assert_eq!(sources.line("<cell 1>", 1), None);
        assert_eq!(sources.line("<cell 2>", 1).map(str::len), Some(large.len()));
        assert!(sources.bytes <= CELL_SOURCES_BYTES_MAX);
    }
}
