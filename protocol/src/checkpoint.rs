//! Checkpoints: a session at one moment, to go back to, to branch off, or to wake up from.
//!
//! There are two tiers. One *in memory* is a forked process that waits ([`crate::zygote`]): exact, taken in
//! milliseconds, gone with the server. A *durable* one is a [bundle](crate::bundle) in the store: it survives everything
//! and says what it does not hold.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::CheckpointId;
use crate::json::Json;
use crate::limits::{CHECKPOINT_BUDGET_BYTES, CHECKPOINTS_KEPT, CHECKPOINTS_MAX};

/// When a session takes checkpoints without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Between any two executions; the last few are kept.
    Auto,
    /// Only when somebody asks for one.
    #[default]
    Manual,
    /// Never; whoever asks for one is refused.
    Off,
}

impl Mode {
    /// The name in messages and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
            Self::Off => "off",
        }
    }

    /// The mode with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Auto, Self::Manual, Self::Off].into_iter().find(|mode| mode.as_str() == name)
    }
}

/// What a session does about checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// When they are taken.
    pub mode: Mode,
    /// So many automatic ones are kept, the newest.
    pub keep: usize,
    /// Bytes of memory that only its checkpoints hold; beyond it automatic ones go, oldest first, and others are refused.
    pub budget_bytes: u64,
    /// Whether a worker that was lost is replaced by the newest checkpoint, and so is one that a server left behind when
    /// it died.
    pub recover: bool,
    /// Milliseconds without an execution after which it is hibernated, if everything of it can be saved.
    pub hibernate_after_ms: Option<u64>,
    /// Milliseconds after which a session that ran code takes a durable checkpoint by itself. Absent: never.
    pub durable_every_ms: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            keep: CHECKPOINTS_KEPT,
            budget_bytes: CHECKPOINT_BUDGET_BYTES,
            recover: true,
            hibernate_after_ms: None,
            durable_every_ms: None,
        }
    }
}

/// Where a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// A process that waits.
    Memory,
    /// A bundle in the store.
    Durable,
    /// Both, of the same moment.
    Both,
}

/// Something that a checkpoint does not hold, or not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `thread`, `child`, `cuda`, `socket`, `file`, `shared_memory`, …: a word for machines.
    pub kind: String,
    /// A sentence for people that names it.
    pub text: String,
    /// A checkpoint is refused for it, unless it is forced.
    pub blocks: bool,
}

/// A variable that a restore did not bring back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// The type of its value, as far as that is known.
    pub kind: String,
    /// A sentence.
    pub reason: String,
}

/// A checkpoint, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointView {
    /// Its name.
    pub checkpoint: CheckpointId,
    /// What somebody called it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Where it is.
    pub tier: Tier,
    /// It was taken without being asked for, and goes when others come.
    pub automatic: bool,
    /// The last execution that it knows of; 0: none.
    pub execution: u64,
    /// The highest `In [count]` by then.
    pub count: u32,
    /// When: microseconds since 1970.
    pub taken_at: i64,
    /// The checkpoint that the session had come from, if it was restored or forked before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<CheckpointId>,
    /// Of one in memory: bytes that only it holds, as they were last measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_bytes: Option<u64>,
    /// Of a durable one: bytes of its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Of a durable one: bytes that were not in the store before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_bytes: Option<u64>,
    /// What it does not hold, or not as it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Of a durable one: the variables that it does not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
}

/// What came of a restore. Part of whatever says that the state of a session is `restored`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoration {
    /// Where it went back to.
    pub checkpoint: CheckpointId,
    /// From where: one `memory` brought back everything but what its findings say.
    pub tier: Tier,
    /// Milliseconds from the checkpoint to the restore.
    pub age_ms: u64,
    /// Executions that had ended or begun since: what they did to variables is undone, what else they did is not.
    pub executions_since: u64,
    /// From a durable one: variables that were set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restored: Vec<String>,
    /// Variables that did not come back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// Variables that are not of the checkpoint and were left as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
    /// What else is not as it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// The last executions whose source looks as if it defined what is missing: a guess, for whoever wants to look at
    /// them and run them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rebuild: Vec<u64>,
}

/// What a worker says of a bundle that it has loaded: the value of its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Variables that were set.
    pub restored: Vec<String>,
    /// Variables of the bundle, and of what it had skipped already, that were not.
    pub missing: Vec<Missing>,
    /// Variables that stayed.
    #[serde(default)]
    pub kept: Vec<String>,
    /// What else is not as it was.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

impl Policy {
    /// Reads what a client asks for: a mode by itself, or an object.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn read(asked: &Json) -> Result<Self, String> {
        if let Ok(mode) = asked.read::<Mode>() {
            return Ok(Self { mode, ..Self::default() });
        }
        asked.read::<Self>().map_err(|error| {
            format!("the policy of checkpoints is \"auto\", \"manual\", \"off\" or an object: {error}")
        })
    }

    /// This policy, but with what a client asks for: a mode by itself, or an object of which fields may be left out.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn with(&self, asked: &Json) -> Result<Self, String> {
        if let Ok(mode) = asked.read::<Mode>() {
            return Ok(Self { mode, ..self.clone() });
        }
        let Ok(fields) = asked.read::<Map<String, Value>>() else {
            return Err("the policy of checkpoints is \"auto\", \"manual\", \"off\" or an object".to_owned());
        };
        let merged = Json::of(self).and_then(|json| json.read::<Map<String, Value>>());
        let mut merged = merged.map_err(|error| error.to_string())?;
        merged.extend(fields);
        let merged = Json::from(Value::Object(merged));
        Self::read(&merged)?.checked()
    }

    /// Refuses what no session can keep to.
    fn checked(self) -> Result<Self, String> {
        if self.keep == 0 || self.keep > CHECKPOINTS_MAX {
            return Err(format!("`keep` must be 1 to {CHECKPOINTS_MAX} checkpoints"));
        }
        let times =
            [("hibernate_after_ms", self.hibernate_after_ms), ("durable_every_ms", self.durable_every_ms)];
        if let Some((name, _)) = times.iter().find(|(_, ms)| *ms == Some(0)) {
            return Err(format!("`{name}` must be more than 0; leave it out for never"));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap()
    }

    #[test]
    fn what_is_not_asked_for_stays_as_it_is() {
        let usual = Policy { keep: 3, hibernate_after_ms: Some(5), ..Policy::default() };
        let auto = Policy { mode: Mode::Auto, ..usual.clone() };
        assert_eq!(usual.with(&json("\"auto\"")), Ok(auto.clone()));
        assert_eq!(usual.with(&json(r#"{"mode":"auto"}"#)), Ok(auto));
        assert_eq!(usual.with(&json("{}")), Ok(usual.clone()));
        let awake = Policy { hibernate_after_ms: None, ..usual.clone() };
        assert_eq!(usual.with(&json(r#"{"hibernate_after_ms":null}"#)), Ok(awake));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("\"never\"", "auto"),
            ("[]", "object"),
            (r#"{"kep":3}"#, "kep"),
            (r#"{"keep":0}"#, "keep"),
            (r#"{"keep":65}"#, "64"),
            (r#"{"durable_every_ms":0}"#, "durable_every_ms"),
            (r#"{"hibernate_after_ms":0}"#, "hibernate_after_ms"),
            (r#"{"budget_bytes":-1}"#, "-1"),
        ] {
            let why = Policy::default().with(&json(text)).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }
}
