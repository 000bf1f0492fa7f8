//! The Python executor, a package with two faces.
//!
//! The host's face, which the `cob` binary links: [`MODULE`], an extension module for *every* CPython from 3.10
//! on, and [`BOOTSTRAP`], the few lines with which the user's own interpreter loads it. No Python is linked, no
//! pyo3 compiled.
//!
//! The module's face, built by `build.rs` with the feature `module`: the main loop of a worker inside that
//! interpreter. `module` is the Rust half; the Python half lies in `cob/` and is embedded.
//!
//! # How a worker is started
//! `PYTHON -c BOOTSTRAP`, with descriptor 0 on `/dev/null`, 1 and 2 on two pipes,
//! 3 on a memfd that holds [`MODULE`], 4 on the frame socket and 5 on the shared page (the numbers are named in
//! `cob_protocol::handshake`); as leader of its own process group, with SIGINT at its default.
//! A zygote (`cob_protocol::zygote`) is started in the same way, with a socket of packets on 4 and nothing on 5.
//! An interpreter that cannot be used says so in one line on stderr and exits with code 78.

/// What the user's interpreter is started with: `PYTHON -c BOOTSTRAP`.
///
/// The line `SOURCES = None` may be replaced by one that names a folder with the package `cob`; that is how the
/// Python half is developed without building anything.
pub const BOOTSTRAP: &str = include_str!("bootstrap.py");

/// The extension module, to be put into a memfd.
#[cfg(not(feature = "module"))]
pub static MODULE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/module.so"));

#[cfg(feature = "module")]
mod module;
