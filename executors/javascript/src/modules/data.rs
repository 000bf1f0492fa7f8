//! Modules in `data:` URLs.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use cob_protocol::limits::MODULE_BYTES_MAX;
use deno_core::ModuleSpecifier;
use deno_error::JsErrorBox;

/// The content, and a name that tells what it is.
///
/// # Errors
/// When it is none, or nothing that can be imported.
pub(super) fn read(url: &ModuleSpecifier) -> Result<(Vec<u8>, String), JsErrorBox> {
    let wrong = |why: String| JsErrorBox::type_error(format!("the data: URL cannot be imported: {why}"));
    let (about, content) =
        url.path().split_once(',').ok_or_else(|| wrong("a comma must stand before its content".into()))?;
    if content.len() > MODULE_BYTES_MAX {
        return Err(wrong(format!("it has more than {MODULE_BYTES_MAX} bytes")));
    }
    let content = match url.query() {
        None => unescaped(content.as_bytes()),
        Some(query) => unescaped(format!("{content}?{query}").as_bytes()),
    };
    let content = if about.ends_with(";base64") {
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        GeneralPurpose::new(&STANDARD, config).decode(content).map_err(|error| wrong(error.to_string()))?
    } else {
        content
    };
    let name = match about.split(';').next().unwrap_or_default() {
        "text/javascript" | "application/javascript" | "application/ecmascript" | "text/ecmascript" => {
            "data.js"
        }
        "text/typescript" | "application/typescript" | "video/mp2t" => "data.ts",
        "application/json" | "text/json" => "data.json",
        other => {
            return Err(wrong(format!(
                "`{other}` is neither JavaScript (text/javascript), TypeScript nor JSON"
            )));
        }
    };
    Ok((content, name.to_owned()))
}

/// `%41` is `A`; what only looks like that stays as it is.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'%').then_some(after).and_then(|after| after.get(..2));
        let code = code.filter(|code| code.iter().all(u8::is_ascii_hexdigit));
        match code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<(String, String), String> {
        let read = super::read(&ModuleSpecifier::parse(url).unwrap());
        read.map(|(bytes, name)| (String::from_utf8(bytes).unwrap(), name)).map_err(|error| error.to_string())
    }

    #[test]
    fn content_is_what_the_url_says() {
        for (url, content, name) in [
            ("data:text/javascript,export%20default%201", "export default 1", "data.js"),
            ("data:text/javascript;charset=utf-8,a?b:c%", "a?b:c%", "data.js"),
            ("data:application/typescript;base64,bGV0IGE=", "let a", "data.ts"),
            ("data:application/typescript;base64,bGV0IGE", "let a", "data.ts"),
            ("data:application/json,[%22%C3%A9%22]", "[\"é\"]", "data.json"),
        ] {
            assert_eq!(read(url), Ok((content.to_owned(), name.to_owned())), "{url}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for (url, part) in [
            ("data:text/javascript", "comma"),
            ("data:,x", "neither"),
            ("data:text/html,x", "text/html"),
            ("data:text/javascript;base64,?", "cannot be imported"),
        ] {
            let why = read(url).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
