//! The value of a cell that is a function: that of the last expression statement it comes to, as in a script.

use oxc::ast::ast::*;
use oxc::span::GetSpan;

use super::edits::Edits;
use super::script::is_expression;

/// The variable that holds it.
pub(super) const VALUE: &str = "__cob_value";

/// Marks the expressions that may be the value of a list of statements; whether there are any.
///
/// Only the last statement that has a value counts, as in a script: declarations have none.
pub(super) fn mark(statements: &[Statement<'_>], edits: &mut Edits) -> bool {
    statements.iter().rev().any(|statement| mark_one(statement, edits))
}

fn mark_one(statement: &Statement<'_>, edits: &mut Edits) -> bool {
    match statement {
        Statement::ExpressionStatement(it) => {
            let value = it.expression.span();
            edits.before(value.start, format!("{VALUE}=("));
            // A semicolon more is an empty statement, but where an `else` follows it would be one too many.
            edits.after(value.end, if it.span.end == value.end { ");" } else { ")" });
            true
        }
        Statement::ExportDefaultDeclaration(it) if is_expression(statement) => {
            edits.before(it.declaration.span().start, format!("{VALUE}="));
            true
        }
        Statement::BlockStatement(it) => mark(&it.body, edits),
        Statement::LabeledStatement(it) => mark_one(&it.body, edits),
        Statement::IfStatement(it) => {
            mark_one(&it.consequent, edits);
            if let Some(alternate) = &it.alternate {
                mark_one(alternate, edits);
            }
            true
        }
        Statement::TryStatement(it) => {
            mark(&it.block.body, edits);
            if let Some(handler) = &it.handler {
                mark(&handler.body.body, edits);
            }
            true
        }
        Statement::SwitchStatement(it) => {
            for case in &it.cases {
                mark(&case.consequent, edits);
            }
            true
        }
        Statement::DoWhileStatement(it) => loops(&it.body, edits),
        Statement::ForInStatement(it) => loops(&it.body, edits),
        Statement::ForOfStatement(it) => loops(&it.body, edits),
        Statement::ForStatement(it) => loops(&it.body, edits),
        Statement::WhileStatement(it) => loops(&it.body, edits),
        Statement::WithStatement(it) => loops(&it.body, edits),
        _ => false,
    }
}

fn loops(body: &Statement<'_>, edits: &mut Edits) -> bool {
    mark_one(body, edits);
    true
}
