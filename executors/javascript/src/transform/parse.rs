//! Asks the parser, in the ways that a source may be meant.

use oxc::allocator::Allocator;
use oxc::ast::ast::Program;
use oxc::diagnostics::OxcDiagnostic;
use oxc::parser::{ParseOptions, Parser};
use oxc::semantic::{Scoping, SemanticBuilder};
use oxc::span::SourceType;

use super::SyntaxError;

/// A source that is right.
pub(super) struct Parsed<'a> {
    pub(super) program: Program<'a>,
    pub(super) scoping: Scoping,
}

/// What is wrong with a source, and where: a byte of it.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) offset: usize,
}

impl Wrong {
    pub(super) fn told(self, source: &str) -> SyntaxError {
        SyntaxError::at(source, self.offset, self.message)
    }
}

/// A cell: TypeScript with imports, exports and `await`; or with JSX; or as scripts once were, with words that
/// modules reserve.
pub(super) fn cell<'a>(allocator: &'a Allocator, text: &'a str) -> Result<Parsed<'a>, Wrong> {
    let wrong = match parse(allocator, text, SourceType::ts().with_module(true)) {
        Ok(parsed) => return Ok(parsed),
        Err(wrong) => wrong,
    };
    let mut furthest = wrong;
    if text.contains("</") || text.contains("/>") {
        match parse(allocator, text, SourceType::tsx().with_module(true)) {
            Ok(parsed) => return Ok(parsed),
            Err(wrong) if wrong.offset > furthest.offset => furthest = wrong,
            Err(_) => {}
        }
    }
    // TypeScript has no `with`, whatever the mode.
    let scripts = [SourceType::ts().with_script(true), SourceType::script()];
    scripts.into_iter().find_map(|kind| parse(allocator, text, kind).ok()).ok_or(furthest)
}

/// A source of one kind, checked for all that the language calls an early error.
pub(super) fn parse<'a>(
    allocator: &'a Allocator,
    text: &'a str,
    kind: SourceType,
) -> Result<Parsed<'a>, Wrong> {
    let options = ParseOptions::default();
    let returned = Parser::new(allocator, text, kind).with_options(options).parse();
    if let Some(wrong) = first(returned.diagnostics.iter(), text) {
        return Err(wrong);
    }
    let program = returned.program;
    let (scoping, diagnostics) = check(&program);
    match first(diagnostics.iter(), text) {
        Some(wrong) => Err(wrong),
        None => Ok(Parsed { program, scoping }),
    }
}

fn check(program: &Program<'_>) -> (Scoping, Vec<OxcDiagnostic>) {
    let checked = SemanticBuilder::new().with_check_syntax_error(true).with_enum_eval(true).build(program);
    (checked.semantic.into_scoping(), checked.diagnostics.into_iter().collect())
}

fn first<'d>(diagnostics: impl Iterator<Item = &'d OxcDiagnostic>, text: &str) -> Option<Wrong> {
    diagnostics
        .map(|diagnostic| {
            let offset = diagnostic.labels.iter().map(|label| label.offset() as usize).next();
            Wrong { message: diagnostic.message.to_string(), offset: offset.unwrap_or(text.len()) }
        })
        .min_by_key(|wrong| wrong.offset)
}
