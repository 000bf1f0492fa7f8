//! The one runtime of a session: runs scripts, calls the functions of `js/`, and keeps its event loop going.

mod heap;
mod internals;
mod origin;
#[cfg(feature = "quickjs")]
mod raw;
mod run;
mod stack;
mod uncaught;
#[cfg(feature = "quickjs")]
mod unlock;
mod wait;
pub(crate) mod watchdog;

use std::collections::HashMap;
use std::rc::Rc;

use cob_protocol::frame::ExecutionNumber;
use deno_core::stats::{RuntimeActivity, RuntimeActivityStatsFilter};
use deno_core::{JsRuntime, RuntimeOptions, scope, v8};

pub(crate) use origin::origin;
#[cfg(feature = "quickjs")]
pub(crate) use raw::{version, with_text};
pub(crate) use uncaught::{Uncaught, note};

use crate::errors::Stop;
use crate::errors::sources::Sources;
use crate::modules::Modules;
use crate::{boot, interrupt, ops, reactor};

#[cfg(feature = "quickjs")]
pub(crate) static SNAPSHOT: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/snapshot.bin")));
#[cfg(not(feature = "quickjs"))]
pub(crate) static SNAPSHOT: Option<&[u8]> = None;

/// What runs the code.
pub(crate) const NAME: &str = if cfg!(feature = "quickjs") { "QuickJS-NG" } else { "V8" };

/// The version of what runs the code.
#[cfg(not(feature = "quickjs"))]
pub(crate) fn version() -> String {
    v8::V8::get_version().to_owned()
}

/// Hands over the text of a string.
#[cfg(not(feature = "quickjs"))]
pub(crate) fn with_text<T>(
    scope: &mut v8::PinScope<'_, '_>,
    string: v8::Local<'_, v8::String>,
    take: impl FnOnce(&str) -> T,
) -> Option<T> {
    Some(take(&string.to_rust_string_lossy(scope)))
}

/// See the module.
pub(crate) struct Engine {
    runtime: JsRuntime,
    /// The functions of `js/`, by `area.name`.
    internals: HashMap<String, v8::Global<v8::Function>>,
    pub(crate) modules: Rc<Modules>,
    /// What recent cells were, for whoever tells where an error came from.
    pub(crate) sources: Sources,
    /// Timers or promises may be pending.
    is_busy: bool,
    /// The execution whose code is called from here; 0: none.
    current: ExecutionNumber,
    /// The last one that was.
    last: ExecutionNumber,
    /// The execution that the code belonged to which was stopped last; 0 if nobody knows.
    stopped_in: ExecutionNumber,
    heap: heap::Limit,
}

/// How much goes on by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) timers: usize,
    /// Asynchronous ones, of the runtime.
    pub(crate) operations: usize,
}

impl Engine {
    /// A runtime with nothing of a session in it.
    pub(crate) fn new() -> Self {
        reactor::set_up().expect("an event loop");
        let _entered = reactor::enter();
        let mut extensions = boot::extensions();
        extensions.push(ops::extension());
        let modules = Rc::new(Modules::default());
        let heap = heap::Limit::default();
        let mut runtime = JsRuntime::new(RuntimeOptions {
            extensions,
            module_loader: Some(Rc::clone(&modules) as Rc<_>),
            startup_snapshot: SNAPSHOT,
            create_params: Some(v8::CreateParams::default().heap_limits(0, heap.bytes())),
            ..RuntimeOptions::default()
        });
        interrupt::set_up(runtime.v8_isolate());
        runtime.v8_isolate().set_promise_reject_callback(uncaught::on_rejection);
        runtime.v8_isolate().set_prepare_stack_trace_callback(stack::prepare);
        let internals = internals::take(&mut runtime);
        #[cfg(feature = "quickjs")]
        unlock::set_up(&mut runtime);
        let sources = Sources::default();
        let mut engine = Self {
            runtime,
            internals,
            modules,
            sources,
            is_busy: false,
            current: 0,
            last: 0,
            stopped_in: 0,
            heap,
        };
        for function in ["globals.start", "host.start"] {
            engine.call(function, &[]).expect("the global scope is set up");
        }
        engine
    }

