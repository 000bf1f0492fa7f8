//! **The table** of the ops of `deno_core` and `deno_web` that scripts may call. All others throw, and so does each op
//! that a newer version brings: what is here can do nothing but work with values, tell the time, and wait for it.
//!
//! Not here: what reads, writes or closes resources of the process, prints past the pipes, loads modules past the
//! loader, compiles scripts under names of ours, ends the process, or tells what it has.

use deno_core::OpDecl;

/// See the module.
pub(super) const ALLOWED: &[&str] = &[
    // Kinds of values.
    "op_is_any_array_buffer",
    "op_is_arguments_object",
    "op_is_array_buffer",
    "op_is_array_buffer_view",
    "op_is_async_function",
    "op_is_big_int_object",
    "op_is_boolean_object",
    "op_is_boxed_primitive",
    "op_is_data_view",
    "op_is_date",
    "op_is_generator_function",
    "op_is_generator_object",
    "op_is_map",
    "op_is_map_iterator",
    "op_is_module_namespace_object",
    "op_is_native_error",
    "op_is_number_object",
    "op_is_promise",
    "op_is_proxy",
    "op_is_reg_exp",
    "op_is_set",
    "op_is_set_iterator",
    "op_is_shared_array_buffer",
    "op_is_string_object",
    "op_is_symbol_object",
    "op_is_typed_array",
    "op_is_weak_map",
    "op_is_weak_set",
    // What is in a value, for those who show it.
    "op_current_user_call_site",
    "op_destructure_error",
    "op_get_constructor_name",
    "op_get_non_index_property_names",
    "op_get_promise_details",
    "op_get_proxy_details",
    "op_preview_entries",
    // Values as bytes, and back.
    "op_decode",
    "op_deserialize",
    "op_encode",
    "op_encode_binary_string",
    "op_serialize",
    "op_str_byte_length",
    "op_structured_clone",
    // The event loop and its timers.
    "op_defer",
    "op_dispatch_exception",
    "op_drain_pending_rejections",
    "op_event_loop_has_more_work",
    "op_immediate_check",
    "op_now",
    "op_ref_op",
    "op_run_microtasks",
    "op_set_handled_promise_rejection_handler",
    "op_time_origin",
    "op_timer_now",
    "op_timer_schedule",
    "op_timer_track",
    "op_timer_untrack",
    "op_unref_op",
    // Parts of `deno_web` that are loaded when they are used first: scripts of this binary, and no others.
    "op_load_ext_script",
    // The interfaces of the web.
    "op_base64_atob",
    "op_base64_btoa",
    "op_base64_decode",
    "op_base64_decode_into",
    "op_base64_encode_from_buffer",
    "op_base64url_decode",
    "op_base64url_decode_into",
    "op_base64url_encode_from_buffer",
    "op_blob_clone_part",
    "op_blob_create_part",
    "op_blob_read_part",
    "op_blob_remove_part",
    "op_blob_slice_part",
    "op_compression_finish",
    "op_compression_new",
    "op_compression_write",
    "op_console_css_to_ansi",
    "op_console_format_value",
    "op_console_get_string_width",
    "op_console_inspect",
    "op_console_inspect_args",
    "op_console_parse_css",
    "op_console_parse_css_color",
    "op_console_quote_string",
    "op_console_strip_vt",
    "op_encoding_decode",
    "op_encoding_decode_single",
    "op_encoding_decode_utf8",
    "op_encoding_decode_utf8_ascii_only",
    "op_encoding_encode_into",
    "op_encoding_encode_into_fallback",
    "op_encoding_new_decoder",
    "op_encoding_normalize_label",
    "op_message_port_create_entangled",
    "op_message_port_post_message",
    "op_message_port_post_message_raw",
    "op_message_port_recv_message",
    "op_message_port_recv_message_sync",
    "op_url_get_serialization",
    "op_url_parse",
    "op_url_parse_search_params",
    "op_url_parse_with_base",
    "op_url_reparse",
    "op_url_stringify_search_params",
    "op_urlpattern_parse",
    "op_urlpattern_process_match_input",
    // A port that is closed is a resource; there are no others.
    "op_close",
    "op_try_close",
];

/// Lets an op through, or puts one that throws in its place. Ours are allowed: they are those of the table beside.
pub(super) fn only_allowed(op: OpDecl) -> OpDecl {
    let is_allowed = ALLOWED.contains(&op.name) || super::is_ours(op.name);
    if is_allowed { op } else { op.disable() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use deno_core::{JsRuntime, RuntimeOptions};

    use super::*;
    use crate::{boot, engine, ops};

    fn runtime() -> JsRuntime {
        let mut extensions = boot::extensions();
        extensions.push(ops::extension());
        JsRuntime::new(RuntimeOptions {
            extensions,
            startup_snapshot: engine::SNAPSHOT,
            ..RuntimeOptions::default()
        })
    }

    #[test]
    fn the_classes_of_a_live_runtime_are_those_that_are_known() {
        const CLASSES: &str = "CSSRule,CSSStyleSheet,Console,DOMMatrix,DOMMatrixReadOnly,DOMPoint,DOMPointReadOnly,DOMQuad,\
                               DOMRect,DOMRectReadOnly,ImageData";
        let mut runtime = runtime();
        let check = format!(
            "const found = Object.keys(Deno.core.ops).filter((name) => !name.startsWith('op_')).sort().join(); \
             if (found !== '{CLASSES}') throw new Error(found);"
        );
        runtime.execute_script("cob:test", check).unwrap();
    }

    #[test]
    fn the_ops_that_a_live_runtime_lets_through_are_those_of_the_table() {
        let mut runtime = runtime();
        // The others are classes and their methods: values, which no middleware sees.
        let all: BTreeSet<_> = runtime.op_names().into_iter().filter(|op| op.starts_with("op_")).collect();
        let table: BTreeSet<_> = ALLOWED.iter().copied().collect();
        assert_eq!(table.len(), ALLOWED.len(), "a row stands twice");
        let gone: Vec<_> = table.difference(&all).collect();
        assert!(gone.is_empty(), "rows without an op: {gone:?}");
        let others: Vec<_> = all.iter().filter(|op| !table.contains(*op) && !ops::is_ours(op)).collect();
        for important in
            ["op_panic", "op_eval_context", "op_import_sync", "op_print", "op_read_sync", "op_resources"]
        {
            assert!(others.contains(&&important), "{important}");
        }
        for op in others {
            // One that is asynchronous rejects.
            let call = format!(
                "try {{ \
                   const promise = Deno.core.ops.{op}(); \
                   const [state, error] = Deno.core.isPromise(promise) ? Deno.core.getPromiseDetails(promise) : []; \
                   throw state === 2 ? error : new Error('it was let through'); \
                 }} catch (error) {{ if (error.message !== 'op is disabled') throw error; }}"
            );
            runtime.execute_script("cob:test", call).unwrap_or_else(|error| panic!("{op}: {error}"));
        }
    }
}
