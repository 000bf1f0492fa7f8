//! What scripts can ask of the process: the table of our ops, and in [`allowed`] that of all others.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "made by the macros of deno_core"
)]

mod allowed;
mod bundle;
pub(crate) mod call;
pub(crate) mod comm;
mod display;
mod files;
mod looking;
pub(crate) mod machine;
mod print;
mod uncaught;

use bytes::Bytes;
use cob_protocol::frame::{ExecutionNumber, Frame};
use cob_protocol::json::Json;
use cob_protocol::limits::{FRAME_PAYLOADS_MAX, MIB, REQUEST_FRAME_BYTES_MAX};
use cob_worker::{SendError, Worker};
use deno_core::{Extension, v8};
use deno_error::JsErrorBox;

use crate::here::{Here, Interrupted};
use crate::worker::worker;
use crate::{engine, interrupt};

deno_core::extension!(
    cob_ops,
    deps = [cob],
    ops = [
        bundle::op_cob_bundle_bytes,
        bundle::op_cob_bundle_next,
        bundle::op_cob_bundle_next_text,
        bundle::op_cob_bundle_text,
        call::op_cob_call,
        call::op_cob_can_ask,
        comm::op_cob_comm,
        comm::op_cob_comm_buffers,
        display::op_cob_clear_output,
        display::op_cob_display,
        display::op_cob_result,
        looking::op_cob_is_error,
        looking::op_cob_is_proxy,
        files::op_cob_cwd,
        files::op_cob_env,
        files::op_cob_read,
        files::op_cob_read_dir,
        files::op_cob_read_text,
        files::op_cob_write,
        files::op_cob_write_text,
        machine::op_cob_args,
        machine::op_cob_processors,
        machine::op_cob_random,
        machine::op_cob_user_agent,
        machine::op_cob_uuid,
        print::op_cob_print,
        uncaught::op_cob_origin,
        uncaught::op_cob_uncaught,
    ],
    middleware = allowed::only_allowed,
);

/// Whether an op is one of the table above: they are named so, and nobody else's are.
fn is_ours(op: &str) -> bool {
    op.starts_with("op_cob_")
}

/// The extension that brings the ops; it comes after those of the snapshot.
pub(crate) fn extension() -> Extension {
    cob_ops::init()
}

/// The execution that the calling code belongs to, or else the one that runs.
fn origin(scope: &mut v8::PinScope<'_, '_>) -> ExecutionNumber {
    match engine::origin(scope) {
        0 => worker().map_or(0, Worker::running),
        execution => execution,
    }
}

/// Sends a frame of the calling code; nothing happens where there is no worker. See [`settled`].
fn send(frame: impl Into<Frame>, payloads: &[Bytes]) -> Result<bool, JsErrorBox> {
    worker().map_or(Ok(false), |worker| settled(worker.send(&Here, frame, payloads)))
}

/// Whether the code was told to stop meanwhile. It is told so again, and the script has to [obey](../../js/stop.js): an
/// error could be caught.
fn settled(outcome: Result<(), SendError<Interrupted>>) -> Result<bool, JsErrorBox> {
    match outcome {
        Ok(()) => Ok(false),
        Err(SendError::Interrupted(_)) => {
            interrupt::deliver();
            Ok(true)
        }
        Err(error) => Err(JsErrorBox::generic(error.to_string())),
    }
}

fn json(text: String) -> Result<Json, JsErrorBox> {
    Json::parse(text).map_err(|error| JsErrorBox::type_error(format!("not JSON: {error}")))
}

/// Puts a payload beside those that go along with one frame. They are no part of the heap, so its limit does not hold here.
fn add(payloads: &mut Vec<Bytes>, payload: Bytes) -> Result<(), JsErrorBox> {
    let bytes = payload.len() + payloads.iter().map(Bytes::len).sum::<usize>();
    if payloads.len() >= FRAME_PAYLOADS_MAX || bytes > REQUEST_FRAME_BYTES_MAX {
        return Err(JsErrorBox::range_error(format!(
            "what is sent at once has at most {FRAME_PAYLOADS_MAX} parts, and {} MiB in all: send it in pieces",
            REQUEST_FRAME_BYTES_MAX / MIB
        )));
    }
    payloads.push(payload);
    Ok(())
}

/// A copy of what a view shows; of none if it is no view.
fn bytes_of(value: v8::Local<'_, v8::Value>) -> Option<Bytes> {
    let view = v8::Local::<v8::ArrayBufferView>::try_from(value).ok()?;
    let mut bytes = vec![0; view.byte_length()];
    let copied = view.copy_contents(&mut bytes);
    bytes.truncate(copied);
    Some(bytes.into())
}
