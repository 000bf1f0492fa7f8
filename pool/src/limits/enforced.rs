//! Who enforces which limit, for session info and `cob doctor`.

use std::fmt;
use std::io;

use cob_protocol::resources::{Amount, Limit};
use rustix::process::getuid;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::cgroup::{Cgroups, Version};
use super::rlimits::ROOT_IS_NOT_LIMITED;

/// What enforces a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Means {
    /// A cgroup of the old kind: all processes together.
    CgroupV1,
    /// A cgroup of the new kind: all processes together.
    CgroupV2,
    /// A limit of each single process; with what that does not cover.
    Rlimit(Option<String>),
    /// The kernel loop, which sees every execution and its output.
    Kernel,
    /// Nobody, for this reason.
    Not(String),
}

impl Means {
    pub(super) fn group(version: Version) -> Self {
        match version {
            Version::V1 => Self::CgroupV1,
            Version::V2 => Self::CgroupV2,
        }
    }

    pub(super) fn rlimit(set: io::Result<()>, caveat: Option<String>) -> Self {
        match set {
            Ok(()) => Self::Rlimit(caveat),
            Err(error) => Self::Not(error.to_string()),
        }
    }
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CgroupV1 => f.write_str("cgroup v1"),
            Self::CgroupV2 => f.write_str("cgroup v2"),
            Self::Rlimit(None) => f.write_str("rlimit"),
            Self::Rlimit(Some(caveat)) => write!(f, "rlimit, {caveat}"),
            Self::Kernel => f.write_str("kernel"),
            Self::Not(why) => write!(f, "not enforced: {why}"),
        }
    }
}

pub(super) fn alone(why: &str) -> String {
    format!("for each process alone, counting what is only reserved ({why})")
}

pub(super) fn together(why: &str) -> String {
    format!("counted with all other processes of this user ({why})")
}

/// One limit and its means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnforcedRow {
    /// Which.
    pub limit: Limit,
    /// Its value in its unit; absent when it is only asked what would enforce it.
    pub value: Option<u64>,
    /// By what.
    pub by: Means,
}

impl fmt::Display for EnforcedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.limit.name())?;
        if let Some(value) = self.value {
            write!(f, "={}", Amount { unit: self.limit.unit(), value })?;
        }
        write!(f, ": {}", self.by)
    }
}

impl Serialize for EnforcedRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_struct("EnforcedRow", 3)?;
        row.serialize_field("limit", self.limit.name())?;
        row.serialize_field("value", &self.value)?;
        row.serialize_field("by", &self.by.to_string())?;
        row.end()
    }
}

/// The limits of a worker in the order of the table, each with its means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enforced(pub Vec<EnforcedRow>);

impl Enforced {
    /// Those that nobody enforces.
    pub fn missing(&self) -> impl Iterator<Item = &EnforcedRow> {
        self.0.iter().filter(|row| matches!(row.by, Means::Not(_)))
    }
}

impl Serialize for Enforced {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// What would enforce each limit on this host for workers of this user.
#[must_use]
pub fn forecast(cgroups: &Cgroups) -> Enforced {
    let by = |limit: &Limit| match limit {
        Limit::Memory => cgroups.memory().map_or_else(|why| Means::Rlimit(Some(alone(why))), Means::group),
        Limit::Processes => cgroups.processes().map_or_else(
            |why| match getuid().is_root() {
                true => Means::Not(format!("{ROOT_IS_NOT_LIMITED}, and {why}")),
                false => Means::Rlimit(Some(together(why))),
            },
            Means::group,
        ),
        Limit::Cpu | Limit::OpenFiles | Limit::File => Means::Rlimit(None),
        Limit::Time | Limit::Disk | Limit::Output => Means::Kernel,
    };
    Enforced(
        Limit::ALL.iter().map(|limit| EnforcedRow { limit: *limit, value: None, by: by(limit) }).collect(),
    )
}
