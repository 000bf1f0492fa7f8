//! What a value is, as the engine knows it: no code of the user's can answer for it.

use deno_core::{op2, v8};

#[op2(fast)]
pub(super) fn op_cob_is_proxy(value: &v8::Value) -> bool {
    value.is_proxy()
}

#[op2(fast)]
pub(super) fn op_cob_is_error(value: &v8::Value) -> bool {
    value.is_native_error()
}
