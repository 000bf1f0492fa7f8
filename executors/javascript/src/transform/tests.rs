//! Tables of sources and the code that the engine is given for them.

use super::*;

#[track_caller]
fn code(source: &str) -> String {
    cell(source).unwrap_or_else(|error| panic!("{source}: {error:?}")).code
}

#[test]
fn scripts_keep_their_text_and_their_columns() {
    let table = [
        ("1+1", "1+1"),
        ("", ""),
        ("let a = 1, b = 2", "var a = 1, b = 2"),
        ("const a = 1; a", "var   a = 1; a"),
        ("const {a, b: [c = 2]} = d", "var   {a, b: [c = 2]} = d"),
        ("for (let i = 0; i < 3; i++) {}", "for (let i = 0; i < 3; i++) {}"),
        ("{ let a = 1; const b = 2 }", "{ let a = 1; const b = 2 }"),
        ("function f() { let a; class B {} }", "function f() { let a; class B {} }"),
        ("async function f() { await 1 }", "async function f() { await 1 }"),
        ("const x: number = 1 as any", "var   x         = 1      ;"),
        ("'let a'; `const ${`let`}`; /let a/; // let a", "'let a'; `const ${`let`}`; /let a/; // let a"),
        ("type A = string\n(1)", ";              \n(1)"),
        ("x = y as T\n(1)", "x = y    ;\n(1)"),
        ("f<number>(x!)", "f        (x )"),
        ("function f(this: T, a?: T, ...b: T[]): T {}", "function f(         a    , ...b     )    {}"),
        ("export const a = 1", "       var   a = 1"),
        ("export { a, b }; 1", ";                1"),
        ("export default { a: 1 }", ";            ( { a: 1 })"),
        ("interface A {\n  a: string\n}\n1", ";            \n           \n \n1"),
        ("#!/usr/bin/env node\n1", "                   \n1"),
        ("import type { A } from 'a'; 1", ";                           1"),
        ("with (a) b", "with (a) b"),
    ];
    for (source, expected) in table {
        assert_eq!(code(source), expected, "{source}");
    }
}

#[test]
fn scripts_that_cannot_keep_their_columns_have_a_map() {
    let table = [
        ("let q;", "var q=void 0;"),
        ("let a, b = 1", "var a=void 0, b = 1"),
        ("class A {}", "var A=class A {};"),
        (
            "abstract class A<T> extends B<T> implements C {}",
            "var A=         class A    extends B                 {};",
        ),
        ("{ a: 1 }", "({ a: 1 }\n)"),
        ("{}", "({}\n)"),
    ];
    for (source, expected) in table {
        let cell = cell(source).expect(source);
        assert_eq!(cell.code, expected, "{source}");
        assert!(cell.source_map.is_some(), "{source}");
    }
    assert_eq!(code("{ f(); }"), "{ f(); }");
    assert_eq!(code("{ a: 1 };"), "{ a: 1 };");
}

