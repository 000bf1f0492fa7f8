//! Errors that nobody caught, by the execution that they come from: rejected promises, exceptions of timers.
//!
//! A promise that somebody handles later is taken off again, as long as it was not told.

use std::cell::RefCell;
use std::collections::VecDeque;

use cob_protocol::frame::ExecutionNumber;
use cob_protocol::limits::UNCAUGHT_ERRORS_MAX;
use deno_core::v8;

use super::{Engine, origin};

thread_local! {
    static WAITING: RefCell<VecDeque<Uncaught>> = const { RefCell::new(VecDeque::new()) };
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Uncaught {
    /// The execution that it belongs to; 0 if nobody knows.
    pub(crate) origin: ExecutionNumber,
    /// What was rejected, if it is a promise.
    pub(crate) promise: Option<v8::Global<v8::Promise>>,
    pub(crate) error: v8::Global<v8::Value>,
}

/// Remembers an exception that the running code did not catch. Of too many the oldest are forgotten.
pub(crate) fn note(
    scope: &mut v8::PinScope<'_, '_>,
    promise: Option<v8::Local<'_, v8::Promise>>,
    error: v8::Local<'_, v8::Value>,
) {
    if scope.is_execution_terminating() {
        // Nothing that the code has done: it is being stopped.
        return;
    }
    let origin = origin(scope);
    let promise = promise.map(|promise| v8::Global::new(scope, promise));
    let error = v8::Global::new(scope, error);
    WAITING.with_borrow_mut(|waiting| {
        if waiting.len() >= UNCAUGHT_ERRORS_MAX {
            waiting.pop_front();
        }
        waiting.push_back(Uncaught { origin, promise, error });
    });
}

/// The engine's word of a promise that was rejected, or is handled after all.
#[allow(unsafe_code, reason = "a callback of the engine")]
pub(super) extern "C" fn on_rejection(message: v8::PromiseRejectMessage<'_>) {
    // SAFETY: the message is valid while the callback runs.
    v8::callback_scope!(unsafe scope, &message);
    let promise = message.get_promise();
    match message.get_event() {
        v8::PromiseRejectEvent::PromiseRejectWithNoHandler => {
            let reason = message.get_value().unwrap_or_else(|| v8::undefined(scope).into());
            note(scope, Some(promise), reason);
        }
        v8::PromiseRejectEvent::PromiseHandlerAddedAfterReject => {
            let promise = v8::Global::new(scope, promise);
            forget(&promise);
        }
        _ => {}
    }
}

/// Somebody sees to that promise.
pub(super) fn forget(promise: &v8::Global<v8::Promise>) {
    WAITING.with_borrow_mut(|waiting| waiting.retain(|error| error.promise.as_ref() != Some(promise)));
}

impl Engine {
    /// Errors that nobody caught, and that belong to `execution`; of an unknown origin they belong to it too.
    pub(crate) fn uncaught_of(&mut self, execution: ExecutionNumber) -> Vec<Uncaught> {
        take(|origin| origin == execution || origin == 0)
    }

    /// The others.
    pub(crate) fn uncaught_elsewhere(&mut self) -> Vec<Uncaught> {
        let current = self.current;
        take(|origin| current == 0 || (origin != current && origin != 0))
    }

    /// Whether there are [others](Engine::uncaught_elsewhere).
    pub(super) fn has_uncaught_elsewhere(&self) -> bool {
        let current = self.current;
        WAITING.with_borrow(|waiting| {
            waiting.iter().any(|error| current == 0 || (error.origin != current && error.origin != 0))
        })
    }
}

fn take(is_meant: impl Fn(ExecutionNumber) -> bool) -> Vec<Uncaught> {
    WAITING.with_borrow_mut(|waiting| {
        if waiting.is_empty() {
            return Vec::new();
        }
        let (taken, left) = waiting.drain(..).partition(|error| is_meant(error.origin));
        *waiting = left;
        Vec::from(taken)
    })
}
