//! Static imports of a cell: they become `await import()`, before everything else, as modules have it.

use oxc::ast::ast::*;
use oxc::span::GetSpan;

use super::edits::{Edits, Output};
use super::erase::is_value;
use super::parse::{Parsed, Wrong};

/// Where a statement has its code from, if that is another file.
pub(super) fn source<'s, 'a>(statement: &'s Statement<'a>) -> Option<&'s StringLiteral<'a>> {
    match statement {
        Statement::ImportDeclaration(it) if it.import_kind.is_value() && !only_types(it) => Some(&it.source),
        Statement::ExportFromDeclaration(it) if it.export_kind.is_value() => Some(&it.source),
        Statement::ExportAllDeclaration(it) if it.export_kind.is_value() => Some(&it.source),
        _ => None,
    }
}

fn only_types(import: &ImportDeclaration<'_>) -> bool {
    import.specifiers.as_deref().is_some_and(|all| !all.is_empty() && !all.iter().any(is_value))
}

/// Writes what the statement imports, if it does. Names that the file does not export are an error, as in a module,
/// unless the cell itself uses them as types.
pub(super) fn write(
    statement: &Statement<'_>,
    parsed: &Parsed<'_>,
    output: &mut Output<'_>,
) -> Result<(), Wrong> {
    let Some(source) = source(statement) else { return Ok(()) };
    let start = statement.span().start;
    let Statement::ImportDeclaration(import) = statement else {
        let with_clause = match statement {
            Statement::ExportFromDeclaration(it) => it.with_clause.as_deref(),
            Statement::ExportAllDeclaration(it) => it.with_clause.as_deref(),
            _ => None,
        };
        request(source, with_clause, start, output);
        output.put(";");
        return Ok(());
    };
    if import.phase.is_some() {
        let message = "Imports are not deferred here: leave out the word after `import`".to_owned();
        return Err(Wrong { message, offset: start as usize });
    }
    let specifiers = import.specifiers.as_deref().map_or(&[][..], |all| all);
    let bound = bindings(specifiers);
    output.put(&bound.before);
    request(source, import.with_clause.as_deref(), start, output);
    let needed: Vec<_> =
        specifiers.iter().filter(|it| is_value(it) && !is_type_here(it, parsed)).filter_map(export).collect();
    if !needed.is_empty() {
        let from = output_string(source.value.as_str());
        output.put(&format!(
            ".then(m=>{{for(const n of [{}])if(!(n in m))throw new SyntaxError(`The requested module '${{{from}}}' does not \
             provide an export named '${{n}}'`);return m}})",
            needed.join(",")
        ));
    }
    output.put(&bound.after);
    Ok(())
}

struct Bound {
    before: String,
    after: String,
}

/// What takes the names out of the module.
fn bindings(specifiers: &[ImportDeclarationSpecifier<'_>]) -> Bound {
    let mut names = Vec::new();
    let mut namespace = None;
    for specifier in specifiers.iter().filter(|it| is_value(it)) {
        match specifier {
            ImportDeclarationSpecifier::ImportSpecifier(it) => {
                names.push(format!("{}:{}", output_string(it.imported.name().as_str()), it.local.name));
            }
            ImportDeclarationSpecifier::ImportDefaultSpecifier(it) => {
                names.push(format!("default:{}", it.local.name))
            }
            ImportDeclarationSpecifier::ImportNamespaceSpecifier(it) => namespace = Some(it.local.name),
        }
    }
    match (namespace, names.is_empty()) {
        (None, true) => Bound { before: String::new(), after: ";".to_owned() },
        (None, false) => Bound { before: format!("({{{}}}=", names.join(",")), after: ");".to_owned() },
        (Some(name), true) => Bound { before: format!("{name}="), after: ";".to_owned() },
        (Some(name), false) => {
            Bound { before: format!("({{{}}}={name}=", names.join(",")), after: ");".to_owned() }
        }
    }
}

fn request(source: &StringLiteral<'_>, with: Option<&WithClause<'_>>, start: u32, output: &mut Output<'_>) {
    output.put_for(start, "await import(");
    output.take(source.span, &Edits::default());
    if let Some(with) = with.filter(|with| !with.with_entries.is_empty()) {
        let entries: Vec<_> =
            with.with_entries.iter().map(|it| (it.key.as_arena_str(), it.value.value)).collect();
        let entries: Vec<_> = entries
            .iter()
            .map(|(key, value)| format!("{}:{}", output_string(key.as_str()), output_string(value.as_str())))
            .collect();
        output.put(&format!(",{{with:{{{}}}}}", entries.join(",")));
    }
    output.put(")");
}

/// The name that the file must export, as a string.
fn export(specifier: &ImportDeclarationSpecifier<'_>) -> Option<String> {
    match specifier {
        ImportDeclarationSpecifier::ImportSpecifier(it) => Some(output_string(it.imported.name().as_str())),
        ImportDeclarationSpecifier::ImportDefaultSpecifier(_) => Some(output_string("default")),
        ImportDeclarationSpecifier::ImportNamespaceSpecifier(_) => None,
    }
}

fn is_type_here(specifier: &ImportDeclarationSpecifier<'_>, parsed: &Parsed<'_>) -> bool {
    let symbol = super::erase::local(specifier).symbol_id.get();
    symbol.is_some_and(|symbol| parsed.scoping.get_resolved_references(symbol).any(|it| it.is_type()))
}

/// A string of JavaScript: JSON is one.
fn output_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
