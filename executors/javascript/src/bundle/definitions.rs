//! Which functions and classes stand in a cell themselves, and not inside of another function: they need nothing but the
//! session's variables, so their source is all there is to them.

use oxc::allocator::Allocator;
use oxc::ast::ast::{
    BindingIdentifier, BindingPattern, Class, ClassElement, Declaration, Expression, Program, Statement,
};
use oxc::parser::Parser;
use oxc::semantic::{Scoping, SemanticBuilder};
use oxc::span::SourceType;
use serde::Serialize;

use crate::transform::check_nesting;

/// One that can be saved under some conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Definition {
    name: String,
    /// A class whose objects have private parts: nobody can read them.
    has_private: bool,
    /// A class that has private parts itself.
    is_private: bool,
}

/// Those of a cell. A name that is given anything else in the same cell is not among them.
pub(super) fn find(source: &str) -> Vec<Definition> {
    // What is a function has one of these.
    if !["function", "class", "=>"].iter().any(|word| source.contains(word)) {
        return Vec::new();
    }
    if check_nesting(source).is_err() {
        return Vec::new(); // it did not run
    }
    let allocator = Allocator::default();
    let types = [SourceType::tsx().with_module(true), SourceType::ts().with_module(true)];
    let parsed = types.into_iter().map(|kind| Parser::new(&allocator, source, kind).parse());
    let Some(parsed) = parsed.into_iter().find(|parsed| parsed.diagnostics.is_empty() && !parsed.panicked)
    else {
        return Vec::new();
    };
    in_program(&parsed.program)
}

fn in_program(program: &Program<'_>) -> Vec<Definition> {
    let semantic = SemanticBuilder::new().build(program).semantic;
    let scoping = semantic.scoping();
    let mut found = Vec::new();
    for statement in &program.body {
        let declaration = match statement {
            Statement::ExportDeclaration(export) => Some(&export.declaration),
            other => other.as_declaration(),
        };
        match declaration {
            Some(Declaration::FunctionDeclaration(function)) => {
                found.extend(function.id.as_ref().and_then(|id| named(id, scoping)));
            }
            Some(Declaration::ClassDeclaration(class)) => {
                found.extend(
                    class.id.as_ref().and_then(|id| named(id, scoping)).map(|it| of_class(it, class)),
                );
            }
            Some(Declaration::VariableDeclaration(variables)) => {
                for variable in &variables.declarations {
                    let (BindingPattern::BindingIdentifier(id), Some(value)) = (&variable.id, &variable.init)
                    else {
                        continue;
                    };
                    found.extend(named(id, scoping).and_then(|it| of_value(it, value)));
                }
            }
            _ => {}
        }
    }
    found
}

fn named(id: &BindingIdentifier<'_>, scoping: &Scoping) -> Option<Definition> {
    let symbol = id.symbol_id.get()?;
    let is_only = !scoping.symbol_is_mutated(symbol) && scoping.symbol_redeclarations(symbol).is_empty();
    is_only.then(|| Definition { name: id.name.to_string(), ..Definition::default() })
}

fn of_value(definition: Definition, value: &Expression<'_>) -> Option<Definition> {
    match value.get_inner_expression() {
        Expression::ArrowFunctionExpression(_) | Expression::FunctionExpression(_) => Some(definition),
        Expression::ClassExpression(class) => Some(of_class(definition, class)),
        _ => None,
    }
}

fn of_class(mut definition: Definition, class: &Class<'_>) -> Definition {
    for element in &class.body.body {
        let (is_private, is_static) = match element {
            ClassElement::MethodDefinition(it) => (it.key.is_private_identifier(), it.r#static),
            ClassElement::PropertyDefinition(it) => (it.key.is_private_identifier(), it.r#static),
            // Kept in a private field.
            ClassElement::AccessorProperty(it) => (true, it.r#static),
            _ => continue,
        };
        definition.is_private |= is_private && is_static;
        definition.has_private |= is_private && !is_static;
    }
    definition
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<String> {
        find(source).into_iter().map(|definition| definition.name).collect()
    }

    #[test]
    fn what_stands_in_the_cell_itself_is_found() {
        let source = "function f(x: number) { return x }\nclass A {}\nconst g = (x) => x, h = async function () {}\n\
                      let K = class {}, n = 1\nexport function e() {}\nawait f(1)";
        assert_eq!(names(source), ["f", "A", "g", "h", "K", "e"]);
    }

    #[test]
    fn what_is_made_elsewhere_is_not() {
        assert!(names("const f = make(() => 1)").is_empty());
        assert!(names("{ function f() {} }").is_empty());
        assert!(names("function f() {}\nf = make()").is_empty());
        assert!(names("var f = () => 1; if (x) { var f = make(() => 1) }").is_empty());
        assert!(names("function (").is_empty());
    }

    #[test]
    fn private_parts_are_seen() {
        let found =
            find("class A { #x = 1; }\nclass B { static #n = 0; }\nclass C { x = 1; static y = 2; m() {} }");
        let seen: Vec<_> = found.iter().map(|it| (it.has_private, it.is_private)).collect();
        assert_eq!(seen, [(true, false), (false, true), (false, false)]);
    }
}
