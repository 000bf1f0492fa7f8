//! The text of `error.stack`.

use deno_core::error::prepare_stack_trace_callback;
use deno_core::v8;

use super::well_formed;
use crate::errors::sources::told_stack;

/// As `deno_core` makes it, source maps included, with cells named as people know them.
pub(super) fn prepare<'s, 'i>(
    scope: &mut v8::PinScope<'s, 'i>,
    error: v8::Local<'s, v8::Value>,
    sites: v8::Local<'s, v8::Array>,
) -> v8::Local<'s, v8::Value> {
    let made = prepare_stack_trace_callback(scope, error, sites);
    if !made.is_string() {
        return made;
    }
    let told = told_stack(&well_formed(made.to_rust_string_lossy(scope)));
    told.and_then(|told| v8::String::new(scope, &told)).map_or(made, Into::into)
}
