//! The words that every part of cob shares. Pure: no runtime, no clock of its own, no input or output.
pub mod limits;
