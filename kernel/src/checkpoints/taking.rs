//! Taking a checkpoint: a frame to the worker at a moment at which no code runs. Nobody waits for what comes of it: the
//! worker makes it before it begins anything that is sent after.

use std::io;

use cob_pool::{FreezeError, Frozen};
use cob_protocol::checkpoint::{CheckpointView, Mode, Tier};
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::CheckpointId;
use cob_protocol::limits::CHECKPOINTS_MAX;
use tokio::time::Instant;

use cob_bridge::Write;

use super::policy::{self, Weighed};
use super::wishes::{Taking, Then};
use super::{Change, Checkpoints, Heard, Known};
use crate::dispatch::{Queued, Work};
use crate::request::{Refusal, Take};
use crate::session::{Session, WorkerState};

impl Session {
    /// Takes what the policy wants now; whether that was anything. No code runs.
    pub(super) fn take_by_policy(&mut self) -> bool {
        if self.is_draining {
            return false;
        }
        let is_durable = self.durable_at().is_some_and(|at| at <= Instant::now());
        let is_auto = self.config.checkpoints.mode == Mode::Auto;
        let is_due = match self.checkpoints.change {
            Change::None => false,
            Change::Slight => is_auto && self.is_cell_next(),
            Change::Full => is_auto,
        };
        if !is_due && !is_durable {
            return false;
        }
        let take = Take { durable: is_durable, ..Take::default() };
        self.freeze(Taking::automatic(take, Then::Tell(None)));
        true
    }

    fn is_cell_next(&self) -> bool {
        let is_cell = |queued: &Queued| matches!(&queued.work, Work::Execute(body) if !body.silent);
        self.queue.front().is_some_and(is_cell)
    }

    /// A number that nobody else has.
    pub(super) fn number_checkpoint(&mut self) -> CheckpointId {
        let (id, up_to) = self.checkpoints.next_number();
        if let Some(up_to) = up_to {
            let session = self.config.id;
            self.write_surely(self.config.durability, Write::NumberCheckpoints { session, up_to });
        }
        id
    }

    /// Sends the frame. No code runs.
    pub(super) fn freeze(&mut self, taking: Box<Taking>) {
        if taking.take.durable {
            self.checkpoints.sleep.is_stored();
        }
        // What fails now is tried again when something has run.
        self.checkpoints.change = Change::None;
        if let Err(refusal) = self.make_room(&taking) {
            return self.not_taken(*taking, refusal);
        }
        let WorkerState::Live(worker) = &mut self.worker else {
            return self.not_taken(*taking, failed("the session has no worker".to_owned()));
        };
        let freezing = match worker.freeze(taking.take.force) {
            Ok(freezing) => freezing,
            Err(error) => return self.not_taken(*taking, failed(error.to_string())),
        };
        let id = taking.id.unwrap_or_else(|| self.number_checkpoint());
        let view = CheckpointView {
            checkpoint: id,
            label: taking.take.label.clone(),
            tier: Tier::Memory,
            automatic: taking.is_automatic,
            execution: self.contexts.latest(),
            count: self.count,
            taken_at: self.bridge.now().micros(),
            parent: self.checkpoints.came_from,
            private_bytes: None,
            bytes: None,
            new_bytes: None,
            findings: Vec::new(),
            missing: Vec::new(),
        };
        self.checkpoints.expect(view, taking);
        let since = Instant::now();
        self.checkpoints.tasks.spawn(async move { Heard::Frozen(id, since, freezing.frozen().await) });
    }

    /// Whether there may be one more: automatic ones give way.
    fn make_room(&mut self, taking: &Taking) -> Result<(), Refusal> {
        self.checkpoints.tidy();
        let coming = self.checkpoints.known.iter().filter(|known| known.coming.is_some()).count();
        let weighed = self.checkpoints.weighed();
        let oldest = weighed.iter().find(|one| one.is_automatic).map(|one| one.id);
        if weighed.len() + coming >= CHECKPOINTS_MAX {
            let Some(oldest) = oldest else {
                let why =
                    format!("the session has {CHECKPOINTS_MAX} checkpoints in memory, and may have no more");
                return Err(Refusal::new(ErrorCode::CheckpointLimit, why));
            };
            self.drop_from_memory(&[oldest]);
        }
        let budget = self.config.checkpoints.budget_bytes;
        let asked: Vec<_> = weighed.into_iter().filter(|one| !one.is_automatic).collect();
        let held = policy::held(&asked);
        if !taking.is_automatic && held >= budget && held > 0 {
            let why = format!(
                "the checkpoints of the session hold {held} bytes of memory, and may hold {budget}; nothing was dropped"
            );
            return Err(Refusal::new(ErrorCode::CheckpointLimit, why));
        }
        Ok(())
    }

    pub(super) fn not_taken(&mut self, taking: Taking, refusal: Refusal) {
        if taking.is_automatic {
            tracing::debug!(why = refusal.why, "no automatic checkpoint");
            self.checkpoints.skipped = Some(refusal.why.clone());
        } else {
            tracing::info!(why = refusal.why, "no checkpoint");
        }
        if let (Then::Code(execution), Some(id)) = (&taking.then, taking.id) {
            self.tell_code(*execution, format!("There is no checkpoint {id}: {}\n", refusal.why));
        }
        taking.then.refuse(refusal);
    }

