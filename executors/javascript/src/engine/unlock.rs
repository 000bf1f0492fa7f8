//! Keeps promises that make promises from running past every stop.
//!
//! QuickJS looks at the flag once in so many calls. Where a job of one promise only queues the next, each round has the
//! same number of calls, so every look may meet the same place: one where a failure ends nothing. So while code is being
//! stopped, each look is followed by a few calls more, never the same number, and the next one comes elsewhere.
#![allow(unsafe_code)]

use std::ffi::c_void;

use deno_core::{JsRuntime, scope, v8};

struct Shift {
    isolate: v8::IsolateHandle,
    context: v8::Global<v8::Context>,
    /// Does nothing; to call it is what counts.
    call: v8::Global<v8::Function>,
    round: u32,
}

/// Begins to follow every look. Lasts as long as the process.
pub(super) fn set_up(runtime: &mut JsRuntime) {
    let nothing = runtime.execute_script("cob:unlock", "(() => {})").expect("a function of ours");
    let isolate = runtime.v8_isolate().thread_safe_handle();
    scope!(scope, runtime);
    let context = scope.get_current_context();
    let context = v8::Global::new(scope, context);
    let nothing = v8::Local::new(scope, nothing);
    let call = v8::Local::<v8::Function>::try_from(nothing).expect("a function");
    let call = v8::Global::new(scope, call);
    let shift = Box::leak(Box::new(Shift { isolate: isolate.clone(), context, call, round: 0 }));
    isolate.request_interrupt(follow, std::ptr::from_mut(shift).cast());
}

unsafe extern "C" fn follow(isolate: v8::UnsafeRawIsolatePtr, shift: *mut c_void) {
    // SAFETY: leaked by `set_up`; a look within a look is not followed, since this one asks for the next only at its end.
    let state = unsafe { &mut *shift.cast::<Shift>() };
    if state.isolate.is_execution_terminating() {
        state.round = state.round % 97 + 1;
        state.isolate.cancel_terminate_execution();
        // SAFETY: the isolate whose code has just come here.
        let mut isolate = unsafe { v8::Isolate::from_raw_isolate_ptr(isolate) };
        v8::scope!(let scope, &mut isolate);
        let context = v8::Local::new(scope, &state.context);
        let scope = &mut v8::ContextScope::new(scope, context);
        let call = v8::Local::new(scope, &state.call);
        let receiver = v8::undefined(scope).into();
        for _ in 0..state.round {
            let _ = call.call(scope, receiver, &[]);
        }
        state.isolate.terminate_execution();
    }
    state.isolate.request_interrupt(follow, shift);
}
