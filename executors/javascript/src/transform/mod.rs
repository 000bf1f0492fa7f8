//! From the source of a cell to a script: pure functions of text, on a parser.
//!
//! Types are blanked ([`erase`]) or, where they are more than types, the cell is printed anew ([`lower`]). Then its
//! declarations become the session's variables: in place where nothing is awaited ([`script`]), around and inside an
//! async function where something is ([`asynchronous`]). All of that is [`edits`] of the text; what they move is told
//! by a source map ([`origin`]).
//!
//! **Invariant:** no source makes the parser, or anything after it, run out of stack: [`nesting`] refuses it before.

mod asynchronous;
mod completeness;
mod completion;
mod decorators;
mod edits;
mod erase;
mod imports;
mod lower;
mod names;
mod nesting;
mod origin;
mod parse;
mod scan;
mod script;

use oxc::allocator::Allocator;
use oxc::span::SourceType;

use edits::{Edits, Output};
use origin::{Origin, Places};
use parse::{Parsed, Wrong};

pub(crate) use completeness::{Completeness, completeness};
pub(crate) use nesting::check as check_nesting;

/// What the engine is given to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) code: String,
    /// Whether the completion value is a promise of the cell's value.
    pub(crate) is_async: bool,
    /// Where the positions of `code` come from, when they are not those of the source.
    pub(crate) source_map: Option<Vec<u8>>,
}

/// A file as the engine loads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) code: String,
    pub(crate) source_map: Option<Vec<u8>>,
}

/// Why a source is none. Lines and columns count from 1, columns in UTF-16 units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
    /// The line as it was typed.
    pub(crate) source_line: Option<String>,
}

/// Makes a script of a cell.
///
/// # Errors
/// When it is neither JavaScript nor TypeScript.
pub(crate) fn cell(source: &str) -> Result<Cell, SyntaxError> {
    nesting::check(source)?;
    let allocator = Allocator::default();
    let mut furthest = None;
    if let Some((at, text)) = object_literal(source) {
        let origin = Origin::Wrapped(Places::new(source).at(at));
        match parse::cell(&allocator, &text) {
            Ok(parsed) if names::is_one_parenthesis(&parsed.program, text.len()) => {
                return transform(&text, parsed, &allocator, origin)
                    .map_err(|wrong| unwrapped(wrong, source));
            }
            Ok(_) => {}
            Err(wrong) => furthest = Some(wrong),
        }
    }
    let allocator = Allocator::default();
    let wrong = match parse::cell(&allocator, source) {
        Ok(parsed) => {
            return transform(source, parsed, &allocator, Origin::Same).map_err(|wrong| wrong.told(source));
        }
        Err(wrong) => wrong,
    };
    // Neither a literal nor a block: what got further is what was meant.
    Err(match furthest {
        Some(further) if further.offset > wrong.offset + 1 => unwrapped(further, source),
        _ => wrong.told(source),
    })
}

/// Tells what is wrong behind a bracket that is not in the source.
fn unwrapped(wrong: Wrong, source: &str) -> SyntaxError {
    let offset = wrong.offset.saturating_sub(1).min(source.len());
    Wrong { offset, ..wrong }.told(source)
}

/// Makes a script of one expression, which may await.
///
/// # Errors
/// When it is none, or more than one.
pub(crate) fn expression(source: &str) -> Result<Cell, SyntaxError> {
    nesting::check(source)?;
    let allocator = Allocator::default();
    if let Ok(parsed) = parse::cell(&allocator, source)
        && names::is_one_expression(&parsed.program)
    {
        return transform(source, parsed, &allocator, Origin::Same).map_err(|wrong| wrong.told(source));
    }
    // A literal of an object, a string, a function: other things where statements stand.
    let wrapped = format!("({source}\n)");
    let origin = Origin::Wrapped(origin::Place { line: 0, column: 0 });
    let parsed = parse::cell(&allocator, &wrapped).map_err(|wrong| unwrapped(wrong, source))?;
    if !names::is_one_parenthesis(&parsed.program, wrapped.len()) {
        return Err(SyntaxError::at(source, 0, "Expected one expression"));
    }
    transform(&wrapped, parsed, &allocator, origin).map_err(|wrong| unwrapped(wrong, source))
}

