//! Running scripts and calling functions: what they come to, or why they stopped.

use deno_core::{scope, v8};

use super::Engine;
use super::origin::{origin, set_origin};
use crate::errors::Stop;
use crate::{interrupt, reactor};

impl Engine {
    /// Runs a script in the global scope, and what its promises have ready; its completion value. `name` is ASCII,
    /// and what errors call the script.
    ///
    /// # Errors
    /// Why there is no value.
    pub(crate) fn run(&mut self, name: &str, code: &str) -> Result<v8::Global<v8::Value>, Stop> {
        self.is_busy = true;
        self.entered(|scope| {
            let source = v8::String::new(scope, code)?;
            let name = v8::String::new(scope, name)?;
            let origin =
                v8::ScriptOrigin::new(scope, name.into(), 0, 0, false, 0, None, false, false, false, None);
            v8::Script::compile(scope, source, Some(&origin))?.run(scope)
        })
    }

    /// Calls a function of `js/`, named `area.name`. A promise is not waited for.
    ///
    /// # Errors
    /// Why there is no value.
    pub(crate) fn call(
        &mut self,
        function: &str,
        arguments: &[v8::Global<v8::Value>],
    ) -> Result<v8::Global<v8::Value>, Stop> {
        let function = self.internals.get(function).cloned();
        let Some(function) = function else {
            return Err(Stop::Failed(format!("the worker has no function {function:?}")));
        };
        self.is_busy = true;
        self.entered(|scope| {
            let arguments: Vec<_> = arguments.iter().map(|value| v8::Local::new(scope, value)).collect();
            let receiver = v8::undefined(scope).into();
            v8::Local::new(scope, &function).call(scope, receiver, &arguments)
        })
    }

    /// Calls a function of `js/` with text, and takes text from it.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn ask(&mut self, function: &str, arguments: &[&str]) -> Result<String, Stop> {
        let arguments: Vec<_> = arguments.iter().map(|text| self.text(text)).collect();
        let answer = self.call(function, &arguments)?;
        Ok(self.text_of(&answer))
    }

    /// Runs `work`, then the promises that are ready; all of it belongs to the current execution.
    fn entered(
        &mut self,
        work: impl for<'s, 'i> FnOnce(&mut v8::PinScope<'s, 'i>) -> Option<v8::Local<'s, v8::Value>>,
    ) -> Result<v8::Global<v8::Value>, Stop> {
        let execution = self.current;
        let outcome = reactor::run(|| {
            scope!(scope, self.runtime);
            v8::tc_scope!(let scope, scope);
            set_origin(scope, execution);
            let value = work(scope).map(|value| v8::Global::new(scope, value));
            let exception = scope.exception().map(|exception| v8::Global::new(scope, exception));
            scope.reset();
            // While code is being stopped, its promises are stopped as well.
            scope.perform_microtask_checkpoint();
            value.ok_or(exception)
        });
        self.stopped()?;
        outcome.map_err(|exception| match exception {
            Some(exception) => Stop::Thrown(exception),
            None => Stop::Failed("the engine could not run the code, and did not say why".to_owned()),
        })
    }

    /// Whether code was stopped from outside. From here on it can run again.
    ///
    /// # Errors
    /// Why it was.
    pub(super) fn stopped(&mut self) -> Result<(), Stop> {
        // In this order: whoever sets the flags sets them before it stops the code.
        let is_terminated = self.runtime.v8_isolate().is_execution_terminating();
        let is_late = super::watchdog::take();
        if interrupt::take() {
            self.mend();
            return Err(Stop::Interrupted);
        }
        if !is_terminated {
            return Ok(());
        }
        interrupt::resume();
        self.stopped_in = {
            scope!(scope, self.runtime);
            origin(scope)
        };
        self.mend();
        if is_late {
            return Err(Stop::Overdue);
        }
        self.heap.recover(&mut self.runtime);
        Err(Stop::OutOfMemory)
    }

    /// What was stopped in the middle of a timer has left the list of timers without a next one.
    fn mend(&mut self) {
        let Some(function) = self.internals.get("errors.wake").cloned() else { return };
        let _entered = reactor::enter();
        scope!(scope, self.runtime);
        v8::tc_scope!(let scope, scope);
        let receiver = v8::undefined(scope).into();
        let _ = v8::Local::new(scope, &function).call(scope, receiver, &[]);
    }
}
