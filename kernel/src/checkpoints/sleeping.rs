//! Hibernation: everything is in the store, there is no worker, and the next request brings it back. And the clocks of
//! the policy.

use std::time::Duration;

use cob_protocol::checkpoint::{CheckpointView, Mode};
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::CheckpointId;
use cob_protocol::promise::SessionState;
use tokio::time::Instant;

use super::Change;
use super::wishes::{Taking, Then, Wish};
use crate::request::{Asked, Refusal, Take};
use crate::session::{Session, WorkerState};

/// How many things that cannot be kept are named.
const NAMED_MAX: usize = 5;

/// Where a session stands with its sleep.
#[derive(Debug, Default)]
pub(super) struct Sleep {
    /// Where its next worker begins.
    pub(super) wakes_at: Option<CheckpointId>,
    /// Its worker is being ended for it; who waits for that.
    falls: Option<Option<Asked<CheckpointView>>>,
    /// It was tried since code last ran.
    is_tried: bool,
    /// Since when something has run that is in no durable checkpoint.
    changed_since: Option<Instant>,
}

impl Sleep {
    pub(super) fn code_runs(&mut self) {
        self.is_tried = false;
        self.changed_since.get_or_insert_with(Instant::now);
    }

    /// What ran so far is being stored.
    pub(super) fn is_stored(&mut self) {
        self.changed_since = None;
    }

    /// It was not: the clock begins anew.
    pub(super) fn is_not_stored(&mut self) {
        self.changed_since.get_or_insert_with(Instant::now);
    }
}

impl Session {
    /// The checkpoint that the next worker begins at, since there is none now.
    pub(crate) fn wakes_at(&self) -> Option<CheckpointId> {
        self.checkpoints.sleep.wakes_at
    }

    /// After a server died: what is in the store is where the session goes on.
    pub(crate) fn sleep_at_newest(&mut self) {
        if self.recovers() {
            self.checkpoints.sleep.wakes_at = self.checkpoints.head;
        }
    }

    /// Whoever asked for a fresh namespace does not want an old one.
    pub(crate) fn sleep_no_more(&mut self) {
        self.checkpoints.sleep.wakes_at = None;
    }

    // --- Clocks ----------------------------------------------------------------------------------------------

    /// When a durable checkpoint is due; not while code runs, since there is none to be had then.
    pub(crate) fn durable_at(&self) -> Option<Instant> {
        let policy = &self.config.checkpoints;
        let every = Duration::from_millis(policy.durable_every_ms.filter(|_| policy.mode != Mode::Off)?);
        let is_possible = self.is_free() && self.checkpoints.saves.is_empty() && !self.is_draining;
        let since = self.checkpoints.sleep.changed_since.filter(|_| is_possible)?;
        self.bridge.bundles()?;
        since.checked_add(every)
    }

    /// When it has had nothing to do for long enough to be hibernated.
    pub(crate) fn sleep_at(&self) -> Option<Instant> {
        let policy = &self.config.checkpoints;
        let after = Duration::from_millis(policy.hibernate_after_ms.filter(|_| policy.mode != Mode::Off)?);
        if self.checkpoints.sleep.is_tried || !self.is_free() || self.is_at_work() || self.is_draining {
            return None;
        }
        let since = self.activity.idle_since()?;
        self.bridge.bundles()?;
        since.checked_add(after)
    }

    /// It has had nothing to do for long enough.
    pub(crate) fn sleep_after_idling(&mut self) {
        if !self.inputs.shell.is_empty() {
            return self.activity.asked();
        }
        self.checkpoints.sleep.is_tried = true;
        let take = Take { label: None, durable: true, force: false };
        self.wish(Wish::Take(Taking::automatic(take, Then::Sleep(false, None))));
    }

    // --- Falling asleep --------------------------------------------------------------------------------------

