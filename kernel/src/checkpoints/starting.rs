//! The road of a worker to its session: an empty one from the pool, one that goes on from a checkpoint in memory, or one
//! that has taken in a bundle. All of it happens in a task; nothing here knows the session.

use std::time::Duration;

use cob_bridge::{Bridge, BundleError, Bundles, StoredBundle};
use cob_pool::{
    Frozen, LeaseError, Leased, Loading, Place, Program, Request, Thaw, Worker, WorkerEvent, Workers,
};
use cob_protocol::checkpoint::{CheckpointView, Loaded, Tier};
use cob_protocol::error::ErrorCode;
use cob_protocol::frame::{Frame, Outcome, RequestNumber};
use cob_protocol::ids::CheckpointId;
use cob_protocol::limits::LOAD_MS_MAX;

use crate::request::Refusal;
use crate::survival::{Kept, Survival, kept};

/// Where a worker may begin.
#[derive(Debug)]
pub(crate) enum Step {
    /// In memory.
    Memory(CheckpointId, Frozen),
    /// In the store; the flag forces it.
    Durable(CheckpointId, bool),
}

/// Where a worker is to begin: at the first of these that works.
#[derive(Debug, Default)]
pub(crate) struct Route {
    pub(crate) steps: Vec<Step>,
    /// If none does, without variables. (A route without steps ends there in any case.)
    pub(crate) is_fresh_enough: bool,
    /// It is the first worker of its session, whose checkpoints are not its own.
    pub(crate) is_branch: bool,
}

/// What a worker is asked for with.
pub(crate) struct Asking {
    pub(crate) request: Request,
    pub(crate) workers: Workers,
    pub(crate) survival: Option<Survival>,
    pub(crate) bridge: Bridge,
    /// A number for the question that takes a bundle in.
    pub(crate) question: RequestNumber,
}

/// A worker for the session, who keeps it, and where it began.
pub(crate) struct Started {
    pub(crate) leased: Leased,
    pub(crate) kept: Option<Kept>,
    /// Absent: without variables.
    pub(crate) begun: Option<Begun>,
    /// Why it did not begin where it was to begin first: sentences.
    pub(crate) failures: Vec<String>,
}

/// Where a worker began.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) checkpoint: CheckpointId,
    pub(crate) tier: Tier,
    /// What is known of it, when it came from the store.
    pub(crate) view: Option<Box<CheckpointView>>,
    pub(crate) loaded: Loaded,
}

/// No worker.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// There is none to be had.
    Lease(LeaseError),
    /// It cannot begin where it is to begin.
    Checkpoint(Refusal),
}

impl NotStarted {
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Lease(error @ LeaseError::Limits { .. }) => {
                Refusal::new(ErrorCode::InvalidLimit, error.to_string())
            }
            Self::Lease(error) => Refusal::new(ErrorCode::WorkerStartFailed, error.to_string()),
            Self::Checkpoint(refusal) => refusal.clone(),
        }
    }
}

/// Gets a worker along a route.
pub(crate) async fn start(asking: Asking, route: Route) -> Result<Started, NotStarted> {
    let (mut failures, mut last) = (Vec::new(), None);
    for step in route.steps {
        match begin(&asking, step, route.is_branch).await {
            Ok((leased, begun)) => {
                return Ok(deposited(&asking, leased, Some(begun), failures).await);
            }
            Err(error) => {
                failures.push(error.refusal().why);
                last = Some(error);
            }
        }
    }
    if let Some(error) = last.filter(|_| !route.is_fresh_enough) {
        return Err(error);
    }
    let leased = asking.workers.lease(&asking.request).await.map_err(NotStarted::Lease)?;
    Ok(deposited(&asking, leased, None, failures).await)
}

async fn deposited(asking: &Asking, leased: Leased, begun: Option<Begun>, failures: Vec<String>) -> Started {
    let kept = match &asking.survival {
        None => None,
        Some(survival) => kept(survival, &leased).await,
    };
    Started { leased, kept, begun, failures }
}

