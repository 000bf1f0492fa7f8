//! Events as text, as a terminal would show them, or as lines of JSON.

use std::io::{self, Write};

use cob_protocol::event::{Event, EventNumber};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use serde::Serialize;
use serde_json::Value;

use super::terminal::without_escapes;

/// Longest escape sequence that is waited for when it is cut in two.
const ESCAPE_BYTES_MAX: usize = 64;

/// Where events go.
#[derive(Debug)]
pub(crate) struct Printer<W> {
    out: W,
    json: bool,
    /// Escape sequences pass.
    is_terminal: bool,
    /// The beginning of an escape sequence whose end has not come.
    cut: String,
    /// Whether the output is in the middle of a line.
    mid_line: bool,
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    promise: PromiseId,
    number: EventNumber,
    at: &'a str,
    event: &'a Event,
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(out: W, json: bool, is_terminal: bool) -> Self {
        Self { out, json, is_terminal, cut: String::new(), mid_line: false }
    }

    #[cfg(test)]
    pub(crate) fn out(&self) -> &W {
        &self.out
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Something that is no event.
    pub(crate) fn note(&mut self, text: &str) -> io::Result<()> {
        if self.json {
            // Whoever reads JSON finds the gap in the numbers.
            eprintln!("cob: {text}");
            return Ok(());
        }
        self.fresh_line()?;
        writeln!(self.out, "{text}")
    }

    pub(crate) fn event(
        &mut self,
        promise: PromiseId,
        number: EventNumber,
        at: &str,
        event: &Event,
    ) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut self.out, &Line { promise, number, at, event })?;
            return writeln!(self.out);
        }
        match event {
            Event::Stream { text, .. } => self.text(text),
            Event::Display(content) | Event::UpdateDisplay(content) | Event::Result(content) => {
                let Some(plain) = plain(content) else { return Ok(()) };
                self.fresh_line()?;
                self.text(&plain)?;
                self.fresh_line()
            }
            Event::Error(error) => {
                self.fresh_line()?;
                if error.traceback.is_empty() {
                    self.text(&format!("{}: {}", error.ename, error.evalue))?;
                } else {
                    self.text(&error.traceback.join("\n"))?;
                }
                self.fresh_line()
            }
            Event::Truncated { written, kept, dropped } => self.note(&format!(
                "[output truncated: {written} bytes written, {kept} kept, {dropped} dropped; the end follows]"
            )),
            Event::ClearOutput { .. }
            | Event::CallOpened { .. }
            | Event::CallClosed { .. }
            | Event::Data(_)
            | Event::Done { .. } => Ok(()),
        }
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        if self.is_terminal {
            return self.write(text);
        }
        let mut text = std::mem::take(&mut self.cut) + text;
        if let Some(start) = unfinished(&text) {
            self.cut = text.split_off(start);
        }
        self.write(&without_escapes(&text))
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if !text.is_empty() {
            self.mid_line = !text.ends_with('\n');
        }
        self.out.write_all(text.as_bytes())
    }

    /// Whether the output is in the middle of a line.
    pub(crate) fn is_mid_line(&self) -> bool {
        self.mid_line
    }

    /// Ends a line that was begun.
    pub(crate) fn fresh_line(&mut self) -> io::Result<()> {
        // What was cut stays so: something else begins.
        self.cut.clear();
        if std::mem::take(&mut self.mid_line) { self.out.write_all(b"\n") } else { Ok(()) }
    }
}

/// Where the escape sequence begins that the end of the text cuts in two.
fn unfinished(text: &str) -> Option<usize> {
    let start = text.rfind('\x1b')?;
    let rest = text.get(start + 1..)?;
    let is_open = match rest.strip_prefix('[') {
        Some(parameters) => !parameters.contains(|c: char| ('@'..='~').contains(&c)),
        None => rest.is_empty(),
    };
    (is_open && rest.len() < ESCAPE_BYTES_MAX).then_some(start)
}

/// The text of a display or a result.
fn plain(content: &Json) -> Option<String> {
    let content: Value = content.read().ok()?;
    content["data"]["text/plain"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use cob_protocol::event::ErrorText;
    use cob_protocol::frame::StreamName;
    use cob_protocol::ids::SessionId;
    use cob_protocol::time::Timestamp;

    use super::*;

    fn stream(text: &str) -> Event {
        Event::Stream { name: StreamName::Stdout, text: text.to_owned() }
    }

    #[track_caller]
    fn shown(events: &[Event], json: bool, is_terminal: bool) -> String {
        let mut printer = Printer::new(Vec::new(), json, is_terminal);
        for (number, event) in (1..).zip(events) {
            let at = Timestamp::from_micros(0).to_string();
            printer.event(PromiseId::execution(SessionId(1), 2), number, &at, event).unwrap();
        }
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn text_results_and_errors_stand_as_on_a_terminal() {
        let result = Json::parse(r#"{"data":{"text/plain":"42","text/html":"<b>"}}"#).unwrap();
        let picture = Json::parse(r#"{"data":{"image/png":"iVBO"}}"#).unwrap();
        let error = ErrorText {
            ename: "E".into(),
            evalue: "v".into(),
            traceback: vec!["\x1b[31mred\x1b[0m".into(), "E: v".into()],
        };
        let events = [
            stream("no newline"),
            Event::Result(result),
            Event::Display(picture),
            Event::Truncated { written: 9, kept: 4, dropped: 5 },
            Event::Error(error),
            Event::Done { last: 5 },
        ];
        let expected = "no newline\n42\n\
            [output truncated: 9 bytes written, 4 kept, 5 dropped; the end follows]\nred\nE: v\n";
        assert_eq!(shown(&events, false, false), expected);
        assert!(shown(&events, false, true).contains("\x1b[31mred"));
    }

    #[test]
    fn escape_sequences_are_inert_even_when_they_are_cut_in_two() {
        let events = ["a\x1b[3", "1", "mred\x1b", "[0m b\n"].map(stream);
        assert_eq!(shown(&events, false, false), "ared b\n");
        assert_eq!(shown(&events, false, true), "a\x1b[31mred\x1b[0m b\n");
    }

    #[test]
    fn a_line_of_json_says_whose_event_it_is_and_when() {
        let events = [stream("a\x1b[0m\n"), Event::Done { last: 1 }];
        let expected = concat!(
            r#"{"promise":"s1.e2","number":1,"at":"1970-01-01T00:00:00.000000Z","#,
            r#""event":{"stream":{"name":"stdout","text":"a\u001b[0m\n"}}}"#,
            "\n",
            r#"{"promise":"s1.e2","number":2,"at":"1970-01-01T00:00:00.000000Z","event":{"done":{"last":1}}}"#,
            "\n",
        );
        assert_eq!(shown(&events, true, false), expected);
    }
}
