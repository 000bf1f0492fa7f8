//! Cursors in sources, and what stands there.

use super::*;

fn written(chain: &Chain) -> String {
    let base = match &chain.base {
        Base::Name(name) => name.clone(),
        Base::Literal(class) => format!("<{class}>"),
        Base::New(class, members) => {
            format!(
                "<new {}>",
                [class.clone()].into_iter().chain(members.clone()).collect::<Vec<_>>().join("/")
            )
        }
    };
    [base].into_iter().chain(chain.members.iter().cloned()).collect::<Vec<_>>().join("/")
}

fn at_end(source: &str) -> String {
    let Some(found) = unfinished(source) else { return "nothing".to_owned() };
    assert_eq!(source.get(found.start..), Some(found.prefix.as_str()), "{source}");
    match found.wanted {
        Wanted::Name => format!("name {}", found.prefix),
        Wanted::Member(chain) => format!("{} . {}", written(&chain), found.prefix),
        Wanted::Key(chain, _) => format!("{} [ {}", written(&chain), found.prefix),
    }
}

#[test]
fn what_is_being_written() {
    for (source, expected) in [
        ("", "name "),
        ("con", "name con"),
        ("x = con", "name con"),
        ("f(...ar", "name ar"),
        ("`a${na", "name na"),
        ("a.b", "a . b"),
        ("a?.b?.", "a/b . "),
        ("a\n  .b // then\n  .c", "a/b . c"),
        ("x + a.b[\"c\"][0].d", "a/b/c/0 . d"),
        ("a!.b", "a . b"),
        ("a!['b']!.c!['", "a/b/c [ '"),
        ("a?.['b']?.[0].c?.[", "a/b/0/c [ "),
        ("x = ![", "name "),
        ("\"abc\".to", "<String> . to"),
        ("`a${b}c`.", "<String> . "),
        ("/x/g.te", "<RegExp> . te"),
        ("12n.", "<BigInt> . "),
        ("1..to", "<Number> . to"),
        ("[1, [2]].ma", "<Array> . ma"),
        ("new Map([[1, (2)]]).g", "<new Map> . g"),
        ("await new a.B().g", "<new a/B> . g"),
        ("this.x", "this . x"),
        ("t['na", "t [ 'na"),
        ("t.u[", "t/u [ "),
        ("x = [", "name "),
        ("t[na", "name na"),
    ] {
        assert_eq!(at_end(source), expected, "{source}");
    }
}

#[test]
fn nothing_is_proposed_in_texts_comments_numbers_and_behind_calls() {
    for source in [
        "'abc",
        "`abc",
        "// abc",
        "/* abc",
        "12",
        "f().",
        "f(1)[2].",
        "(a).",
        "a[b].",
        "return.",
        "x.f('na",
        ".",
        "if (a).",
        "}.x",
        "new f()().x",
    ] {
        assert_eq!(at_end(source), "nothing", "{source}");
    }
}

#[test]
fn names_that_the_source_binds_are_known() {
    let source = "import d, {e as f} from 'g'; const {h, i: [j]} = k; let l = 1; class M {} function* n() {} enum O {} q";
    let names: Vec<_> = unfinished(source).map(|found| found.declared).unwrap_or_default();
    let names: Vec<_> = names.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["d", "h", "j", "l", "M", "n", "O"]);
}

#[test]
fn the_cursor_is_about_a_name_or_the_call_around_it() {
    // The bar is the cursor.
    for (marked, expected) in [
        ("al|pha.beta", "alpha"),
        ("alpha.be|ta.gamma", "alpha/beta"),
        ("|alpha", "alpha"),
        ("alpha|", "alpha"),
        ("f(|", "f"),
        ("f(1, g(2), |3)", "f"),
        ("a.f(x|)", "x a/f"),
        ("f(g([1, |", "g f"),
        ("a?.f?.(|", "a/f"),
        ("t['ke|y']", "t/key"),
        ("f('te|xt')", "f"),
        ("1 + |", ""),
        ("", ""),
        ("(|", ""),
        ("if (|", ""),
    ] {
        let cursor = marked.find('|').unwrap_or(0);
        let found = subjects(&marked.replace('|', ""), cursor);
        let found: Vec<_> = found.iter().map(written).collect();
        assert_eq!(found.join(" "), expected, "{marked}");
    }
}

#[test]
fn no_source_is_too_odd() {
    let pieces = [
        "a", ".", "[", "]", "(", ")", "{", "}", "`", "${", "'", "\"", "/", "*", "\\", "\n", "é", "🦀",
        "new ", "!", "?.",
    ];
    let mut seed = 1u32;
    for _ in 0..3000 {
        let mut source = String::new();
        for _ in 0..12 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            source.push_str(pieces.get((seed >> 16) as usize % pieces.len()).unwrap_or(&""));
        }
        unfinished(&source);
        for (cursor, _) in source.char_indices() {
            subjects(&source, cursor);
        }
    }
}
