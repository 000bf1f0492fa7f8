//! The half of a worker that no language owns: blocking transport, the place of frames among the output,
//! interrupts, and the main loop that an [`Executor`] plugs into.
//!
//! A worker has **exactly one thread** of ours. Everything here blocks; nothing here starts a thread, owns a
//! runtime or keeps output in a buffer. That is what makes `fork`, signals and sandboxes sound, and why output
//! survives a crash. Concurrency lives in the kernel.
//!
//! The road of a request: [`run`](run::run) takes a frame from the [`Inbox`](inbox::Inbox), hands it to the
//! [`Executor`], and answers through the [`Outbox`](outbox::Outbox). Code that runs meanwhile speaks through the
//! [`Worker`].
//!
//! Instead of being started, a worker can be forked off a [`zygote`]; from then on there is no difference.
//!
//! It can also be [frozen](freeze): a copy of it waits, and forks workers that go on from there.
//!
//! The server may die and another one come: then the [frame socket](link) is [replaced](takeover), and what the last
//! one had not recorded, which was [kept](retained), is sent once more. The code notices nothing.
//!
//! **Invariant:** no lock is held where code of the user can run (a signal handler, another thread that got the
//! interpreter), and no lock is waited for while the interpreter is held, unless its holder waits for nothing.

mod beside;
mod between;
pub mod bundle;
mod confinement;
pub mod descriptors;
pub mod executor;
mod findings;
pub mod fork;
mod freeze;
pub mod inbox;
pub mod interrupt;
mod link;
mod message;
mod nudge;
pub mod outbox;
pub mod output;
mod page;
mod parents;
pub mod process;
pub mod rehearsal;
mod reseat;
mod retained;
pub mod run;
pub mod surroundings;
mod surviving;
mod takeover;
mod turn;
pub mod worker;
pub mod zygote;

pub use executor::{Executor, Finished, Interpreter, Introduction};
pub use outbox::SendError;
pub use surroundings::Surroundings;
pub use worker::Worker;
