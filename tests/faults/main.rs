//! The fault catalogue against the real binary: each case is a test with its id in its name.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "every line is a test or helps one")]

mod agents;
mod bundles;
mod ceiling;
mod checkpoints;
mod crashes;
mod daemons;
mod deaths;
mod floods;
mod force;
mod full;
mod interrupts;
mod kills;
mod limits;
mod memory;
mod order;
mod overdue;
mod ports;
mod power;
mod preparing;
mod quotas;
mod resources;
mod scripted;
mod server;
mod store;
mod strangers;
mod survival;
mod tasks;