    /// Everything is in the store: the worker is given up, unless something would be lost with it.
    pub(super) fn fall_asleep(
        &mut self,
        id: CheckpointId,
        force: bool,
        asked: Option<Asked<CheckpointView>>,
    ) {
        let is_up_to_date = self.checkpoints.head == Some(id) && self.checkpoints.change == Change::None;
        let refusal =
            if !self.is_free() || self.is_at_work() || !is_up_to_date || !self.inputs.shell.is_empty() {
                let why = "something else was asked of the session meanwhile; try again";
                Some(Refusal::new(ErrorCode::Busy, why))
            } else {
                self.what_would_be_lost(id).filter(|_| !force).map(|lost| {
                    let why = format!("the session is not hibernated, since this would be lost: {lost}");
                    Refusal::new(ErrorCode::CheckpointRefused, why)
                })
            };
        if let Some(refusal) = refusal {
            tracing::debug!(why = refusal.why, "not hibernated");
            if asked.is_none() {
                self.checkpoints.skipped = Some(refusal.why.clone());
            }
            if self.config.checkpoints.durable_every_ms.is_none() {
                // It was stored for nothing but this.
                self.checkpoints.sleep.is_not_stored();
                self.delete_stored(id);
            }
            self.sleep_left(id);
            return Then::Sleep(force, asked).refuse(refusal);
        }
        tracing::info!(checkpoint = %id, "the session is hibernated");
        self.checkpoints.sleep.wakes_at = Some(id);
        self.checkpoints.sleep.falls = Some(asked);
        let all: Vec<_> = self.checkpoints.in_memory().map(|(known, _)| known.id()).collect();
        self.kill_worker();
        self.drop_from_memory(&all);
    }

    /// It does not sleep: where nobody wants automatic checkpoints there is no use for the one in memory.
    pub(super) fn sleep_left(&mut self, id: CheckpointId) {
        if self.config.checkpoints.mode == Mode::Manual {
            self.drop_from_memory(&[id]);
        }
    }

    fn what_would_be_lost(&self, id: CheckpointId) -> Option<String> {
        let view = &self.checkpoints.get(id)?.view;
        let missing = view.missing.iter().map(|missing| format!("{} ({})", missing.name, missing.reason));
        let findings = view.findings.iter().map(|finding| finding.text.clone());
        let comms = (!self.comms.is_empty()).then(|| format!("{} open comms", self.comms.len()));
        let in_memory = self.checkpoints.in_memory().map(|(known, _)| known);
        let unsaved = in_memory.filter(|known| !known.is_durable && !known.view.automatic);
        let unsaved = unsaved.map(|known| format!("the checkpoint {} (it is in memory only)", known.id()));
        let all: Vec<_> = missing.chain(findings).chain(comms).chain(unsaved).collect();
        let more = match all.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let named: Vec<_> = all.iter().take(NAMED_MAX).map(String::as_str).collect();
        (!named.is_empty()).then(|| named.join("; ") + &more)
    }

    /// The worker is gone; whether that is what the session wanted.
    pub(crate) fn has_fallen_asleep(&mut self) -> bool {
        let Some(asked) = self.checkpoints.sleep.falls.take() else { return false };
        let view = self.wakes_at().and_then(|id| self.checkpoints.get(id)).map(super::Known::view);
        self.outlet.hibernated();
        match (asked, view) {
            (Some(asked), Some(view)) => self.report(asked, view),
            (asked, _) => {
                let why = "the session was restarted while it fell asleep";
                Then::Sleep(false, asked).refuse(Refusal::new(ErrorCode::Restarted, why));
            }
        }
        true
    }

    /// The worker did not begin where it was to wake up: what waits for it is refused. The session sleeps on.
    pub(crate) fn not_woken(&mut self, refusal: &Refusal) {
        tracing::error!(why = refusal.why, "the session does not wake up");
        self.worker = WorkerState::None;
        let why = match self.wakes_at() {
            Some(id) => format!("the session cannot wake up at {id}: {}", refusal.why),
            None => refusal.why.clone(),
        };
        self.conclude_held(None, &[]);
        self.refuse_waiting_in(refusal.code, &why, SessionState::Kept);
        self.refuse_wishes(refusal.code, &why);
        self.not_restarted(refusal.code, &why);
    }
}
