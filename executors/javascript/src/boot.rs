//! What every runtime holds before it has any op of ours: the web's interfaces and the scripts of `js/`.
//!
//! Compiled into the build script as well, which makes the snapshot of it; so nothing here may use another module.
//! The ops are added later, by name: scripts look them up when they need them.

use std::sync::Arc;

use deno_core::Extension;

deno_core::extension!(
    cob,
    deps = [deno_web],
    esm_entry_point = "ext:cob/boot.js",
    esm = [
        dir "js",
        "boot.js",
        "bundle.js",
        "bundle_build.js",
        "bundle_walk.js",
        "channels.js",
        "comms.js",
        "console.js",
        "display.js",
        "errors.js",
        "files.js",
        "globals.js",
        "host.js",
        "input.js",
        "introspect.js",
        "looking.js",
        "mime.js",
        "preview.js",
        "questions.js",
        "stop.js",
        "timeline.js",
        "timers.js",
        "tools.js",
    ],
);

/// The extensions of the snapshot, in their order.
pub(crate) fn extensions() -> Vec<Extension> {
    let blobs = Arc::new(deno_web::BlobStore::default());
    vec![
        deno_webidl::deno_webidl::init(),
        deno_web::deno_web::init(blobs, None, false, deno_web::InMemoryBroadcastChannel::default()),
        cob::init(),
    ]
}
