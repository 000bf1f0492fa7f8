//! What the command line says about the bounds of a session.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cob_protocol::limits::INTERRUPT_GRACE_MS;
use cob_protocol::resources::Limits;

use super::Failure;

#[derive(Debug, Args)]
pub(crate) struct Bounds {
    /// What the session may use, as NAME=VALUE,…: memory (2G), cpu (60s), time of one cell (30s), processes (64),
    /// files open at a time (256), size of one file (1G), disk in the working directory (5G), output of one cell
    /// (1M)
    #[arg(long, value_name = "TEXT", value_parser = limits)]
    limits: Option<Limits>,
    /// Seconds after which code that does not react to an interrupt is killed with its variables; 0: never (a
    /// limit of time still is one) [default: 2]
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

fn limits(text: &str) -> Result<Limits, String> {
    // STANDIN
    let mut limits = Limits::default();
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or("name=value")?;
        let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
        let number: u64 = digits.parse().map_err(|_| "number")?;
        let unit = match &value[digits.len()..] {
            "K" => 1024,
            "M" => 1 << 20,
            "s" => 1000,
            _ => 1,
        };
        match name {
            "time" => limits.time_ms = Some(number * unit),
            "output" => limits.output_bytes = Some(number * unit),
            "disk" => limits.disk_bytes = Some(number * unit),
            _ => return Err("unknown".into()),
        }
    }
    Ok(limits)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    // A day is as good as never, and no time is a negative one.
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
