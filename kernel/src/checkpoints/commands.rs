//! What a server asks about checkpoints.

use std::path::PathBuf;

use cob_bridge::BundleError;
use cob_protocol::checkpoint::{CheckpointView, Mode};
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::CheckpointId;
use cob_protocol::limits::CHECKPOINT_LABEL_BYTES_MAX;

use super::wishes::{Asker, Taking, Then, Wish};
use super::{Change, Heard};
use crate::request::{Asked, Command, GoBack, Refusal, Seed, Take};
use crate::session::{Session, WorkerState};

impl Session {
    pub(crate) fn checkpoint_command(&mut self, command: Command) {
        match command {
            Command::Checkpoint(take, asked) => self.ask_to_take(take, asked),
            Command::Checkpoints(asked) => {
                let views = self.checkpoints.views();
                self.report(asked, views);
            }
            Command::Restore(go, asked) if go.now => self.go_back(go, Asker::Command(asked)),
            Command::Restore(go, asked) => self.ask_to_go_back(go, asked),
            Command::DropCheckpoint(id, asked) => self.drop_checkpoint(id, asked),
            Command::Branch(from, force, asked) => self.branch(from, force, asked),
            Command::Hibernate(force, asked) => self.ask_to_sleep(force, asked),
            Command::Import(path, key, asked) => self.import(path, key, asked),
            Command::Shed(asked) => drop(asked.send(Ok(self.shed()))),
            command => self.channel_command(command),
        }
    }

    /// Whether a checkpoint may be asked for at all.
    pub(super) fn may_ask(&self, take: &Take) -> Result<(), Refusal> {
        let refused = |why: &str| Err(Refusal::new(ErrorCode::BadRequest, why));
        if self.config.checkpoints.mode == Mode::Off {
            return refused(
                "checkpoints are off in this session; open one with the policy `manual` or `auto`",
            );
        }
        if take
            .label
            .as_ref()
            .is_some_and(|label| label.is_empty() || label.len() > CHECKPOINT_LABEL_BYTES_MAX)
        {
            let why = format!("a label has 1 to {CHECKPOINT_LABEL_BYTES_MAX} bytes");
            return Err(Refusal::new(ErrorCode::BadRequest, why));
        }
        if take.durable && self.bridge.bundles().is_none() {
            return Err(Refusal::from(BundleError::NoStore));
        }
        Ok(())
    }

    fn ask_to_take(&mut self, take: Take, asked: Asked<CheckpointView>) {
        if let Err(refusal) = self.may_ask(&take) {
            return drop(asked.send(Err(refusal)));
        }
        let then = Then::Tell(Some(asked));
        self.wish(Wish::Take(Box::new(Taking { id: None, take, is_automatic: false, then })));
    }

    fn ask_to_go_back(&mut self, go: GoBack, asked: Asked<cob_protocol::checkpoint::Restoration>) {
        self.wish(Wish::GoBack(go, Asker::Command(asked)));
    }

    fn ask_to_sleep(&mut self, force: bool, asked: Asked<CheckpointView>) {
        let take = Take { label: None, durable: true, force };
        if let Err(refusal) = self.may_ask(&take) {
            return drop(asked.send(Err(refusal)));
        }
        let sleeps_at = self.wakes_at().and_then(|id| self.checkpoints.get(id));
        match sleeps_at {
            // It sleeps already.
            Some(known) if matches!(self.worker, WorkerState::None) => drop(asked.send(Ok(known.view()))),
            _ => self.wish(Wish::Take(Taking::automatic(take, Then::Sleep(force, Some(asked))))),
        }
    }

