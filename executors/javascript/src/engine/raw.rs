//! QuickJS itself, where its V8 interface has no way, or a long one.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{c_char, c_void};

use deno_core::v8;

/// How `v8x` marks the handle of a context.
const CONTEXT_TAG: i64 = 0x7632;

/// A value of the engine. With this engine a handle is a pointer to one.
#[repr(C)]
#[derive(Clone, Copy)]
struct Value {
    payload: u64,
    tag: i64,
}

unsafe extern "C" {
    fn JS_ToCStringLen2(context: *mut c_void, bytes: *mut usize, value: Value, cesu8: bool) -> *const c_char;
    fn JS_GetVersion() -> *const c_char;
    fn JS_FreeCString(context: *mut c_void, text: *const c_char);
}

/// The version of what runs the code: the engine's own, where its V8 interface tells that of the V8 it stands for.
pub(crate) fn version() -> String {
    // SAFETY: takes nothing, and gives a text that is compiled in.
    unsafe { std::ffi::CStr::from_ptr(JS_GetVersion()) }.to_string_lossy().into_owned()
}

/// The context that code runs in.
pub(super) fn context(scope: &mut v8::PinScope<'_, '_>) -> Option<*mut c_void> {
    // SAFETY: a handle is a pointer to a value, and that of a context names the engine's own; what has another tag is
    // left alone.
    let Value { payload, tag } = unsafe { of(scope.get_current_context()) };
    let is_pointer = payload != 0 && payload.is_multiple_of(align_of::<usize>() as u64);
    (tag == CONTEXT_TAG && is_pointer).then_some(payload as *mut c_void)
}

/// Hands over the text of a string, of which no copy is made if it is ASCII; half a character is replaced. `None`: an
/// exception is thrown, there is no memory for it.
pub(crate) fn with_text<T>(
    scope: &mut v8::PinScope<'_, '_>,
    string: v8::Local<'_, v8::String>,
    take: impl FnOnce(&str) -> T,
) -> Option<T> {
    let context = context(scope)?;
    let mut length = 0;
    // SAFETY: the context is that of the string; nothing of the user's runs to make UTF-8 of it, and it stays as it is
    // until it is freed. `take` has no scope that it could run code with.
    unsafe {
        let text = JS_ToCStringLen2(context, &raw mut length, of(string), false);
        if text.is_null() {
            return None;
        }
        let bytes = std::slice::from_raw_parts(text.cast::<u8>(), length);
        let taken = take(&well_formed(bytes));
        JS_FreeCString(context, text);
        Some(taken)
    }
}

/// # Safety
/// The handle must not be one of the interface's own making; those of contexts and strings are not.
unsafe fn of<T>(handle: v8::Local<'_, T>) -> Value {
    // SAFETY: see above.
    unsafe { *std::ptr::from_ref(&*handle).cast() }
}

/// The engine makes three bytes of half a character, which are no UTF-8.
fn well_formed(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(2) {
        if let Some(half @ [0xed, 0xa0..=0xbf, _]) = bytes.get_mut(at..at + 3) {
            half.copy_from_slice("\u{fffd}".as_bytes());
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_is_replaced_by_one() {
        assert_eq!(well_formed("é€😀\u{d7ff}".as_bytes()), "é€😀\u{d7ff}");
        assert_eq!(well_formed(b"a\xed\xa0\x80\xed\xbf\xbfb\xed\x9f\xbf"), "a\u{fffd}\u{fffd}b\u{d7ff}");
    }
}
