//! What a source means at the cursor: which name or member is being written, which call it stands in.
//!
//! Reads text only. Whether there is such a value is looked up in the session, by `js/introspect.js`.

mod signature;
mod tokens;

use cob_protocol::limits::INSPECT_SUBJECTS_MAX;
use serde_json::{Value, json};
use tokens::{Kind, Token, tokens};

pub(crate) use signature::signature;

/// An expression that can be looked up without running anything: where it begins, and the members taken from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) base: Base,
    pub(crate) members: Vec<String>,
}

/// Where a chain begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// A name of the session.
    Name(String),
    /// A literal, by the name of its class: what matters is what it inherits.
    Literal(&'static str),
    /// An object that a class of the session would make: its name, and the members to go there.
    New(String, Vec<String>),
}

impl Chain {
    /// As `js/introspect.js` reads it.
    pub(crate) fn to_json(&self) -> Value {
        let (kind, name, made) = match &self.base {
            Base::Name(name) => ("name", name.as_str(), &[][..]),
            Base::Literal(class) => ("literal", *class, &[][..]),
            Base::New(name, made) => ("new", name.as_str(), made.as_slice()),
        };
        json!({"kind": kind, "name": name, "made": made, "members": self.members})
    }
}

/// What is to be completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A name, a keyword.
    Name,
    /// A member behind a dot.
    Member(Chain),
    /// A key in brackets; the quote that it begins with, if it has begun.
    Key(Chain, Option<char>),
}

/// What is being written at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished {
    pub(crate) wanted: Wanted,
    /// What is there already.
    pub(crate) prefix: String,
    /// Where it begins, in bytes.
    pub(crate) start: usize,
    /// Names that the source declares before.
    pub(crate) declared: Vec<(String, &'static str)>,
}

/// What could be completed at the end of `source`.
pub(crate) fn unfinished(source: &str) -> Option<Unfinished> {
    let mut all = tokens(source);
    if matches!(all.last(), Some(Token { kind: Kind::Comment { closed: false }, .. })) {
        return None;
    }
    all.retain(|token| !matches!(token.kind, Kind::Comment { .. }));
    let (prefix, start) = match all.last() {
        Some(last) if last.end() == source.len() => match last.kind {
            Kind::Name | Kind::Text { closed: false } => (last.text.to_owned(), last.start),
            Kind::Sign => (String::new(), source.len()),
            Kind::Piece if last.text.ends_with("${") => (String::new(), source.len()),
            _ => return None,
        },
        _ => (String::new(), source.len()),
    };
    if start < source.len() {
        all.pop();
    }
    let wanted = wanted(&all, &prefix)?;
    Some(Unfinished { wanted, prefix, start, declared: declared(&all) })
}

