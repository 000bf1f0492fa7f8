//! A page, read.

use super::pattern::Pattern;

/// The conversation of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Its steps, in order.
    pub lines: Vec<Line>,
}

/// A step, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The line of the page, from 1.
    pub number: usize,
    /// What happens.
    pub step: Step,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The lines that follow are this client's.
    Client(String),
    /// It sends this.
    Send {
        /// What the page calls the request; empty for nothing.
        label: String,
        /// Its type.
        msg_type: String,
        /// Its content.
        content: Pattern,
    },
    /// It must get this.
    Expect {
        /// For which request; empty for the last one.
        label: String,
        /// Its type.
        msg_type: String,
        /// Its content.
        content: Pattern,
    },
    /// Whatever else comes for a request does not matter.
    Whatever {
        /// For which request; empty for the last one.
        label: String,
    },
    /// It closes its connection.
    HangUp,
}

const FENCE: &str = "```";

impl Script {
    /// Reads a page.
    ///
    /// # Errors
    /// What is wrong, and in which line.
    pub fn parse(page: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (number, text) in statements(page)? {
            let step = step(&text).map_err(|why| format!("line {number}: {why}"))?;
            lines.push(Line { number, step });
        }
        match lines.first() {
            None => Err("there is no block marked `transcript`".to_owned()),
            Some(Line { step: Step::Client(_), .. }) => Ok(Self { lines }),
            Some(Line { number, .. }) => {
                Err(format!("line {number}: whose is it? `client NAME` comes first"))
            }
        }
    }
}

/// The lines of the blocks, those that go on joined, each with its number.
fn statements(page: &str) -> Result<Vec<(usize, String)>, String> {
    let mut found: Vec<(usize, String)> = Vec::new();
    // The fence that is open, and whether it encloses a transcript.
    let mut open: Option<bool> = None;
    for (number, line) in (1..).zip(page.lines()) {
        match (line.strip_prefix(FENCE), open) {
            (Some(mark), None) => open = Some(mark.trim() == "transcript"),
            (Some(_), Some(_)) => open = None,
            (None, Some(true)) => {
                let is_empty = line.trim().is_empty() || line.starts_with('#');
                let goes_on = line.starts_with([' ', '\t']);
                match found.last_mut() {
                    _ if is_empty => {}
                    Some((_, before)) if goes_on => {
                        before.push(' ');
                        before.push_str(line.trim());
                    }
                    None if goes_on => return Err(format!("line {number}: goes on with nothing")),
                    _ => found.push((number, line.trim_end().to_owned())),
                }
            }
            (None, _) => {}
        }
    }
    if open.is_some() { Err("a block is not closed".to_owned()) } else { Ok(found) }
}

fn step(text: &str) -> Result<Step, String> {
    if text == "hang up" {
        return Ok(Step::HangUp);
    }
    if let Some(name) = text.strip_prefix("client ") {
        return Ok(Step::Client(name.trim().to_owned()));
    }
    let is_send = text.starts_with('>');
    let Some(rest) = text.strip_prefix(['>', '<']) else {
        return Err(format!("{text:?} begins with none of `>`, `<`, `client`, `hang up`"));
    };
    let (label, rest) = labelled(rest.trim());
    if !is_send && rest == "..." {
        return Ok(Step::Whatever { label });
    }
    let (msg_type, content) = rest.split_once(char::is_whitespace).unwrap_or((rest, "{}"));
    let is_type = !msg_type.is_empty() && msg_type.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    if !is_type {
        return Err(format!("{msg_type:?} is no message type"));
    }
    let (msg_type, content) = (msg_type.to_owned(), Pattern::parse(content)?);
    Ok(if is_send {
        Step::Send { label, msg_type, content }
    } else {
        Step::Expect { label, msg_type, content }
    })
}

/// `name: rest`, if the rest does not begin the content.
fn labelled(text: &str) -> (String, &str) {
    match text.split_once(':') {
        Some((label, rest)) if label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
            (label.to_owned(), rest.trim())
        }
        _ => (String::new(), text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_is_its_transcripts_in_order() {
        let page = "\
# Title
Text with > and < in it.

```json
> not_this {}
```

```transcript
client a
# why
> ping
< ping_reply {\"status\":
     \"ok\", ...}
```

And then:

```transcript

> run: execute_request {\"code\": \"a: b\"}
< run: ack {...}
< run: ...
hang up
```
";
        let script = Script::parse(page).unwrap();
        let open = Pattern::Object(Vec::new(), true);
        let exactly = |value| Pattern::Exactly(value);
        let steps = [
            (9, Step::Client("a".into())),
            (
                11,
                Step::Send {
                    label: String::new(),
                    msg_type: "ping".into(),
                    content: Pattern::Object(vec![], false),
                },
            ),
            (
                12,
                Step::Expect {
                    label: String::new(),
                    msg_type: "ping_reply".into(),
                    content: Pattern::Object(vec![("status".into(), exactly(json!("ok")))], true),
                },
            ),
            (
                20,
                Step::Send {
                    label: "run".into(),
                    msg_type: "execute_request".into(),
                    content: Pattern::Object(vec![("code".into(), exactly(json!("a: b")))], false),
                },
            ),
            (21, Step::Expect { label: "run".into(), msg_type: "ack".into(), content: open }),
            (22, Step::Whatever { label: "run".into() }),
            (23, Step::HangUp),
        ];
        let lines: Vec<_> = steps.into_iter().map(|(number, step)| Line { number, step }).collect();
        assert_eq!(script.lines, lines);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        let page = |block: &str| format!("x\n```transcript\n{block}\n```\n");
        for (block, why) in [
            ("> ping", "line 3: whose is it?"),
            ("client a\nping", "line 4: \"ping\" begins with none"),
            ("client a\n> Ping {}", "line 4: \"Ping\" is no message type"),
            ("client a\n> ping {", "line 4: expected"),
            ("  > ping", "line 3: goes on with nothing"),
            ("", "there is no block"),
        ] {
            let error = Script::parse(&page(block)).unwrap_err();
            assert!(error.starts_with(why), "{block:?}: {error}");
        }
        assert!(Script::parse("```transcript\nclient a\n").unwrap_err().contains("not closed"));
    }
}
