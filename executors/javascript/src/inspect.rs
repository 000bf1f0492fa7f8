//! Inspection: what stands at the cursor. No code of the user's runs for it.

use cob_protocol::frame::Outcome;
use cob_protocol::json::Json;
use cob_protocol::limits::{INSPECT_SOURCE_UNITS_MAX, INSPECT_VALUE_CHARACTERS};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::complete::byte_at;
use crate::engine::Engine;
use crate::errors::Stop;
use crate::errors::sources::Sources;
use crate::source_at::{Base, Chain, signature, subjects};
use crate::sources::Written;

/// Where the built-in objects are described.
const REFERENCE: &str = "https://developer.mozilla.org/docs/Web/JavaScript/Reference/Global_Objects";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[39m";

/// What `js/introspect.js` says of a value.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Facts {
    /// Which of the chains it is.
    chain: usize,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    /// A function's, as the engine has it.
    source: Option<String>,
    /// How many parameters a function has.
    length: Option<usize>,
    /// Where a built-in function stands.
    path: Option<String>,
    preview: Option<String>,
    len: Option<f64>,
    shape: Option<Vec<f64>>,
    nbytes: Option<f64>,
}

/// The content of an `inspect_reply`. What is interrupted, or cannot be found out, was not found.
pub(crate) fn reply(engine: &mut Engine, code: &str, cursor: usize, detail: u8) -> Outcome {
    let text = described(engine, code, cursor, detail).ok().flatten();
    let found = text.is_some();
    let data = text.map_or_else(|| json!({}), |text| json!({"text/plain": text}));
    let reply: Value = json!({"status": "ok", "found": found, "data": data, "metadata": {}});
    Json::of(&reply).map_or_else(|error| Outcome::Declined(error.to_string()), Outcome::Value)
}

fn described(engine: &mut Engine, code: &str, cursor: usize, detail: u8) -> Result<Option<String>, Stop> {
    let chains = subjects(code, byte_at(code, cursor));
    if chains.is_empty() {
        return Ok(None);
    }
    let asked = Value::from_iter(chains.iter().map(Chain::to_json)).to_string();
    let [brief, long] = INSPECT_VALUE_CHARACTERS;
    let preview = if detail > 0 { long } else { brief };
    let answer = engine
        .ask("introspect.describe", &[&asked, &INSPECT_SOURCE_UNITS_MAX.to_string(), &preview.to_string()])?;
    let facts: Facts = match serde_json::from_str(&answer) {
        Ok(facts) => facts,
        Err(_) => return Ok(None),
    };
    let title = chains.get(facts.chain).map(title).unwrap_or_default();
    Ok(Some(laid_out(&fields(&facts, &title, &engine.sources, detail > 0))))
}

/// A chain as people write it.
fn title(chain: &Chain) -> String {
    let mut text = match &chain.base {
        Base::Name(name) => name.clone(),
        Base::Literal(class) => format!("{class}.prototype"),
        Base::New(class, members) => [class]
            .into_iter()
            .chain(members)
            .map(String::as_str)
            .chain(["prototype"])
            .collect::<Vec<_>>()
            .join("."),
    };
    for member in &chain.members {
        if oxc::syntax::identifier::is_identifier_name(member) {
            text.extend([".", member]);
        } else {
            text.extend(["[", &Value::from(member.as_str()).to_string(), "]"]);
        }
    }
    text
}

/// Titles and texts, in the order of Python's.
fn fields(facts: &Facts, title: &str, sources: &Sources, with_source: bool) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    match (&facts.path, &facts.source) {
        (Some(path), _) => fields.extend(built_in(facts, title, path)),
        (None, Some(source)) => {
            let written = sources.find(&facts.name, source);
            fields.extend(written_here(facts, title, source, written, with_source));
        }
        (None, None) => {}
    }
    fields.push(("Type", facts.kind.clone()));
    if let Some(preview) = &facts.preview {
        fields.push(("Value", preview.clone()));
    }
    fields.extend(facts.len.map(|len| ("Length", len.to_string())));
    fields
        .extend(facts.shape.as_ref().and_then(|shape| shape.first()).map(|len| ("Length", len.to_string())));
    fields.extend(facts.nbytes.map(|bytes| ("Bytes", bytes.to_string())));
    fields
}

