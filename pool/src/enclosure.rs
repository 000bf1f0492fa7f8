//! What a worker is enclosed in: its limits, and everything that belongs to it besides its own process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use cob_protocol::limits::TREE_KILL_MS_MAX;
use cob_protocol::resources::Limits;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::exit::Exit;
use crate::household::Household;
use crate::limits::{self, Cgroups};
use crate::parked::Parked;
use crate::share::{Away, Elsewhere};
use crate::spared::Spared;
use crate::tree::Tree;

/// See the module.
#[derive(Debug, Default)]
pub(crate) enum Enclosure {
    /// Nothing: its process group is all there is.
    #[default]
    Open,
    /// Made by this process.
    Local(Box<Local>),
    /// Made by the process that the worker came from.
    Elsewhere(Elsewhere),
}

/// One that this process made.
#[derive(Debug)]
pub(crate) struct Local {
    common: Arc<Common>,
    limits: limits::Enclosure,
    /// Absent once it is known to be gone.
    tree: Option<Tree>,
    /// The end of the tree under way: whoever waits for it may be interrupted and come back.
    clearing: Option<JoinHandle<usize>>,
    /// How the worker ended, once that was looked into.
    verdict: Option<Exit>,
    /// Another process has the worker, which outlives us.
    is_lent: bool,
    /// Nobody ends it for the sake of another one.
    _spared: Option<Spared>,
    /// Nor does whoever looks after the session that it came from.
    _away: Option<Away>,
}

/// What the workers and checkpoints of one session have in common. The group is removed with the last of them.
#[derive(Debug)]
pub(crate) struct Common {
    /// Where groups are made, if that is known already.
    cgroups: Option<Arc<Cgroups>>,
    /// As a worker comes into it.
    limits: limits::Enclosure,
    reaped: Option<Arc<AtomicU64>>,
    /// Dropped with it: whoever holds the other half learns that the session is over.
    _released: Option<oneshot::Sender<()>>,
}

impl Local {
    /// Encloses a worker that has not been told its session. Takes a while where there are cgroups; if it is not known
    /// whether there are, that is found out.
    pub(crate) async fn admit(
        cgroups: Option<&Arc<Cgroups>>,
        parked: &Parked,
        released: Option<oneshot::Sender<()>>,
        reaped: Option<Arc<AtomicU64>>,
    ) -> Self {
        let pid = parked.life.pid();
        let tree = Tree::of(pid, &parked.marker, &parked.pipes());
        let (cgroups, under_way) = (cgroups.cloned(), UnderWay::new());
        let admission = tokio::task::spawn_blocking(move || {
            let cgroups = cgroups.unwrap_or_else(|| Arc::new(Cgroups::detect()));
            let mut limits = limits::Enclosure::new(&cgroups);
            if let Err(error) = limits.admit(pid) {
                tracing::debug!(pid, %error, "a worker lives without a cgroup");
            }
            // Made here, so that it is cleared even if nobody waits for it any more.
            let common = Common { cgroups: Some(cgroups), limits, reaped, _released: released };
            (Self::of(Arc::new(common), tree), under_way)
        });
        // The task neither panics nor is it cancelled; if it were, there would be no group.
        let nothing = |_| {
            let limits = limits::Enclosure::new(&Cgroups::none("its group could not be made"));
            let common = Common { cgroups: None, limits, reaped: None, _released: None };
            (Self::of(Arc::new(common), None), UnderWay::new())
        };
        admission.await.unwrap_or_else(nothing).0
    }

    fn of(common: Arc<Common>, tree: Option<Tree>) -> Self {
        let limits = common.limits.successor();
        let spared = tree.as_ref().map(|tree| Spared::new(tree.leader()));
        Self {
            common,
            limits,
            tree,
            clearing: None,
            verdict: None,
            is_lent: false,
            _spared: spared,
            _away: None,
        }
    }

    /// That of another worker of the same session, which was forked off one of its checkpoints.
    pub(crate) fn join(common: &Arc<Common>, tree: Option<Tree>) -> Self {
        Self::of(Arc::clone(common), tree)
    }

    /// It came from a session that another process looks after, and is none of that one's.
    pub(crate) fn stays_away(&mut self, away: Away) {
        self._away = Some(away);
    }

