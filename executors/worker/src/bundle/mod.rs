//! The worker's end of a [bundle](cob_protocol::bundle): writing one to a descriptor, and reading one.
//!
//! Blocking, and bounded by a piece, but for the one blob that a reader asks for as a whole.

mod reader;
mod writer;

pub use reader::BundleReader;
pub use writer::BundleWriter;

#[cfg(test)]
mod tests;
