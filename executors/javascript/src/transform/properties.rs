//! What holds for every source, however odd.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Words and signs that make something together more often than bytes do.
const TOKENS: &[&str] = &[
    "let ",
    "const ",
    "var ",
    "a",
    "b",
    "=",
    "1",
    "'s'",
    "`t${",
    "}`",
    "`",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ";",
    "\n",
    ",",
    "=>",
    "await ",
    "async ",
    "function ",
    "class ",
    "extends ",
    "import ",
    "export ",
    "default ",
    "from ",
    "'m'",
    ": T",
    "<T>",
    " as T",
    "!",
    "?",
    ".",
    "...",
    "/",
    "/*",
    "*/",
    "//",
    "enum ",
    "namespace ",
    "type ",
    "interface ",
    "abstract ",
    "@",
    "if ",
    "else ",
    "for ",
    "of ",
    "while ",
    "do ",
    "try ",
    "catch ",
    "switch ",
    "case 1:",
    "using ",
    "static ",
    "#p",
    "get ",
    "new ",
    "yield ",
    "return ",
    "ä",
    "𝒳",
    "\u{2028}",
    "\r\n",
    "<a>",
    "</a>",
    "+",
    "++",
    "*",
    "declare ",
    "this",
    "satisfies T",
];

/// Statements that are right, each with types that can be blanked.
const TYPED: &[&str] = &[
    "let a: number = 1",
    "const b = a as any",
    "function f<T>(x?: T, ...y: T[]): T | void {}",
    "type A = { a: string }",
    "interface B extends A {\n  b: 'ä'\n}",
    "f<𝒳>(a!)",
    "var g = async <T,>(x: T): Promise<T> => x",
    "declare const c: A",
    "for (const x of [] as A[]) { x! }",
    "var h = { m(this: A): void {} }",
    "import type { D } from 'd'",
    "(a satisfies A)",
    "function f(a: A): void",
    "label: while (0) { let e: A }",
    "export type { A }",
    "/* c */ a // d",
];

fn lengths(text: &str) -> Vec<usize> {
    text.split(['\n', '\r', '\u{2028}', '\u{2029}']).map(|line| line.encode_utf16().count()).collect()
}

proptest! {
    #[test]
    fn no_source_makes_it_panic(source in vec(select(TOKENS), 0..24).prop_map(|tokens| tokens.concat())) {
        let _ = (completeness(&source), expression(&source), module(&source, "a.tsx"));
        if let Ok(cell) = cell(&source) {
            let kind = SourceType::script();
            let allocator = Allocator::default();
            let parsed = parse::parse(&allocator, &cell.code, kind);
            prop_assert!(parsed.is_ok(), "{source:?} became {:?}: {:?}", cell.code, parsed.err());
        }
    }

    #[test]
    fn no_text_makes_it_panic(source in any::<String>()) {
        let _ = (cell(&source), completeness(&source), expression(&source), module(&source, "a.ts"));
    }

    #[test]
    fn blanked_types_leave_every_position_where_it_was(statements in vec(select(TYPED), 0..6)) {
        let source = statements.join("\n");
        // Two of a name are an error of the language.
        if let Ok(module) = module(&source, "a.ts") {
            prop_assert_eq!(module.source_map, None);
            prop_assert_eq!(lengths(&module.code), lengths(&source));
            let again = super::module(&module.code, "a.ts").expect("a module");
            prop_assert_eq!(again.code, module.code);
        }
    }

    #[test]
    fn a_cell_without_types_and_declarations_is_its_own_script(numbers in vec(0..9_u8, 1..9)) {
        let source = numbers.iter().map(|number| format!("f({number});\n")).collect::<String>();
        let cell = cell(&source).expect("a cell");
        prop_assert_eq!(cell.code, source);
    }
}
