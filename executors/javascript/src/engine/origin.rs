//! Which execution code belongs to, wherever it runs on: what timers and promises do later is still of their cell.
//!
//! The number travels as the runtime's async context, so promises, timers and `await` carry it along by themselves.

use cob_protocol::frame::ExecutionNumber;
use deno_core::v8;

/// The execution that the running code belongs to; 0 if nobody knows.
pub(crate) fn origin(scope: &mut v8::PinScope<'_, '_>) -> ExecutionNumber {
    let carried = scope.get_continuation_preserved_embedder_data();
    v8::Local::<v8::Number>::try_from(carried).map_or(0, |number| number.value() as ExecutionNumber)
}

/// From now on what runs belongs to `execution`.
pub(crate) fn set_origin(scope: &mut v8::PinScope<'_, '_>, execution: ExecutionNumber) {
    let carried = v8::Number::new(scope, execution as f64);
    scope.set_continuation_preserved_embedder_data(carried.into());
}
