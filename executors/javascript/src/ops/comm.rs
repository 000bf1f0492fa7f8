//! Comm messages, both ways.

use std::cell::RefCell;

use bytes::Bytes;
use cob_protocol::frame::{Comm, CommAction};
use cob_protocol::json::Json;
use deno_core::{op2, v8};
use deno_error::JsErrorBox;

use super::{add, bytes_of, json, origin, send};

thread_local! {
    static ARRIVED: RefCell<Vec<Bytes>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the buffers of the message that is about to be handed to its handler.
pub(crate) fn set_buffers(buffers: &[Bytes]) {
    ARRIVED.set(buffers.to_vec());
}

/// What the action is called.
pub(crate) fn name(action: CommAction) -> &'static str {
    match action {
        CommAction::Open => "open",
        CommAction::Msg => "msg",
        CommAction::Close => "close",
    }
}

/// The buffers of the message that is handed over, as an array of `Uint8Array`.
#[op2]
pub(super) fn op_cob_comm_buffers<'s>(scope: &mut v8::PinScope<'s, '_>) -> v8::Local<'s, v8::Array> {
    let buffers = ARRIVED.take();
    let array = v8::Array::new(scope, 0);
    for (at, bytes) in (0..).zip(buffers) {
        let length = bytes.len();
        let store = v8::ArrayBuffer::new_backing_store_from_vec(bytes.into()).make_shared();
        let buffer = v8::ArrayBuffer::with_backing_store(scope, &store);
        if let Some(view) = v8::Uint8Array::new(scope, buffer, 0, length) {
            array.set_index(scope, at, view.into());
        }
    }
    array
}

/// Sends a message to the front end.
#[op2(fast)]
pub(super) fn op_cob_comm(
    scope: &mut v8::PinScope<'_, '_>,
    #[string] action: &str,
    #[string] comm_id: String,
    #[string] target: String,
    #[string] data: String,
    #[string] metadata: String,
    buffers: v8::Local<'_, v8::Array>,
) -> Result<bool, JsErrorBox> {
    let action = match action {
        "open" => CommAction::Open,
        "close" => CommAction::Close,
        _ => CommAction::Msg,
    };
    let comm = Comm {
        action,
        execution: origin(scope),
        comm_id,
        target_name: (!target.is_empty()).then_some(target),
        target_module: None,
        data: json(data)?,
        metadata: json(metadata)?,
        parent: Json::object(),
        at: Default::default(),
    };
    let mut payloads = Vec::new();
    for at in 0..buffers.length() {
        if let Some(payload) = buffers.get_index(scope, at).and_then(bytes_of) {
            add(&mut payloads, payload)?;
        }
    }
    send(comm, &payloads)
}
