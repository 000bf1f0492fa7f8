//! JSON with holes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What was remembered, by name.
pub type Captures = BTreeMap<String, Value>;

/// A value that is expected, or sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// Whatever it is.
    Any,
    /// Some text.
    Text,
    /// Some number.
    Number,
    /// Text with this part.
    Has(String),
    /// The value of this name.
    Named(String),
    /// This value; names in a text are filled in.
    Exactly(Value),
    /// An object with these fields, and others if it is open.
    Object(Vec<(String, Pattern)>, bool),
    /// A list that begins with these items, and goes on if it is open.
    List(Vec<Pattern>, bool),
}

impl Pattern {
    /// Reads one, and nothing behind it.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0 };
        let pattern = parser.value()?;
        parser.space();
        if parser.rest().is_empty() { Ok(pattern) } else { Err(parser.wrong("nothing more")) }
    }

    /// The value that it stands for.
    ///
    /// # Errors
    /// What is not known.
    pub fn fill(&self, known: &Captures) -> Result<Value, String> {
        Ok(match self {
            Self::Exactly(Value::String(text)) => Value::String(filled(text, known)?),
            Self::Exactly(value) => value.clone(),
            Self::Named(name) => known.get(name).cloned().ok_or(format!("${name} is not known yet"))?,
            Self::Object(fields, false) => {
                let fields = fields.iter().map(|(name, value)| Ok((name.clone(), value.fill(known)?)));
                Value::Object(fields.collect::<Result<Map<_, _>, String>>()?)
            }
            Self::List(items, false) => {
                Value::Array(items.iter().map(|item| item.fill(known)).collect::<Result<_, _>>()?)
            }
            _ => return Err("what is sent has no holes".to_owned()),
        })
    }

    /// Everything in which a value differs, each with its place; names that were not known are remembered.
    #[must_use]
    pub fn differences(&self, value: &Value, known: &mut Captures) -> Vec<String> {
        let mut wrong = Vec::new();
        self.compare(value, known, "$", &mut wrong);
        wrong
    }

    fn compare(&self, value: &Value, known: &mut Captures, place: &str, wrong: &mut Vec<String>) {
        let mut differs = |wanted: &str| wrong.push(format!("at {place}: expected {wanted}, got {value}"));
        match self {
            Self::Any => {}
            Self::Text if !value.is_string() => differs("a text"),
            Self::Number if !value.is_number() => differs("a number"),
            Self::Text | Self::Number => {}
            Self::Has(part) => {
                if !value.as_str().is_some_and(|text| text.contains(part)) {
                    differs(&format!("a text with {part:?}"));
                }
            }
            Self::Named(name) => {
                let wanted = known.entry(name.clone()).or_insert_with(|| value.clone());
                if wanted != value {
                    differs(&format!("${name}, which is {wanted}"));
                }
            }
            Self::Exactly(wanted) => match self.fill(known) {
                Ok(filled) if filled == *value => {}
                Ok(filled) => differs(&filled.to_string()),
                Err(why) => differs(&format!("{wanted} ({why})")),
            },
            Self::Object(fields, is_open) => match value.as_object() {
                Some(found) => compare_fields(fields, *is_open, found, known, place, wrong),
                None => differs("an object"),
            },
            Self::List(items, is_open) => match value.as_array() {
                Some(found) if found.len() == items.len() || (*is_open && found.len() > items.len()) => {
                    for (number, (item, value)) in items.iter().zip(found).enumerate() {
                        item.compare(value, known, &format!("{place}[{number}]"), wrong);
                    }
                }
                _ => differs(&format!("a list of {}{}", items.len(), if *is_open { " or more" } else { "" })),
            },
        }
    }
}

fn compare_fields(
    fields: &[(String, Pattern)],
    is_open: bool,
    found: &Map<String, Value>,
    known: &mut Captures,
    place: &str,
    wrong: &mut Vec<String>,
) {
    for (name, pattern) in fields {
        match found.get(name) {
            Some(value) => pattern.compare(value, known, &format!("{place}.{name}"), wrong),
            None => wrong.push(format!("at {place}: `{name}` is missing")),
        }
    }
    let strange =
        found.iter().filter(|(name, _)| !is_open && !fields.iter().any(|(known, _)| known == *name));
    wrong.extend(strange.map(|(name, value)| format!("at {place}: unexpected `{name}`: {value}")));
}

