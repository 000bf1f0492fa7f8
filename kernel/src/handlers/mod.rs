//! What each family of requests does. The road there is in [`crate::dispatch`].

mod comm;
mod execute;
mod history;
mod info;

pub(crate) use execute::{Verdict, execute_frame};
pub(crate) use info::UsageSample;