    /// Another session is to begin where this one stands, or stood.
    fn branch(&mut self, from: Option<CheckpointId>, force: bool, asked: Asked<Seed>) {
        self.checkpoints.tidy();
        let is_now = self.is_free() && self.checkpoints.change == Change::None && !self.is_at_work();
        let here = self.checkpoints.head.filter(|_| is_now);
        if let Some(seed) = from.or(here).and_then(|id| self.seed(id)) {
            return self.report(asked, seed);
        }
        match from {
            Some(id) => {
                let why = match self.checkpoints.get(id).is_some() {
                    true => format!("{id} is not in memory; only what is can be branched off"),
                    false => format!("there is no checkpoint {id} in this session"),
                };
                let _ = asked.send(Err(Refusal::new(ErrorCode::UnknownCheckpoint, why)));
            }
            None => {
                let take = Take { force, ..Take::default() };
                match self.may_ask(&take) {
                    Ok(()) => self.wish(Wish::Take(Taking::automatic(take, Then::Branch(asked)))),
                    Err(refusal) => drop(asked.send(Err(refusal))),
                }
            }
        }
    }

    /// What another session needs to begin at a checkpoint in memory.
    pub(super) fn seed(&self, id: CheckpointId) -> Option<Seed> {
        let known = self.checkpoints.get(id)?;
        let view = &known.view;
        Some(Seed {
            frozen: known.frozen.clone()?,
            checkpoint: id,
            execution: view.execution,
            count: view.count,
            taken_at: cob_protocol::time::Timestamp::from_micros(view.taken_at),
        })
    }

    fn drop_checkpoint(&mut self, id: CheckpointId, asked: Asked<()>) {
        self.checkpoints.tidy();
        let sleeps_there = self.wakes_at() == Some(id);
        let Some(known) = self.checkpoints.get_mut(id).filter(|known| known.is_there()) else {
            let why = format!("there is no checkpoint {id}");
            return drop(asked.send(Err(Refusal::new(ErrorCode::UnknownCheckpoint, why))));
        };
        if sleeps_there || known.is_saving {
            let why = match sleeps_there {
                true => format!("the session sleeps and wakes up at {id}; restart it first"),
                false => format!("{id} is being written"),
            };
            return drop(asked.send(Err(Refusal::new(ErrorCode::Busy, why))));
        }
        known.frozen = None;
        let bundles = self.bridge.bundles().filter(|_| known.is_durable);
        self.checkpoints.tidy();
        self.unfreeze_if_none_is_left();
        let Some(bundles) = bundles else { return self.report(asked, ()) };
        self.checkpoints.tasks.spawn(async move {
            let deleted = bundles.delete(id).await.map_err(Refusal::from);
            let is_gone = deleted.is_ok();
            let _ = asked.send(deleted);
            Heard::Deleted(id, is_gone)
        });
    }

    fn import(&mut self, path: PathBuf, key: Option<String>, asked: Asked<CheckpointView>) {
        if let Some((code, why)) = self.over() {
            return drop(asked.send(Err(Refusal::new(code, why))));
        }
        let Some(bundles) = self.bridge.bundles() else {
            return drop(asked.send(Err(Refusal::from(BundleError::NoStore))));
        };
        let to = self.number_checkpoint();
        // Its number is told only when that is recorded.
        let (numbered, is_numbered) = tokio::sync::oneshot::channel();
        self.report(numbered, ());
        self.checkpoints.tasks.spawn(async move {
            let imported = match is_numbered.await {
                Ok(Ok(())) => bundles.import(to, &path, key.as_deref()).await.map_err(Refusal::from),
                Ok(Err(refusal)) => Err(refusal),
                Err(_) => Err(Refusal::new(ErrorCode::SessionClosed, "the session was closed")),
            };
            let _ = asked.send(imported.clone());
            match imported {
                Ok(view) => Heard::Imported(Box::new(view)),
                // There is nothing to forget.
                Err(_) => Heard::Deleted(to, false),
            }
        });
    }

    /// Gives up automatic checkpoints in memory; the bytes that only they held.
    fn shed(&mut self) -> u64 {
        let mut bytes = 0;
        for known in &mut self.checkpoints.known {
            if known.view.automatic && known.frozen.take().is_some() {
                bytes += known.view.private_bytes.unwrap_or(0);
            }
        }
        self.checkpoints.tidy();
        self.unfreeze_if_none_is_left();
        bytes
    }
}
