//! TypeScript that is only types becomes spaces, so that every other character stays where it was typed.
//!
//! What is more than types is left to [`super::lower`], and so is what cannot be blanked because a line break would
//! then stand where the language allows none.

use oxc::ast::ast::*;
use oxc::ast_visit::{Visit, walk};
use oxc::semantic::Scoping;
use oxc::span::{GetSpan, Span};
use oxc::syntax::scope::ScopeFlags;

use super::edits::Edits;

/// Blanks the types of a program. Whether that was all there is to do.
pub(super) fn erase(program: &Program<'_>, edits: &mut Edits) -> bool {
    let mut eraser = Eraser { text: program.source_text, edits, is_enough: true };
    if let Some(hashbang) = &program.hashbang {
        eraser.edits.blank(hashbang.span);
    }
    eraser.visit_program(program);
    eraser.is_enough
}

/// Blanks the imports of a module that only types use, as the TypeScript compiler leaves them out.
pub(super) fn erase_unused_imports(program: &Program<'_>, scoping: &Scoping, edits: &mut Edits) {
    let is_used = |local: &BindingIdentifier<'_>| {
        let symbol = local.symbol_id.get();
        symbol.is_none_or(|symbol| {
            scoping.get_resolved_references(symbol).any(|reference| reference.is_value())
        })
    };
    for statement in &program.body {
        let Statement::ImportDeclaration(import) = statement else { continue };
        let Some(specifiers) = &import.specifiers else { continue };
        if import.import_kind.is_type() || specifiers.is_empty() {
            continue;
        }
        if !specifiers.iter().any(|specifier| is_value(specifier) && is_used(local(specifier))) {
            edits.blank_but(import.span, ';', ' ');
            continue;
        }
        for specifier in specifiers {
            if let ImportDeclarationSpecifier::ImportSpecifier(named) = specifier
                && named.import_kind.is_value()
                && !is_used(&named.local)
            {
                edits.blank(with_comma(program.source_text, named.span));
            }
        }
    }
}

pub(super) fn is_value(specifier: &ImportDeclarationSpecifier<'_>) -> bool {
    !matches!(specifier, ImportDeclarationSpecifier::ImportSpecifier(named) if named.import_kind.is_type())
}

pub(super) fn local<'s, 'a>(specifier: &'s ImportDeclarationSpecifier<'a>) -> &'s BindingIdentifier<'a> {
    match specifier {
        ImportDeclarationSpecifier::ImportSpecifier(named) => &named.local,
        ImportDeclarationSpecifier::ImportDefaultSpecifier(default) => &default.local,
        ImportDeclarationSpecifier::ImportNamespaceSpecifier(namespace) => &namespace.local,
    }
}

/// A part of a list with the comma after it, if there is one.
fn with_comma(text: &str, span: Span) -> Span {
    match next(text, span.end) {
        Some((',', at)) => Span::new(span.start, at + 1),
        _ => span,
    }
}

/// The first character after `offset` that is neither white space nor comment, and where it is.
pub(super) fn next(text: &str, offset: u32) -> Option<(char, u32)> {
    let mut at = offset as usize;
    loop {
        let rest = text.get(at..)?;
        let trimmed = rest.trim_start();
        at += rest.len() - trimmed.len();
        let skipped = if trimmed.starts_with("//") {
            trimmed.find('\n').unwrap_or(trimmed.len())
        } else if trimmed.starts_with("/*") {
            trimmed.find("*/").map_or(trimmed.len(), |end| end + 2)
        } else {
            return trimmed.chars().next().map(|character| (character, at as u32));
        };
        at += skipped;
    }
}

struct Eraser<'t, 'e> {
    text: &'t str,
    edits: &'e mut Edits,
    is_enough: bool,
}

impl Eraser<'_, '_> {
    fn slice(&self, start: u32, end: u32) -> &str {
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }

    fn has_break(&self, span: Span) -> bool {
        self.slice(span.start, span.end).contains(['\n', '\r', '\u{2028}', '\u{2029}'])
    }

