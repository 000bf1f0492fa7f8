//! Where the positions of a text come from, and source maps for the engine.

use super::SyntaxError;

/// A place in a text; both count from 0, columns in UTF-16 units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// What a place of a text is in the source that was typed.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// The text is the source.
    Same,
    /// One character was put in here.
    Wrapped(Place),
    /// Printed anew: pairs of a place in the text and one in the source, in order.
    Printed(Vec<(Place, Place)>),
}

impl Origin {
    /// The place in the source, if the text has one there.
    pub(super) fn of(&self, place: Place) -> Option<Place> {
        match self {
            Self::Same => Some(place),
            Self::Wrapped(at) if place.line == at.line && place.column > at.column => {
                Some(Place { column: place.column - 1, ..place })
            }
            Self::Wrapped(_) => Some(place),
            Self::Printed(pairs) => {
                let after = pairs.partition_point(|(printed, _)| *printed <= place);
                let (printed, source) = pairs.get(after.checked_sub(1)?)?;
                (printed.line == place.line).then_some(*source)
            }
        }
    }
}

/// Finds the places of rising offsets of a text, each in the time of the distance.
pub(super) struct Places<'a> {
    text: &'a str,
    offset: usize,
    place: Place,
}

impl<'a> Places<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, offset: 0, place: Place { line: 0, column: 0 } }
    }

    /// The place of a byte; offsets before the last one asked for start anew.
    pub(super) fn at(&mut self, offset: usize) -> Place {
        if offset < self.offset {
            *self = Self::new(self.text);
        }
        let passed = self.text.get(self.offset..offset).unwrap_or_default();
        let mut characters = passed.chars().peekable();
        while let Some(character) = characters.next() {
            let is_break = match character {
                '\n' | '\u{2028}' | '\u{2029}' => true,
                '\r' => characters.peek().is_some_and(|next| *next != '\n') || self.ends_line(offset),
                _ => false,
            };
            if is_break {
                self.place = Place { line: self.place.line + 1, column: 0 };
            } else {
                self.place.column += character.len_utf16() as u32;
            }
        }
        self.offset += passed.len();
        self.place
    }

    /// Whether a carriage return just before `offset` is alone.
    fn ends_line(&self, offset: usize) -> bool {
        self.text.as_bytes().get(offset) != Some(&b'\n')
    }
}

impl SyntaxError {
    /// An error at a byte of the source.
    pub(super) fn at(source: &str, offset: usize, message: impl Into<String>) -> Self {
        let offset = source.floor_char_boundary(offset);
        let place = Places::new(source).at(offset);
        let source_line = source.lines().nth(place.line as usize).map(str::to_owned);
        Self { message: message.into(), line: place.line + 1, column: place.column + 1, source_line }
    }
}

/// A source map of one source: pairs of a place in the code and one in the source, in the order of the code.
pub(super) fn map(pairs: &[(Place, Place)]) -> Vec<u8> {
    let mut map = String::from(r#"{"version":3,"sources":[],"names":[],"mappings":""#);
    // Without a name of its own the engine keeps that of the script.
    map.insert_str(map.find(']').unwrap_or_default(), r#""""#);
    let mut line = 0;
    let mut last = (0, Place { line: 0, column: 0 });
    let mut is_first = true;
    for (code, source) in pairs {
        while line < code.line {
            map.push(';');
            line += 1;
            last.0 = 0;
            is_first = true;
        }
        if !is_first {
            map.push(',');
        }
        is_first = false;
        digits(&mut map, difference(code.column, last.0));
        digits(&mut map, 0);
        digits(&mut map, difference(source.line, last.1.line));
        digits(&mut map, difference(source.column, last.1.column));
        last = (code.column, *source);
    }
    map.push_str(r#""}"#);
    map.into_bytes()
}

fn difference(to: u32, from: u32) -> i64 {
    i64::from(to) - i64::from(from)
}

/// A number in base 64, as the format has it: five bits at a time, the sign in the lowest.
fn digits(map: &mut String, number: i64) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut rest = (number.unsigned_abs() << 1) | u64::from(number < 0);
    loop {
        let more = rest >> 5 != 0;
        let digit = (rest & 31) | if more { 32 } else { 0 };
        map.push(char::from(ALPHABET[(digit & 63) as usize]));
        rest >>= 5;
        if !more {
            return;
        }
    }
}
