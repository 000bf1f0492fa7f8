//! Going back: a worker begins at a checkpoint, and only when it is there the present one is ended and replaced. So a
//! way back that fails changes nothing. A worker that was lost is replaced in the same way, by the newest checkpoint on
//! the way to its variables.

use cob_protocol::checkpoint::{CheckpointView, Mode, Restoration, Tier};
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::CheckpointId;
use cob_protocol::promise::SessionState;

use super::starting::{Begun, NotStarted, Route, Started, Step};
use super::taking::failed;
use super::wishes::Asker;
use super::{Change, Checkpoints, Heard, Known, Place, restoration, start};
use crate::arrivals::Fate;
use crate::dispatch::WENT_BACK;
use crate::request::{GoBack, Refusal, Target};
use crate::session::{Session, WorkerState};

/// A way back, until a worker is where it leads.
pub(crate) struct Moving {
    asker: Asker,
    /// Whatever runs or waits then has had its time.
    is_now: bool,
}

/// A worker that takes the place of the present one as soon as that is gone.
pub(crate) struct Successor {
    started: Started,
    asker: Asker,
}

impl Session {
    pub(super) fn go_back(&mut self, go: GoBack, asker: Asker) {
        if let Some((code, why)) = self.over() {
            return self.not_gone_back(asker, Refusal::new(code, why));
        }
        if self.checkpoints.is_moving() || self.successor.is_some() {
            let why = "the session is on its way to a checkpoint already";
            return self.not_gone_back(asker, Refusal::new(ErrorCode::Busy, why));
        }
        if self.checkpoints.has_any_coming() {
            // Which one is meant is known only when it is known which there are.
            self.checkpoints.way_later = Some((go, asker));
            return;
        }
        let step = match self.checkpoints.resolve(&go.to, 0, self.config.checkpoints.mode) {
            Ok((_, step)) => step,
            Err(refusal) => return self.not_gone_back(asker, refusal),
        };
        match step {
            Step::Durable(id, _) if !go.fresh && !go.now => self.merge(id, go.force, asker),
            Step::Durable(id, _) => self.move_to(Step::Durable(id, go.force), go.now, asker),
            step => self.move_to(step, go.now, asker),
        }
    }

    fn move_to(&mut self, step: Step, is_now: bool, asker: Asker) {
        let route = Route { steps: vec![step], ..Route::default() };
        let asking = self.asking_for_worker();
        self.checkpoints.moving = Some(Moving { asker, is_now });
        self.checkpoints.tasks.spawn(async move { Heard::Moved(Box::new(start(asking, route).await)) });
    }

    /// A worker is where the session is to be, or will not be.
    pub(super) fn moved(&mut self, started: Result<Started, NotStarted>) {
        let Some(Moving { asker, is_now }) = self.checkpoints.moving.take() else {
            // It is not wanted any more.
            if let Ok(Started { kept: Some(kept), .. }) = started {
                kept.release();
            }
            return;
        };
        let started = match started {
            Ok(started) => started,
            Err(error) => {
                self.not_gone_back(asker, error.refusal());
                if matches!(self.worker, WorkerState::None) && self.held.is_some() {
                    self.replace_worker();
                }
                return;
            }
        };
        if is_now {
            self.refuse_turns_in(ErrorCode::Restarted, WENT_BACK, SessionState::Restored);
            self.arrivals.condemn(Fate::WentBack);
        }
        let successor = Box::new(Successor { started, asker });
        match &mut self.worker {
            WorkerState::Live(_) => {
                self.successor = Some(successor);
                self.kill_worker();
            }
            WorkerState::Starting(task) => {
                task.abort();
                self.succeed(successor);
            }
            WorkerState::None => self.succeed(successor),
        }
    }

