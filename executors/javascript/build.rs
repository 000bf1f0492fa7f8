//! Makes the snapshot that workers start from: the extensions of `src/boot.rs`, loaded and evaluated.
//!
//! Only for QuickJS: with V8 the build machine would have to link V8 as well.
#![allow(unsafe_code)]

#[cfg(feature = "quickjs")]
#[path = "src/boot.rs"]
mod boot;

fn main() {
    for path in ["build.rs", "src/boot.rs", "js"] {
        println!("cargo:rerun-if-changed={path}");
    }
    #[cfg(feature = "quickjs")]
    snapshot();
}

#[cfg(feature = "quickjs")]
fn snapshot() {
    // SAFETY: no other thread runs yet. Without it the engine writes into the cache folder of whoever builds.
    unsafe { std::env::set_var("V82JSC_NO_BC_CACHE", "1") };
    let options = deno_core::snapshot::CreateSnapshotOptions {
        cargo_manifest_dir: env!("CARGO_MANIFEST_DIR"),
        startup_snapshot: None,
        skip_op_registration: false,
        extensions: boot::extensions(),
        extension_transpiler: None,
        with_runtime_cb: None,
    };
    let made = deno_core::snapshot::create_snapshot(options, None).expect("make the snapshot");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("OUT_DIR is set by cargo"));
    std::fs::write(out.join("snapshot.bin"), &made.output).expect("write the snapshot");
}
