//! What the command line says about the bounds of a session.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cob_protocol::limits::INTERRUPT_GRACE_MS;
use cob_protocol::resources::{Limit, Limits};

use super::Failure;

#[derive(Debug, Args)]
pub(crate) struct Bounds {
    #[arg(long, value_name = "TEXT", value_parser = Limits::parse, help = help())]
    limits: Option<Limits>,
    /// Seconds after which code that does not react to an interrupt is killed, and its variables with it; 0: never
    /// (for the limit `time` it still is, after 2) [default: 2]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    interrupt_grace: Option<Duration>,
}

impl Bounds {
    pub(crate) fn limits(&self) -> Limits {
        self.limits.clone().unwrap_or_default()
    }

    /// `None`: never kill.
    pub(crate) fn interrupt_grace(&self) -> Option<Duration> {
        let grace = self.interrupt_grace.unwrap_or(Duration::from_millis(INTERRUPT_GRACE_MS));
        (!grace.is_zero()).then_some(grace)
    }

    /// The working directory has to be known if its size is limited: unless one is named it is ours.
    pub(crate) fn directory(&self, named: Option<PathBuf>) -> Result<Option<PathBuf>, Failure> {
        if named.is_some() || self.limits().disk_bytes.is_none() {
            return Ok(named);
        }
        let ours = std::env::current_dir();
        ours.map(Some).map_err(|error| Failure::Usage(format!("no working directory: {error}")))
    }
}

/// The table of limits, as one writes them.
fn help() -> String {
    let examples: Vec<String> =
        Limit::ALL.iter().map(|limit| format!("{}={}", limit.name(), limit.example())).collect();
    format!("What the session may use, as NAME=VALUE,… of: {}", examples.join(", "))
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_is_a_number_of_seconds_and_0_is_never() {
        let bounds = |text: &str| Bounds { limits: None, interrupt_grace: seconds(text).ok() };
        assert_eq!(bounds("0.3").interrupt_grace(), Some(Duration::from_millis(300)));
        assert_eq!(bounds("0").interrupt_grace(), None);
        let default = Bounds { limits: None, interrupt_grace: None };
        assert_eq!(default.interrupt_grace(), Some(Duration::from_millis(INTERRUPT_GRACE_MS)));
        for wrong in ["", "-1", "inf", "nan", "2s", "1e300"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
