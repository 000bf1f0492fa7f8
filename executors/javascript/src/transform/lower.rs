//! TypeScript and JSX that are more than types: printed anew as JavaScript, with the places they came from.

use std::path::{Path, PathBuf};

use oxc::allocator::Allocator;
use oxc::codegen::{Codegen, CodegenOptions};
use oxc::transformer::{
    DecoratorOptions, HelperLoaderMode, HelperLoaderOptions, JsxOptions, JsxRuntime, TransformOptions,
    Transformer, TypeScriptOptions,
};

use super::origin::{Origin, Place};
use super::parse::{Parsed, Wrong};

/// What the printed code calls for decorators, as a global object that does not exist: see [`super::decorators`].
pub(super) const HELPERS: &str = "babelHelpers";

/// Prints a program as JavaScript. `keep_imports`: also those that nothing uses yet.
pub(super) fn lower<'a>(
    allocator: &'a Allocator,
    parsed: Parsed<'a>,
    origin: &Origin,
    keep_imports: bool,
) -> Result<(String, Origin), Wrong> {
    let Parsed { mut program, scoping } = parsed;
    let options = TransformOptions {
        typescript: TypeScriptOptions {
            only_remove_type_imports: keep_imports,
            ..TypeScriptOptions::default()
        },
        decorator: DecoratorOptions { legacy: true, ..DecoratorOptions::default() },
        jsx: JsxOptions { runtime: JsxRuntime::Classic, ..JsxOptions::default() },
        helper_loader: HelperLoaderOptions {
            mode: HelperLoaderMode::External,
            ..HelperLoaderOptions::default()
        },
        ..TransformOptions::default()
    };
    let path = Path::new("cell.tsx");
    let returned = Transformer::new(allocator, path, &options).build_with_scoping(scoping, &mut program);
    if let Some(diagnostic) = returned.diagnostics.iter().next() {
        let offset = diagnostic.labels.iter().map(|label| label.offset()).next().unwrap_or(0) as usize;
        return Err(Wrong { message: diagnostic.message.to_string(), offset });
    }
    let options =
        CodegenOptions { source_map_path: Some(PathBuf::from("cell")), ..CodegenOptions::default() };
    let printed = Codegen::new().with_options(options).with_scoping(Some(returned.scoping)).build(&program);
    let mut pairs: Vec<(Place, Place)> = Vec::new();
    if let Some(map) = &printed.map {
        for token in map.get_tokens() {
            let code = Place { line: token.get_dst_line(), column: token.get_dst_col() };
            let text = Place { line: token.get_src_line(), column: token.get_src_col() };
            pairs.extend(origin.of(text).map(|source| (code, source)));
        }
    }
    pairs.sort_by_key(|(code, _)| *code);
    let code = printed.code;
    Ok((code, Origin::Printed(pairs)))
}
