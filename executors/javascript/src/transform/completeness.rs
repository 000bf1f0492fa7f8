//! Whether a cell is all there, or its writer wants another line.

use oxc::allocator::Allocator;

use super::scan::scan;
use super::{names, nesting, object_literal, parse};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Completeness {
    Complete,
    /// `indent`: what the next line shall begin with.
    Incomplete {
        indent: String,
    },
    Invalid,
}

/// One level of indentation.
const INDENT: &str = "  ";

/// Whether more lines could make a cell of the source.
pub(crate) fn completeness(source: &str) -> Completeness {
    if nesting::check(source).is_err() {
        return Completeness::Invalid;
    }
    let allocator = Allocator::default();
    let wrong = match parse::cell(&allocator, source) {
        // To TypeScript that is a signature; who types it has not come to the body yet.
        Ok(parsed) if names::ends_with_signature(&parsed.program) => {
            return Completeness::Incomplete { indent: indent(source, &[]) };
        }
        Ok(_) => return Completeness::Complete,
        Err(wrong) => wrong,
    };
    if object_literal(source).is_some_and(|(_, text)| parse::cell(&allocator, &text).is_ok()) {
        return Completeness::Complete;
    }
    let found = scan(source);
    let goes_on = match found.within {
        Some(super::scan::Within::String) => source.ends_with('\\'),
        Some(_) => true,
        // The parser has read to the end without objection, and misses something there.
        None => wrong.offset >= source.trim_end().len() || ends_within(source, wrong.offset),
    };
    if !goes_on {
        return Completeness::Invalid;
    }
    Completeness::Incomplete { indent: indent(source, &found.open) }
}

/// Whether only comments and white space follow.
fn ends_within(source: &str, offset: usize) -> bool {
    super::erase::next(source, offset as u32).is_none()
}

/// As the last line is, and one level more if it opens something.
fn indent(source: &str, open: &[usize]) -> String {
    let last = source.trim_end().lines().next_back().unwrap_or_default();
    let starts = source.trim_end().len() - last.len();
    let mut indent: String = last.chars().take_while(|character| character.is_whitespace()).collect();
    if open.iter().any(|at| *at >= starts) {
        indent.push_str(INDENT);
    }
    indent
}
