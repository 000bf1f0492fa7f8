//! What code asks about its own session. It is told at once what will happen, and that happens when its cell has ended.

use cob_protocol::error::ErrorCode;
use cob_protocol::frame::{Call, Outcome};
use cob_protocol::ids::CheckpointId;
use cob_protocol::json::Json;
use cob_protocol::limits::WISHES_MAX;
use serde::Deserialize;
use serde_json::json;

use super::Checkpoints;
use super::wishes::{Asker, Taking, Then, Wish};
use crate::request::{GoBack, Refusal, Take, Target};
use crate::session::{Current, Session};

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct TakeArguments {
    label: Option<String>,
    durable: bool,
    force: bool,
}

#[derive(Deserialize)]
struct GoBackArguments {
    #[serde(default)]
    checkpoint: Option<CheckpointId>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    undo: Option<u64>,
}

impl Checkpoints {
    /// The code asks something else: what it asked before was given up.
    pub(crate) fn give_up_call(&mut self) {
        self.call_later = None;
    }
}

impl Session {
    /// Answers a call about checkpoints.
    pub(crate) fn checkpoint_call(&mut self, call: Call) {
        if !matches!(&self.current, Some(Current::Run(running)) if running.promise.execution == call.execution)
        {
            return;
        }
        if call.kind != "checkpoint" && self.checkpoints.has_any_coming() {
            // The cell was quicker than the checkpoint before it.
            self.checkpoints.call_later = Some(call);
            return;
        }
        let asked = match call.kind.as_str() {
            "checkpoint" => self.code_takes(&call),
            "restore" => self.code_goes_back(&call),
            _ => Ok(Json::of(&self.checkpoints.views()).unwrap_or_default()),
        };
        let outcome = match asked {
            Ok(value) => Outcome::Value(value),
            Err(Refusal { code, why }) => Outcome::Failed { ename: code.code().to_owned(), evalue: why },
        };
        self.answer_call(call.request, outcome);
    }

    fn code_takes(&mut self, call: &Call) -> Result<Json, Refusal> {
        let TakeArguments { label, durable, force } = read(&call.arguments)?;
        let take = Take { label, durable, force };
        self.may_ask(&take)?;
        self.has_room_for_wish()?;
        let id = self.number_checkpoint();
        let then = Then::Code(call.execution);
        self.wish(Wish::Take(Box::new(Taking { id: Some(id), take, is_automatic: false, then })));
        Ok(Json::from(json!({ "checkpoint": id })))
    }

    fn code_goes_back(&mut self, call: &Call) -> Result<Json, Refusal> {
        let GoBackArguments { checkpoint, label, undo } = read(&call.arguments)?;
        let to = match (checkpoint, label, undo) {
            (Some(id), None, None) => Target::Checkpoint(id),
            (None, Some(label), None) => Target::Label(label),
            (None, None, Some(back)) => Target::Undo(back),
            _ => {
                let why = "say where to: a checkpoint, a label, or how many executions to undo";
                return Err(Refusal::new(ErrorCode::BadRequest, why));
            }
        };
        self.has_room_for_wish()?;
        // The cell that asks is not one of those that it wants undone.
        let is_cell = matches!(&self.current, Some(Current::Run(running)) if running.is_counted_cell());
        let id = match self.checkpoints.wished(&to) {
            Some(id) => id,
            None => self.checkpoints.resolve(&to, u64::from(is_cell), self.config.checkpoints.mode)?.0,
        };
        let view = self.checkpoints.get(id).map(super::Known::view);
        let go = GoBack { to: Target::Checkpoint(id), now: false, fresh: false, force: false };
        self.wish(Wish::GoBack(go, Asker::Code(call.execution)));
        let named = || Json::from(json!({ "checkpoint": id }));
        Ok(view.and_then(|view| Json::of(&view).ok()).unwrap_or_else(named))
    }

    fn has_room_for_wish(&self) -> Result<(), Refusal> {
        if self.checkpoints.wishes.len() < WISHES_MAX {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::Busy, "too much waits for the running code to end"))
    }
}

fn read<T: for<'de> Deserialize<'de>>(arguments: &Json) -> Result<T, Refusal> {
    arguments.read().map_err(|error| Refusal::new(ErrorCode::BadRequest, error.to_string()))
}
