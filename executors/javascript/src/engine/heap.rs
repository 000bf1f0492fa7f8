//! What the heap of a session may hold.
#![allow(unsafe_code)]

use std::ffi::c_void;
#[cfg(not(feature = "quickjs"))]
use std::sync::atomic::{AtomicBool, Ordering};

use cob_protocol::limits::{JS_HEAP_BYTES, JS_HEAP_BYTES_MIN, JS_HEAP_OVER_BYTES_MAX, JS_HEAP_ROOM_BYTES};
use deno_core::JsRuntime;
#[cfg(feature = "quickjs")]
use deno_core::scope;
use rustix::process::{Resource, getrlimit};

#[cfg(feature = "quickjs")]
use super::raw;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    bytes: usize,
}

impl Default for Limit {
    fn default() -> Self {
        Self { bytes: JS_HEAP_BYTES }
    }
}

impl Limit {
    /// Three quarters of what the process may hold, if that is limited: the rest is for everything else in it.
    pub(super) fn of_process() -> Self {
        let limits = [Resource::As, Resource::Data].map(|resource| getrlimit(resource).current);
        let least = limits.into_iter().flatten().chain(cgroup()).min();
        let bytes = least.map_or(JS_HEAP_BYTES, |bytes| usize::try_from(bytes / 4 * 3).unwrap_or(usize::MAX));
        Self { bytes: bytes.clamp(JS_HEAP_BYTES_MIN, JS_HEAP_BYTES.max(bytes)) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it hold.
    pub(super) fn apply(self, runtime: &mut JsRuntime) {
        let is_set = set(runtime, self.bytes);
        debug_assert!(is_set, "the engine is another one than this was written for");
    }

    /// After it was reached: the engine has raised it to have room to stop the code. What variables still hold stays,
    /// and beside it there is room to let go of it.
    pub(super) fn recover(self, runtime: &mut JsRuntime) {
        let isolate = runtime.v8_isolate();
        isolate.low_memory_notification();
        let heap = isolate.get_heap_statistics();
        let used = heap.total_heap_size().max(heap.used_heap_size());
        set(runtime, self.bytes.max(used + JS_HEAP_ROOM_BYTES));
    }
}

/// The limit of our own group, if it has one: in the one hierarchy of all controllers, or in that of memory.
fn cgroup() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().filter_map(limit_file).find_map(|file| {
        let limit = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        // The older kind writes no limit as nearly all there is.
        (limit < NO_LIMIT).then_some(limit)
    })
}

/// More than any machine has.
const NO_LIMIT: u64 = 1 << 60;

/// `0::/group`, or `5:memory:/group`.
fn limit_file(line: &str) -> Option<String> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, group) = (parts.next()?, parts.next()?);
    match controllers {
        "" => Some(format!("/sys/fs/cgroup{group}/memory.max")),
        _ => controllers
            .split(',')
            .any(|controller| controller == "memory")
            .then(|| format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes")),
    }
}

/// Makes code stop when the heap holds `bytes`; whether that was possible. QuickJS stops it only at its next look at the
/// flag, thousands of calls later, and is not to be trusted where it gets no memory in between; so there is room for more until then.
///
/// The engine's own limit is out of reach but through its context, and the library hands that out nowhere. So it is read
/// out of a handle, whose form is that of the one version that is pinned (a test holds it to that). Where it does not look
/// like it, only the limit of the library holds: code stops all the same, without that room.
#[cfg(feature = "quickjs")]
pub(super) fn set(runtime: &mut JsRuntime, bytes: usize) -> bool {
    unsafe extern "C" {
        fn JS_GetRuntime(context: *mut c_void) -> *mut c_void;
        fn JS_SetMemoryLimit(runtime: *mut c_void, bytes: usize);
    }
    let room = (bytes / 4).clamp(2 * JS_HEAP_ROOM_BYTES, JS_HEAP_OVER_BYTES_MAX);
    runtime.v8_isolate().remove_near_heap_limit_callback(keep, bytes + room);
    scope!(scope, runtime);
    let Some(context) = raw::context(scope) else { return false };
    // SAFETY: a context of the engine, which has a runtime.
    unsafe { JS_SetMemoryLimit(JS_GetRuntime(context), bytes) };
    true
}

#[cfg(feature = "quickjs")]
unsafe extern "C" fn keep(_: *mut c_void, current: usize, _: usize) -> usize {
    current
}

/// Makes code stop when the heap holds nearly `bytes`. V8 asks for more room then, and ends the process where it gets none.
#[cfg(not(feature = "quickjs"))]
pub(super) fn set(runtime: &mut JsRuntime, bytes: usize) -> bool {
    static IS_ASKED: AtomicBool = AtomicBool::new(false);
    let isolate = runtime.v8_isolate();
    if IS_ASKED.swap(true, Ordering::Relaxed) {
        // A limit is set together with the end of whom V8 asks.
        isolate.remove_near_heap_limit_callback(stop, bytes);
        isolate.add_near_heap_limit_callback(stop, std::ptr::null_mut());
    } else {
        isolate.add_near_heap_limit_callback(stop, std::ptr::null_mut());
        set(runtime, bytes);
    }
    true
}

#[cfg(not(feature = "quickjs"))]
unsafe extern "C" fn stop(_: *mut c_void, current: usize, _: usize) -> usize {
    crate::interrupt::stop_at_once();
    current.saturating_add(JS_HEAP_OVER_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_stands_where_the_group_is() {
        let told = |line| limit_file(line);
        assert_eq!(told("0::/a/b").as_deref(), Some("/sys/fs/cgroup/a/b/memory.max"));
        let older = Some("/sys/fs/cgroup/memory/a:b/memory.limit_in_bytes");
        assert_eq!(told("5:memory:/a:b").as_deref(), older);
        assert_eq!(told("5:cpu,memory:/a:b").as_deref(), older);
        assert_eq!(told("5:cpu:/a"), None);
        assert_eq!(told("memory"), None);
    }

    /// What is set is the engine's limit.
    #[cfg(feature = "quickjs")]
    #[test]
    fn code_that_hoards_is_stopped_near_the_limit() {
        use cob_protocol::limits::MIB;
        let mut runtime = JsRuntime::new(deno_core::RuntimeOptions::default());
        assert!(set(&mut runtime, 64 * MIB));
        let hog = "const hog = []; for (;;) hog.push(new Array(1000).fill(1.5))";
        runtime.execute_script("hog.js", hog).unwrap_err();
        runtime.v8_isolate().cancel_terminate_execution();
        let heap = runtime.v8_isolate().get_heap_statistics();
        assert!(heap.used_heap_size() < 256 * MIB, "{}", heap.used_heap_size());
    }
}
