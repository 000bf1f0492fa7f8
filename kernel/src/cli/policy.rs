//! What the command line says about the checkpoints of a session.

use std::str::FromStr;

use clap::Args;
use cob_protocol::checkpoint::{Mode, Policy};
use cob_protocol::json::Json;

use super::Failure;

#[derive(Debug, Args)]
pub(crate) struct Checkpoints {
    /// When checkpoints of the session are taken, to go back to or to recover from: `auto`, between any two executions;
    /// `manual`, when somebody asks; `off`, never. Or all of it as JSON, such as {"mode":"auto","keep":4}
    /// [default: manual]
    #[arg(long = "checkpoints", value_name = "WHEN|JSON")]
    wish: Option<Wish>,
}

/// A policy, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    text: String,
    json: Json,
    policy: Policy,
}

impl FromStr for Wish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let json = match text.starts_with('{') {
            true => Json::parse(text).map_err(|error| format!("this is no JSON: {error}"))?,
            false => Json::of(&text).map_err(|error| error.to_string())?,
        };
        let policy = Policy::default().with(&json)?;
        Ok(Self { text: text.to_owned(), json, policy })
    }
}

impl Checkpoints {
    /// What holds for a session of this process.
    pub(crate) fn policy(&self) -> Policy {
        self.wish.as_ref().map(|wish| wish.policy.clone()).unwrap_or_default()
    }

    /// What a server is asked for; the rest is as it is there.
    pub(crate) fn asked(&self) -> Option<&Json> {
        self.wish.as_ref().map(|wish| &wish.json)
    }

    /// The arguments that say the same.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = String> {
        let wish = self.wish.iter();
        wish.flat_map(|wish| ["--checkpoints".to_owned(), wish.text.clone()])
    }

    /// A session that is open has its policy.
    pub(crate) fn refuse_for(&self, session: impl std::fmt::Display) -> Result<(), Failure> {
        match &self.wish {
            None => Ok(()),
            Some(_) => Err(Failure::usage(format_args!(
                "--checkpoints: {session} is open already, and goes by what it was opened with"
            ))),
        }
    }
}

/// The policy of sessions that take none and want none.
pub(crate) fn none() -> Policy {
    Policy { mode: Mode::Off, ..Policy::default() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        checkpoints: Checkpoints,
    }

    fn parsed(arguments: &[&str]) -> Result<Checkpoints, String> {
        let line = Line::try_parse_from(["x"].iter().chain(arguments));
        line.map(|line| line.checkpoints).map_err(|error| error.to_string())
    }

    #[test]
    fn a_policy_is_a_word_or_json_and_is_passed_on_as_it_was_written() {
        assert_eq!(parsed(&[]).unwrap().policy(), Policy::default());
        let auto = parsed(&["--checkpoints", "auto"]).unwrap();
        assert_eq!(auto.policy().mode, Mode::Auto);
        assert_eq!(auto.asked().unwrap().as_str(), "\"auto\"");
        let json = parsed(&["--checkpoints", r#"{"mode":"auto","keep":2}"#]).unwrap();
        assert_eq!((json.policy().mode, json.policy().keep), (Mode::Auto, 2));
        let passed: Vec<_> = json.arguments().collect();
        assert_eq!(passed, ["--checkpoints", r#"{"mode":"auto","keep":2}"#]);
        assert!(json.refuse_for("s7").is_err() && parsed(&[]).unwrap().refuse_for("s7").is_ok());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (wrong, part) in
            [("never", "manual"), ("{", "JSON"), (r#"{"kep":1}"#, "kep"), (r#"{"keep":0}"#, "keep")]
        {
            let error = parsed(&["--checkpoints", wrong]).unwrap_err();
            assert!(error.contains(part), "{wrong}: {error}");
        }
    }
}
