//! The fault catalogue against the real binary: each case is a test with its id in its name.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "every line is a test or helps one")]

mod ceiling;
mod daemons;
mod deaths;
mod floods;
mod force;
mod interrupts;
mod limits;
mod memory;
mod ports;
mod preparing;
mod quotas;
mod resources;
mod scripted;
mod server;
mod strangers;
mod tasks;
