//! What host and zygote say to each other, and what becomes known of the workers that a zygote forked.
//!
//! A zygote is a process that is a whole session but for its transport: an interpreter with its modules imported, or
//! later a session at one moment of its life. It waits on a socket of packets ([`crate::handshake::FRAME_FD`]) and
//! forks on request; the child gets a transport of its own and becomes a worker, the zygote stays as it was.
//!
//! One packet holds one [`Order`] or [`Report`], a MessagePack map; descriptors travel beside it. After each worker it
//! forked, a zygote writes [`Status`] records into the pipe it was given for it.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Finding;
use crate::handshake::VersionRange;

/// From the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Import, and be ready to fork. The first packet, and sent once.
    Prepare(Prepare),
    /// Fork a worker. Descriptors, in this order: frame socket, shared page, lifeline, stdout, stderr (as a worker
    /// that is started gets them), and the writing end of the pipe for its status.
    Fork {
        /// Comes back in the report.
        number: u64,
    },
    /// Fork a process that writes down what the session holds ([`crate::bundle`]) and ends. Only to a checkpoint.
    /// Descriptors, in this order: the socket that it writes to, its lifeline, and the writing end of the pipe for its
    /// status.
    Save {
        /// Comes back in the report, which is that of a fork.
        number: u64,
    },
    /// End at once, whatever was forked: its workers live on. (When the socket is just closed, the process stays until
    /// the last of them is gone.)
    Drop,
}

/// How a zygote shall get ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// Frame protocol versions of the host.
    pub versions: VersionRange,
    /// Modules to import, in this order. One that cannot be imported is reported and left out.
    pub imports: Vec<String>,
}

/// From the zygote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It is about to import a module: whom to blame if nothing more is heard.
    Importing {
        /// The module.
        module: String,
    },
    /// It must not be forked, and ends.
    Unfit {
        /// The module after whose import this was so, if it was fit before.
        module: Option<String>,
        /// One sentence.
        reason: String,
    },
    /// It can be forked.
    Prepared(Prepared),
    /// A session at one moment waits here; its pidfd comes along. The first packet of a checkpoint.
    Frozen {
        /// The process id of the one that waits.
        pid: u32,
        /// What it does not hold, or not as it was.
        findings: Vec<Finding>,
    },
    /// There is no checkpoint, because this would be missing in it. Sent by the worker itself, and the last packet.
    Refused {
        /// What blocks it.
        findings: Vec<Finding>,
    },
    /// A worker was forked; its pidfd comes along.
    Forked {
        /// From [`Order::Fork`].
        number: u64,
        /// The process id of the worker.
        pid: u32,
    },
    /// No worker was forked.
    ForkFailed {
        /// From [`Order::Fork`].
        number: u64,
        /// The system's reason.
        reason: String,
    },
}

/// What a zygote holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Frame protocol versions of its workers.
    pub versions: VersionRange,
    /// The executor's name and version.
    pub executor: String,
    /// Modules that were asked for and are there.
    pub imported: Vec<String>,
    /// Modules that were asked for and could not be imported.
    pub missing: Vec<Missing>,
}

/// A module that could not be imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The module.
    pub module: String,
    /// The interpreter's own words, one line.
    pub reason: String,
}

/// What happened to a worker, as its parent sees it. On the pipe a record of [`Status::BYTES`]: the number of the
/// variant and its value, both `i32`, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// A signal stopped it.
    Stopped(i32),
    /// It goes on.
    Continued,
    /// It has ended, and used this much processor time, in milliseconds; how it ended follows.
    Used(i32),
    /// It ended with this status; nothing follows.
    Exited(i32),
    /// A signal ended it; nothing follows.
    Killed(i32),
}

impl Status {
    /// Length of a record. Less than what a pipe takes at once, so records never mix.
    pub const BYTES: usize = 8;

    /// The record.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let (variant, value) = match self {
            Self::Stopped(signal) => (1, signal),
            Self::Continued => (2, 0),
            Self::Exited(status) => (3, status),
            Self::Killed(signal) => (4, signal),
            Self::Used(milliseconds) => (5, milliseconds),
        };
        let [a, b, c, d] = i32::to_be_bytes(variant);
        let [e, f, g, h] = value.to_be_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// Reads a record; `None` for a variant that does not exist.
    #[must_use]
    pub fn from_bytes(record: [u8; Self::BYTES]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = record;
        let value = i32::from_be_bytes([e, f, g, h]);
        match i32::from_be_bytes([a, b, c, d]) {
            1 => Some(Self::Stopped(value)),
            2 => Some(Self::Continued),
            3 => Some(Self::Exited(value)),
            4 => Some(Self::Killed(value)),
            5 => Some(Self::Used(value)),
            _ => None,
        }
    }
}

impl Order {
    /// The packet.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn encode(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        rmp_serde::to_vec_named(self)
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(packet: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        rmp_serde::from_slice(packet)
    }
}

impl Report {
    /// The packet.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn encode(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        rmp_serde::to_vec_named(self)
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(packet: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        rmp_serde::from_slice(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::VERSIONS;

    #[test]
    fn packets_and_records_survive_the_way() {
        let prepare = Order::Prepare(Prepare { versions: VERSIONS, imports: vec!["numpy".to_owned()] });
        for order in [prepare, Order::Fork { number: 7 }] {
            assert_eq!(Order::decode(&order.encode().unwrap()).unwrap(), order);
        }
        let report = Report::Unfit { module: Some("grpc".to_owned()), reason: "it has threads".to_owned() };
        assert_eq!(Report::decode(&report.encode().unwrap()).unwrap(), report);
        for status in
            [Status::Stopped(19), Status::Continued, Status::Used(7), Status::Exited(3), Status::Killed(9)]
        {
            assert_eq!(Status::from_bytes(status.to_bytes()), Some(status));
        }
        assert_eq!(Status::from_bytes([0; Status::BYTES]), None);
    }
}
