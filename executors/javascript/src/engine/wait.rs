//! Waiting: for promises, and for the host while timers and promises go on.

use std::future::poll_fn;
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use deno_core::{JsRuntime, PollEventLoopOptions, scope, v8};

use super::{Engine, uncaught, watchdog};
use crate::errors::Stop;
use crate::reactor;

/// What a wait has come to.
enum Turned {
    Settled,
    /// Nothing is pending any more.
    Over,
    /// Something is to be told before the wait goes on.
    Told,
    /// The host has something to say.
    Readable,
}

impl Engine {
    /// The value that `value` comes to, if it is a promise; other code goes on meanwhile.
    ///
    /// # Errors
    /// Why there is no value.
    pub(crate) fn settled(&mut self, value: v8::Global<v8::Value>) -> Result<v8::Global<v8::Value>, Stop> {
        let Some(promise) = self.as_promise(&value) else { return Ok(value) };
        // Whoever waits for it takes its error.
        uncaught::forget(&promise);
        self.is_busy = true;
        loop {
            if let Some(outcome) = self.outcome(&promise) {
                return outcome;
            }
            match self.wait(&promise)? {
                Turned::Over if self.outcome(&promise).is_none() => return Err(Stop::NeverSettles),
                Turned::Told => self.tell_elsewhere(),
                _ => {}
            }
        }
    }

    fn wait(&mut self, promise: &v8::Global<v8::Promise>) -> Result<Turned, Stop> {
        let waited = reactor::block_on(poll_fn(|cx| {
            let polled = poll(&mut self.runtime, cx);
            if self.runtime.v8_isolate().is_execution_terminating() {
                return Poll::Ready(Turned::Over);
            }
            if is_settled(&mut self.runtime, promise) {
                return Poll::Ready(Turned::Settled);
            }
            if self.has_uncaught_elsewhere() {
                return Poll::Ready(Turned::Told);
            }
            polled.map(|()| Turned::Over)
        }));
        self.stopped()?;
        // Told to stop, and that was seen to meanwhile: nothing else is left of it.
        waited.map_err(Stop::from)
    }

    /// Goes once through all that is due, without waiting.
    ///
    /// # Errors
    /// When the code was stopped.
    pub(crate) fn turn(&mut self) -> Result<(), Stop> {
        if !self.is_busy {
            return Ok(());
        }
        let _entered = reactor::enter();
        let mut cx = Context::from_waker(Waker::noop());
        self.is_busy = poll(&mut self.runtime, &mut cx).is_pending();
        self.stopped()?;
        self.tell_elsewhere();
        Ok(())
    }

    /// Keeps timers and promises going until `socket` can be read, or something was told. `None` when there is
    /// nothing to keep going, and nobody has waited.
    ///
    /// # Errors
    /// When code of the background was stopped; the wait may not be over.
    pub(crate) fn idle(&mut self, socket: BorrowedFd<'_>) -> Option<Result<(), Stop>> {
        if !self.is_busy {
            return None;
        }
        let waited = reactor::block_on(async {
            let mut readable = pin!(reactor::readable(socket));
            poll_fn(|cx| {
                // One turn in any case: a host that always has something to say does not hold up what is due.
                let polled = watchdog::watch(|| poll(&mut self.runtime, cx));
                if self.runtime.v8_isolate().is_execution_terminating() || self.has_uncaught_elsewhere() {
                    return Poll::Ready(Turned::Told);
                }
                // And not a second one before it is heard: the event loop looks at the socket only when it waits.
                if reactor::is_readable(socket) || readable.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Turned::Readable);
                }
                polled.map(|()| Turned::Over)
            })
            .await
        });
        self.is_busy = !matches!(waited, Ok(Turned::Over));
        let stopped = self.stopped();
        self.tell_elsewhere();
        Some(stopped)
    }

    fn as_promise(&mut self, value: &v8::Global<v8::Value>) -> Option<v8::Global<v8::Promise>> {
        scope!(scope, self.runtime);
        let promise = v8::Local::<v8::Promise>::try_from(v8::Local::new(scope, value)).ok()?;
        promise.mark_as_handled();
        Some(v8::Global::new(scope, promise))
    }

    /// What a promise has come to, if it has.
    fn outcome(&mut self, promise: &v8::Global<v8::Promise>) -> Option<Result<v8::Global<v8::Value>, Stop>> {
        scope!(scope, self.runtime);
        let promise = v8::Local::new(scope, promise);
        match promise.state() {
            v8::PromiseState::Pending => None,
            state => {
                let result = promise.result(scope);
                let result = v8::Global::new(scope, result);
                let is_kept = state == v8::PromiseState::Fulfilled;
                Some(if is_kept { Ok(result) } else { Err(Stop::Thrown(result)) })
            }
        }
    }
}

/// One turn of the event loop; ready: nothing is pending any more. What nobody caught is [noted](super::note), and
/// the runtime's own errors are those of code that was stopped.
fn poll(runtime: &mut JsRuntime, cx: &mut Context<'_>) -> Poll<()> {
    runtime.poll_event_loop(cx, PollEventLoopOptions::default()).map(drop)
}

fn is_settled(runtime: &mut JsRuntime, promise: &v8::Global<v8::Promise>) -> bool {
    scope!(scope, runtime);
    v8::Local::new(scope, promise).state() != v8::PromiseState::Pending
}
