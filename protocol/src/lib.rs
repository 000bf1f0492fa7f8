//! The words that every part of cob shares: messages of clients, frames of workers, events, promises, errors,
//! limits.
//!
//! Pure: no runtime, no clock of its own, no input or output. Parsers of outside bytes live here, so nothing in
//! this crate may index a slice or panic on what it reads.
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

pub mod bundle;
pub mod checkpoint;
pub mod codec;
pub mod content;
pub mod crash;
pub mod error;
pub mod event;
pub mod frame;
pub mod handshake;
pub mod ids;
pub mod json;
pub mod limits;
pub mod message;
pub mod page;
pub mod permissions;
pub mod promise;
pub mod registry;
pub mod resources;
pub mod signing;
pub mod time;
pub mod wire;
pub mod zygote;