    async fn clear(&mut self, exit: Exit, cpu_ms: Option<u64>) -> Exit {
        let exit = self.judge(exit, cpu_ms);
        if let Some(tree) = &self.tree {
            let group = self.limits.group().cloned();
            let clearing = self.clearing.get_or_insert_with(|| Clearing::new(tree.clone(), group).start());
            if let (Ok(count), Some(reaped)) = (clearing.await, &self.common.reaped) {
                reaped.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
        (self.tree, self.clearing) = (None, None);
        exit
    }

    fn judge(&mut self, exit: Exit, cpu_ms: Option<u64>) -> Exit {
        if self.verdict.is_none()
            && let Some(group) = self.limits.group()
        {
            let oom_kills = group.oom_kills();
            self.verdict = Some(self.limits.verdict(exit.clone(), cpu_ms));
            // The next worker of the session has nothing to do with these.
            group.settle_oom_kills(oom_kills);
        }
        self.verdict.clone().unwrap_or_else(|| self.limits.verdict(exit, cpu_ms))
    }
}

impl Common {
    /// What another worker is enclosed in that goes on from here, for another session.
    pub(crate) async fn branch(&self, parked: &Parked) -> Local {
        Local::admit(self.cgroups.as_ref(), parked, None, self.reaped.clone()).await
    }

    /// A checkpoint is in it, and says so as long as the result lives.
    pub(crate) fn with_checkpoint(&self) -> Option<limits::WithCheckpoint> {
        self.limits.group().map(limits::Cgroup::with_checkpoint)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // The session was given up before the worker had ended; its own process is killed by now, or is about to be.
        let Some(tree) = self.tree.take() else { return };
        let is_started = self.clearing.is_some() || self.is_lent;
        if !is_started && tokio::runtime::Handle::try_current().is_ok() {
            drop(Clearing::new(tree, self.limits.group().cloned()).start());
        }
    }
}

/// What is left to be ended of a worker. It is ended when this is dropped, if not before: once the event loop is being
/// taken down and starts nothing any more, that is there and then.
pub(crate) struct Clearing {
    tree: Option<Tree>,
    group: Option<limits::Cgroup>,
    _under_way: UnderWay,
}

impl Clearing {
    pub(crate) fn new(tree: Tree, group: Option<limits::Cgroup>) -> Self {
        Self { tree: Some(tree), group, _under_way: UnderWay::new() }
    }

    /// Ends it on a thread that may block: to look at all processes of a host takes milliseconds of system calls.
    /// Says how many processes that were.
    pub(crate) fn start(mut self) -> JoinHandle<usize> {
        tokio::task::spawn_blocking(move || self.end())
    }

    fn end(&mut self) -> usize {
        let ended = self.tree.take().map(|tree| tree.kill_blocking(self.group.as_ref()));
        ended
            .transpose()
            .unwrap_or_else(|error| {
                tracing::error!(%error, "what a worker started is not gone");
                None
            })
            .unwrap_or(0)
    }
}

impl Drop for Clearing {
    fn drop(&mut self) {
        self.end();
        // The group goes before it is said that all is done.
        self.group = None;
    }
}

/// How many enclosures are being made or cleared, and how many checkpoints are being dropped.
static UNDER_WAY: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

/// One of them.
#[derive(Debug)]
pub(crate) struct UnderWay;

impl UnderWay {
    pub(crate) fn new() -> Self {
        UNDER_WAY.send_modify(|count| *count += 1);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        UNDER_WAY.send_modify(|count| *count -= 1);
    }
}

/// Waits until whatever belonged to workers that were given up is gone. Before a process ends: what it does not
/// end, nobody else will.
pub async fn cleared() {
    let mut count = UNDER_WAY.subscribe();
    let none = count.wait_for(|count| *count == 0);
    // Who is not gone by then has been named in the log. The sender is never dropped.
    let _ = tokio::time::timeout(Duration::from_millis(2 * TREE_KILL_MS_MAX), none).await;
}

impl Enclosure {
    /// What it has in common with others of the same session.
    pub(crate) fn household(&self) -> Household {
        match self {
            Self::Open => Household::Open,
            Self::Local(local) => Household::Local(Arc::clone(&local.common)),
            Self::Elsewhere(elsewhere) => Household::Elsewhere(Arc::clone(elsewhere.link())),
        }
    }

    /// What another process needs to go on with it.
    pub(crate) fn keep(&self) -> limits::Kept {
        match self {
            Self::Local(local) => local.limits.keep(),
            Self::Open | Self::Elsewhere(_) => limits::Kept::default(),
        }
    }

    /// That of a worker which another process had before; its `tree` is ended with it.
    pub(crate) fn found(kept: limits::Kept, tree: Tree) -> Self {
        let found = limits::Enclosure::found(kept);
        let common = Common { cgroups: None, limits: found.successor(), reaped: None, _released: None };
        let mut local = Local::of(Arc::new(common), Some(tree));
        local.limits = found;
        Self::Local(Box::new(local))
    }

    /// Writes down that process `owner` has the worker, so that no server after this one takes it for left behind.
    pub(crate) fn lend_to(&self, owner: u32) {
        let local = match self {
            Self::Open => return,
            Self::Local(local) => local,
            Self::Elsewhere(elsewhere) => return elsewhere.lend_to(owner),
        };
        if let Some(Err(error)) = local.limits.group().map(|group| group.lend_to(owner)) {
            tracing::warn!(owner, %error, "the worker will not outlive the next server");
        }
    }

    /// The worker has been handed over: it does not end when this is dropped without having been cleared.
    pub(crate) fn outlive(&mut self) {
        if let Self::Local(local) = self {
            local.is_lent = true;
        }
    }

    /// Sets the limits of the session that process `pid` is about to serve; says for each what enforces it.
    pub(crate) fn apply(&mut self, pid: u32, limits: &Limits) -> Value {
        match self {
            Self::Local(local) => serde_json::to_value(local.limits.apply(pid, limits)).unwrap_or_default(),
            Self::Open => Value::Array(Vec::new()),
            Self::Elsewhere(elsewhere) => elsewhere.link().enforced().clone(),
        }
    }

    /// Ends whatever the worker left behind; how it ended, now that its limits are known to have struck or not.
    /// `cpu_ms`: the processor time it had used by then, if it is known. Cancel-safe: done again, the answer is the
    /// same.
    pub(crate) async fn clear(&mut self, exit: Exit, cpu_ms: Option<u64>) -> Exit {
        match self {
            Self::Open => exit,
            Self::Local(local) => local.clear(exit, cpu_ms).await,
            Self::Elsewhere(elsewhere) => elsewhere.clear(exit, cpu_ms).await,
        }
    }
}