    /// A statement or a member that is gone. What stood before must not grow into what stands after.
    fn drop(&mut self, span: Span) {
        self.edits.blank_but(span, ';', ' ');
    }

    /// `value as T`, `value!`: everything after the value.
    fn behind<'a>(&mut self, value: &Expression<'a>, whole: Span) {
        self.visit_expression(value);
        self.edits.blank(Span::new(value.span().end, whole.end));
    }

    /// `name?: T`, `name!: T`: everything after the name.
    fn annotation(&mut self, end_of_name: u32, marked: bool, annotation: Option<&TSTypeAnnotation<'_>>) {
        let mut end = annotation.map_or(end_of_name, |annotation| annotation.span.end);
        if marked && annotation.is_none() {
            end = next(self.text, end_of_name).map_or(end, |(_, at)| at + 1);
        }
        self.edits.blank(Span::new(end_of_name, end));
    }

    /// The line ended what a type ended; the type is gone, and the next line may go on with `(`.
    fn end(&mut self, span: Span) {
        if !self.slice(span.start, span.end).ends_with(';') {
            self.edits.end_with_semicolon(span.end);
        }
    }

    /// `public static override readonly`: the words before a member's name that are TypeScript's.
    fn modifiers(&mut self, member: Span, end: u32) {
        const WORDS: [&str; 7] =
            ["public", "private", "protected", "readonly", "override", "declare", "abstract"];
        let mut at = member.start;
        while let Some((_, start)) = next(self.text, at) {
            let word: &str = self.slice(start, end);
            let length = word.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(word.len());
            let Some(word) = word.get(..length).filter(|word| !word.is_empty()) else { return };
            if !WORDS.contains(&word) && !matches!(word, "static" | "accessor" | "async" | "get" | "set") {
                return;
            }
            let span = Span::new(start, start + length as u32);
            if WORDS.contains(&word) {
                // As the first of a member it parts it from the one before.
                self.edits.blank_but(span, if start == member.start { ';' } else { ' ' }, ' ');
            }
            at = span.end;
        }
    }
}

impl<'a> Visit<'a> for Eraser<'_, '_> {
    fn visit_statement(&mut self, it: &Statement<'a>) {
        match it {
            Statement::ImportDeclaration(import) => self.import(import),
            Statement::ExportNamedDeclaration(export) => self.export(export),
            Statement::ExportFromDeclaration(export) if export.export_kind.is_type() => {
                self.drop(export.span)
            }
            Statement::ExportFromDeclaration(export) => self.exported(&export.specifiers),
            Statement::ExportAllDeclaration(export) if export.export_kind.is_type() => self.drop(export.span),
            Statement::TSNamespaceExportDeclaration(export) => self.drop(export.span),
            Statement::TSExportAssignment(_) => self.is_enough = false,
            Statement::ExportDeclaration(export) if is_type(&export.declaration) => self.drop(export.span),
            Statement::ExportDefaultDeclaration(export)
                if matches!(&export.declaration, ExportDefaultDeclarationKind::TSInterfaceDeclaration(_))
                    || matches!(&export.declaration, ExportDefaultDeclarationKind::FunctionDeclaration(function)
                        if function.body.is_none()) =>
            {
                self.drop(export.span);
            }
            other if other.as_declaration().is_some_and(is_type) => self.drop(other.span()),
            other => {
                walk::walk_statement(self, other);
                self.end(other.span());
            }
        }
    }

    fn visit_declaration(&mut self, it: &Declaration<'a>) {
        match it {
            Declaration::TSEnumDeclaration(_)
            | Declaration::TSNamespaceDeclaration(_)
            | Declaration::TSImportEqualsDeclaration(_) => self.is_enough = false,
            other => walk::walk_declaration(self, other),
        }
    }

    fn visit_ts_type_annotation(&mut self, it: &TSTypeAnnotation<'a>) {
        self.edits.blank(it.span);
    }

    fn visit_ts_type_parameter_declaration(&mut self, it: &TSTypeParameterDeclaration<'a>) {
        self.edits.blank(it.span);
    }

