//! From a reason to stop to what people read.

use cob_protocol::frame::{ExecutionNumber, StreamName};
use cob_protocol::limits::{
    BACKGROUND_TURN_MS_MAX, ERROR_TEXT_BYTES_MAX, MIB, SOURCE_COLUMNS_MAX, TRACEBACK_LINES_MAX,
};
use deno_core::v8;
use serde_json::Value;

use super::frames::{Frame, frames};
use super::sources::{Sources, told};
use super::{Stop, Told};
use crate::engine::{Engine, Uncaught};
use crate::here::Here;
use crate::transform::SyntaxError;
use crate::worker::worker;

const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[39m";

impl Engine {
    /// Says it to people. Getters of the user may run for it.
    pub(crate) fn tell(&mut self, stop: Stop) -> Told {
        match stop {
            Stop::Thrown(error) => self.tell_thrown(error),
            Stop::NoCode(error) => self.tell_no_code(&error),
            Stop::Interrupted => plain("KeyboardInterrupt", String::new()),
            Stop::OutOfMemory => plain("RangeError", out_of_memory(self.heap_bytes())),
            Stop::Overdue => plain("Error", overdue()),
            Stop::NeverSettles => {
                plain("Error", "the cell awaits a promise that nothing is going to settle".to_owned())
            }
            Stop::Failed(why) => plain("Error", why),
        }
    }

    fn tell_thrown(&mut self, error: v8::Global<v8::Value>) -> Told {
        let described = self.call("errors.describe", &[error]).map(|text| self.text_of(&text));
        match described.map(|text| serde_json::from_str::<Value>(&text)) {
            Ok(Ok(described)) => told_of(&described, &self.sources),
            Ok(Err(_)) | Err(Stop::Thrown(_)) => {
                plain("Error", "an error that cannot be described".to_owned())
            }
            // Whatever stops a description stops the cell.
            Err(stop) => self.tell(stop),
        }
    }

    fn tell_no_code(&mut self, error: &SyntaxError) -> Told {
        let SyntaxError { message, line, column, source_line } = error;
        let mut traceback = vec![header("SyntaxError", message)];
        traceback.extend(shown(source_line.as_deref(), *column).into_iter().flatten());
        if let Some(name) = self.sources.last() {
            traceback.push(format!("    at {}:{line}:{column}", told(name)));
        }
        Told { name: "SyntaxError".to_owned(), value: cut(message), traceback }
    }

    /// Tells errors that belong to other executions than the one that runs, as output of theirs.
    pub(crate) fn tell_elsewhere(&mut self) {
        for error in self.uncaught_elsewhere() {
            tell_uncaught(self, error);
        }
    }
}

/// Tells an error that nobody caught as output of the execution that it belongs to.
pub(crate) fn tell_uncaught(engine: &mut Engine, error: Uncaught) {
    let Uncaught { origin, promise, error } = error;
    let told = engine.tell(Stop::Thrown(error));
    let how = if promise.is_some() { "Uncaught (in promise) " } else { "Uncaught " };
    let lines = told.traceback.join("\n");
    let lines = lines.strip_prefix(&format!("{RED}Uncaught{RESET} ")).unwrap_or(&lines);
    print(origin, &format!("{how}{lines}\n"));
}

/// Tells why code that ran between executions was stopped. Who interrupts it knows.
pub(crate) fn tell_stopped(engine: &mut Engine, stop: Stop) {
    if matches!(stop, Stop::Interrupted) {
        return;
    }
    let origin = engine.last_origin();
    let told = engine.tell(stop);
    print(origin, &format!("Uncaught {}\n", told.traceback.join("\n")));
}

fn print(origin: ExecutionNumber, text: &str) {
    let Some(worker) = worker() else { return };
    // Who is interrupted meanwhile is told so by what runs.
    let text = text.replace(RED, "").replace(RESET, "");
    let _ = worker.print(&Here, StreamName::Stderr, origin, &text);
}

fn out_of_memory(bytes: usize) -> String {
    format!(
        "out of memory: the heap may hold {} MiB. The session goes on; let go of large values, or give it more memory",
        bytes / MIB
    )
}

fn overdue() -> String {
    format!(
        "code that ran on between cells (a timer, a promise) was stopped: it used the processor for {} s without a \
         pause",
        BACKGROUND_TURN_MS_MAX / 1000
    )
}

fn plain(name: &str, value: String) -> Told {
    Told { name: name.to_owned(), traceback: vec![header(name, &value)], value }
}

fn header(name: &str, value: &str) -> String {
    let value = cut(value);
    if value.is_empty() {
        format!("{RED}{name}{RESET}")
    } else if name == "Uncaught" {
        format!("{RED}{name}{RESET} {value}")
    } else {
        format!("{RED}{name}{RESET}: {value}")
    }
}

/// What `errors.describe` has found.
fn told_of(error: &Value, sources: &Sources) -> Told {
    let (name, value) = name_and_value(error);
    let mut traceback = Vec::new();
    lines_of(error, sources, "", &mut traceback);
    traceback.truncate(TRACEBACK_LINES_MAX);
    Told { name: name.to_owned(), value: cut(value), traceback }
}

fn name_and_value(error: &Value) -> (&str, &str) {
    match error.get("thrown").and_then(Value::as_str) {
        Some(value) => ("Uncaught", value),
        None => (text(error, "name"), text(error, "message")),
    }
}

fn lines_of(error: &Value, sources: &Sources, indent: &str, lines: &mut Vec<String>) {
    let (name, value) = name_and_value(error);
    let first = lines.len();
    lines.push(header(name, value));
    let stack: Vec<Frame<'_>> = frames(text(error, "stack")).collect();
    let place = stack.iter().find_map(|frame| Some((sources.line(frame.script, frame.line)?, frame.column)));
    if let Some((line, column)) = place {
        lines.extend(shown(Some(line), column).into_iter().flatten());
    }
    lines.extend(stack.iter().map(Frame::told));
    lines
        .extend(list(error, "properties").filter_map(Value::as_str).map(|line| format!("    {}", cut(line))));
    if !indent.is_empty() {
        for line in lines.iter_mut().skip(first) {
            *line = format!("{indent}{}", line.replace('\n', &format!("\n{indent}")));
        }
    }
    let deeper = format!("{indent}    ");
    for inner in list(error, "errors") {
        lines_of(inner, sources, &deeper, lines);
    }
    if let Some(cause) = error.get("cause") {
        let at = lines.len();
        lines_of(cause, sources, indent, lines);
        if let Some(line) = lines.get_mut(at) {
            *line = format!("{indent}Caused by: {}", line.strip_prefix(indent).unwrap_or(line));
        }
    }
}

/// A line of code and a caret below the column.
fn shown(line: Option<&str>, column: u32) -> Option<[String; 2]> {
    let line = line?;
    let column = (column as usize).saturating_sub(1);
    // Of a long line the part around the place.
    let skipped = if column < SOURCE_COLUMNS_MAX { 0 } else { column - SOURCE_COLUMNS_MAX / 2 };
    let part: String = line.chars().skip(skipped).take(SOURCE_COLUMNS_MAX).collect();
    let trimmed = part.trim_start();
    let before = part.chars().count() - trimmed.chars().count();
    let at = (column - skipped).saturating_sub(before).min(trimmed.chars().count());
    Some([format!("    {}", trimmed.trim_end()), format!("    {}{RED}^{RESET}", " ".repeat(at))])
}

fn text<'a>(error: &'a Value, key: &str) -> &'a str {
    error.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(error: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    error.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn cut(text: &str) -> String {
    if text.len() <= ERROR_TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=ERROR_TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let line = format!("  {}here", "x".repeat(1000));
        let [code, caret] = shown(Some(&line), 1003).unwrap();
        let caret = caret.find('\x1b').unwrap();
        assert!(code.get(caret..).unwrap().starts_with("here"), "{code}");
        let [code, caret] = shown(Some("  a b"), 5).unwrap();
        assert_eq!((code.as_str(), caret.find('\x1b')), ("    a b", Some(6)));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = "é".repeat(ERROR_TEXT_BYTES_MAX);
        assert!(cut(&text).len() <= ERROR_TEXT_BYTES_MAX + 3);
        assert_eq!(cut("é"), "é");
    }
}
