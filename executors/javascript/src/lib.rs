//! The JavaScript executor: cells of JavaScript and TypeScript in a `deno_core` runtime, one process per session.
//!
//! The worker program is `cob worker javascript`: the binary itself, which calls [`main`] before anything else.
//! Everything but the language is that of `cob-worker`.
//!
//! The road of a cell: [`cells`] takes its source from [`transform`], runs it in the [`engine`], and shows its value
//! with the scripts of `js/`, which reach the worker through [`ops`].
//!
//! **Invariant:** with QuickJS the process has one thread, so it can be forked: nothing here starts another one.

mod boot;
mod bundle;
mod cells;
mod comm;
mod complete;
mod engine;
mod epoll;
mod errors;
mod executor;
mod freezing;
mod here;
mod inspect;
mod interrupt;
mod modules;
mod namespace;
mod ops;
mod permissions;
mod random;
mod reactor;
mod source_at;
mod sources;
mod transform;
mod worker;
mod zygote;

#[cfg(all(feature = "quickjs", feature = "v8"))]
compile_error!("one engine only: build with `--no-default-features --features v8` for V8");

pub use worker::main;
