//! What holds as long as nothing goes wrong, and what holds of the sources themselves.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "every line is a test or helps one")]

mod checkpoints;
mod config;
mod confinement;
mod conformance;
mod durable;
mod durable_checkpoints;
mod isolation;
mod javascript_checkpoints;
mod javascript_permissions;
mod languages;
mod lent_checkpoints;
mod life;
mod other_pythons;
mod parsers;
mod retries;
mod serving;
mod sharing;
mod startup;
mod stops;
mod stores;
mod tidy;
mod warm;
