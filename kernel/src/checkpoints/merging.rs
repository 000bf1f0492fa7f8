//! A durable checkpoint is taken in by the live worker: what it holds is set, everything else stays. It is a question
//! like others, and can be interrupted; the bundle comes beside it.

use cob_protocol::checkpoint::{CheckpointView, Tier};
use cob_protocol::frame::{Outcome, RequestNumber};
use cob_protocol::ids::CheckpointId;

use super::going_back::no_worker;
use super::starting::{Begun, open, pump, taken_in};
use super::taking::failed;
use super::wishes::Asker;
use super::{Change, Heard};
use crate::request::Refusal;
use crate::session::{Current, Session, WorkerState};

/// A bundle on its way into the live worker.
pub(crate) struct Merging {
    pub(crate) number: RequestNumber,
    checkpoint: CheckpointId,
    asker: Asker,
    /// What the worker says.
    answer: Option<Outcome>,
    /// How reading it ended.
    pumped: Option<Result<CheckpointView, Refusal>>,
}

impl Session {
    /// No code runs.
    pub(super) fn merge(&mut self, checkpoint: CheckpointId, force: bool, asker: Asker) {
        self.next_question += 1;
        let number = self.next_question;
        let WorkerState::Live(worker) = &mut self.worker else {
            return self.not_gone_back(asker, no_worker());
        };
        let loading = match worker.load(number, force) {
            Ok(loading) => loading,
            Err(error) => return self.not_gone_back(asker, failed(error.to_string())),
        };
        let bundles = self.bridge.bundles();
        self.checkpoints.tasks.spawn(async move {
            let pumped = async {
                let (stored, view) = open(bundles, checkpoint).await?;
                pump(stored, loading).await.map(|()| view)
            };
            Heard::Pumped(Box::new(pumped.await))
        });
        let merging = Merging { number, checkpoint, asker, answer: None, pumped: None };
        self.current = Some(Current::Load(Box::new(merging)));
    }

    pub(super) fn pumped(&mut self, pumped: Result<CheckpointView, Refusal>) {
        if let Some(Current::Load(merging)) = &mut self.current {
            merging.pumped = Some(pumped);
            self.merge_when_whole();
        }
    }

    /// The worker has answered.
    pub(crate) fn merge_answered(&mut self, mut merging: Box<Merging>, outcome: Outcome) {
        merging.answer = Some(outcome);
        self.current = Some(Current::Load(merging));
        self.merge_when_whole();
    }

    /// Both ends of the way have to have been heard: only the one that failed first knows why.
    fn merge_when_whole(&mut self) {
        let is_whole = |current: &mut Current| match current {
            Current::Load(merging) => merging.answer.is_some() && merging.pumped.is_some(),
            _ => false,
        };
        let Some(Current::Load(merging)) = self.current.take_if(is_whole) else { return };
        let Merging { checkpoint, asker, answer: Some(outcome), pumped: Some(pumped), .. } = *merging else {
            return;
        };
        // Whatever came of it, something may have been set.
        self.checkpoints.change = Change::Full;
        match pumped.and_then(|view| Ok((view, taken_in(outcome)?))) {
            Ok((view, loaded)) => {
                let view = Some(Box::new(view));
                let begun = Begun { checkpoint, tier: Tier::Durable, view, loaded };
                let restoration = self.arrived_at(begun);
                if let Asker::Command(asked) = asker {
                    self.report(asked, restoration);
                }
            }
            Err(refusal) => self.not_gone_back(asker, refusal),
        }
    }

    /// The worker was lost on the way.
    pub(crate) fn not_merged(&mut self, merging: Merging, why: &str) {
        self.not_gone_back(merging.asker, failed(why.to_owned()));
    }
}
