//! Writing and reading the blobs of durable checkpoints; refused but for the time of a save or a load.

use deno_core::{op2, v8};
use deno_error::JsErrorBox;

use crate::bundle::pen;
use crate::engine::with_text;

/// Writes a text as a blob; its number.
#[op2(nofast)]
pub(super) fn op_cob_bundle_text(
    scope: &mut v8::PinScope<'_, '_>,
    text: v8::Local<'_, v8::String>,
) -> Result<u32, JsErrorBox> {
    let written = with_text(scope, text, |text| pen::write(&[text.as_bytes()]));
    written.transpose().map(Option::unwrap_or_default).map_err(|error| JsErrorBox::generic(error.to_string()))
}

/// Writes bytes as a blob; its number.
#[op2(fast)]
pub(super) fn op_cob_bundle_bytes(#[buffer] bytes: &[u8]) -> Result<u32, JsErrorBox> {
    pen::write(&[bytes]).map_err(|error| JsErrorBox::generic(error.to_string()))
}

/// The next blob; nothing behind the last one.
#[op2]
#[buffer]
pub(super) fn op_cob_bundle_next() -> Result<Option<Vec<u8>>, JsErrorBox> {
    pen::read().map_err(|error| JsErrorBox::generic(error.to_string()))
}

/// The next blob as a text.
#[op2]
#[string]
pub(super) fn op_cob_bundle_next_text() -> Result<Option<String>, JsErrorBox> {
    let blob = pen::read().map_err(|error| JsErrorBox::generic(error.to_string()))?;
    let text = blob.map(String::from_utf8).transpose();
    text.map_err(|error| JsErrorBox::generic(error.to_string()))
}
