//! The functions of `js/` that the worker calls, and that no code of the user may find.

use std::collections::HashMap;

use deno_core::{JsRuntime, scope, v8};

/// Takes what `js/boot.js` has left in the global scope, as names and functions in turn.
const TAKE: &str = "{ const taken = globalThis.__internals; delete globalThis.__internals; delete globalThis.Deno; \
                    delete globalThis.__bootstrap; \
                    Object.entries(taken).flatMap(([area, functions]) => Object.entries(functions)\
                    .flatMap(([name, value]) => typeof value === 'function' ? [area + '.' + name, value] : [])) }";

pub(super) fn take(runtime: &mut JsRuntime) -> HashMap<String, v8::Global<v8::Function>> {
    let taken = runtime.execute_script("cob:internals", TAKE).expect("boot.js has left its functions");
    scope!(scope, runtime);
    let taken = v8::Local::new(scope, taken);
    let taken = v8::Local::<v8::Array>::try_from(taken).expect("an array");
    let mut internals = HashMap::new();
    for at in (0..taken.length()).step_by(2) {
        let (Some(name), Some(value)) = (taken.get_index(scope, at), taken.get_index(scope, at + 1)) else {
            break;
        };
        let name = name.to_rust_string_lossy(scope);
        if let Ok(function) = v8::Local::<v8::Function>::try_from(value) {
            internals.insert(name, v8::Global::new(scope, function));
        }
    }
    internals
}
