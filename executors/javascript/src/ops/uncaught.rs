//! What scripts say of errors that nobody caught.

use deno_core::{op2, v8};

use crate::engine::{note, origin};

/// An exception that left a timer or a microtask; it belongs to the execution that the running code belongs to.
#[op2(fast)]
pub(super) fn op_cob_uncaught(scope: &mut v8::PinScope<'_, '_>, error: v8::Local<'_, v8::Value>) {
    note(scope, None, error);
}

/// The execution that the running code belongs to; 0 if nobody knows.
#[op2(fast)]
pub(super) fn op_cob_origin(scope: &mut v8::PinScope<'_, '_>) -> f64 {
    origin(scope) as f64
}
