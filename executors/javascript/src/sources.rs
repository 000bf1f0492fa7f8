//! Functions and classes as they were written: with their types, and with the comment above them.
//!
//! What the engine knows of a function is its source after types were taken out of it. The [sources](Sources) of the last
//! cells are searched for the one that it came from.

use oxc::allocator::Allocator;
use oxc::ast::AstKind;
use oxc::ast_visit::Visit;
use oxc::parser::Parser;
use oxc::span::{GetSpan, SourceType, Span};

use crate::errors::sources::Sources;

/// The scripts whose functions a session can see.
const OURS: &[&str] = &[
    include_str!("../js/channels.js"),
    include_str!("../js/comms.js"),
    include_str!("../js/display.js"),
    include_str!("../js/host.js"),
    include_str!("../js/input.js"),
    include_str!("../js/timeline.js"),
    include_str!("../js/tools.js"),
];

/// How something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) source: String,
    /// The JSDoc comment above it, without its marks.
    pub(crate) comment: Option<String>,
}

impl Sources {
    /// Where the function `name`, whose source is now `compiled`, came from.
    pub(crate) fn find(&self, name: &str, compiled: &str) -> Option<Written> {
        self.texts()
            .chain(OURS.iter().copied())
            .filter(|cell| cell.contains(name))
            .find_map(|cell| written(cell, compiled))
    }
}

fn written(cell: &str, compiled: &str) -> Option<Written> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, cell, SourceType::ts()).parse();
    let comments: Vec<_> = parsed
        .program
        .comments
        .iter()
        .filter(|comment| comment.is_jsdoc())
        .map(|comment| (comment.attached_to, comment.span))
        .collect();
    let mut search = Search { cell, compiled, comments, around: Vec::new(), best: None };
    search.visit_program(&parsed.program);
    let (span, comment, _) = search.best?;
    let comment = comment.and_then(|comment| text(cell, comment)).map(plain);
    Some(Written { source: text(cell, span)?.to_owned(), comment })
}

fn text(cell: &str, span: Span) -> Option<&str> {
    cell.get(span.start as usize..span.end as usize)
}

struct Search<'s> {
    cell: &'s str,
    compiled: &'s str,
    /// Where that begins which a comment is about, and the comment.
    comments: Vec<(u32, Span)>,
    /// Where the nodes around begin; nothing where a body begins, whose comments are about something else.
    around: Vec<Option<u32>>,
    /// What fits best so far: where, the comment, and how much more was written than was left of it.
    best: Option<(Span, Option<Span>, usize)>,
}

impl<'a> Visit<'a> for Search<'_> {
    fn enter_node(&mut self, kind: AstKind<'a>) {
        let span = kind.span();
        let is_body = matches!(
            kind,
            AstKind::Program(_)
                | AstKind::FunctionBody(_)
                | AstKind::ClassBody(_)
                | AstKind::ObjectExpression(_)
                | AstKind::BlockStatement(_)
        );
        self.around.push((!is_body).then_some(span.start));
        let is_candidate = matches!(
            kind,
            AstKind::Function(_)
                | AstKind::Class(_)
                | AstKind::ArrowFunctionExpression(_)
                | AstKind::MethodDefinition(_)
                | AstKind::ObjectProperty(_)
        );
        if is_candidate {
            self.consider(span);
        }
    }

    fn leave_node(&mut self, _: AstKind<'a>) {
        self.around.pop();
    }
}

impl Search<'_> {
    fn consider(&mut self, span: Span) {
        let Some(surplus) = text(self.cell, span).and_then(|source| surplus(source, self.compiled)) else {
            return;
        };
        if self.best.is_some_and(|(_, _, best)| best <= surplus) {
            return;
        }
        let starts = self.around.iter().rev().map_while(|start| *start);
        let comment = starts.into_iter().find_map(|start| {
            self.comments.iter().find(|(attached, _)| *attached == start).map(|(_, span)| *span)
        });
        self.best = Some((span, comment, surplus));
    }
}

/// How many characters `source` has besides those of `compiled`, if one was made of the other.
fn surplus(source: &str, compiled: &str) -> Option<usize> {
    if is_blanked(source, compiled) {
        return Some(0);
    }
    let mut surplus = 0;
    let mut left = source.chars().filter(|character| !character.is_whitespace());
    let mut count = 0;
    for wanted in compiled.chars().filter(|character| !character.is_whitespace()) {
        count += 1;
        while left.next()? != wanted {
            surplus += 1;
        }
    }
    let surplus = surplus + left.count();
    // Every short function can be found in pieces all over a long one.
    (surplus * 2 <= count).then_some(surplus)
}

/// Whether `compiled` is the end of `source` with some of it blanked. A semicolon can stand where something was.
fn is_blanked(source: &str, compiled: &str) -> bool {
    let mut left = source.chars().rev();
    compiled
        .chars()
        .rev()
        .all(|kept| left.next().is_some_and(|character| kept == character || matches!(kept, ' ' | ';')))
}

/// The text of a JSDoc comment.
fn plain(comment: &str) -> String {
    let inside = comment.trim_start_matches("/**").trim_end_matches("*/");
    let lines = inside.lines().map(|line| {
        let line = line.trim();
        line.strip_prefix('*').map_or(line, |rest| rest.strip_prefix(' ').unwrap_or(rest))
    });
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(cell: &str, compiled: &str) -> Option<(String, Option<String>)> {
        let mut sources = Sources::default();
        sources.keep("file:///cell_1.ts", cell);
        sources.find("f", compiled).map(|written| (written.source, written.comment))
    }

    #[test]
    fn what_was_written_has_its_types_and_its_comment() {
        let cell = "1;\n/**\n * Adds one.\n *\n * @param a what to add to\n */\nexport function f(a: number): number { return a + 1 }\n";
        let (source, comment) =
            found(cell, "function f(a        )         { return a + 1 }").unwrap_or_default();
        assert_eq!(source, "function f(a: number): number { return a + 1 }");
        assert_eq!(comment.as_deref(), Some("Adds one.\n\n@param a what to add to"));
    }

    #[test]
    fn arrows_methods_and_classes_have_comments_too() {
        let cell = "/** An arrow. */\nconst f = (a: f) => a;\n/** A class. */ class F { /** A method. */ static f(b?: 1) { return b } }";
        assert_eq!(found(cell, "(a   ) => a").and_then(|it| it.1).as_deref(), Some("An arrow."));
        assert_eq!(found(cell, "f(b    ) { return b }").and_then(|it| it.1).as_deref(), Some("A method."));
        let class = "class F { /** A method. */ static f(b    ) { return b } }";
        assert_eq!(found(cell, class).and_then(|it| it.1).as_deref(), Some("A class."));
    }

    #[test]
    fn a_comment_about_something_else_is_not_taken() {
        let cell = "/** Not it. */\n{ const f = () => 1 }";
        assert_eq!(found(cell, "() => 1"), Some(("() => 1".to_owned(), None)));
        assert_eq!(found("function f() { return 1 }", "function f() { return 2 }"), None);
    }
}
