//! How a session is recorded, and whether it outlives the process that serves it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cob_bridge::{Bridge, Entry, OpenError, StoreOptions};
use cob_kernel::recovery::Past;
use cob_kernel::survival::Survival;
use cob_pool::{Program, Workers};
use cob_protocol::ids::SessionId;
use cob_protocol::limits::{GRACE_S_MAX, HISTORY_ENTRIES_MAX};
use cob_protocol::promise::Durability;
use cob_protocol::time::Clock;

use super::{Failure, limits, state};

#[derive(Debug, Args)]
pub(crate) struct Records {
    /// The folder of the session's records: what ran, what it printed and how it ended. Started again with the same
    /// folder after a crash, the session goes on [default: one for this connection file in the folder that
    /// COB_STATE_DIR, XDG_STATE_HOME or HOME names]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Keep the records in memory only
    #[arg(long, conflicts_with_all = ["store", "durability", "grace"])]
    ephemeral: bool,
    /// What a record survives before anybody is told of it, unless a request says otherwise
    #[arg(long, value_name = "WHAT", default_value = "process")]
    durability: Survives,
    /// Seconds for which running code goes on without this process, until it is started again; 0: the code ends with it
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = grace)]
    grace: Duration,
}

/// What a record survives.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Survives {
    /// The death of any process
    Process,
    /// The loss of power as well: every record is synchronised to the disk
    Power,
}

/// What is known of a session before it begins.
pub(crate) struct Opened {
    pub(crate) bridge: Bridge,
    pub(crate) session: SessionId,
    pub(crate) past: Option<Past>,
    pub(crate) history: Vec<(SessionId, Entry)>,
    pub(crate) durability: Durability,
}

impl From<Survives> for Durability {
    fn from(survives: Survives) -> Self {
        match survives {
            Survives::Process => Self::Process,
            Survives::Power => Self::Power,
        }
    }
}

impl Records {
    /// Opens the records of the kernel with this connection file. May take a while.
    pub(crate) async fn open(
        &self,
        connection_file: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Opened, Failure> {
        let durability = Durability::from(self.durability);
        let Some(bridge) = self.bridge(connection_file, Arc::clone(&clock)).await? else {
            let bridge = Bridge::in_memory(clock);
            let (session, history) = (SessionId(1), Vec::new());
            return Ok(Opened { bridge, session, past: None, history, durability: Durability::None });
        };
        let sessions = bridge.sessions().await.map_err(Failure::failed)?;
        let last = sessions.into_iter().next_back();
        let (session, past) = match last {
            Some(record) if record.closed_at.is_none() => {
                let session = record.session;
                (session, Some(Past::read(&bridge, record).await.map_err(Failure::failed)?))
            }
            Some(record) => (SessionId(record.session.0 + 1), None),
            None => (SessionId(1), None),
        };
        let history = bridge.history(HISTORY_ENTRIES_MAX).await.map_err(Failure::failed)?;
        Ok(Opened { bridge, session, past, history, durability })
    }

    /// The store; `None`: the records live in memory.
    async fn bridge(&self, connection_file: &Path, clock: Arc<dyn Clock>) -> Result<Option<Bridge>, Failure> {
        if self.ephemeral {
            return Ok(None);
        }
        let folder = match &self.store {
            Some(folder) => folder.clone(),
            None => match state::of_kernel(connection_file).and_then(made) {
                Ok(folder) => folder,
                // Nobody asked for a store: a notebook on a host where nothing can be written still runs.
                Err(Failure::Usage(why) | Failure::Failed(why)) => {
                    tracing::warn!(why, "nothing is recorded; name a folder with --store");
                    return Ok(None);
                }
                Err(other) => return Err(other),
            },
        };
        let options = StoreOptions::new(folder);
        let opening = tokio::task::spawn_blocking(move || Bridge::open(&options, clock));
        match opening.await.map_err(Failure::failed)? {
            Ok(bridge) => Ok(Some(bridge)),
            Err(error @ (OpenError::Denied { .. } | OpenError::ReadOnly { .. })) if self.store.is_none() => {
                tracing::warn!(%error, "nothing is recorded; name a folder with --store");
                Ok(None)
            }
            Err(error) => Err(Failure::failed(error)),
        }
    }

    /// How the workers of the session outlive this process.
    pub(crate) fn survival(&self, runtime: &Path) -> Result<Option<Survival>, Failure> {
        if self.grace.is_zero() || self.ephemeral {
            return Ok(None);
        }
        surviving(runtime, self.grace).map(Some)
    }

    /// A worker that outlives this process is its own: one from the server's pool ends with the lease.
    pub(crate) fn workers(&self, workers: Workers) -> Workers {
        if self.grace.is_zero() || self.ephemeral { workers } else { Workers::Cold }
    }
}

/// How workers outlive this process for `grace`; their custodian can be reached in `runtime`.
pub(crate) fn surviving(runtime: &Path, grace: Duration) -> Result<Survival, Failure> {
    cob_pool::private_folder(runtime).map_err(Failure::failed)?;
    let path = std::env::current_exe()
        .map_err(|error| Failure::Failed(format!("cannot tell where this program lies: {error}")))?;
    let custodian = Program {
        path,
        arguments: vec!["custodian".into()],
        image: None,
        environment: std::env::vars_os().filter(|(name, _)| name == "COB_LOG").collect(),
        directory: Some("/".into()),
    };
    Ok(Survival::new(custodian, runtime.to_owned(), grace))
}

/// The folders above a store in its usual place.
pub(crate) fn made(folder: PathBuf) -> Result<PathBuf, Failure> {
    let parent = folder.parent().unwrap_or(&folder);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
    made.map_err(|error| Failure::Failed(format!("cannot make {}: {error}", parent.display())))?;
    Ok(folder)
}

pub(crate) fn grace(text: &str) -> Result<Duration, String> {
    // With or without the unit that limits of time are written with.
    let grace = limits::seconds(text.strip_suffix('s').unwrap_or(text))?;
    if grace.as_secs() > GRACE_S_MAX {
        return Err(format!("at most {GRACE_S_MAX}, which is a week"));
    }
    Ok(grace)
}
