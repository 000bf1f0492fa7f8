//! What holds as long as nothing goes wrong, and what holds of the sources themselves.

mod life;
mod parsers;
mod retries;
mod sharing;
mod startup;
mod tidy;
