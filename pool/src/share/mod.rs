//! Warm workers of one process for others on the same machine: `cob serve` keeps them, `cob kernel` asks for one.
//!
//! A worker changes hands as descriptors: its transport, its pidfd, its lifeline. From then on it belongs to the one
//! who asked, lives as long as that process holds its lifeline, and outlives the pool it came from. The pool goes on to
//! watch over what encloses it, for as long as the connection lasts.
//!
//! Only processes of the same user are served; who that is, the system says.

mod client;
mod elsewhere;
mod lent;
mod listener;
mod wire;

pub(crate) use client::encode;
pub use client::{InfoError, SharedPool};
pub(crate) use elsewhere::{Away, Elsewhere, Link};
pub use listener::{Build, ListenError, Listener, private_folder};