    /// What came of it.
    pub(super) fn frozen(&mut self, id: CheckpointId, since: Instant, frozen: Result<Frozen, FreezeError>) {
        let Some(known) = self.checkpoints.get_mut(id) else { return };
        let Some(taking) = known.coming.take() else { return };
        let frozen = match frozen {
            Ok(frozen) => frozen,
            Err(error) => {
                self.checkpoints.tidy();
                let refusal = match error {
                    FreezeError::Refused(_) => Refusal::new(ErrorCode::CheckpointRefused, error.to_string()),
                    error => failed(error.to_string()),
                };
                return self.not_taken(*taking, refusal);
            }
        };
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(checkpoint = %id, pid = frozen.pid(), micros, "checkpoint taken");
        known.view.findings = frozen.findings().to_vec();
        known.frozen = Some(frozen.clone());
        let is_automatic = taking.is_automatic;
        known.is_saving = taking.take.durable;
        if is_automatic {
            self.checkpoints.skipped = None;
        }
        if taking.take.durable {
            self.save(id, frozen, taking.then);
        } else {
            self.tell_taken(id, taking.then);
        }
        self.outlet.took(is_automatic);
        let surplus = policy::beyond_keep(&self.checkpoints.weighed(), self.config.checkpoints.keep);
        self.drop_from_memory(&surplus);
        self.measure();
    }

    /// It is there, as it was asked for.
    pub(super) fn tell_taken(&mut self, id: CheckpointId, then: Then) {
        match then {
            Then::Tell(None) | Then::Code(_) => {}
            Then::Tell(Some(asked)) => match self.checkpoints.get(id).map(Known::view) {
                Some(view) => self.report(asked, view),
                None => Then::Tell(Some(asked)).refuse(failed(format!("{id} is gone already"))),
            },
            Then::Branch(asked) => match self.seed(id) {
                Some(seed) => self.report(asked, seed),
                None => Then::Branch(asked).refuse(failed(format!("{id} is gone already"))),
            },
            Then::Sleep(force, asked) => self.fall_asleep(id, force, asked),
        }
    }

    /// Lets go of checkpoints in memory.
    pub(super) fn drop_from_memory(&mut self, ids: &[CheckpointId]) {
        for id in ids {
            if let Some(known) = self.checkpoints.get_mut(*id) {
                tracing::debug!(checkpoint = %id, "dropped from memory");
                known.frozen = None;
            }
        }
        self.checkpoints.tidy();
        self.unfreeze_if_none_is_left();
    }

    /// The worker need not care for checkpoints any more.
    pub(super) fn unfreeze_if_none_is_left(&mut self) {
        if !self.checkpoints.has_any_in_memory()
            && !self.is_killed
            && let WorkerState::Live(worker) = &mut self.worker
        {
            worker.unfreeze();
        }
    }

    // --- How much they hold ----------------------------------------------------------------------------------

    /// Looks what each of them holds. One look at a time.
    fn measure(&mut self) {
        if std::mem::replace(&mut self.checkpoints.is_measuring, true) {
            self.checkpoints.measures_again = true;
            return;
        }
        let all: Vec<_> =
            self.checkpoints.in_memory().map(|(known, frozen)| (known.id(), frozen.clone())).collect();
        self.checkpoints.tasks.spawn(async move {
            let mut measured = Vec::new();
            for (id, frozen) in all {
                measured.push((id, frozen.private_bytes().await));
            }
            Heard::Measured(measured)
        });
    }

    pub(super) fn weighed(&mut self, measured: Vec<(CheckpointId, io::Result<u64>)>) {
        self.checkpoints.is_measuring = false;
        for (id, bytes) in measured {
            if let (Some(known), Ok(bytes)) = (self.checkpoints.get_mut(id), bytes) {
                known.view.private_bytes = Some(bytes);
            }
        }
        self.checkpoints.tidy();
        let surplus =
            policy::beyond_budget(&self.checkpoints.weighed(), self.config.checkpoints.budget_bytes);
        if !surplus.is_empty() {
            self.checkpoints.skipped =
                Some("the checkpoints of the session hold as much memory as they may".to_owned());
        }
        self.drop_from_memory(&surplus);
        if std::mem::take(&mut self.checkpoints.measures_again) {
            self.measure();
        }
    }
}

impl Checkpoints {
    /// Those in memory, with what they hold.
    fn weighed(&self) -> Vec<Weighed> {
        let weigh = |(known, _): (&Known, &Frozen)| Weighed {
            id: known.id(),
            is_automatic: known.view.automatic,
            bytes: known.view.private_bytes.unwrap_or(0),
        };
        self.in_memory().map(weigh).collect()
    }

    /// What those in memory hold, as it was last measured.
    pub(crate) fn bytes(&self) -> u64 {
        self.in_memory().filter_map(|(known, _)| known.view.private_bytes).fold(0, u64::saturating_add)
    }
}

pub(super) fn failed(why: String) -> Refusal {
    Refusal::new(ErrorCode::CheckpointFailed, why)
}
