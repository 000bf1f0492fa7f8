//! Builds the extension module that the host face embeds, and the table of Python sources that the module
//! embeds.
//!
//! The module is this same package, built by a second cargo with the feature `module`. Its target folder must
//! differ from the outer one, because a cargo holds a lock on its own; and it lies outside of `OUT_DIR`, so that
//! debug, release and clippy builds share one.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the outer cargo tells its build scripts and rustc, and must not leak into the inner one.
const OUTER: &[&str] = &[
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MAKEFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_BUILD_BUILD_DIR",
    "MAKEFLAGS",
    "MFLAGS",
    "PYO3_CONFIG_FILE",
    "PYO3_CROSS",
    "PYO3_PYTHON",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
];
const OUTER_PREFIXES: &[&str] = &["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PROFILE_", "DEP_"];

fn main() {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    if env::var_os("CARGO_FEATURE_MODULE").is_some() {
        watch(&here, &["build.rs", "cob"]);
        fs::write(out.join("sources.rs"), table_of_sources(&here.join("cob"))).expect("write the table");
    } else {
        watch(&here, &["build.rs", "Cargo.toml", "src", "cob", "../worker/Cargo.toml", "../worker/src"]);
        watch(&here, &["../../protocol/Cargo.toml", "../../protocol/src", "../../Cargo.toml"]);
        watch(&here, &["../../Cargo.lock"]);
        build_module(&here, &out);
    }
}

fn build_module(here: &Path, out: &Path) {
    let target = variable("TARGET");
    let folder = target_folder(out).join("python-module");
    fs::create_dir_all(&folder).expect("create the module's target folder");
    // Two outer builds (debug and clippy, say) may come here at once; one must not copy what the other writes.
    let lock = File::create(folder.join("cob-python.lock")).expect("create the lock file");
    lock.lock().expect("lock the module's target folder");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(here)
        .args(["rustc", "--package", "cob-python", "--lib", "--features", "module"])
        .args(["--crate-type", "cdylib", "--release", "--locked", "--target"])
        .arg(&target)
        .arg("--target-dir")
        .arg(&folder)
        // Small and quick to load; whole-program optimisation would cost more to build than it gains.
        .args(["--config", "profile.release.strip=\"symbols\"", "--config", "profile.release.lto=\"off\""])
        // With the stable ABI no interpreter is needed to build, and none may be linked.
        .env("PYO3_NO_PYTHON", "1")
        .env("PYO3_BUILD_EXTENSION_MODULE", "1");
    for (name, _) in env::vars_os().filter(|(name, _)| is_outer(name)) {
        cargo.env_remove(name);
    }
    let status = cargo.status().expect("start cargo for the Python module");
    assert!(status.success(), "the Python module could not be built");
    let module = folder.join(target).join("release/libcob_python.so");
    fs::copy(&module, out.join("module.so")).expect("copy the Python module");
}

fn is_outer(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    OUTER.contains(&&*name) || OUTER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The outer target folder: cargo marks it with a tag. Without one, the module is built inside of `OUT_DIR`.
fn target_folder(out: &Path) -> &Path {
    out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()).unwrap_or(out)
}

/// `(module, file, is a package, text)` of every Python file.
fn table_of_sources(folder: &Path) -> String {
    let mut rows = Vec::new();
    collect(folder, "cob", &mut rows);
    rows.sort();
    let mut table = String::from("&[\n");
    for (module, file, package, path) in rows {
        writeln!(table, "    ({module:?}, {file:?}, {package}, include_str!({path:?})),").expect("a string");
    }
    table + "]\n"
}

fn collect(folder: &Path, package: &str, rows: &mut Vec<(String, String, bool, PathBuf)>) {
    let entries = fs::read_dir(folder).expect("read the folder of Python sources");
    for path in entries.map(|entry| entry.expect("read the folder of Python sources").path()) {
        let stem = path.file_stem().map(OsStr::to_string_lossy).unwrap_or_default().into_owned();
        let inside = format!("{package}.{stem}");
        if path.is_dir() && path.join("__init__.py").is_file() {
            collect(&path, &inside, rows);
        } else if path.extension() == Some(OsStr::new("py")) {
            let is_package = stem == "__init__";
            let module = if is_package { package.to_owned() } else { inside };
            let file = format!("<cob>/{}/{stem}.py", package.replace('.', "/"));
            // `<cob>/engine.py`, not `<cob>/cob/engine.py`.
            rows.push((module, file.replacen("<cob>/cob/", "<cob>/", 1), is_package, path));
        }
    }
}

fn watch(here: &Path, paths: &[&str]) {
    for path in paths {
        println!("cargo::rerun-if-changed={}", here.join(path).display());
    }
}

fn variable(name: &str) -> String {
    env::var_os(name).map(OsString::into_string).expect("set by cargo").expect("UTF-8")
}
