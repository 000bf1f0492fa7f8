//! Durable checkpoints: a process that is forked off one in memory writes, the store takes it in. One at a time.

use cob_bridge::{Bundles, Facts};
use cob_pool::{FreezeError, Frozen};
use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::CheckpointId;

use super::Heard;
use super::policy::{self, Weighed};
use super::taking::failed;
use super::wishes::Then;
use crate::request::Refusal;
use crate::session::Session;

/// A bundle that is to be written.
pub(super) struct Save {
    id: CheckpointId,
    /// Kept until it is written, whatever becomes of the checkpoint in memory.
    frozen: Option<Frozen>,
    then: Then,
}

impl Session {
    /// Writes a checkpoint into the store, after those that came before it.
    pub(super) fn save(&mut self, id: CheckpointId, frozen: Frozen, then: Then) {
        self.checkpoints.saves.push_back(Save { id, frozen: Some(frozen), then });
        if self.checkpoints.saves.len() == 1 {
            self.save_next();
        }
    }

    fn save_next(&mut self) {
        while let Some(save) = self.checkpoints.saves.front_mut() {
            let (id, frozen) = (save.id, save.frozen.take());
            let facts = self.checkpoints.get(id).map(|known| facts(&known.view));
            let (Some(bundles), Some(frozen), Some(facts)) = (self.bridge.bundles(), frozen, facts) else {
                self.saved_front(Err(failed(format!("{id} is gone"))));
                continue;
            };
            self.checkpoints
                .tasks
                .spawn(async move { Heard::Saved(Box::new(save_into(&bundles, &frozen, facts).await)) });
            return;
        }
    }

    pub(super) fn saved(&mut self, saved: Result<CheckpointView, Refusal>) {
        self.saved_front(saved);
        self.save_next();
    }

    fn saved_front(&mut self, saved: Result<CheckpointView, Refusal>) {
        let Some(Save { id, then, .. }) = self.checkpoints.saves.pop_front() else { return };
        if let Some(known) = self.checkpoints.get_mut(id) {
            known.is_saving = false;
            if let Ok(CheckpointView { bytes, new_bytes, missing, .. }) = &saved {
                tracing::info!(checkpoint = %id, bytes, new_bytes, missing = missing.len(), "checkpoint stored");
                known.is_durable = true;
                (known.view.bytes, known.view.new_bytes) = (*bytes, *new_bytes);
                known.view.missing.clone_from(missing);
            }
        }
        match saved {
            Ok(_) => {
                self.tell_taken(id, then);
                self.delete_surplus();
            }
            Err(mut refusal) => {
                tracing::warn!(checkpoint = %id, why = refusal.why, "a checkpoint could not be stored");
                self.checkpoints.sleep.is_not_stored();
                if let Then::Code(execution) = then {
                    self.tell_code(execution, format!("{id} is not stored: {}\n", refusal.why));
                }
                if matches!(then, Then::Sleep(..)) {
                    self.sleep_left(id);
                }
                if matches!(then, Then::Tell(_))
                    && self.checkpoints.get(id).is_some_and(|it| it.frozen.is_some())
                {
                    refusal.why.push_str(&format!("; {id} is in memory only"));
                }
                then.refuse(refusal);
            }
        }
        self.checkpoints.tidy();
    }

    /// Nothing more is written.
    pub(super) fn refuse_saves(&mut self, code: ErrorCode, why: &str) {
        for save in std::mem::take(&mut self.checkpoints.saves) {
            save.then.refuse(Refusal::new(code, why));
        }
        for known in &mut self.checkpoints.known {
            if let Some(taking) = known.coming.take() {
                taking.then.refuse(Refusal::new(code, why));
            }
        }
    }

    /// Automatic ones in the store beyond what is kept go, oldest first.
    fn delete_surplus(&mut self) {
        let sleeps_at = self.wakes_at();
        let stored = self.checkpoints.known.iter().filter(|known| known.is_durable && !known.is_saving);
        let stored: Vec<_> = stored
            .filter(|known| Some(known.id()) != sleeps_at)
            .map(|known| Weighed { id: known.id(), is_automatic: known.view.automatic, bytes: 0 })
            .collect();
        // The one that was just written is what all of them are for.
        let keep = self.config.checkpoints.keep.max(1);
        for id in policy::beyond_keep(&stored, keep) {
            self.delete_stored(id);
        }
    }

    /// Removes one from the store that nobody asked for; what is in memory stays there.
    pub(super) fn delete_stored(&mut self, id: CheckpointId) {
        let Some(bundles) = self.bridge.bundles() else { return };
        if let Some(known) = self.checkpoints.get_mut(id) {
            known.is_durable = false;
        }
        self.checkpoints.tasks.spawn(async move {
            if let Err(error) = bundles.delete(id).await {
                tracing::warn!(checkpoint = %id, %error, "an old checkpoint could not be deleted");
            }
            Heard::Deleted(id, true)
        });
    }
}

fn facts(view: &CheckpointView) -> Facts {
    Facts {
        checkpoint: view.checkpoint,
        label: view.label.clone(),
        automatic: view.automatic,
        execution: view.execution,
        count: view.count,
        taken_at: view.taken_at,
        parent: view.parent,
        findings: view.findings.clone(),
    }
}

/// Carries a bundle from the process that writes it into the store.
async fn save_into(bundles: &Bundles, frozen: &Frozen, facts: Facts) -> Result<CheckpointView, Refusal> {
    let stored = Refusal::from;
    let wrote = |error: FreezeError| failed(error.to_string());
    let mut bundle = bundles.begin(facts).await.map_err(stored)?;
    let mut saving = frozen.save().await.map_err(wrote)?;
    while let Some((tag, bytes)) = saving.next().await.map_err(wrote)? {
        bundle.record(tag, bytes).await.map_err(stored)?;
    }
    bundle.commit().await.map_err(stored)
}