    fn visit_ts_type_parameter_instantiation(&mut self, it: &TSTypeParameterInstantiation<'a>) {
        self.edits.blank(it.span);
    }

    fn visit_variable_declarator(&mut self, it: &VariableDeclarator<'a>) {
        self.visit_binding_pattern(&it.id);
        self.annotation(it.id.span().end, it.definite, it.type_annotation.as_deref());
        if let Some(init) = &it.init {
            self.visit_expression(init);
        }
    }

    fn visit_formal_parameters(&mut self, it: &FormalParameters<'a>) {
        walk::walk_formal_parameters(self, it);
    }

    fn visit_formal_parameter(&mut self, it: &FormalParameter<'a>) {
        if it.accessibility.is_some() || it.readonly || it.r#override || !it.decorators.is_empty() {
            self.is_enough = false;
            return;
        }
        self.visit_binding_pattern(&it.pattern);
        self.annotation(it.pattern.span().end, it.optional, it.type_annotation.as_deref());
        if let Some(initializer) = &it.initializer {
            self.visit_expression(initializer);
        }
    }

    fn visit_function(&mut self, it: &Function<'a>, flags: ScopeFlags) {
        if let Some(this) = &it.this_param {
            self.edits.blank(with_comma(self.text, this.span));
        }
        if let Some(parameters) = &it.type_parameters {
            self.edits.blank(parameters.span);
        }
        self.visit_formal_parameters(&it.params);
        if let Some(annotation) = &it.return_type {
            self.edits.blank(annotation.span);
        }
        if let Some(body) = &it.body {
            self.visit_function_body(body);
        }
        let _ = flags;
    }

    fn visit_arrow_function_expression(&mut self, it: &ArrowFunctionExpression<'a>) {
        // `return <\nT>(x) => x` and `(x): {\n} => x` break where no line may.
        let parameters = it.type_parameters.as_deref().map(|parameters| parameters.span);
        let annotation = it.return_type.as_deref().map(|annotation| annotation.span);
        let before_arrow = annotation.map(|annotation| Span::new(it.params.span.end, annotation.end));
        if parameters.is_some_and(|span| self.has_break(span))
            || before_arrow.is_some_and(|span| self.has_break(span))
        {
            self.is_enough = false;
        }
        walk::walk_arrow_function_expression(self, it);
    }

    fn visit_class(&mut self, it: &Class<'a>) {
        if !it.decorators.is_empty() {
            self.is_enough = false;
            return;
        }
        if it.r#abstract {
            self.edits.blank(Span::new(it.span.start, it.span.start + "abstract".len() as u32));
        }
        if let Some(parameters) = &it.type_parameters {
            self.edits.blank(parameters.span);
        }
        if let Some(heritage) = &it.heritage {
            self.visit_class_heritage(heritage);
        }
        if let (Some(first), Some(last)) = (it.implements.first(), it.implements.last()) {
            let before = self.slice(it.span.start, first.span.start).rfind("implements");
            let start = before.map_or(first.span.start, |at| it.span.start + at as u32);
            self.edits.blank(Span::new(start, last.span.end));
        }
        self.visit_class_body(&it.body);
    }

    fn visit_class_element(&mut self, it: &ClassElement<'a>) {
        match it {
            ClassElement::TSIndexSignature(signature) => self.drop(signature.span),
            ClassElement::StaticBlock(block) => self.visit_static_block(block),
            ClassElement::MethodDefinition(method) => self.method(method),
            ClassElement::PropertyDefinition(property) => self.property(property),
            // No engine has them yet.
            ClassElement::AccessorProperty(_) => self.is_enough = false,
        }
    }

    fn visit_expression(&mut self, it: &Expression<'a>) {
        match it {
            Expression::TSAsExpression(it) => self.behind(&it.expression, it.span),
            Expression::TSSatisfiesExpression(it) => self.behind(&it.expression, it.span),
            Expression::TSTypeAssertion(_) | Expression::JSXElement(_) | Expression::JSXFragment(_) => {
                self.is_enough = false;
            }
            other => walk::walk_expression(self, other),
        }
    }

    fn visit_simple_assignment_target(&mut self, it: &SimpleAssignmentTarget<'a>) {
        match it {
            SimpleAssignmentTarget::TSAsExpression(it) => self.behind(&it.expression, it.span),
            SimpleAssignmentTarget::TSSatisfiesExpression(it) => self.behind(&it.expression, it.span),
            SimpleAssignmentTarget::TSTypeAssertion(_) => self.is_enough = false,
            other => walk::walk_simple_assignment_target(self, other),
        }
    }

    fn visit_ts_non_null_expression(&mut self, it: &TSNonNullExpression<'a>) {
        self.behind(&it.expression, it.span);
    }
}