    /// The place is free.
    pub(crate) fn succeed(&mut self, successor: Box<Successor>) {
        let Successor { started, asker } = *successor;
        self.generation += 1;
        let restoration = self.install(started);
        if let (Asker::Command(asked), Some(restoration)) = (asker, restoration) {
            self.report(asked, restoration);
        }
    }

    /// A fresh namespace is wanted: whatever leads elsewhere is given up.
    pub(crate) fn forget_where_to_go(&mut self) {
        let (code, why) = (ErrorCode::Restarted, "the session was restarted");
        self.abandon_ways(code, why);
        self.refuse_wishes(code, why);
        self.sleep_no_more();
        match &self.worker {
            // It may be on its way to a checkpoint.
            WorkerState::Starting(task) => {
                task.abort();
                self.conclude_held(None, &[]);
                self.start_worker();
            }
            WorkerState::None => self.conclude_held(None, &[]),
            WorkerState::Live(_) => {}
        }
    }

    /// The session ends.
    pub(crate) fn end_ways(&mut self, code: ErrorCode, why: &str) {
        self.abandon_ways(code, why);
        self.refuse_wishes(code, why);
        self.refuse_saves(code, why);
        self.conclude_held(None, &[]);
    }

    /// No way back is gone any more that has not been gone to its end.
    pub(crate) fn abandon_ways(&mut self, code: ErrorCode, why: &str) {
        let moving = self.checkpoints.moving.take().map(|moving| moving.asker);
        let successor = self.successor.take().map(|successor| {
            if let Some(kept) = successor.started.kept {
                kept.release();
            }
            successor.asker
        });
        let later = self.checkpoints.way_later.take().map(|(_, asker)| asker);
        for asker in moving.into_iter().chain(successor).chain(later) {
            self.not_gone_back(asker, Refusal::new(code, why));
        }
        self.checkpoints.is_waiting = false;
    }

    /// A worker is there. What it brings along, if it did not begin empty.
    pub(crate) fn worker_begun(&mut self, begun: Option<Begun>, failures: &[String]) -> Option<Restoration> {
        self.checkpoints.sleep.wakes_at = None;
        for why in failures {
            tracing::warn!(why, "the session could not go back to a checkpoint");
        }
        let Some(begun) = begun else {
            self.checkpoints.begin_anew();
            return None;
        };
        if begun.tier == Tier::Memory && begun.checkpoint.session != self.config.id {
            // A branch begins: nothing was undone.
            self.checkpoints.came_from = Some(begun.checkpoint);
            return None;
        }
        Some(self.arrived_at(begun))
    }

    /// The variables are those of a checkpoint from now on.
    pub(super) fn arrived_at(&mut self, begun: Begun) -> Restoration {
        let Begun { checkpoint, tier, view, loaded } = begun;
        let known = self.checkpoints.get(checkpoint).map(|known| known.view.findings.clone());
        let place = self.checkpoints.arrive(checkpoint);
        let now = self.bridge.now();
        let elsewhere = || Place::of(view.as_deref(), now.micros());
        let mut restoration = restoration(checkpoint, tier, &place.unwrap_or_else(elsewhere), now);
        match tier {
            Tier::Memory => {
                restoration.findings = known.unwrap_or_default();
                self.checkpoints.change = Change::None;
            }
            Tier::Durable | Tier::Both => {
                restoration.restored = loaded.restored;
                let count = view.as_ref().map_or(self.count, |view| view.count);
                restoration.rebuild = match checkpoint.session == self.config.id {
                    true => self.rebuild(&loaded.missing, count),
                    false => Vec::new(),
                };
                restoration.missing = loaded.missing;
                restoration.kept = loaded.kept;
                restoration.findings = loaded.findings;
                self.checkpoints.change = Change::Full;
            }
        }
        let (age_ms, since) = (restoration.age_ms, restoration.executions_since);
        let missing = restoration.missing.len();
        tracing::info!(%checkpoint, ?tier, age_ms, since, missing, "the session is back at a checkpoint");
        self.outlet.restored(&restoration);
        self.checkpoints.restored = Some((restoration.clone(), false));
        restoration
    }

