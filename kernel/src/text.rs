//! Bytes of a stream to text: what a program writes may be cut anywhere, and need not be text at all. And numbers
//! as people read them.

use std::time::Duration;

use cob_protocol::limits::{KIB, MIB};

/// Decodes UTF-8 that comes in pieces; what is no UTF-8 becomes U+FFFD, what is incomplete waits.
#[derive(Debug, Default)]
pub(crate) struct Utf8Decoder {
    rest: Vec<u8>,
}

impl Utf8Decoder {
    /// The text of `bytes`, without an incomplete character at its end.
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> String {
        if self.rest.is_empty()
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return text.to_owned();
        }
        self.rest.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.rest.len());
        let mut incomplete = 0;
        for chunk in self.rest.utf8_chunks() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            incomplete = 0;
            if is_prefix_of_character(invalid) {
                incomplete = invalid.len();
            }
            if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        // Only the last piece can still become a character.
        if incomplete > 0 {
            text.pop();
        }
        self.rest.drain(..self.rest.len() - incomplete);
        text
    }

    /// Bytes that wait for the rest of their character.
    pub(crate) fn incomplete(&self) -> Vec<u8> {
        self.rest.clone()
    }

    /// Goes on after these.
    pub(crate) fn resume(rest: Vec<u8>) -> Self {
        Self { rest }
    }

    /// The text of what never became a character.
    pub(crate) fn finish(&mut self) -> String {
        if std::mem::take(&mut self.rest).is_empty() {
            String::new()
        } else {
            char::REPLACEMENT_CHARACTER.into()
        }
    }
}

/// Whether these bytes, which are no UTF-8, may be the beginning of a character.
fn is_prefix_of_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// A size, rounded down to a tenth of its unit.
pub(crate) fn size(bytes: u64) -> String {
    let (kib, mib) = (KIB as u64, MIB as u64);
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes} bytes"),
        _ if bytes < mib => (kib, "KiB"),
        _ => (mib, "MiB"),
    };
    match bytes % unit * 10 / unit {
        0 => format!("{} {name}", bytes / unit),
        tenths => format!("{}.{tenths} {name}", bytes / unit),
    }
}

/// A time: whole seconds if it is that, else milliseconds.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_millis() {
        ms if ms >= 1000 && ms.is_multiple_of(1000) => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

/// So many of something, in words as far as one says them.
pub(crate) fn count(number: u32, one: &str, many: &str) -> String {
    match number {
        1 => one.to_owned(),
        2 => format!("two {many}"),
        3 => format!("three {many}"),
        number => format!("{number} {many}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!(
            [0, 1023, 1024, 1536, 64 << 20, (64 << 20) - 1].map(size),
            ["0 bytes", "1023 bytes", "1 KiB", "1.5 KiB", "64 MiB", "63.9 MiB"]
        );
        assert_eq!(
            [0, 300, 1500, 2000].map(|ms| duration(Duration::from_millis(ms))),
            ["0 ms", "300 ms", "1500 ms", "2 s"]
        );
        assert_eq!(
            [1, 2, 5].map(|n| count(n, "an interrupt", "interrupts")),
            ["an interrupt", "two interrupts", "5 interrupts"]
        );
    }

    #[test]
    fn text_cut_anywhere_comes_out_whole() {
        let text = "aé€𝒳z".repeat(3);
        let bytes = text.as_bytes();
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let mut decoder = Utf8Decoder::default();
                let mut out = decoder.decode(&bytes[..first]);
                out += &decoder.decode(&bytes[first..second]);
                out += &decoder.decode(&bytes[second..]);
                out += &decoder.finish();
                assert_eq!(out, text, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn what_is_no_text_is_replaced_and_stops_nothing() {
        let mut decoder = Utf8Decoder::default();
        assert_eq!(decoder.decode(b"a\xffb\xc3"), "a\u{fffd}b");
        assert_eq!(decoder.decode(b"(z"), "\u{fffd}(z");
        assert_eq!(decoder.decode(b"\xf0\x9f"), "");
        assert_eq!(decoder.finish(), "\u{fffd}");
        assert_eq!(decoder.finish(), "");
    }
}