#[test]
fn cells_that_await_are_functions_between_declarations() {
    let table = [
        ("await f();", "", "$=(await f());"),
        ("let a = await 1\n;[a]", "var a;", "void(a = await 1\n);$=([a]);"),
        (
            "const {a} = await f(), b = 1; var c\n(c)",
            "var a,b,c;",
            "void({a} = await f(), b = 1); void(c);\n$=((c));",
        ),
        (
            "class A {}\nawait 0; function f(x: T) {} f()",
            "var A;function f(x   ) {}\n",
            "A=class A {};\nawait 0;  $=(f());",
        ),
        (
            "import * as n from 'x' with {type: 'json'}",
            "var n;",
            "n=await import('x',{with:{\"type\":\"json\"}});",
        ),
        ("import 'x'; export * from 'y'; 1", "", "await import('x');await import('y');  $=(1);"),
        (
            "for await (const x of y) { var z = x; z }",
            "var z;",
            "for await (const x of y) { void(z = x); $=(z); }",
        ),
        ("if (await a) 1; else 2", "", "if (await a) $=(1); else $=(2);"),
        ("if (a) var x = 1; else await 2", "var x;", "if (a) void(x = 1); else $=(await 2);"),
        ("using x = f(); x.a", "var x;", "using __cob_used_6 = (x=f()); $=(x.a);"),
        ("for (var i = 0, j; i < 3; i++) await i", "var i,j;", "for (i = 0, j; i < 3; i++) $=(await i);"),
        ("let x: T = await y as T\n(1)", "var x;", "void(x    = await y     );\n$=((1));"),
        ("export default await 5", "", ";             ($=await 5)"),
    ];
    for (source, before, within) in table {
        let within = within.replace('$', completion::VALUE);
        let start = format!("{before}(async()=>{{let {};", completion::VALUE);
        let end = format!(";return {}}})()", completion::VALUE);
        let code = code(source);
        let body = code.strip_prefix(&start).and_then(|code| code.strip_suffix(&end));
        let body = body.unwrap_or_else(|| panic!("{source}: {code}")).trim_end();
        let squeezed = |text: &str| text.replace(['\n', ' '], "");
        assert_eq!(squeezed(body), squeezed(&within), "{source}: {code}");
    }
}

#[test]
fn what_is_wrong_is_told_where_it_is() {
    let table = [
        ("let a; let a;", 1, 5, "Identifier `a` has already been declared"),
        ("return 1", 1, 1, "A 'return' statement can only be used within a function body."),
        ("x\nconst undefined = 1", 2, 7, "`undefined` cannot be declared: it is a constant of the language"),
        ("'ä𝒳' +", 1, 8, "Unexpected token"),
        ("{ a: 1, b: }", 1, 12, "Unexpected token"),
        ("class A { @d x }", 1, 11, "Decorators of fields are not supported yet"),
        (
            "import defer * as a from 'a'",
            1,
            1,
            "Imports are not deferred here: leave out the word after `import`",
        ),
    ];
    for (source, line, column, message) in table {
        let error = cell(source).expect_err(source);
        let source_line = source.lines().nth(line as usize - 1).map(str::to_owned);
        let expected = SyntaxError { message: message.to_owned(), line, column, source_line };
        assert_eq!(error, expected, "{source}");
    }
}

#[test]
fn expressions_are_one_and_may_be_literals() {
    for source in ["1 + 1", "{ a: 1 }", "function () {}", "'text'", "await f()", "a, b", "x as T // one"] {
        let cell = expression(source).expect(source);
        assert_eq!(cell.is_async, source.starts_with("await"), "{source}");
    }
    for source in ["", "let a = 1", "a; b", "1) + (2", "if (a) b"] {
        assert!(expression(source).is_err(), "{source}");
    }
}

#[test]
fn declarations_are_told() {
    let allocator = Allocator::default();
    let source =
        "let {a, b: [c]} = d; export class A<T> { x: T }\nfunction f(y: T) { var g }\nif (a) { var h }";
    let parsed = parse::cell(&allocator, source).expect("code");
    assert_eq!(names::declared(&parsed.program), ["a", "c", "A", "f", "h"]);
}

#[test]
fn files_lose_their_types_and_nothing_else() {
    let table = [
        (
            "a.ts",
            "import { A, b, type C } from 'x'; export const d: A = b",
            "import {    b,        } from 'x'; export const d    = b",
        ),
        (
            "a.ts",
            "import { A } from 'x'; import 'y'; let a: A",
            ";                      import 'y'; let a  ;",
        ),
        ("a.js", "import { A } from 'x'; let a", "import { A } from 'x'; let a"),
    ];
    for (path, source, code) in table {
        let expected = Module { code: code.to_owned(), source_map: None };
        assert_eq!(module(source, path).as_ref(), Ok(&expected), "{source}");
    }
    let printed = module("export enum A { B }", "a.mts").expect("code");
    assert!(printed.source_map.is_some() && printed.code.starts_with("export let A = "), "{printed:?}");
    assert!(module("let a: A", "a.js").is_err());
}