/// Makes JavaScript of a file: its types are taken out, the rest stays as it is. `path` says what it is written in.
///
/// # Errors
/// When it is not that.
pub(crate) fn module(source: &str, path: &str) -> Result<Module, SyntaxError> {
    nesting::check(source)?;
    let kind = SourceType::from_path(path).unwrap_or_else(|_| SourceType::mjs()).with_module(true);
    let allocator = Allocator::default();
    module_of(source, kind, &allocator).map_err(|wrong| wrong.told(source))
}

fn module_of<'a>(source: &'a str, kind: SourceType, allocator: &'a Allocator) -> Result<Module, Wrong> {
    let parsed = parse::parse(allocator, source, kind)?;
    let mut edits = Edits::default();
    if !erase::erase(&parsed.program, &mut edits) {
        decorators::check(&parsed.program)?;
        let keep_imports = !kind.is_typescript();
        let (text, origin) = lower::lower(allocator, parsed, &Origin::Same, keep_imports)?;
        let printed = Allocator::default();
        let parsed = parse::parse(&printed, &text, SourceType::mjs()).map_err(|wrong| misprinted(&wrong))?;
        let mut edits = Edits::default();
        decorators::provide(&parsed.program, &mut edits);
        let (code, map) = whole(&text, edits).code_and_map(&origin);
        return Ok(Module { code, source_map: Some(map) });
    }
    if kind.is_typescript() {
        erase::erase_unused_imports(&parsed.program, &parsed.scoping, &mut edits);
    }
    Ok(Module { code: whole(source, edits).code(), source_map: None })
}

fn whole(text: &str, mut edits: Edits) -> Output<'_> {
    edits.sort();
    let mut output = Output::new(text);
    output.take(oxc::span::Span::new(0, text.len() as u32), &edits);
    output
}

fn transform<'a>(
    text: &'a str,
    parsed: Parsed<'a>,
    allocator: &'a Allocator,
    origin: Origin,
) -> Result<Cell, Wrong> {
    names::check(&parsed.program)?;
    let mut edits = Edits::default();
    if erase::erase(&parsed.program, &mut edits) {
        return script(text, &parsed, edits, &origin);
    }
    decorators::check(&parsed.program)?;
    let is_script = parsed.program.source_type.is_script();
    let (printed, origin) = lower::lower(allocator, parsed, &origin, true)?;
    let kind = if is_script { SourceType::script() } else { SourceType::mjs() };
    let allocator = Allocator::default();
    let parsed = parse::parse(&allocator, &printed, kind).map_err(|wrong| misprinted(&wrong))?;
    let mut edits = Edits::default();
    decorators::provide(&parsed.program, &mut edits);
    script(&printed, &parsed, edits, &origin)
}

fn script(text: &str, parsed: &Parsed<'_>, mut edits: Edits, origin: &Origin) -> Result<Cell, Wrong> {
    let program = &parsed.program;
    edits.sort();
    let is_async = asynchronous::is_needed(program);
    let output = if is_async {
        asynchronous::write(text, parsed, edits, &names::declared(program))?
    } else {
        script::edit(program, &mut edits);
        if !edits.moves() && matches!(origin, Origin::Same) {
            let code = whole(text, edits).code();
            return Ok(Cell { code, is_async, source_map: None });
        }
        whole(text, edits)
    };
    let (code, map) = output.code_and_map(origin);
    Ok(Cell { code, is_async, source_map: Some(map) })
}

/// The printer has made what the parser does not take: a fault of theirs, told as one of the source.
fn misprinted(wrong: &Wrong) -> Wrong {
    Wrong {
        message: format!("This TypeScript cannot be turned into JavaScript: {}", wrong.message),
        offset: 0,
    }
}

/// The text of a cell that may be an object literal, in the parentheses that make it an expression.
fn object_literal(source: &str) -> Option<(usize, String)> {
    let ('{', at) = erase::next(source, 0)? else { return None };
    if source.trim_end().ends_with(';') {
        return None;
    }
    let (before, literal) = source.split_at_checked(at as usize)?;
    Some((at as usize, format!("{before}({literal}\n)")))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