/// A text with the values of the names in it.
fn filled(text: &str, known: &Captures) -> Result<String, String> {
    let mut pieces = text.split("${");
    let mut whole = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once('}').ok_or("a `${` without its `}`")?;
        match known.get(name) {
            Some(Value::String(value)) => whole.push_str(value),
            Some(value) => whole.push_str(&value.to_string()),
            None => return Err(format!("${name} is not known yet")),
        }
        whole.push_str(rest);
    }
    Ok(whole)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn wrong(&self, wanted: &str) -> String {
        let found: String = self.rest().chars().take(30).collect();
        format!("expected {wanted}, found {found:?}")
    }

    /// Takes `word` if it comes next.
    fn takes(&mut self, word: &str) -> bool {
        self.space();
        let is_next = self.rest().starts_with(word);
        self.at += if is_next { word.len() } else { 0 };
        is_next
    }

    fn value(&mut self) -> Result<Pattern, String> {
        for (word, pattern) in
            [("<any>", Pattern::Any), ("<text>", Pattern::Text), ("<number>", Pattern::Number)]
        {
            if self.takes(word) {
                return Ok(pattern);
            }
        }
        if self.takes("<has ") {
            let part = self.string()?;
            return if self.takes(">") { Ok(Pattern::Has(part)) } else { Err(self.wrong("`>`")) };
        }
        match self.rest().chars().next() {
            Some('$') => {
                self.at += 1;
                Ok(Pattern::Named(self.word(|c| c.is_ascii_alphanumeric() || c == '_')))
            }
            Some('"') => Ok(Pattern::Exactly(Value::String(self.string()?))),
            Some('{') => self.object(),
            Some('[') => self.list(),
            _ => {
                let word = self.word(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
                serde_json::from_str(&word).map(Pattern::Exactly).map_err(|_| self.wrong("a value"))
            }
        }
    }

    fn word(&mut self, is_part: impl Fn(char) -> bool) -> String {
        let word: String = self.rest().chars().take_while(|c| is_part(*c)).collect();
        self.at += word.len();
        word
    }

    fn string(&mut self) -> Result<String, String> {
        self.space();
        // The reader of JSON knows where a text ends.
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<String>();
        let Some(Ok(text)) = values.next() else { return Err(self.wrong("a text")) };
        self.at += values.byte_offset();
        Ok(text)
    }

    fn object(&mut self) -> Result<Pattern, String> {
        self.takes("{");
        let mut fields = Vec::new();
        let is_open = self.members("}", |parser| {
            let name = parser.string()?;
            if !parser.takes(":") {
                return Err(parser.wrong("`:`"));
            }
            fields.push((name, parser.value()?));
            Ok(())
        })?;
        Ok(Pattern::Object(fields, is_open))
    }

    fn list(&mut self) -> Result<Pattern, String> {
        self.takes("[");
        let mut items = Vec::new();
        let is_open = self.members("]", |parser| {
            items.push(parser.value()?);
            Ok(())
        })?;
        Ok(Pattern::List(items, is_open))
    }

    /// Reads members up to the end; whether there may be others.
    fn members(
        &mut self,
        end: &str,
        mut member: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<bool, String> {
        if self.takes(end) {
            return Ok(false);
        }
        loop {
            if self.takes("...") {
                return if self.takes(end) {
                    Ok(true)
                } else {
                    Err(self.wrong(&format!("`{end}` after `...`")))
                };
            }
            member(self)?;
            if self.takes(end) {
                return Ok(false);
            }
            if !self.takes(",") {
                return Err(self.wrong(&format!("`,` or `{end}`")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn differences(pattern: &str, value: Value) -> Vec<String> {
        Pattern::parse(pattern).unwrap().differences(&value, &mut Captures::new())
    }

    #[test]
    fn what_is_whole_must_be_equal_and_what_has_holes_must_fit() {
        let value = json!({ "a": [1, "x", { "b": null }], "c": -2.5, "d": "long text" });
        for pattern in [
            r#"{"a": [1, "x", {"b": null}], "c": -2.5, "d": "long text"}"#,
            r#"{ "a": [<number>, <text>, <any>], "c": <number>, "d": <has "g t"> }"#,
            r#"{"c": -2.5, ...}"#,
            r#"{"a": [1, ...], ...}"#,
            "{...}",
            "<any>",
        ] {
            assert_eq!(differences(pattern, value.clone()), Vec::<String>::new(), "{pattern}");
        }
    }

    #[test]
    fn every_difference_is_named_with_its_place() {
        let value = json!({ "a": [1, { "b": 2 }], "c": "x", "e": true });
        let found = differences(r#"{"a": [2, {"b": <text>}], "c": <has "y">, "d": 1}"#, value);
        assert_eq!(
            found,
            [
                "at $.a[0]: expected 2, got 1",
                "at $.a[1].b: expected a text, got 2",
                "at $.c: expected a text with \"y\", got \"x\"",
                "at $: `d` is missing",
                "at $: unexpected `e`: true",
            ]
        );
        assert_eq!(differences("[1]", json!([1, 2])).len(), 1);
        assert_eq!(differences("[1, 2, ...]", json!([1])).len(), 1);
        assert_eq!(differences("{...}", json!([])).len(), 1);
    }

    #[test]
    fn a_name_is_remembered_and_means_the_same_from_then_on() {
        let mut known = Captures::new();
        let pattern = Pattern::parse(r#"{"one": $s, "two": $s, "three": "${s}.e1"}"#).unwrap();
        assert!(
            pattern
                .differences(&json!({ "one": "s7", "two": "s7", "three": "s7.e1" }), &mut known)
                .is_empty()
        );
        assert_eq!(known["s"], "s7");
        let wrong = pattern.differences(&json!({ "one": "s8", "two": "s7", "three": "s8.e1" }), &mut known);
        assert_eq!(
            wrong,
            [
                "at $.one: expected $s, which is \"s7\", got \"s8\"",
                "at $.three: expected \"s7.e1\", got \"s8.e1\""
            ]
        );
        assert_eq!(pattern.fill(&known), Ok(json!({ "one": "s7", "two": "s7", "three": "s7.e1" })));
        assert!(pattern.fill(&Captures::new()).unwrap_err().contains("$s is not known"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_a_reason() {
        for text in
            ["", "{", "{\"a\" 1}", "{..., \"a\": 1}", "[1 2]", "<some>", "{} {}", "\"x", "<has 5>", "nope"]
        {
            assert!(Pattern::parse(text).unwrap_err().starts_with("expected"), "{text}");
        }
        for text in ["<any>", "{...}", "[<text>]"] {
            assert!(Pattern::parse(text).unwrap().fill(&Captures::new()).is_err(), "{text}");
        }
    }
}
