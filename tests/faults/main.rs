//! The fault catalogue against the real binary: each case is a test with its id in its name.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "every line is a test or helps one")]

mod deaths;
mod floods;
mod force;
mod interrupts;
mod limits;
mod ports;
mod resources;
mod scripted;
