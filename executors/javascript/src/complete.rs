//! Completion: what could be written at the cursor. No code of the user's runs for it.

use cob_protocol::frame::Outcome;
use cob_protocol::json::Json;
use cob_protocol::limits::COMPLETIONS_MAX;
use oxc::syntax::identifier::is_identifier_name;
use serde_json::json;

use crate::engine::Engine;
use crate::errors::Stop;
use crate::source_at::{KEYWORDS, Unfinished, Wanted, unfinished};

/// A text and its kind.
type Match = (String, String);

/// What every object has, and hardly anybody looks for: it comes after all else.
const OF_EVERY_OBJECT: [&str; 7] = [
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// The content of a `complete_reply`. What is interrupted, or cannot be found out, has no completions.
pub(crate) fn reply(engine: &mut Engine, code: &str, cursor: usize) -> Outcome {
    let at = byte_at(code, cursor);
    let (before, after) = code.split_at_checked(at).unwrap_or((code, ""));
    let end = before.chars().count();
    let (start, matches) = match unfinished(before) {
        Some(found) => {
            let start = before.get(..found.start).map_or(end, |text| text.chars().count());
            (start, matches(engine, &found, after).unwrap_or_default())
        }
        None => (end, Vec::new()),
    };
    let types: Vec<_> = matches
        .iter()
        .map(|(text, kind)| json!({"start": start, "end": end, "text": text, "type": kind}))
        .collect();
    let texts: Vec<_> = matches.iter().map(|(text, _)| text).collect();
    let reply = json!({
        "status": "ok", "matches": texts, "cursor_start": start, "cursor_end": end,
        "metadata": {"_jupyter_types_experimental": types},
    });
    Json::of(&reply).map_or_else(|error| Outcome::Declined(error.to_string()), Outcome::Value)
}

/// Where the code point `cursor` begins; the end of a text that is shorter.
pub(crate) fn byte_at(code: &str, cursor: usize) -> usize {
    code.char_indices().nth(cursor).map_or(code.len(), |(at, _)| at)
}

fn matches(engine: &mut Engine, found: &Unfinished, after: &str) -> Result<Vec<Match>, Stop> {
    let max = COMPLETIONS_MAX.to_string();
    let listed = match &found.wanted {
        Wanted::Name => named(engine, found, &max)?,
        Wanted::Member(chain) => {
            let chain = chain.to_json().to_string();
            let members = read(&engine.ask("introspect.members", &[&chain, &found.prefix, &max])?);
            let named = members.into_iter().filter(|(name, _)| is_identifier_name(name)).collect();
            let mut listed = ranked(named, &found.prefix);
            listed.sort_by_key(|(name, _)| OF_EVERY_OBJECT.contains(&name.as_str()));
            listed
        }
        Wanted::Key(chain, quote) => {
            let keys = read(&engine.ask("introspect.keys", &[&chain.to_json().to_string(), &max])?);
            let keys = keys.into_iter().filter_map(|(key, _)| {
                let text = quoted(&key, quote.unwrap_or('"'), after);
                text.starts_with(&found.prefix).then(|| (text, "property".to_owned()))
            });
            let mut listed: Vec<_> = keys.collect();
            if quote.is_none() {
                listed.extend(named(engine, found, &max)?);
            }
            listed
        }
    };
    Ok(listed.into_iter().take(COMPLETIONS_MAX).collect())
}

/// Names of the session, of the source itself, and of the language.
fn named(engine: &mut Engine, found: &Unfinished, max: &str) -> Result<Vec<Match>, Stop> {
    let mut names = read(&engine.ask("introspect.names", &[&found.prefix, max])?);
    names.retain(|(name, _)| is_identifier_name(name));
    let declared = found.declared.iter().map(|(name, kind)| (name.as_str(), *kind));
    for (name, kind) in declared.chain(KEYWORDS.iter().map(|word| (*word, "keyword"))) {
        if name.starts_with(&found.prefix) {
            names.push((name.to_owned(), kind.to_owned()));
        }
    }
    Ok(ranked(names, &found.prefix))
}

/// In order, those with an underscore last and only if they were asked for.
fn ranked(mut found: Vec<Match>, prefix: &str) -> Vec<Match> {
    found.retain(|(name, _)| prefix.starts_with('_') || !name.starts_with('_'));
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found.dedup_by(|(one, _), (other, _)| one == other);
    found
}

fn read(json: &str) -> Vec<Match> {
    serde_json::from_str(json).unwrap_or_default()
}

/// A key as a literal. A closing quote that stands there already is not written twice.
fn quoted(key: &str, quote: char, after: &str) -> String {
    let mut text = String::from(quote);
    for character in key.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\\' => text.push_str("\\\\"),
            '$' if quote == '`' => text.push_str("\\$"),
            _ if character == quote => text.extend(['\\', quote]),
            _ => text.push(character),
        }
    }
    if !after.starts_with(quote) {
        text.push(quote);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_counts_code_points() {
        assert_eq!(byte_at("a🦀é", 0), 0);
        assert_eq!(byte_at("a🦀é", 2), 5);
        assert_eq!(byte_at("a🦀é", 3), 7);
        assert_eq!(byte_at("a🦀é", 99), 7);
    }

    #[test]
    fn keys_are_written_as_literals() {
        assert_eq!(quoted("it's \"x\"\\\n", '"', ""), "\"it's \\\"x\\\"\\\\\\n\"");
        assert_eq!(quoted("it's", '\'', "'] + 1"), "'it\\'s");
        assert_eq!(quoted("${a}", '`', ""), "`\\${a}`");
    }

    #[test]
    fn names_with_an_underscore_come_when_they_are_asked_for() {
        let pair = |name: &str| (name.to_owned(), "instance".to_owned());
        let all = || vec![pair("b"), pair("_c"), pair("a"), pair("a")];
        assert_eq!(ranked(all(), ""), [pair("a"), pair("b")]);
        assert_eq!(ranked(vec![pair("_c")], "_"), [pair("_c")]);
    }
}
