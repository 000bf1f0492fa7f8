//! The words of a source that may be unfinished: enough of JavaScript to know what stands where.

use oxc::syntax::identifier::{is_identifier_part, is_identifier_start};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or a keyword; `#private` too.
    Name,
    Number,
    /// With its quotes. Not `closed` when the source, or its line, ends first.
    Text {
        closed: bool,
    },
    /// A template without substitutions.
    Template,
    /// A stretch of a template that has some.
    Piece,
    Regex,
    Comment {
        closed: bool,
    },
    /// One character of anything else; `?.` and `=>` are one token.
    Sign,
}

/// A token, and where it stands, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    pub(crate) start: usize,
}

impl Token<'_> {
    pub(crate) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    pub(crate) fn is(&self, text: &str) -> bool {
        self.text == text && matches!(self.kind, Kind::Sign | Kind::Name)
    }

    /// Whether a value can end here: a `/` behind it divides, a `[` behind it takes a member.
    pub(crate) fn ends_value(&self) -> bool {
        match self.kind {
            Kind::Name => !is_operator(self.text),
            Kind::Number | Kind::Text { .. } | Kind::Template | Kind::Regex => true,
            Kind::Piece => self.text.ends_with('`'),
            Kind::Sign => matches!(self.text, ")" | "]" | "}"),
            Kind::Comment { .. } => false,
        }
    }
}

/// Words that a value follows.
fn is_operator(word: &str) -> bool {
    matches!(
        word,
        "await"
            | "case"
            | "delete"
            | "do"
            | "else"
            | "extends"
            | "in"
            | "instanceof"
            | "new"
            | "of"
            | "return"
            | "throw"
            | "typeof"
            | "void"
            | "yield"
    )
}

/// All tokens. Never fails: what is no JavaScript is signs.
pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut scanner = Scanner { source, at: 0, tokens: Vec::new(), templates: Vec::new() };
    while scanner.step() {}
    scanner.tokens
}

struct Scanner<'a> {
    source: &'a str,
    at: usize,
    tokens: Vec<Token<'a>>,
    /// How many braces are open inside each template that is open.
    templates: Vec<usize>,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, kind: Kind, length: usize) {
        let text = self.rest().get(..length).unwrap_or_else(|| self.rest());
        self.tokens.push(Token { kind, text, start: self.at });
        self.at += text.len();
    }

    /// The next token; `false` at the end.
    fn step(&mut self) -> bool {
        let blank = self.rest().len() - self.rest().trim_start().len();
        self.at += blank;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return false };
        match first {
            '/' if rest.starts_with("//") => {
                let length = rest.find('\n').unwrap_or(rest.len());
                self.push(Kind::Comment { closed: length < rest.len() }, length);
            }
            '/' if rest.starts_with("/*") => {
                let end = rest.get(2..).and_then(|body| body.find("*/"));
                self.push(Kind::Comment { closed: end.is_some() }, end.map_or(rest.len(), |end| end + 4));
            }
            '/' if !self.after_value() => self.regex(),
            '"' | '\'' => self.text(first),
            '`' => self.template(true),
            '}' if self.templates.last() == Some(&0) => {
                self.templates.pop();
                self.template(false);
            }
            '0'..='9' => {
                let length = rest.find(|c: char| !(is_identifier_part(c) || c == '.')).unwrap_or(rest.len());
                self.push(Kind::Number, number_length(rest, length));
            }
            _ if is_identifier_start(first) || (first == '#' && name_length(rest, 1) > 1) => {
                self.push(Kind::Name, name_length(rest, first.len_utf8()));
            }
            _ => self.sign(first),
        }
        true
    }

    fn after_value(&self) -> bool {
        let before = self.tokens.iter().rev().find(|token| !matches!(token.kind, Kind::Comment { .. }));
        before.is_some_and(Token::ends_value)
    }

    fn sign(&mut self, first: char) {
        if let Some(open) = self.templates.last_mut() {
            match first {
                '{' => *open += 1,
                '}' => *open = open.saturating_sub(1),
                _ => {}
            }
        }
        let rest = self.rest();
        let digit = rest.as_bytes().get(2).is_some_and(u8::is_ascii_digit);
        let is_pair = rest.starts_with("=>") || (rest.starts_with("?.") && !digit);
        self.push(Kind::Sign, if is_pair { 2 } else { first.len_utf8() });
    }

    fn text(&mut self, quote: char) {
        let rest = self.rest();
        let mut characters = rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => drop(characters.next()),
                '\n' => return self.push(Kind::Text { closed: false }, at),
                _ if character == quote => return self.push(Kind::Text { closed: true }, at + 1),
                _ => {}
            }
        }
        self.push(Kind::Text { closed: false }, rest.len());
    }

    /// From a backtick, or from the brace that ends a substitution.
    fn template(&mut self, is_head: bool) {
        let rest = self.rest();
        let mut characters = rest.char_indices().skip(1).peekable();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => drop(characters.next()),
                '`' => return self.push(if is_head { Kind::Template } else { Kind::Piece }, at + 1),
                '$' if characters.peek().is_some_and(|(_, next)| *next == '{') => {
                    self.templates.push(0);
                    return self.push(Kind::Piece, at + 2);
                }
                _ => {}
            }
        }
        self.push(Kind::Text { closed: false }, rest.len());
    }

    fn regex(&mut self) {
        let rest = self.rest();
        let mut in_class = false;
        let mut characters = rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => drop(characters.next()),
                '[' => in_class = true,
                ']' => in_class = false,
                '\n' => break,
                '/' if !in_class => return self.push(Kind::Regex, name_length(rest, at + 1)),
                _ => {}
            }
        }
        self.push(Kind::Sign, 1);
    }
}

