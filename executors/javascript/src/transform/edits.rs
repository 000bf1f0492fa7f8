//! Changes to a text, and the text with its changes: everything that is not named here stays as it was typed.

use std::collections::HashSet;

use oxc::span::Span;

use super::origin::{Origin, Place, Places, map};

#[derive(Clone, Debug)]
enum Change {
    /// Stands behind what ends here.
    After(String),
    /// Stands before what starts here.
    Before(String),
    Replace(String),
    /// Spaces, as long as what was there; the first or the last of them may be another character.
    Blank {
        first: char,
        last: char,
    },
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Edits {
    list: Vec<(Span, Change)>,
    /// Where the last space of a blank is a semicolon.
    ends: HashSet<u32>,
    moves: bool,
}

impl Edits {
    pub(super) fn after(&mut self, offset: u32, text: impl Into<String>) {
        self.moves = true;
        self.ends.remove(&offset);
        self.list.push((Span::empty(offset), Change::After(text.into())));
    }

    pub(super) fn before(&mut self, offset: u32, text: impl Into<String>) {
        self.moves = true;
        self.list.push((Span::empty(offset), Change::Before(text.into())));
    }

    pub(super) fn replace(&mut self, span: Span, text: impl Into<String>) {
        let text = text.into();
        self.moves |= text.len() != span.size() as usize;
        self.list.push((span, Change::Replace(text)));
    }

    /// Spaces instead, but the lines stay.
    pub(super) fn blank(&mut self, span: Span) {
        self.blank_but(span, ' ', ' ');
    }

    /// Spaces, and `first` and `last` where they belong; `' '` is no such character.
    pub(super) fn blank_but(&mut self, span: Span, first: char, last: char) {
        if !span.is_empty() {
            self.list.push((span, Change::Blank { first, last }));
        }
    }

    /// Turns the last character of the blank that ends at `offset`, if there is one, into a semicolon; not if
    /// something is put there later, which then has to see to it.
    pub(super) fn end_with_semicolon(&mut self, offset: u32) {
        // It is one of those made for the statement that has just been looked at.
        let mut latest = self.list.iter().rev().take(8);
        if latest.any(|(span, change)| span.end == offset && matches!(change, Change::Blank { .. })) {
            self.ends.insert(offset);
        }
    }

    /// Whether a position of the text is another one afterwards.
    pub(super) fn moves(&self) -> bool {
        self.moves
    }

    /// Brings the changes into the order of the text.
    pub(super) fn sort(&mut self) {
        self.list.sort_by_key(|(span, change)| {
            let rank = match change {
                Change::After(_) => 0,
                Change::Before(_) => 1,
                Change::Replace(_) | Change::Blank { .. } if span.is_empty() => 2,
                Change::Replace(_) | Change::Blank { .. } => 3,
            };
            // Of two that start together the longer one swallows the other.
            (span.start, rank, u32::MAX - span.end)
        });
    }
}

/// Code in the making: pieces of a text with their changes, and things put between.
pub(super) struct Output<'a> {
    text: &'a str,
    code: String,
    /// Offset in the code, offset in the text, length: what was taken over.
    taken: Vec<(usize, usize, usize)>,
}

impl<'a> Output<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, code: String::with_capacity(text.len() + text.len() / 8 + 64), taken: Vec::new() }
    }

    /// What is not of the text.
    pub(super) fn put(&mut self, text: &str) {
        self.code.push_str(text);
    }

    /// What is not of the text, but belongs to a place in it.
    pub(super) fn put_for(&mut self, offset: u32, text: &str) {
        self.taken.push((self.code.len(), offset as usize, 0));
        self.code.push_str(text);
    }

    /// A part of the text with its changes, which must be sorted.
    pub(super) fn take(&mut self, span: Span, edits: &Edits) {
        let mut at = span.start;
        let first = edits.list.partition_point(|(edit, _)| edit.start < span.start);
        for (edit, change) in edits.list.get(first..).unwrap_or_default() {
            if edit.start > span.end {
                break;
            }
            // Within something that is already gone, or of a neighbour.
            let is_ours = match change {
                Change::After(_) => edit.start > span.start,
                Change::Before(_) => edit.start < span.end,
                _ => edit.end <= span.end,
            };
            if edit.start < at || !is_ours {
                continue;
            }
            self.copy(at, edit.start);
            at = edit.end;
            match change {
                Change::After(text) => self.put(text),
                Change::Before(text) => self.put_for(edit.start, text),
                Change::Replace(text) => self.put_for(edit.start, text),
                Change::Blank { first, last } => {
                    let last = if edits.ends.contains(&edit.end) { ';' } else { *last };
                    self.space(*edit, *first, last);
                }
            }
        }
        self.copy(at, span.end);
    }

    fn copy(&mut self, start: u32, end: u32) {
        let (start, end) = (start as usize, end as usize);
        if let Some(text) = self.text.get(start..end)
            && !text.is_empty()
        {
            self.taken.push((self.code.len(), start, text.len()));
            self.code.push_str(text);
        }
    }

    fn space(&mut self, span: Span, first: char, last: char) {
        let text = self.text.get(span.start as usize..span.end as usize).unwrap_or_default();
        let start = self.code.len();
        for character in text.chars() {
            match character {
                '\n' | '\r' | '\u{2028}' | '\u{2029}' => self.code.push(character),
                other => self.code.extend(std::iter::repeat_n(' ', other.len_utf16())),
            }
        }
        // Both ends are characters of the language, not line breaks.
        if first != ' ' && self.code.as_bytes().get(start) == Some(&b' ') {
            self.code.replace_range(start..=start, first.encode_utf8(&mut [0; 4]));
        }
        if last != ' ' && self.code.ends_with(' ') {
            self.code.pop();
            self.code.push(last);
        }
    }

    /// The code.
    pub(super) fn code(self) -> String {
        self.code
    }

    /// The code, and where it comes from in a source from which the text has come.
    pub(super) fn code_and_map(self, origin: &Origin) -> (String, Vec<u8>) {
        let mut pairs = Vec::new();
        let mut of_code = Places::new(&self.code);
        let mut of_text = Places::new(self.text);
        let mut pair = |code: Place, text: Place| {
            if let Some(source) = origin.of(text) {
                pairs.push((code, source));
            }
        };
        for (code, text, length) in &self.taken {
            pair(of_code.at(*code), of_text.at(*text));
            let taken = self.text.get(*text..text + length).unwrap_or_default();
            for offset in starts(taken) {
                pair(of_code.at(code + offset), of_text.at(text + offset));
            }
        }
        let map = map(&pairs);
        (self.code, map)
    }
}

/// Where something starts that an error can be about: words, signs.
fn starts(text: &str) -> impl Iterator<Item = usize> + '_ {
    let mut was_word = true;
    text.char_indices().filter_map(move |(offset, character)| {
        let is_word = character.is_alphanumeric() || character == '_' || character == '$';
        let starts = if is_word { !was_word } else { !character.is_whitespace() || was_word };
        was_word = is_word;
        (starts && offset > 0).then_some(offset)
    })
}
