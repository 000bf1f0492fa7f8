//! Cells that await: an async function, with the session's variables and functions declared around it.

use std::collections::HashSet;

use oxc::ast::ast::*;
use oxc::ast_visit::{Visit, walk};
use oxc::span::{GetSpan, Span};
use oxc::syntax::scope::ScopeFlags;

use super::edits::{Edits, Output};
use super::names::{class, declaration, function};
use super::parse::{Parsed, Wrong};
use super::script::{name_class, unexport};
use super::{completion, imports};

/// Whether the program cannot be a script.
pub(super) fn is_needed(program: &Program<'_>) -> bool {
    let mut awaits = Awaits(false);
    let is_using = |statement: &Statement<'_>| matches!(declaration(statement), Some(Declaration::VariableDeclaration(it)) if it.kind.is_using());
    if program.body.iter().any(|statement| imports::source(statement).is_some() || is_using(statement)) {
        return true;
    }
    awaits.visit_program(program);
    awaits.0
}

struct Awaits(bool);

impl<'a> Visit<'a> for Awaits {
    fn visit_await_expression(&mut self, _: &AwaitExpression<'a>) {
        self.0 = true;
    }

    fn visit_for_of_statement(&mut self, it: &ForOfStatement<'a>) {
        self.0 |= it.r#await;
        walk::walk_for_of_statement(self, it);
    }

    fn visit_variable_declaration(&mut self, it: &VariableDeclaration<'a>) {
        self.0 |= it.kind.is_await();
        walk::walk_variable_declaration(self, it);
    }

    fn visit_function(&mut self, _: &Function<'a>, _: ScopeFlags) {}

    fn visit_arrow_function_expression(&mut self, _: &ArrowFunctionExpression<'a>) {}

    fn visit_static_block(&mut self, _: &StaticBlock<'a>) {}
}

/// Writes the cell, of which `names` are declared.
pub(super) fn write<'t>(
    text: &'t str,
    parsed: &Parsed<'_>,
    mut edits: Edits,
    names: &[String],
) -> Result<Output<'t>, Wrong> {
    let program = &parsed.program;
    for statement in &program.body {
        edit(statement, &mut edits);
    }
    Assignments { edits: &mut edits, in_head: false }.visit_program(program);
    completion::mark(&program.body, &mut edits);
    edits.sort();

    let mut output = Output::new(text);
    for directive in &program.directives {
        output.take(directive.span, &edits);
        output.put(";");
    }
    let functions: Vec<_> = program.body.iter().filter_map(function).collect();
    let named: HashSet<_> =
        functions.iter().filter_map(|it| it.id.as_ref()).map(|id| id.name.as_str()).collect();
    let variables: Vec<_> = names.iter().map(String::as_str).filter(|name| !named.contains(name)).collect();
    if !variables.is_empty() {
        output.put(&format!("var {};", variables.join(",")));
    }
    for it in &functions {
        output.take(it.span, &edits);
        output.put("\n");
    }
    output.put(&format!("(async()=>{{let {};", completion::VALUE));
    for statement in &program.body {
        imports::write(statement, parsed, &mut output)?;
    }
    let mut at = program.directives.last().map_or(0, |directive| directive.span.end);
    for statement in &program.body {
        let span = statement.span();
        output.take(Span::new(at, span.start), &edits);
        at = span.end;
        if function(statement).is_none() && imports::source(statement).is_none() {
            output.take(span, &edits);
        }
    }
    output.take(Span::new(at, text.len() as u32), &edits);
    output.put(&format!("\n;return {}}})()", completion::VALUE));
    Ok(output)
}

fn edit(statement: &Statement<'_>, edits: &mut Edits) {
    unexport(statement, edits);
    if let Some(Declaration::VariableDeclaration(it)) = declaration(statement) {
        if it.declare {
            return;
        }
        match it.kind {
            VariableDeclarationKind::Let | VariableDeclarationKind::Const => assign(it, true, edits),
            VariableDeclarationKind::Using | VariableDeclarationKind::AwaitUsing => keep_using(it, edits),
            // With those that are nested.
            VariableDeclarationKind::Var => {}
        }
    } else if let Some(it) = class(statement) {
        name_class(it, "", edits);
    }
}

/// A declaration becomes an assignment, in parentheses: a pattern were a block without. `void` can stand wherever
/// the declaration did and, like it, never goes on what stood before.
fn assign(declared: &VariableDeclaration<'_>, reset: bool, edits: &mut Edits) {
    let (Some(first), Some(last)) = (declared.declarations.first(), declared.declarations.last()) else {
        return;
    };
    edits.replace(Span::new(declared.span.start, first.span.start), "void(");
    for it in declared.declarations.iter().filter(|it| reset && it.init.is_none()) {
        edits.after(it.span.end, "=void 0");
    }
    // Where there is a semicolon, another one would part an `else` from its `if`.
    edits.after(last.span.end, if last.span.end == declared.span.end { ");" } else { ")" });
}

/// What is used is disposed of when the cell ends, and the session has its name.
fn keep_using(declared: &VariableDeclaration<'_>, edits: &mut Edits) {
    for it in &declared.declarations {
        let Some(init) = &it.init else { continue };
        let name = it.id.get_identifier_name().map(|name| name.to_string()).unwrap_or_default();
        let id = it.id.span();
        edits.replace(id, format!("__cob_used_{}", id.start));
        edits.before(init.span().start, format!("({name}="));
        edits.after(init.span().end, ")");
    }
}

/// `var`s anywhere in the function are the session's too.
struct Assignments<'e> {
    edits: &'e mut Edits,
    in_head: bool,
}

impl Assignments<'_> {
    /// `for (var x of …)`: only the word goes.
    fn head(&mut self, declared: &VariableDeclaration<'_>) {
        if let Some(first) = declared.declarations.first().filter(|_| declared.kind.is_var()) {
            self.edits.replace(Span::new(declared.span.start, first.span.start), "");
        }
        for it in &declared.declarations {
            self.visit_variable_declarator(it);
        }
    }
}

impl<'a> Visit<'a> for Assignments<'_> {
    fn visit_variable_declaration(&mut self, it: &VariableDeclaration<'a>) {
        if self.in_head {
            self.in_head = false;
            return self.head(it);
        }
        if it.kind.is_var() && !it.declare {
            assign(it, false, self.edits);
        }
    }

    fn visit_for_statement_init(&mut self, it: &ForStatementInit<'a>) {
        self.in_head = matches!(it, ForStatementInit::VariableDeclaration(_));
        walk::walk_for_statement_init(self, it);
    }

    fn visit_for_statement_left(&mut self, it: &ForStatementLeft<'a>) {
        self.in_head = matches!(it, ForStatementLeft::VariableDeclaration(_));
        walk::walk_for_statement_left(self, it);
    }

    fn visit_expression(&mut self, _: &Expression<'a>) {}

    fn visit_function(&mut self, _: &Function<'a>, _: ScopeFlags) {}

    fn visit_class(&mut self, _: &Class<'a>) {}
}
