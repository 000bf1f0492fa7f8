//! Refuses sources that are nested deeper than the parser's stack allows.

use cob_protocol::limits::{JS_BRACKETS_MAX, JS_CHAIN_MAX};

use super::SyntaxError;
use super::scan::scan;

/// # Errors
/// Where the source is nested too deep, or is too long for the parser's offsets.
pub(crate) fn check(source: &str) -> Result<(), SyntaxError> {
    if u32::try_from(source.len()).is_err() {
        return Err(SyntaxError::at(source, 0, "The source is longer than 4 GiB"));
    }
    let found = scan(source);
    let (deepest, most) = if found.brackets.depth > JS_BRACKETS_MAX {
        (found.brackets, JS_BRACKETS_MAX)
    } else if found.chain.depth > JS_CHAIN_MAX {
        (found.chain, JS_CHAIN_MAX)
    } else {
        return Ok(());
    };
    let message = format!("This is nested {} deep; at most {most} are allowed: split it up", deepest.depth);
    Err(SyntaxError::at(source, deepest.at, message))
}