fn built_in(facts: &Facts, title: &str, path: &str) -> Vec<(&'static str, String)> {
    let parameters = match facts.length {
        Some(0) | None => "(…)".to_owned(),
        Some(count) => {
            let names: Vec<_> = (1..=count).map(|number| format!("arg{number}")).collect();
            format!("({}, …)", names.join(", "))
        }
    };
    let name = if path.is_empty() { title } else { path };
    let mut fields = vec![(signature_title(facts), format!("{name}{parameters}"))];
    if path.is_empty() {
        fields.push(("Docstring", "Built in.".to_owned()));
    } else {
        let page = path.replace("prototype.", "").replace('.', "/");
        fields.push(("Docstring", format!("Built in: {REFERENCE}/{page}")));
    }
    fields
}

fn written_here(
    facts: &Facts,
    title: &str,
    compiled: &str,
    written: Option<Written>,
    with_source: bool,
) -> Vec<(&'static str, String)> {
    let (source, comment) = match written {
        Some(written) => (written.source, written.comment),
        None => (compiled.to_owned(), None),
    };
    let mut fields = Vec::new();
    if let Some(signature) = signature(&source) {
        fields.push((signature_title(facts), format!("{title}{signature}")));
    }
    fields.extend(comment.map(|comment| ("Docstring", comment)));
    if with_source {
        fields.push(("Source", source));
    }
    fields
}

fn signature_title(facts: &Facts) -> &'static str {
    if facts.kind == "class" { "Init signature" } else { "Signature" }
}

fn laid_out(fields: &[(&'static str, String)]) -> String {
    let width = fields.iter().map(|(title, _)| title.len()).max().unwrap_or_default() + 1;
    let lines: Vec<_> = fields
        .iter()
        .map(|(title, text)| {
            let head = format!("{RED}{title}:{RESET}");
            let pad = width - title.len() - 1;
            if text.contains('\n') { format!("{head}\n{text}") } else { format!("{head}{:pad$} {text}", "") }
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(facts: &str, title: &str, with_source: bool) -> String {
        let facts: Facts = serde_json::from_str(facts).unwrap_or_default();
        laid_out(&fields(&facts, title, &Sources::default(), with_source)).replace(RED, "").replace(RESET, "")
    }

    #[test]
    fn a_function_has_a_signature_and_on_demand_its_source() {
        let facts = r#"{"chain":0,"type":"function","name":"f","length":1,"source":"function f(a) {\n}"}"#;
        assert_eq!(shown(facts, "f", false), "Signature: f(a)\nType:      function");
        assert_eq!(
            shown(facts, "o.f", true),
            "Signature: o.f(a)\nSource:\nfunction f(a) {\n}\nType:      function"
        );
    }

    #[test]
    fn a_built_in_function_has_a_page() {
        let facts = r#"{"type":"function","name":"map","length":1,"source":"","path":"Array.prototype.map"}"#;
        let text = shown(facts, "x.map", false);
        assert!(text.starts_with("Signature: Array.prototype.map(arg1, …)\n"), "{text}");
        assert!(text.contains("/Global_Objects/Array/map\n"), "{text}");
    }

    #[test]
    fn a_value_has_a_type_a_look_and_a_size() {
        let facts = r#"{"type":"Float64Array","preview":"Float64Array(2) [ 0, 0 ]","shape":[2],"nbytes":16}"#;
        let expected = "Type:   Float64Array\nValue:  Float64Array(2) [ 0, 0 ]\nLength: 2\nBytes:  16";
        assert_eq!(shown(facts, "x", false), expected);
    }
}