async fn begin(asking: &Asking, step: Step, is_branch: bool) -> Result<(Leased, Begun), NotStarted> {
    match step {
        Step::Memory(checkpoint, frozen) => {
            let Request { program, hello, limits } = asking.request.clone();
            let thaw = Thaw { hello, limits, place: place(is_branch, program) };
            let failed = |error| match is_branch {
                // Whoever opens it hears the pool's own words.
                true => NotStarted::Lease(error),
                false => NotStarted::Checkpoint(refused(checkpoint, &error)),
            };
            let leased = frozen.thaw(&thaw).await.map_err(failed)?;
            let begun = Begun { checkpoint, tier: Tier::Memory, view: None, loaded: Loaded::default() };
            Ok((leased, begun))
        }
        Step::Durable(checkpoint, force) => {
            let bundles = asking.bridge.bundles();
            // What cannot be read needs no worker.
            let (stored, view) = open(bundles, checkpoint).await.map_err(NotStarted::Checkpoint)?;
            let mut leased = asking.workers.lease(&asking.request).await.map_err(NotStarted::Lease)?;
            let loaded = load(&mut leased.worker, stored, asking.question, force).await;
            let loaded = loaded.map_err(NotStarted::Checkpoint)?;
            let view = Some(Box::new(view));
            Ok((leased, Begun { checkpoint, tier: Tier::Durable, view, loaded }))
        }
    }
}

fn place(is_branch: bool, program: Program) -> Place {
    if is_branch { Place::Other(program) } else { Place::Same }
}

fn refused(checkpoint: CheckpointId, error: &LeaseError) -> Refusal {
    let why = format!("no worker could go on from {checkpoint}: {error}");
    Refusal::new(ErrorCode::CheckpointFailed, why)
}

/// Has a worker that serves nobody yet take in a bundle. What it prints meanwhile is nobody's.
async fn load(
    worker: &mut Worker,
    stored: StoredBundle,
    question: RequestNumber,
    force: bool,
) -> Result<Loaded, Refusal> {
    let failed = |why: String| Refusal::new(ErrorCode::CheckpointFailed, why);
    let loading = worker.load(question, force).map_err(|error| failed(error.to_string()))?;
    let both = async { tokio::join!(pump(stored, loading), answered(worker, question)) };
    let (pumped, outcome) = tokio::time::timeout(Duration::from_millis(LOAD_MS_MAX), both)
        .await
        .map_err(|_| failed("the worker did not take the bundle in in time".to_owned()))?;
    // Without the whole of it the answer says only that something was missing.
    pumped?;
    taken_in(outcome?)
}

/// Waits for the answer to a question.
async fn answered(worker: &mut Worker, question: RequestNumber) -> Result<Outcome, Refusal> {
    loop {
        let event = worker.next().await;
        worker.record(worker.given());
        match event {
            WorkerEvent::Frame(Frame::Answer(answer), _) if answer.request == question => {
                return Ok(answer.outcome);
            }
            WorkerEvent::Gone(exit) => {
                let why = format!("the worker {exit} while it took the bundle in");
                return Err(Refusal::new(ErrorCode::CheckpointFailed, why));
            }
            WorkerEvent::Frame(..) | WorkerEvent::Output(..) => {}
        }
    }
}

/// What a worker says of a bundle that it has taken in.
pub(super) fn taken_in(outcome: Outcome) -> Result<Loaded, Refusal> {
    match outcome {
        Outcome::Value(loaded) => loaded.read().map_err(|error| {
            let why = format!("the worker's account of the bundle cannot be read: {error}");
            Refusal::new(ErrorCode::CheckpointFailed, why)
        }),
        Outcome::Declined(why) => Err(Refusal::new(ErrorCode::IncompatibleCheckpoint, why)),
        Outcome::Failed { ename, evalue } => {
            Err(Refusal::new(ErrorCode::CheckpointFailed, format!("{ename}: {evalue}")))
        }
        Outcome::Eof(why) | Outcome::TimedOut(why) => Err(Refusal::new(ErrorCode::CheckpointFailed, why)),
        Outcome::Again => {
            Err(Refusal::new(ErrorCode::CheckpointFailed, "the worker did not take the bundle in"))
        }
    }
}

/// Opens a bundle.
pub(super) async fn open(
    bundles: Option<Bundles>,
    checkpoint: CheckpointId,
) -> Result<(StoredBundle, CheckpointView), Refusal> {
    let bundles = bundles.ok_or_else(|| Refusal::from(BundleError::NoStore))?;
    let stored = bundles.open(checkpoint).await.map_err(Refusal::from)?;
    let view = stored.view().cloned();
    let view = view.ok_or_else(|| Refusal::from(BundleError::Unknown(checkpoint)))?;
    Ok((stored, view))
}

/// Carries a bundle to a worker. One that does not want more of it says why in its answer.
pub(super) async fn pump(mut stored: StoredBundle, mut loading: Loading) -> Result<(), Refusal> {
    while let Some((tag, bytes)) = stored.next().await.map_err(Refusal::from)? {
        if loading.send(tag, &bytes).await.is_err() {
            break;
        }
    }
    Ok(())
}