fn wanted(before: &[Token<'_>], prefix: &str) -> Option<Wanted> {
    let quote = prefix.chars().next().filter(|first| matches!(first, '"' | '\'' | '`'));
    let (last, rest) = match before.split_last() {
        Some((last, rest)) => (last, rest),
        None => return quote.is_none().then_some(Wanted::Name),
    };
    if last.is("[") && is_value(rest) {
        match chain(rest) {
            Some(chain) if quote.is_some() || prefix.is_empty() => return Some(Wanted::Key(chain, quote)),
            _ => {}
        }
    }
    if quote.is_some() {
        return None;
    }
    if last.is(".") || last.is("?.") {
        // Three dots spread what follows.
        let is_spread = rest.last().is_some_and(|token| token.is("."));
        return if is_spread { Some(Wanted::Name) } else { chain(rest).map(Wanted::Member) };
    }
    Some(Wanted::Name)
}

/// The expressions that `cursor` (in bytes) may be about, the nearest first: the one it stands in, then the functions
/// whose arguments it stands among.
pub(crate) fn subjects(source: &str, cursor: usize) -> Vec<Chain> {
    let mut all = tokens(source);
    all.retain(|token| !matches!(token.kind, Kind::Comment { .. }));
    let mut found = Vec::new();
    let at = all.iter().position(|token| {
        matches!(token.kind, Kind::Name | Kind::Text { closed: true })
            && (token.start..=token.end()).contains(&cursor)
    });
    if let Some(at) = at {
        let is_key = all.get(at).is_some_and(|token| token.kind != Kind::Name);
        // A text is a subject only as a key: `table["name"]`.
        let upto = if is_key { at + 2 } else { at + 1 };
        found.extend(all.get(..upto).and_then(chain).filter(|chain| !is_key || !chain.members.is_empty()));
    }
    let mut depth = 0usize;
    let before = all.iter().take_while(|token| token.end() <= cursor).count();
    for place in (0..before).rev() {
        let Some(token) = all.get(place) else { continue };
        if token.kind != Kind::Sign {
            continue;
        }
        match token.text {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" if depth > 0 => depth -= 1,
            "(" if found.len() < INSPECT_SUBJECTS_MAX => found.extend(all.get(..place).and_then(chain)),
            _ => {}
        }
    }
    found
}

/// Whether a value ends here, whatever is said of its being there: `value!`, `value?.`.
fn is_value(tokens: &[Token<'_>]) -> bool {
    let mut before = tokens.iter().rev().skip_while(|token| token.is("!") || token.is("?."));
    before.next().is_some_and(Token::ends_value)
}

/// The chain that ends with the last of `tokens`.
fn chain(tokens: &[Token<'_>]) -> Option<Chain> {
    let mut members = Vec::new();
    let mut rest = tokens;
    let base = loop {
        let (last, before) = rest.split_last()?;
        match last.kind {
            // `value!.member`, TypeScript's way to say that it is there; `value?.[0]`.
            Kind::Sign if matches!(last.text, "!" | "?.") && is_value(before) => rest = before,
            Kind::Name => match before.split_last() {
                Some((dot, owner)) if dot.is(".") || dot.is("?.") => {
                    members.push(last.text.to_owned());
                    rest = owner;
                }
                _ if is_reserved(last.text) => return None,
                _ => break Base::Name(last.text.to_owned()),
            },
            Kind::Sign if last.text == "]" => match before {
                [owner @ .., open, key] if open.is("[") && is_value(owner) => {
                    members.push(constant(key)?);
                    rest = owner;
                }
                _ => break array(before)?,
            },
            Kind::Sign if last.text == ")" => break made(before)?,
            Kind::Text { closed: true } | Kind::Template => break Base::Literal("String"),
            Kind::Piece if last.text.ends_with('`') => break Base::Literal("String"),
            Kind::Number if last.text.ends_with('n') => break Base::Literal("BigInt"),
            Kind::Number => break Base::Literal("Number"),
            Kind::Regex => break Base::Literal("RegExp"),
            _ => return None,
        }
    };
    members.reverse();
    Some(Chain { base, members })
}

/// The key that a literal in brackets stands for.
fn constant(key: &Token<'_>) -> Option<String> {
    match key.kind {
        Kind::Number if key.text.bytes().all(|byte| byte.is_ascii_digit()) => Some(key.text.to_owned()),
        Kind::Text { closed: true } => {
            let inside = key.text.get(1..key.text.len().checked_sub(1)?)?;
            (!inside.contains('\\')).then(|| inside.to_owned())
        }
        _ => None,
    }
}

/// `[1, 2]`: an array, if nothing stands before it that it takes a member from.
fn array(inside: &[Token<'_>]) -> Option<Base> {
    let before = before_opening(inside, "[", "]")?;
    (!before.last().is_some_and(Token::ends_value)).then_some(Base::Literal("Array"))
}

/// `new Name(…)`.
fn made(inside: &[Token<'_>]) -> Option<Base> {
    let before = before_opening(inside, "(", ")")?;
    let class = chain(before)?;
    // Each member is two tokens, a name and a dot, or three and more in brackets, which nobody writes behind `new`.
    let new = before.len().checked_sub(2 * class.members.len() + 2)?;
    match class.base {
        Base::Name(name) if before.get(new)?.is("new") => Some(Base::New(name, class.members)),
        _ => None,
    }
}

/// What stands before the bracket that the end of `inside` closes.
fn before_opening<'a, 'b>(inside: &'a [Token<'b>], open: &str, close: &str) -> Option<&'a [Token<'b>]> {
    let mut depth = 0usize;
    for (at, token) in inside.iter().enumerate().rev() {
        if token.is(close) {
            depth += 1;
        } else if token.is(open) {
            if depth == 0 {
                return inside.get(..at);
            }
            depth -= 1;
        }
    }
    None
}

/// Names that the source itself binds, and what they will be.
fn declared(tokens: &[Token<'_>]) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    for (at, word) in tokens.iter().enumerate() {
        let kind = match word.text {
            _ if word.kind != Kind::Name => continue,
            "let" | "const" | "var" | "import" | "using" => "instance",
            "function" => "function",
            "class" | "enum" | "namespace" => "class",
            _ => continue,
        };
        let mut rest = tokens.get(at + 1..).unwrap_or_default().iter();
        let first = rest.as_slice().first();
        if first.is_some_and(|sign| sign.is("*")) {
            rest.next();
        }
        match rest.next() {
            Some(name) if name.kind == Kind::Name && !is_reserved(name.text) => {
                found.push((name.text.to_owned(), kind));
            }
            Some(open) if open.is("{") || open.is("[") => {
                found.extend(bound(rest.as_slice()).into_iter().map(|name| (name, kind)));
            }
            _ => {}
        }
    }
    found
}

/// The names of a pattern whose bracket is open: those that are not keys of others.
fn bound(tokens: &[Token<'_>]) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        let next = tokens.get(at + 1);
        match token.text {
            "{" | "[" => depth += 1,
            "}" | "]" if depth == 0 => break,
            "}" | "]" => depth -= 1,
            _ if token.kind != Kind::Name || is_reserved(token.text) => {}
            _ if next.is_some_and(|next| next.is(":") || next.is("as")) || token.is("as") => {}
            _ => names.push(token.text.to_owned()),
        }
    }
    names
}

/// Words of the language, which can be proposed and are no names.
pub(crate) const KEYWORDS: &[&str] = &[
    "abstract",
    "as",
    "async",
    "await",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "debugger",
    "declare",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "export",
    "extends",
    "false",
    "finally",
    "for",
    "from",
    "function",
    "if",
    "implements",
    "import",
    "in",
    "instanceof",
    "interface",
    "let",
    "namespace",
    "new",
    "null",
    "of",
    "private",
    "protected",
    "public",
    "readonly",
    "return",
    "satisfies",
    "static",
    "super",
    "switch",
    "this",
    "throw",
    "true",
    "try",
    "type",
    "typeof",
    "using",
    "var",
    "void",
    "while",
    "with",
    "yield",
];

/// Words that cannot be the name of a variable. `this` is one: the global object.
fn is_reserved(word: &str) -> bool {
    matches!(
        word,
        "await"
            | "break"
            | "case"
            | "catch"
            | "class"
            | "const"
            | "continue"
            | "debugger"
            | "default"
            | "delete"
            | "do"
            | "else"
            | "enum"
            | "export"
            | "extends"
            | "false"
            | "finally"
            | "for"
            | "function"
            | "if"
            | "import"
            | "in"
            | "instanceof"
            | "new"
            | "null"
            | "return"
            | "super"
            | "switch"
            | "throw"
            | "true"
            | "try"
            | "typeof"
            | "var"
            | "void"
            | "while"
            | "with"
            | "yield"
    )
}

#[cfg(test)]
mod tests;
