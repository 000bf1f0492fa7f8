//! Cells in which nothing is awaited: they stay scripts, whose completion value the engine knows.

use oxc::ast::ast::*;
use oxc::span::{GetSpan, Span};

use super::edits::Edits;
use super::names::{class, declaration, exported_at, function};

/// Makes the declarations of a script such that another script may make them again.
pub(super) fn edit(program: &Program<'_>, edits: &mut Edits) {
    for statement in &program.body {
        unexport(statement, edits);
        if let Some(Declaration::VariableDeclaration(it)) = declaration(statement) {
            if !it.declare {
                variables(it, edits);
            }
        } else if let Some(it) = class(statement) {
            name_class(it, "var ", edits);
        }
    }
    edits.sort();
}

/// Takes away what a script cannot have: exports mean nothing to those who type cells.
pub(super) fn unexport(statement: &Statement<'_>, edits: &mut Edits) {
    match statement {
        Statement::ExportNamedDeclaration(it) => edits.blank_but(it.span, ';', ' '),
        Statement::ExportDefaultDeclaration(it) if is_expression(statement) => {
            let value = it.declaration.span();
            // Else `export default {}` were a block. The word before is long enough for both signs.
            edits.blank_but(Span::new(it.span.start, value.start.min(it.span.start + 14)), ';', '(');
            edits.after(value.end, ")");
        }
        _ => {
            if let Some(at) = exported_at(statement) {
                edits.blank(Span::new(statement.span().start, at));
            }
        }
    }
}

/// Whether a default export is a value without a name.
pub(super) fn is_expression(statement: &Statement<'_>) -> bool {
    let Statement::ExportDefaultDeclaration(it) = statement else { return false };
    match &it.declaration {
        ExportDefaultDeclarationKind::FunctionDeclaration(it) if it.body.is_none() => false,
        ExportDefaultDeclarationKind::TSInterfaceDeclaration(_) => false,
        _ => function(statement).is_none() && class(statement).is_none(),
    }
}

fn variables(declared: &VariableDeclaration<'_>, edits: &mut Edits) {
    let start = declared.span.start;
    let (length, word) = match declared.kind {
        VariableDeclarationKind::Let => (3, "var"),
        VariableDeclarationKind::Const => (5, "var  "),
        _ => return,
    };
    edits.replace(Span::sized(start, length), word);
    for it in declared.declarations.iter().filter(|it| it.init.is_none()) {
        // The line end was enough after a name alone.
        edits.after(it.span.end, if it.span.end == declared.span.end { "=void 0;" } else { "=void 0" });
    }
}

/// `class A {}` becomes a variable.
pub(super) fn name_class(class: &Class<'_>, word: &str, edits: &mut Edits) {
    if let Some(id) = &class.id {
        edits.before(class.span.start, format!("{word}{}=", id.name));
        edits.after(class.span.end, ";");
    }
}
