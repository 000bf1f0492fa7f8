//! Writing to the pipes.

use cob_protocol::frame::StreamName;
use cob_worker::output::write_plainly;
use deno_core::{op2, v8};
use deno_error::JsErrorBox;

use super::{origin, settled};
use crate::engine::with_text;
use crate::here::Here;
use crate::worker::worker;

/// Writes text to stdout, or to stderr. Whether the code was told to stop meanwhile.
// With QuickJS a call that could be a fast one is slower: it looks first whether a test of the engine wants it to be.
#[op2(nofast)]
pub(super) fn op_cob_print(
    scope: &mut v8::PinScope<'_, '_>,
    text: v8::Local<'_, v8::String>,
    is_error: bool,
) -> Result<bool, JsErrorBox> {
    let stream = if is_error { StreamName::Stderr } else { StreamName::Stdout };
    let origin = origin(scope);
    let written = with_text(scope, text, |text| match worker() {
        Some(worker) => settled(worker.print(&Here, stream, origin, text)),
        None => {
            write_plainly(stream, text);
            Ok(false)
        }
    });
    written.unwrap_or(Ok(false))
}