/// Up to where a name goes on that has `from` bytes already.
fn name_length(text: &str, from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    from + rest.find(|character| !is_identifier_part(character)).unwrap_or(rest.len())
}

/// `1.5` is a number, `1..` one and a dot; so is `1.toFixed`, which is no JavaScript but is how it is begun.
fn number_length(text: &str, longest: usize) -> usize {
    let text = text.get(..longest).unwrap_or(text);
    let mut dots = text.match_indices('.').map(|(at, _)| at);
    match (dots.next(), dots.next()) {
        // A dot behind a big integer is no part of it.
        (Some(first), _) if text.get(..first).is_some_and(|digits| digits.ends_with('n')) => first,
        (Some(_), Some(second)) => second,
        _ => longest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        tokens(source).iter().map(|token| token.text).collect()
    }

    #[test]
    fn words_numbers_and_signs_are_told_apart() {
        assert_eq!(texts("let añ = o?.p + 1.5"), ["let", "añ", "=", "o", "?.", "p", "+", "1.5"]);
        assert_eq!(texts("a ? .5 : 1..toFixed"), ["a", "?", ".", "5", ":", "1.", ".", "toFixed"]);
        assert_eq!(texts("this.#x"), ["this", ".", "#x"]);
    }

    #[test]
    fn a_slash_divides_or_begins_an_expression() {
        assert_eq!(texts("a / b / c"), ["a", "/", "b", "/", "c"]);
        assert_eq!(texts("x = /[/]\\/b/gi.source"), ["x", "=", "/[/]\\/b/gi", ".", "source"]);
        assert_eq!(texts("return /b/"), ["return", "/b/"]);
    }

    #[test]
    fn templates_have_pieces() {
        assert_eq!(texts("`a${ {b: `c`} }d`.e"), ["`a${", "{", "b", ":", "`c`", "}", "}d`", ".", "e"]);
    }

    #[test]
    fn what_is_not_closed_goes_on_to_the_end() {
        for (source, kind) in [
            ("'abc", Kind::Text { closed: false }),
            ("`abc", Kind::Text { closed: false }),
            ("/* abc", Kind::Comment { closed: false }),
            ("// abc", Kind::Comment { closed: false }),
        ] {
            let found = tokens(source);
            assert_eq!(found.first().map(|token| token.kind), Some(kind), "{source}");
            assert_eq!(found.len(), 1, "{source}");
        }
        assert_eq!(texts("'ab\nc"), ["'ab", "c"]);
    }
}
