//! What a cell declares for the session.

use oxc::ast::ast::*;
use oxc::ast_visit::{Visit, walk};
use oxc::span::{GetSpan, Span};
use oxc::syntax::scope::ScopeFlags;

use super::erase::{is_value, local};
use super::parse::Wrong;

/// Constants of the language: assigning to them does nothing, so declaring them would deceive.
const CONSTANTS: [&str; 3] = ["undefined", "NaN", "Infinity"];

/// The declaration that a statement is, or exports.
pub(super) fn declaration<'s, 'a>(statement: &'s Statement<'a>) -> Option<&'s Declaration<'a>> {
    match statement {
        Statement::ExportDeclaration(export) => Some(&export.declaration),
        other => other.as_declaration(),
    }
}

/// Whether the program is one expression, and nothing besides.
pub(super) fn is_one_expression(program: &Program<'_>) -> bool {
    matches!(program.body.as_slice(), [Statement::ExpressionStatement(_)]) && program.directives.is_empty()
}

/// Whether the program ends with a function that has no body, and does not say so.
pub(super) fn ends_with_signature(program: &Program<'_>) -> bool {
    let Some(Declaration::FunctionDeclaration(last)) = program.body.last().and_then(declaration) else {
        return false;
    };
    let text = program.source_text.get(..last.span.end as usize).unwrap_or_default();
    last.body.is_none() && !last.declare && !text.ends_with(';')
}

/// Whether the program is one expression in parentheses, and nothing besides.
pub(super) fn is_one_parenthesis(program: &Program<'_>, end: usize) -> bool {
    let [Statement::ExpressionStatement(only)] = program.body.as_slice() else { return false };
    matches!(&only.expression, Expression::ParenthesizedExpression(it) if it.span.end as usize == end)
        && program.directives.is_empty()
}

/// Refuses what the parser lets pass and no session can mean.
pub(super) fn check(program: &Program<'_>) -> Result<(), Wrong> {
    for statement in &program.body {
        let mut wrong = None;
        each_name(statement, &mut |name, span| {
            if CONSTANTS.contains(&name) {
                wrong.get_or_insert((
                    format!("`{name}` cannot be declared: it is a constant of the language"),
                    span,
                ));
            }
        });
        if let Some((message, span)) = wrong {
            return Err(Wrong { message, offset: span.start as usize });
        }
    }
    Ok(())
}

/// Every name that the cell declares for the session, once, in order.
pub(super) fn declared(program: &Program<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for statement in &program.body {
        each_name(statement, &mut |name, _| names.push(name.to_owned()));
    }
    let mut nested = Variables { names };
    nested.visit_program(program);
    let mut seen = std::collections::HashSet::new();
    nested.names.retain(|name| seen.insert(name.clone()));
    nested.names
}

fn each_name(statement: &Statement<'_>, then: &mut dyn FnMut(&str, Span)) {
    let mut tell = |id: &BindingIdentifier<'_>| then(id.name.as_str(), id.span);
    match statement {
        Statement::ImportDeclaration(import) if import.import_kind.is_value() => {
            import.specifiers.iter().flatten().filter(|it| is_value(it)).for_each(|it| tell(local(it)));
        }
        Statement::ExportDefaultDeclaration(export) => match &export.declaration {
            ExportDefaultDeclarationKind::FunctionDeclaration(it) if it.body.is_some() => {
                it.id.iter().for_each(tell)
            }
            ExportDefaultDeclarationKind::ClassDeclaration(it) => it.id.iter().for_each(tell),
            _ => {}
        },
        other => match declaration(other) {
            Some(Declaration::VariableDeclaration(it)) if !it.declare => {
                it.declarations.iter().flat_map(|it| it.id.get_binding_identifiers()).for_each(tell);
            }
            Some(Declaration::FunctionDeclaration(it)) if it.body.is_some() => it.id.iter().for_each(tell),
            Some(Declaration::ClassDeclaration(it)) if !it.declare => it.id.iter().for_each(tell),
            _ => {}
        },
    }
}

/// Collects the `var`s of a script, wherever in it they stand.
struct Variables {
    names: Vec<String>,
}

impl<'a> Visit<'a> for Variables {
    fn visit_variable_declaration(&mut self, it: &VariableDeclaration<'a>) {
        if it.kind.is_var() && !it.declare {
            let names = it.declarations.iter().flat_map(|it| it.id.get_binding_identifiers());
            self.names.extend(names.map(|id| id.name.to_string()));
        }
        walk::walk_variable_declaration(self, it);
    }

    fn visit_expression(&mut self, _: &Expression<'a>) {}

    fn visit_function(&mut self, _: &Function<'a>, _: ScopeFlags) {}

    fn visit_class(&mut self, _: &Class<'a>) {}
}

/// The function that a statement declares, with a body.
pub(super) fn function<'s, 'a>(statement: &'s Statement<'a>) -> Option<&'s Function<'a>> {
    let function = match statement {
        Statement::ExportDefaultDeclaration(export) => match &export.declaration {
            ExportDefaultDeclarationKind::FunctionDeclaration(it) => it,
            _ => return None,
        },
        other => match declaration(other) {
            Some(Declaration::FunctionDeclaration(it)) => it,
            _ => return None,
        },
    };
    (function.body.is_some() && function.id.is_some()).then_some(function)
}

/// The class that a statement declares by a name.
pub(super) fn class<'s, 'a>(statement: &'s Statement<'a>) -> Option<&'s Class<'a>> {
    let class = match statement {
        Statement::ExportDefaultDeclaration(export) => match &export.declaration {
            ExportDefaultDeclarationKind::ClassDeclaration(it) => it,
            _ => return None,
        },
        other => match declaration(other) {
            Some(Declaration::ClassDeclaration(it)) => it,
            _ => return None,
        },
    };
    (!class.declare && class.id.is_some()).then_some(class)
}

/// Where what is exported starts: what stands before is of no use to a session.
pub(super) fn exported_at(statement: &Statement<'_>) -> Option<u32> {
    match statement {
        Statement::ExportDeclaration(export) => Some(export.declaration.span().start),
        Statement::ExportDefaultDeclaration(export) => Some(export.declaration.span().start),
        _ => None,
    }
}
