//! A worker for a session: how it is asked for, and what is given.

use cob_protocol::handshake::{Hello, Ready};
use cob_protocol::resources::Limits;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::parked::{Parked, Surroundings};
use crate::slots;
use crate::spawn::Program;
use crate::start_error::StartError;
use crate::worker::Worker;

/// A worker that a session needs.
#[derive(Clone, Debug)]
pub struct Request {
    /// What runs, and what the session finds around it.
    pub program: Program,
    /// How the session is set up.
    pub hello: Hello,
    /// What it may use.
    pub limits: Limits,
}

/// A worker that serves one session and no other, ever.
#[derive(Debug)]
pub struct Leased {
    /// It.
    pub worker: Worker,
    /// How it introduced itself.
    pub ready: Ready,
    /// Where it came from.
    pub origin: Origin,
    /// Its limits: what was asked for, and what the operator allows where nothing was.
    pub limits: Limits,
    /// What enforces them: an array of objects with `limit`, `value` and `by`.
    pub enforced: Value,
}

/// Where a worker came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It had been waiting.
    Warm,
    /// It was forked off a zygote on request.
    Forked,
    /// Its program was started on request.
    Cold,
    /// It goes on from a checkpoint of the session.
    Restored,
    /// It goes on from a checkpoint of another session.
    Branched,
}

/// No worker for a session.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// It did not come up.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its environment has failed too often; it is not tried again before a while has passed.
    #[error("{error}; it failed repeatedly and is tried again in {} s", retry_after_ms.div_ceil(1000))]
    Broken {
        /// The last failure, with the interpreter's own words.
        error: String,
        /// Milliseconds.
        retry_after_ms: u64,
    },
    /// Two in a row did not come up.
    #[error("{error}")]
    Failed {
        /// The last failure, with the interpreter's own words.
        error: String,
    },
    /// Too many wait for a worker already.
    #[error("too many sessions wait for a worker; try again later")]
    Full,
    /// The pool is being closed.
    #[error("the pool of workers is being closed")]
    Closing,
    /// The operator allows less than was asked for.
    #[error("{reason}")]
    Limits {
        /// Which limit, and what is allowed.
        reason: String,
    },
    /// Only a warm worker would have done, and there is none yet.
    #[error("no warm worker yet: {reason}")]
    NotWarm {
        /// Why not.
        reason: String,
    },
}

impl Origin {
    /// The name in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Forked => "forked",
            Self::Cold => "cold",
            Self::Restored => "restored",
            Self::Branched => "branched",
        }
    }
}

impl From<slots::Origin> for Origin {
    fn from(origin: slots::Origin) -> Self {
        match origin {
            slots::Origin::Warm => Self::Warm,
            slots::Origin::Forked => Self::Forked,
            slots::Origin::Cold => Self::Cold,
        }
    }
}

impl Leased {
    /// Gives a worker that waits its session.
    pub(crate) async fn greet(
        parked: Parked,
        origin: Origin,
        (limits, enforced): (Limits, Value),
        request: &Request,
    ) -> Result<Self, StartError> {
        let mut worker = parked.greet(request.hello.clone(), Some(&Surroundings(&request.program)))?;
        let ready = worker.ready().await?;
        Ok(Self { worker, ready, origin, limits, enforced })
    }
}
