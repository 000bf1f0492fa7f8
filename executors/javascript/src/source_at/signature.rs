//! How a function is called, as its source says.

use super::tokens::{Kind, Token, tokens};

/// Parameters and what comes back: `(a: number, b = 2): string`. For a class those of its constructor.
pub(crate) fn signature(source: &str) -> Option<String> {
    let mut all = tokens(source);
    all.retain(|token| !matches!(token.kind, Kind::Comment { .. }));
    if all.first()?.is("class") {
        let constructor = all.windows(2).position(|two| match two {
            [name, open] => name.is("constructor") && open.is("("),
            _ => false,
        });
        let Some(constructor) = constructor else { return Some("()".to_owned()) };
        let (parameters, _) = bracketed(all.get(constructor + 1..)?)?;
        return Some(written(parameters));
    }
    let arrow = all.iter().position(|token| token.is("=>"));
    let open = all.iter().position(|token| token.is("("));
    match (arrow, open) {
        // `x => …`
        (Some(arrow), open) if open.is_none_or(|open| open > arrow) => {
            Some(format!("({})", all.get(arrow.checked_sub(1)?)?.text))
        }
        (_, open) => {
            let (parameters, rest) = bracketed(all.get(open?..)?)?;
            Some(format!("{}{}", written(parameters), written(returned(rest))))
        }
    }
}

/// From a bracket to the one that closes it, and what follows.
fn bracketed<'a, 'b>(tokens: &'a [Token<'b>]) -> Option<(&'a [Token<'b>], &'a [Token<'b>])> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" if token.kind == Kind::Sign => depth += 1,
            ")" | "]" | "}" if token.kind == Kind::Sign => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return tokens.split_at_checked(at + 1);
        }
    }
    None
}

/// The type behind the parameters, if there is one: up to the body.
fn returned<'a, 'b>(tokens: &'a [Token<'b>]) -> &'a [Token<'b>] {
    if !tokens.first().is_some_and(|token| token.is(":")) {
        return &[];
    }
    let mut depth = 0usize;
    for (at, pair) in tokens.windows(2).enumerate() {
        let [before, token] = pair else { break };
        if depth == 0 {
            let is_body = token.is("{") && !matches!(before.text, ":" | "|" | "&");
            if token.is("=>") || is_body {
                return tokens.get(..=at).unwrap_or_default();
            }
        }
        match token.text {
            "(" | "[" | "{" | "<" => depth += 1,
            ")" | "]" | "}" | ">" => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    tokens
}

/// The tokens in one line, spaced as they were.
fn written(tokens: &[Token<'_>]) -> String {
    let mut line = String::new();
    let mut end = None;
    for token in tokens {
        let is_apart = end.is_some_and(|end| end < token.start);
        if is_apart && !matches!(token.text, ")" | "," | ":") && !line.ends_with('(') {
            line.push(' ');
        }
        line.push_str(token.text);
        end = Some(token.end());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::signature;

    #[test]
    fn signatures_are_read_from_sources() {
        for (source, expected) in [
            ("function f(a, b = (1 + 2), ...c) { return a }", "(a, b = (1 + 2), ...c)"),
            (
                "async function f(\n  a: number, // first\n  b?: {c: string},\n): Promise<{x: 1}> { g() }",
                "(a: number, b?: {c: string},): Promise<{x: 1}>",
            ),
            ("function f(a        , b         ) { }", "(a, b)"),
            ("x => x + 1", "(x)"),
            ("async x => f(x)", "(x)"),
            ("(x: number): number => x", "(x: number): number"),
            ("({a, b}) => a", "({a, b})"),
            ("method(a) { return (b) => a }", "(a)"),
            ("class A { x = f(1); constructor(a, b) {} }", "(a, b)"),
            ("class A {}", "()"),
        ] {
            assert_eq!(signature(source).as_deref(), Some(expected), "{source}");
        }
        assert_eq!(signature(""), None);
        assert_eq!(signature("function f(a"), None);
    }
}