    /// The worker is gone, and was not to go: another one takes its place, where its variables came from if possible.
    pub(crate) fn replace_worker(&mut self) {
        // A checkpoint that was asked of it just before its end may have come all the same.
        self.checkpoints.is_waiting =
            self.recovers() && self.checkpoints.way().any(|known| known.coming.is_some());
        if !self.checkpoints.is_waiting {
            let route = self.way_back();
            self.start_worker_along(route);
        }
    }

    pub(super) fn recovers(&self) -> bool {
        let policy = &self.config.checkpoints;
        policy.recover && policy.mode != Mode::Off
    }

    /// Whether there is something that a lost worker can be replaced by, or will be.
    pub(crate) fn has_way_back(&mut self) -> bool {
        self.checkpoints.tidy();
        self.recovers() && self.checkpoints.head.is_some()
    }

    /// From the newest checkpoint to older ones, then to the newest in the store, then to no variables.
    fn way_back(&mut self) -> Route {
        self.checkpoints.tidy();
        let mut steps = Vec::new();
        if self.recovers() {
            let way = || self.checkpoints.way();
            steps.extend(way().filter_map(|known| Some(Step::Memory(known.id(), known.frozen.clone()?))));
            let stored = way().find(|known| known.is_durable);
            steps.extend(stored.map(|known| Step::Durable(known.id(), false)));
        }
        Route { steps, is_fresh_enough: true, is_branch: false }
    }
}

impl Place {
    /// Of a checkpoint that is none of the session's.
    fn of(view: Option<&CheckpointView>, now: i64) -> Self {
        Self { taken_at: view.map_or(now, |view| view.taken_at), since: 0 }
    }
}

impl Checkpoints {
    /// What is meant, and how to get there; `running` cells are there that do not count.
    pub(super) fn resolve(
        &mut self,
        to: &Target,
        running: u64,
        mode: Mode,
    ) -> Result<(CheckpointId, Step), Refusal> {
        self.tidy();
        let unknown = |why: String| Err(Refusal::new(ErrorCode::UnknownCheckpoint, why));
        let found = match to {
            Target::Checkpoint(id) if id.session != self.session => {
                return Ok((*id, Step::Durable(*id, false)));
            }
            Target::Checkpoint(id) => self.get(*id).filter(|known| known.is_there()),
            Target::Label(label) => self.there().rev().find(|known| known.view.label.as_ref() == Some(label)),
            Target::Undo(back) => {
                let ran = self.ran.checked_sub(running.saturating_add(*back));
                ran.and_then(|ran| self.way().find(|known| known.ran <= ran && known.is_there()))
            }
        };
        match (found, to) {
            (Some(known), _) => Ok((known.id(), known.step())),
            (None, Target::Checkpoint(id)) => {
                unknown(format!("there is no checkpoint {id} any more, or yet"))
            }
            (None, Target::Label(label)) => {
                unknown(format!("there is no checkpoint with the label {label:?}"))
            }
            (None, Target::Undo(back)) => {
                let last = match back {
                    1 => "the last execution".to_owned(),
                    _ => format!("the last {back} executions"),
                };
                let why = match mode {
                    Mode::Auto => "",
                    Mode::Manual => "; none is taken by itself, unless the policy of the session is `auto`",
                    Mode::Off => "; checkpoints are off in this session",
                };
                unknown(format!("there is no checkpoint from before {last}{why}"))
            }
        }
    }
}

impl Known {
    fn step(&self) -> Step {
        match &self.frozen {
            Some(frozen) => Step::Memory(self.id(), frozen.clone()),
            None => Step::Durable(self.id(), false),
        }
    }
}

/// Why a session that is told to go back can do nothing.
pub(super) fn no_worker() -> Refusal {
    failed("the session has no worker".to_owned())
}