    /// From now on what is run here belongs to `execution`; 0: to none.
    pub(crate) fn belongs_to(&mut self, execution: ExecutionNumber) {
        self.current = execution;
        self.last = self.last.max(execution);
    }

    /// What the heap may hold is set by what the process may.
    pub(crate) fn limit_heap(&mut self) {
        self.heap = heap::Limit::of_process();
        self.heap.apply(&mut self.runtime);
    }

    /// Remembers the text of a script, for whoever looks where an error or a function came from.
    pub(crate) fn keep_source(&mut self, name: &str, text: &str) {
        for forgotten in self.sources.keep(name, text) {
            self.modules.forget_map(&forgotten);
        }
    }

    /// What the heap may hold, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.heap.bytes()
    }

    /// A session begins, and with it its clock: `performance.now()` counts from here.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn begin(&mut self) -> Result<(), Stop> {
        self.runtime.op_state().borrow_mut().put(deno_web::StartTime::default());
        self.call("globals.begin", &[])?;
        self.ask("introspect.begin", &[]).map(drop)
    }

    /// What goes on by itself.
    pub(crate) fn pending(&self) -> Pending {
        let everything = RuntimeActivityStatsFilter::all();
        let active = self.runtime.runtime_activity_stats_factory().capture(&everything).dump().active;
        let count = |is: fn(&RuntimeActivity) -> bool| active.iter().filter(|activity| is(activity)).count();
        Pending {
            timers: count(|activity| {
                matches!(activity, RuntimeActivity::Timer(..) | RuntimeActivity::Interval(..))
            }),
            operations: count(|activity| matches!(activity, RuntimeActivity::AsyncOp(..))),
        }
    }

    /// Frees what nobody can reach any more.
    pub(crate) fn collect(&mut self) {
        self.runtime.v8_isolate().low_memory_notification();
    }

    /// A number of the runtime.
    pub(crate) fn number(&mut self, number: f64) -> v8::Global<v8::Value> {
        scope!(scope, self.runtime);
        let value: v8::Local<'_, v8::Value> = v8::Number::new(scope, number).into();
        v8::Global::new(scope, value)
    }

    /// A string of the runtime; empty if it is too long for one.
    pub(crate) fn text(&mut self, text: &str) -> v8::Global<v8::Value> {
        scope!(scope, self.runtime);
        let text = v8::String::new(scope, text).unwrap_or_else(|| v8::String::empty(scope));
        let value: v8::Local<'_, v8::Value> = text.into();
        v8::Global::new(scope, value)
    }

    /// The text of a string.
    pub(crate) fn text_of(&mut self, value: &v8::Global<v8::Value>) -> String {
        scope!(scope, self.runtime);
        let value = v8::Local::new(scope, value);
        // Of anything else it would run code of the user.
        if value.is_string() { well_formed(value.to_rust_string_lossy(scope)) } else { String::new() }
    }

    /// The execution that the code belonged to which was stopped last; if nobody knows, the last one of all.
    pub(crate) fn last_origin(&self) -> ExecutionNumber {
        match self.stopped_in {
            0 => self.last,
            execution => execution,
        }
    }

    /// Whether it is `undefined`.
    pub(crate) fn is_undefined(&mut self, value: &v8::Global<v8::Value>) -> bool {
        scope!(scope, self.runtime);
        v8::Local::new(scope, value).is_undefined()
    }
}

/// A text as the engine gives it out. With QuickJS half of a character comes as what is no UTF-8.
pub(crate) fn well_formed(text: String) -> String {
    match String::from_utf8(text.into_bytes()) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}
