//! Lines from the terminal, or from a pipe: cells, answers, commands. One line is read at a time, and only when
//! somebody wants one.

use std::io::{self, BufRead, Write};

use cob_protocol::ids::PromiseId;
use tokio::task::JoinHandle;

use crate::cli::terminal;

/// A line; `None` at the end of the input.
pub(super) type Typed = Option<String>;

/// What a line means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Nothing,
    /// Code that may not be whole yet.
    Unfinished(String),
    /// Code that an empty line has ended.
    Cell(String),
    /// The answer to a question.
    Answer(PromiseId, Typed),
    Quit,
    /// Stop what runs.
    Interrupt,
    /// The end of the input, and the code before it.
    End(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Prompt {
    is_terminal: bool,
    reading: Option<JoinHandle<Typed>>,
    /// Lines of a cell that is not whole.
    cell: String,
    /// A question that waits for a line.
    question: Option<PromiseId>,
    /// The prompt stands at the cursor.
    is_shown: bool,
}

impl Prompt {
    pub(super) fn new(is_terminal: bool) -> Self {
        Self { is_terminal, reading: None, cell: String::new(), question: None, is_shown: false }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Whoever sits there may type code. `is_free`: nothing else is on its way to the screen.
    pub(super) fn offer(&mut self, is_free: bool) {
        if self.reading.is_none() {
            self.reading = Some(tokio::task::spawn_blocking(line));
        }
        if self.is_terminal && is_free && !self.is_shown && self.question.is_none() {
            self.is_shown = true;
            say(if self.cell.is_empty() { ">>> " } else { "... " });
        }
    }

    /// The next line; for ever nothing unless one is wanted. Cancel-safe.
    pub(super) async fn typed(&mut self) -> Typed {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let typed = reading.await.unwrap_or_default();
        self.reading = None;
        typed
    }

    /// Something is printed where the prompt stands.
    pub(super) fn give_way(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            say("\r\x1b[2K");
        }
    }

    /// The running code asks.
    pub(super) fn ask(&mut self, call: PromiseId, prompt: &str, is_password: bool) {
        self.give_way();
        self.question = Some(call);
        if self.reading.is_some() {
            // Somebody reads already; that line will be the answer.
            say(prompt);
            return;
        }
        let prompt = prompt.to_owned();
        self.reading = Some(tokio::task::spawn_blocking(move || terminal::ask(&prompt, is_password)));
    }

    /// The cell is not whole.
    pub(super) fn more(&mut self, cell: String) {
        self.cell = cell;
    }

    /// What was typed so far is not wanted.
    pub(super) fn clear(&mut self) {
        self.give_way();
        self.cell.clear();
    }

    /// Says what a line means.
    pub(super) fn take(&mut self, typed: Typed) -> Entry {
        self.is_shown = false;
        if let Some(call) = self.question.take() {
            return Entry::Answer(call, typed);
        }
        let Some(line) = typed else { return Entry::End(std::mem::take(&mut self.cell)) };
        if self.cell.is_empty() {
            return match line.trim() {
                "" => Entry::Nothing,
                ":quit" | ":q" => Entry::Quit,
                ":interrupt" => Entry::Interrupt,
                _ => Entry::Unfinished(line),
            };
        }
        let cell = std::mem::take(&mut self.cell);
        // As in Python's own prompt.
        if line.trim().is_empty() { Entry::Cell(cell) } else { Entry::Unfinished(format!("{cell}\n{line}")) }
    }
}

fn line() -> Typed {
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim_end_matches(['\n', '\r']).to_owned()),
    }
}

fn say(text: &str) {
    let mut err = io::stderr();
    let _ = write!(err, "{text}").and_then(|()| err.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Typed {
        Some(text.to_owned())
    }

    #[test]
    fn a_cell_grows_until_an_empty_line_ends_it() {
        let mut prompt = Prompt::new(false);
        assert_eq!(prompt.take(typed("  ")), Entry::Nothing);
        assert_eq!(prompt.take(typed("if x:")), Entry::Unfinished("if x:".into()));
        prompt.more("if x:".into());
        assert_eq!(prompt.take(typed("    y")), Entry::Unfinished("if x:\n    y".into()));
        prompt.more("if x:\n    y".into());
        assert_eq!(prompt.take(typed("")), Entry::Cell("if x:\n    y".into()));
        assert_eq!(prompt.take(typed("1")), Entry::Unfinished("1".into()));
    }

    #[test]
    fn a_question_takes_the_next_line_whatever_it_says() {
        let mut prompt = Prompt::new(false);
        let call: PromiseId = "s1.e1.c1".parse().unwrap();
        prompt.question = Some(call);
        assert_eq!(prompt.take(typed(":quit")), Entry::Answer(call, typed(":quit")));
        assert_eq!(prompt.take(typed(":quit")), Entry::Quit);
    }

    #[test]
    fn the_end_of_the_input_gives_out_what_stands_before_it() {
        let mut prompt = Prompt::new(false);
        prompt.more("for x in y:\n  z".into());
        assert_eq!(prompt.take(None), Entry::End("for x in y:\n  z".into()));
        assert_eq!(prompt.take(None), Entry::End(String::new()));
    }
}
