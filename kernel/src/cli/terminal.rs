//! What people see while code runs, and what they type.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use cob_protocol::message::Outgoing;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::Value;

/// Shows broadcasts to a person: text as it comes, results as text, errors with their traceback.
#[derive(Debug)]
pub(crate) struct Terminal {
    colours: bool,
    /// Whether stdout is in the middle of a line.
    mid_line: bool,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colours, mid_line: false }
    }

    /// Shows a message; fails when nobody reads any more.
    pub(crate) fn show(&mut self, message: &Outgoing) -> io::Result<()> {
        let content: Value = message.content.read().unwrap_or_default();
        match message.msg_type {
            "stream" if content["name"] == "stderr" => self.error_text(text(&content["text"])),
            "stream" => self.text(text(&content["text"])),
            "execute_result" | "display_data" => {
                if let Some(plain) = content["data"]["text/plain"].as_str() {
                    self.fresh_line()?;
                    self.text(&format!("{plain}\n"))?;
                }
                Ok(())
            }
            "error" => {
                self.fresh_line()?;
                let lines = content["traceback"].as_array().map(Vec::as_slice).unwrap_or_default();
                let traceback: Vec<&str> = lines.iter().map(text).collect();
                let traceback = traceback.join("\n") + "\n";
                self.error_text(&if self.colours { traceback } else { without_escapes(&traceback) })
            }
            _ => Ok(()),
        }
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        if !text.is_empty() {
            self.mid_line = !text.ends_with('\n');
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn error_text(&mut self, text: &str) -> io::Result<()> {
        io::stderr().lock().write_all(text.as_bytes())
    }

    fn fresh_line(&mut self) -> io::Result<()> {
        if self.mid_line { self.text("\n") } else { Ok(()) }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text without ANSI escape sequences.
pub(crate) fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\x1b') {
        out.push_str(before);
        rest = match after.strip_prefix('[') {
            // CSI: parameters, then one final letter.
            Some(sequence) => sequence
                .find(|c: char| ('@'..='~').contains(&c))
                .and_then(|end| sequence.get(end + 1..))
                .unwrap_or_default(),
            None => after,
        };
    }
    out + rest
}

/// Asks the person at the terminal, or reads the next line of a pipe; `None` at the end of the input.
pub(crate) fn ask(prompt: &str, password: bool) -> Option<String> {
    let mut err = io::stderr();
    // The question must be seen even when stdout is a file.
    let _ = write!(err, "{prompt}").and_then(|()| err.flush());
    let echo = password && io::stdin().is_terminal();
    let _silence = echo.then(Silence::begin);
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim_end_matches(['\n', '\r']).to_owned()),
    }
}

/// The terminal does not show what is typed, until this is dropped.
struct Silence;

impl Silence {
    fn begin() -> Self {
        change(LocalModes::ECHO);
        Self
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        restore();
        eprintln!();
    }
}

/// How the terminal was before: whoever waits for what is typed may never come back to restore it.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Takes modes from the terminal that is typed at, until it is [restored](restore).
pub(crate) fn change(without: LocalModes) {
    let stdin = io::stdin();
    let Ok(before) = tcgetattr(&stdin) else { return };
    let mut changed = before.clone();
    changed.local_modes.remove(without);
    if tcsetattr(&stdin, OptionalActions::Now, &changed).is_ok() {
        BEFORE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(before);
    }
}

/// Makes the terminal what it was, if it was changed.
pub(crate) fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_taken_out_and_nothing_else() {
        assert_eq!(without_escapes("\x1b[31mred\x1b[0m [x] é"), "red [x] é");
        assert_eq!(without_escapes("cut \x1b[3"), "cut ");
        assert_eq!(without_escapes("plain"), "plain");
    }
}
