//! Stacks as the engine writes them, read line by line: `    at f (<cell 2>:1:7)`.

use super::sources::told;

/// Where a function was when it called the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// What stands before the place: a function, `async f`, or nothing.
    function: &'a str,
    pub(super) script: &'a str,
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Frame<'_> {
    /// As people read it.
    pub(super) fn told(&self) -> String {
        let place = format!("{}:{}:{}", told(self.script), self.line, self.column);
        if self.function.is_empty() {
            format!("    at {place}")
        } else {
            format!("    at {} ({place})", self.function)
        }
    }
}

/// The frames of a stack without those of the runtime itself.
pub(super) fn frames(stack: &str) -> impl Iterator<Item = Frame<'_>> {
    stack.lines().filter_map(frame).filter(|frame| !is_internal(frame.script))
}

fn frame(line: &str) -> Option<Frame<'_>> {
    let rest = line.trim_start().strip_prefix("at ")?;
    let (function, place) = match rest.strip_suffix(')').and_then(|rest| rest.rsplit_once(" (")) {
        Some((function, place)) => (function, place),
        None => match rest.strip_prefix("async ") {
            Some(place) => ("", place),
            None => ("", rest),
        },
    };
    let (place, column) = place.rsplit_once(':')?;
    let (script, line) = place.rsplit_once(':')?;
    // The body of a cell is no function, whatever it was wrapped in.
    let function =
        if matches!(function, "<eval>" | "async <anonymous>" | "<anonymous>") { "" } else { function };
    Some(Frame { function, script, line: line.parse().ok()?, column: column.parse().ok()? })
}

fn is_internal(script: &str) -> bool {
    let script = script.trim_start_matches('[');
    ["ext:", "cob:", "native", "<enqueue-microtask>"].iter().any(|start| script.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_by_their_cells() {
        let stack = "Error: x\n    at f (<cell 2>:1:7)\n    at ext:core/01_core.js:3:4\n    \
                     at async g (file:///home/a.ts:10:2)\n    at <cell 3>:4:1\n    at Array.map (native)\nat all";
        let told: Vec<_> = frames(stack).map(|frame| frame.told()).collect();
        assert_eq!(
            told,
            ["    at f (<cell 2>:1:7)", "    at async g (/home/a.ts:10:2)", "    at <cell 3>:4:1"]
        );
    }
}