impl Eraser<'_, '_> {
    fn import(&mut self, import: &ImportDeclaration<'_>) {
        let specifiers = import.specifiers.as_deref().map_or(&[][..], |all| all);
        if import.import_kind.is_type() || !specifiers.is_empty() && !specifiers.iter().any(is_value) {
            return self.drop(import.span);
        }
        for specifier in specifiers.iter().filter(|specifier| !is_value(specifier)) {
            self.edits.blank(with_comma(self.text, specifier.span()));
        }
    }

    fn export(&mut self, export: &ExportNamedDeclaration<'_>) {
        if export.export_kind.is_type() { self.drop(export.span) } else { self.exported(&export.specifiers) }
    }

    fn exported(&mut self, specifiers: &[ExportSpecifier<'_>]) {
        for specifier in specifiers.iter().filter(|specifier| specifier.export_kind.is_type()) {
            self.edits.blank(with_comma(self.text, specifier.span));
        }
    }

    fn method(&mut self, method: &MethodDefinition<'_>) {
        if !method.decorators.is_empty() {
            self.is_enough = false;
        } else if method.value.body.is_none() {
            self.drop(method.span);
        } else {
            self.modifiers(method.span, method.key.span().start);
            self.visit_property_key(&method.key);
            if method.optional {
                let after = self.after_key(&method.key, method.computed);
                self.annotation(after, true, None);
            }
            self.visit_function(&method.value, ScopeFlags::Function);
        }
    }

    fn property(&mut self, property: &PropertyDefinition<'_>) {
        if !property.decorators.is_empty() {
            self.is_enough = false;
        } else if property.declare || property.r#type == PropertyDefinitionType::TSAbstractPropertyDefinition
        {
            self.drop(property.span);
        } else {
            self.modifiers(property.span, property.key.span().start);
            self.visit_property_key(&property.key);
            let after = self.after_key(&property.key, property.computed);
            self.annotation(
                after,
                property.optional || property.definite,
                property.type_annotation.as_deref(),
            );
            if let Some(value) = &property.value {
                self.visit_expression(value);
            }
            self.end(property.span);
        }
    }

    fn after_key(&self, key: &PropertyKey<'_>, computed: bool) -> u32 {
        let end = key.span().end;
        if !computed {
            return end;
        }
        next(self.text, end).map_or(end, |(_, bracket)| bracket + 1)
    }
}

/// Whether a declaration is gone when the program runs.
fn is_type(declaration: &Declaration<'_>) -> bool {
    match declaration {
        Declaration::TSTypeAliasDeclaration(_)
        | Declaration::TSInterfaceDeclaration(_)
        | Declaration::TSGlobalDeclaration(_)
        | Declaration::TSExternalModuleDeclaration(_) => true,
        Declaration::FunctionDeclaration(function) => function.declare || function.body.is_none(),
        Declaration::ClassDeclaration(class) => class.declare,
        Declaration::VariableDeclaration(variable) => variable.declare,
        Declaration::TSEnumDeclaration(declared) => declared.declare,
        Declaration::TSNamespaceDeclaration(namespace) => namespace.declare,
        Declaration::TSImportEqualsDeclaration(import) => import.import_kind.is_type(),
    }
}
