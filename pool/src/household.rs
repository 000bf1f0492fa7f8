//! What the workers and checkpoints of one session live in together: how each comes into it, and leaves it.
//!
//! **Invariant:** none of them is ended for the sake of another one. With the last one everything ends that is left.

use std::sync::Arc;

use cob_protocol::resources::Limits;

use crate::enclosure::{Common, Enclosure, Local};
use crate::limits::WithCheckpoint;
use crate::parked::Parked;
use crate::processes::Stat;
use crate::share::{Away, Link};
use crate::spared::Spared;
use crate::tree::Tree;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) enum Household {
    /// Nothing: each has its process group.
    Open,
    /// Enclosed by this process.
    Local(Arc<Common>),
    /// Enclosed by the process that the first worker came from.
    Elsewhere(Arc<Link>),
}

impl Household {
    /// A checkpoint is on its way: when memory runs out, it does not go because its worker does.
    pub(crate) fn expects_checkpoint(&self) -> Option<WithCheckpoint> {
        match self {
            Self::Local(common) => common.with_checkpoint(),
            Self::Open | Self::Elsewhere(_) => None,
        }
    }

    /// Takes in checkpoint `pid`.
    pub(crate) fn checkpoint(&self, pid: u32) -> Checkpoint {
        let spared = Stat::of(pid).map(|stat| Spared::new(stat.process));
        let away = match self {
            Self::Open | Self::Local(_) => None,
            Self::Elsewhere(link) => Some(Away::spare(link, pid)),
        };
        Checkpoint { _household: self.clone(), _spared: spared, group: self.expects_checkpoint(), away }
    }

    /// Takes in a worker that was forked off one of its checkpoints.
    pub(crate) fn worker(&self, parked: &Parked) -> Enclosure {
        let pid = parked.life.pid();
        match self {
            Self::Open => Enclosure::Open,
            Self::Local(common) => {
                let tree = Tree::of(pid, &parked.marker, &parked.pipes());
                Enclosure::Local(Box::new(Local::join(common, tree)))
            }
            Self::Elsewhere(link) => Enclosure::Elsewhere(link.join(pid, &parked.marker, parked.pipes())),
        }
    }

    /// Encloses a worker that was forked off one of its checkpoints for another session by itself.
    pub(crate) async fn branch(&self, parked: &Parked, limits: &Limits) -> Enclosure {
        let mut local = match self {
            // As where a worker is started.
            Self::Open if *limits == Limits::default() => return Enclosure::Open,
            Self::Open | Self::Elsewhere(_) => Local::admit(None, parked, None, None).await,
            Self::Local(common) => common.branch(parked).await,
        };
        if let Self::Elsewhere(link) = self {
            // Whoever looks after the others may take it for one of them as long as it lives.
            local.stays_away(Away::spare(link, parked.life.pid()));
        }
        Enclosure::Local(Box::new(local))
    }
}

/// A checkpoint in its household, which it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    _household: Household,
    _spared: Option<Spared>,
    group: Option<WithCheckpoint>,
    away: Option<Away>,
}

impl Checkpoint {
    /// It ended and nobody wanted it to. If that was for want of memory, it says nothing about the workers.
    pub(crate) fn lost(&mut self) {
        if let Some(group) = &self.group {
            group.group().settle_one_oom_kill();
        }
        if let Some(away) = &mut self.away {
            away.lost();
        }
    }
}