#[test]
fn more_lines_are_wanted_where_they_could_help() {
    let complete =
        ["", " \n", "1", "a // b", "f(`x`)", "{ a: 1 }", "if (a) b", "let q", "await f()", "enum A {}"];
    for source in complete {
        assert_eq!(completeness(source), Completeness::Complete, "{source}");
    }
    let incomplete = [
        ("f(", "  "),
        ("{", "  "),
        ("if (a) {\n  b", "  "),
        ("if (a) {\n  b(", "    "),
        ("`a", ""),
        ("/* a", ""),
        ("a +", ""),
        ("f(a,", "  "),
        ("if (a)", ""),
        ("x =>", ""),
        ("a ? b :", ""),
        ("`${a", "  "),
        ("class A", ""),
        ("let x =", ""),
        ("try {}", ""),
        ("'a\\", ""),
        ("[1,\n", "  "),
        ("a + // b", ""),
        ("function f()", ""),
        ("a.", ""),
        ("enum A {", "  "),
        ("do x(); while", ""),
        ("async function f() {\n\tawait g(`${", "\t  "),
    ];
    for (source, indent) in incomplete {
        let expected = Completeness::Incomplete { indent: indent.to_owned() };
        assert_eq!(completeness(source), expected, "{source}");
    }
    for source in ["a b", ")", "let a; let a", "'a", "f(]", "1 = 2", "}"] {
        assert_eq!(completeness(source), Completeness::Invalid, "{source}");
    }
}

/// With a stack as a worker has it: what is not refused must fit into it.
fn on_the_stack_of_a_worker(run: impl FnOnce() + Send + 'static) {
    const BYTES: usize = 64 << 20;
    let thread = std::thread::Builder::new().stack_size(BYTES).spawn(run).expect("a thread");
    thread.join().expect("no panic");
}

#[test]
fn sources_of_any_depth_end_in_an_answer() {
    let repeated = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let parts: &[(&str, &str, &str)] = &[
        ("[", "", "]"),
        ("(", "1", ")"),
        ("{", "", "}"),
        ("f(", "", ")"),
        ("`${", "1", "}`"),
        ("a?.[", "0", "]"),
        ("!", "1", ""),
        ("- ", "1", ""),
        ("typeof ", "1", ""),
        ("a=", "1", ""),
        ("a=>", "1", ""),
        ("a?b:", "c", ""),
        ("a+", "1", ""),
        ("a.", "b", ""),
        ("", "f", "()"),
        ("new ", "f", ""),
        ("if(a)", "b", ""),
        ("if(a)b;else ", "c", ""),
        ("if(a){}else ", "c", ""),
        ("a**", "1", ""),
        ("a\n+", "1", ""),
        ("if(a)\n", "b", ""),
        ("async x=>", "1", ""),
        ("function f(){", "", "}"),
        ("class A{f(){", "", "}}"),
        ("x as A<", "B", ">"),
        ("let x: A<", "B", ">"),
        ("let x: keyof ", "B", ""),
        ("type A = ", "B", "[]"),
        ("a,", "1", ""),
        ("a||", "b", ""),
        ("do ", "a", " while(0)"),
        ("for(;;)", "a", ""),
        ("x!", "y", ""),
        ("", "x", "!"),
        ("", "x", " as T"),
        ("<a>", "", "</a>"),
        ("", "f", "`a`"),
        ("try{", "", "}catch{}"),
        ("await ", "a", ""),
        ("namespace A{", "", "}"),
        ("a\n=>", "1", ""),
        ("let [", "a", "]=1"),
    ];
    let mut sources = Vec::new();
    for (open, inner, close) in parts {
        for times in [20_000, 390] {
            sources.push(repeated(open, inner, close, times));
        }
    }
    sources.push(repeated("[", "", "]", 100_000));
    sources.push((0..20_000).map(|n| format!("l{n}:")).collect::<String>() + "1");
    on_the_stack_of_a_worker(move || {
        for source in sources {
            let _ = (cell(&source), completeness(&source), module(&source, "a.ts"));
        }
    });
}
