//! A process that is a whole session but for its transport, and that forks workers.
//!
//! Its life has two parts, and they know nothing of each other. [`prepare`] imports modules and finds out whether
//! the process may be forked at all; [`park`] waits for orders, forks, and tells how the workers fare. `park`
//! returns in every forked process, with the descriptors of a worker, and never in the one that waits: what follows
//! the call is the same as in a worker that was started. A session that is frozen at some moment only needs the
//! second part.
//!
//! **Invariant:** a zygote has one thread when it forks, and a worker holds no descriptor of its zygote nor of
//! another worker.

mod control;
pub(crate) mod hang_on;
mod heap;
mod newborn;
mod park;
mod prepare;
mod signals;
mod threads;
mod wards;

pub use control::Control;
pub(crate) use newborn::{Errand, Pen, Transport};
pub use park::park;
pub(crate) use park::park_frozen;
pub use prepare::{Importer, prepare};
pub(crate) use threads::Stubborn;
