//! Sending what is to be shown.

use bytes::Bytes;
use cob_protocol::frame::{ClearOutput, Display, Frame, Mime, MimeEncoding, ResultValue, UpdateDisplay};
use cob_protocol::json::Json;
use deno_core::{op2, v8};
use deno_error::JsErrorBox;

use super::{add, bytes_of, json, origin, send};
use crate::engine::well_formed;
use crate::engine::with_text;

/// Shows the value of a cell. `parts` are MIME type, encoding (`t`ext, `j`son or `b`inary) and payload, one after the other.
#[op2(fast)]
pub(super) fn op_cob_result(
    scope: &mut v8::PinScope<'_, '_>,
    count: u32,
    parts: v8::Local<'_, v8::Array>,
    #[string] metadata: String,
) -> Result<bool, JsErrorBox> {
    let (display, payloads) = bundle(scope, parts, metadata, Json::object())?;
    send(ResultValue { count, display }, &payloads)
}

/// Shows a bundle, or puts it where the one with the same id was.
#[op2(fast)]
pub(super) fn op_cob_display(
    scope: &mut v8::PinScope<'_, '_>,
    parts: v8::Local<'_, v8::Array>,
    #[string] metadata: String,
    #[string] id: &str,
    is_update: bool,
) -> Result<bool, JsErrorBox> {
    let transient = Json::of(&serde_json::json!({ "display_id": id }))
        .map_err(|error| JsErrorBox::type_error(error.to_string()))?;
    let (display, payloads) = bundle(scope, parts, metadata, transient)?;
    let frame =
        if is_update { Frame::UpdateDisplay(UpdateDisplay(display)) } else { Frame::Display(display) };
    send(frame, &payloads)
}

/// Removes what was shown so far, or when the next output comes.
#[op2(fast)]
pub(super) fn op_cob_clear_output(scope: &mut v8::PinScope<'_, '_>, wait: bool) -> Result<bool, JsErrorBox> {
    send(ClearOutput { execution: origin(scope), wait, at: Default::default() }, &[])
}

fn bundle(
    scope: &mut v8::PinScope<'_, '_>,
    parts: v8::Local<'_, v8::Array>,
    metadata: String,
    transient: Json,
) -> Result<(Display, Vec<Bytes>), JsErrorBox> {
    let mut data = Vec::new();
    let mut payloads = Vec::new();
    for at in (0..parts.length()).step_by(3) {
        let part = |offset| parts.get_index(scope, at + offset);
        let (Some(mime), Some(encoding), Some(payload)) = (part(0), part(1), part(2)) else { break };
        let mime = well_formed(mime.to_rust_string_lossy(scope));
        let (encoding, payload) = match encoding.to_rust_string_lossy(scope).as_str() {
            "b" => (MimeEncoding::Binary, bytes_of(payload).unwrap_or_default()),
            "j" => (MimeEncoding::Json, json(text(scope, payload))?.into_bytes()),
            _ => (MimeEncoding::Text, text(scope, payload).into()),
        };
        data.push(Mime { mime, encoding });
        add(&mut payloads, payload)?;
    }
    let display = Display {
        execution: origin(scope),
        data,
        metadata: json(metadata)?,
        transient,
        at: Default::default(),
    };
    Ok((display, payloads))
}

/// Empty with an exception thrown where there is no memory for it.
fn text(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<'_, v8::Value>) -> String {
    let string = v8::Local::<v8::String>::try_from(value).ok();
    string.and_then(|string| with_text(scope, string, str::to_owned)).unwrap_or_default()
}
