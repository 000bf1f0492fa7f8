//! The fault catalogue against the real binary: each case is a test with its id in its name.

mod deaths;
mod floods;
mod interrupts;
mod ports;
mod resources;
mod scripted;
