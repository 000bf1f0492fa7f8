//! What waits for the next moment at which no code runs: it is done there, in order, before the next execution begins.

use cob_protocol::checkpoint::{CheckpointView, Restoration};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::Event;
use cob_protocol::frame::{ExecutionNumber, StreamName};
use cob_protocol::ids::CheckpointId;
use cob_protocol::limits::WISHES_MAX;

use super::Checkpoints;
use crate::request::{Asked, GoBack, Refusal, Seed, Take, Target};
use crate::session::Session;

/// Something that waits.
pub(crate) enum Wish {
    /// A checkpoint.
    Take(Box<Taking>),
    /// A way back.
    GoBack(GoBack, Asker),
}

/// A checkpoint that is to be taken, and what comes of it.
pub(crate) struct Taking {
    /// Its number, if that was told already.
    pub(super) id: Option<CheckpointId>,
    pub(super) take: Take,
    /// Nobody asked for it.
    pub(super) is_automatic: bool,
    pub(super) then: Then,
}

/// What is done with a checkpoint when it is there.
pub(crate) enum Then {
    /// Whoever asked is told.
    Tell(Option<Asked<CheckpointView>>),
    /// The code of this execution was told that it would be taken.
    Code(ExecutionNumber),
    /// Another session begins there.
    Branch(Asked<Seed>),
    /// The worker is given up; the flag forces it. Nobody need have asked.
    Sleep(bool, Option<Asked<CheckpointView>>),
}

/// Who asked for a way back.
pub(crate) enum Asker {
    /// Somebody who waits.
    Command(Asked<Restoration>),
    /// The code of this execution.
    Code(ExecutionNumber),
}

impl Taking {
    pub(super) fn automatic(take: Take, then: Then) -> Box<Self> {
        Box::new(Self { id: None, take, is_automatic: true, then })
    }
}

impl Then {
    /// There is no such checkpoint.
    pub(super) fn refuse(self, refusal: Refusal) {
        // Whoever asked may have gone.
        match self {
            Self::Code(_) => {}
            Self::Tell(asked) | Self::Sleep(_, asked) => {
                if let Some(asked) = asked {
                    let _ = asked.send(Err(refusal));
                }
            }
            Self::Branch(asked) => drop(asked.send(Err(refusal))),
        }
    }
}

impl Checkpoints {
    /// The checkpoint that waits to be taken and has this name, if it was told, or this label.
    pub(super) fn wished(&self, to: &Target) -> Option<CheckpointId> {
        let is_it = |taking: &Taking| match to {
            Target::Checkpoint(id) => taking.id == Some(*id),
            Target::Label(label) => taking.take.label.as_ref() == Some(label),
            Target::Undo(_) => false,
        };
        self.wishes.iter().rev().find_map(|wish| match wish {
            Wish::Take(taking) if is_it(taking) => taking.id,
            _ => None,
        })
    }
}

impl Session {
    /// Lets something wait for the next moment at which no code runs.
    pub(super) fn wish(&mut self, wish: Wish) {
        let refusal = match self.over() {
            Some((code, why)) => Refusal::new(code, why),
            None if self.checkpoints.wishes.len() >= WISHES_MAX => {
                Refusal::new(ErrorCode::Busy, "too much waits for the running code to end")
            }
            None => return self.checkpoints.wishes.push_back(wish),
        };
        self.refuse_wish(wish, refusal);
    }

    fn refuse_wish(&mut self, wish: Wish, refusal: Refusal) {
        match wish {
            Wish::Take(taking) => taking.then.refuse(refusal),
            Wish::GoBack(_, asker) => self.not_gone_back(asker, refusal),
        }
    }

    /// Nothing of what waits will be done.
    pub(crate) fn refuse_wishes(&mut self, code: ErrorCode, why: &str) {
        for wish in std::mem::take(&mut self.checkpoints.wishes) {
            self.refuse_wish(wish, Refusal::new(code, why));
        }
    }

    /// No code runs: what waits is done, then what the policy wants. Whether there was anything.
    pub(crate) fn serve_wishes(&mut self) -> bool {
        let mut has_done = false;
        while self.is_free()
            && let Some(wish) = self.checkpoints.wishes.pop_front()
        {
            has_done = true;
            match wish {
                Wish::Take(taking) => self.freeze(taking),
                Wish::GoBack(go, asker) => self.go_back(go, asker),
            }
        }
        has_done | (self.is_free() && self.take_by_policy())
    }

    /// Code was told what would happen, and it did not: a line behind the output of its cell says so.
    pub(super) fn tell_code(&mut self, execution: ExecutionNumber, text: String) {
        self.emit(execution, Event::Stream { name: StreamName::Stderr, text });
    }

    /// Whoever asked is told that the session did not go back.
    pub(super) fn not_gone_back(&mut self, asker: Asker, refusal: Refusal) {
        match asker {
            Asker::Command(asked) => drop(asked.send(Err(refusal))),
            Asker::Code(execution) => {
                tracing::warn!(why = refusal.why, "the session did not go back as its code had asked");
                self.tell_code(execution, format!("The session did not go back: {}\n", refusal.why));
            }
        }
    }
}
