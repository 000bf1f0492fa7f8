//! Owner of worker processes: start, transport, output, liveness, interrupt, kill.
//!
//! Only this crate knows processes and signals. It knows no language: a [`Program`] says what to start. It never
//! talks to clients and keeps nothing: what a worker says goes out of [`Worker::next`] and is forgotten.

mod breaker;
mod drain;
mod exit;
mod frame_reader;
mod frame_writer;
pub mod metrics;
mod page;
mod readiness;
mod slots;
mod spawn;
pub mod usage;
mod watch;
mod worker;

pub mod limits;
pub mod tree;

mod processes;

pub use exit::Exit;
pub use frame_reader::{FrameReader, ReadError};
pub use frame_writer::{FrameWriter, Lane, SendError};
pub use spawn::Program;
pub use watch::exit_of;
pub use worker::{StartError, Worker, WorkerEvent};
