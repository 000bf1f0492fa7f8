//! An execution whose worker was lost. What is said of it depends on what becomes of its session: that is waited for.

use cob_protocol::checkpoint::Restoration;
use cob_protocol::content::ExecutionState;
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::PromiseId;
use cob_protocol::promise::SessionState;

use crate::handlers::Verdict;
use crate::request::Refusal;
use crate::session::{Current, Session};

/// What is known of a loss before it is known what becomes of the variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) code: ErrorCode,
    /// What happened: a sentence that goes on.
    pub(crate) what: String,
    pub(crate) how: How,
}

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// We did, because code did not react.
    Forced,
    /// We did, because the session was to begin anew, or to go back.
    Replaced,
    /// It went by itself.
    Gone,
}

/// What was lost, until it is known what becomes of the variables.
pub(crate) struct Held {
    pub(crate) current: Current,
    pub(crate) loss: Loss,
}

impl Loss {
    /// The whole sentence. `failures`: why the session could not go back.
    pub(crate) fn evalue(&self, restored: Option<&Restoration>, failures: &[String]) -> String {
        let Self { what, how, .. } = self;
        let end = match (how, restored) {
            (How::Forced, Some(restored)) => format!("; its worker was killed and {}", back(restored)),
            (How::Forced, None) => "; its worker was killed, the variables are lost".to_owned(),
            (How::Replaced | How::Gone, Some(restored)) => format!("; {}", back(restored)),
            (How::Replaced, None) => "; the variables are lost".to_owned(),
            // The hint says it.
            (How::Gone, None) => String::new(),
        };
        let end = what.clone() + &end;
        match (restored, failures) {
            (_, []) => end,
            (Some(_), failures) => format!("{end} (not at a newer checkpoint: {})", failures.join("; ")),
            (None, failures) => format!("{end}; it could not go back: {}", failures.join("; ")),
        }
    }
}

fn back(restored: &Restoration) -> String {
    let Restoration { checkpoint, executions_since, missing, .. } = restored;
    let place = match executions_since {
        0 | 1 => "as it was before this cell".to_owned(),
        since => format!("as it was {since} cells ago"),
    };
    let without = match missing.len() {
        0 => String::new(),
        missing => format!(", without {missing} of its variables"),
    };
    format!("the session is back at {checkpoint}, {place}{without}")
}

impl Session {
    /// What runs is lost, and so are the variables.
    pub(crate) fn lose_current(&mut self, current: Current, loss: Loss) {
        self.conclude_loss(Held { current, loss }, None, &[]);
    }

    /// Whether this execution has ended with its worker, and nobody was told yet.
    pub(crate) fn is_held(&self, id: PromiseId) -> bool {
        let current = self.held.as_ref().map(|held| &held.current);
        matches!(current, Some(Current::Run(running)) if running.promise == id)
    }

    /// It is known what became of the variables: what was held back is said now.
    pub(crate) fn conclude_held(&mut self, restored: Option<&Restoration>, failures: &[String]) {
        let Some(held) = self.held.take() else { return };
        if restored.is_some()
            && matches!(held.current, Current::Run(_))
            && let Some((_, is_told)) = &mut self.checkpoints.restored
        {
            *is_told = true;
        }
        self.conclude_loss(*held, restored, failures);
    }

    fn conclude_loss(&mut self, held: Held, restored: Option<&Restoration>, failures: &[String]) {
        let Held { current, loss } = held;
        let evalue = loss.evalue(restored, failures);
        let state = if restored.is_some() { SessionState::Restored } else { SessionState::Lost };
        let verdict = Verdict { code: loss.code, evalue };
        match current {
            Current::Run(mut running) => {
                running.restored = restored.cloned().map(Box::new);
                self.lose(running, verdict, state);
            }
            Current::Ask { request, .. } => {
                self.reply_error(&request, verdict.code, &verdict.evalue, state);
                self.status(ExecutionState::Idle, &request);
            }
            Current::Look { asked, .. } => {
                let _ = asked.send(Err(Refusal::new(verdict.code, verdict.evalue)));
            }
            Current::Load(merging) => self.not_merged(*merging, &verdict.evalue),
        }
    }
}

#[cfg(test)]
mod tests {
    use cob_protocol::checkpoint::Tier;
    use cob_protocol::ids::{CheckpointId, SessionId};
    use cob_protocol::time::Timestamp;

    use super::super::{Place, restoration};
    use super::*;

    fn restored(since: u64) -> Restoration {
        let id = CheckpointId { session: SessionId(1), number: 4 };
        let place = Place { taken_at: 0, since };
        restoration(id, Tier::Memory, &place, Timestamp::from_micros(0))
    }

    fn loss(how: How, what: &str) -> Loss {
        Loss { code: ErrorCode::WorkerLost, what: what.to_owned(), how }
    }

    #[test]
    fn what_is_said_of_a_loss_is_what_became_of_the_variables() {
        let what = "the code did not react to two interrupts within 5 s";
        let forced = loss(How::Forced, what);
        assert_eq!(
            forced.evalue(Some(&restored(1)), &[]),
            format!(
                "{what}; its worker was killed and the session is back at s1.k4, as it was before this cell"
            )
        );
        assert_eq!(
            forced.evalue(None, &[]),
            format!("{what}; its worker was killed, the variables are lost")
        );
        let gone = loss(How::Gone, "the worker was killed");
        assert_eq!(gone.evalue(None, &[]), "the worker was killed");
        assert_eq!(
            gone.evalue(None, &["s1.k4 is gone".to_owned()]),
            "the worker was killed; it could not go back: s1.k4 is gone"
        );
        assert_eq!(
            gone.evalue(Some(&restored(3)), &["s1.k5 is gone".to_owned()]),
            "the worker was killed; the session is back at s1.k4, as it was 3 cells ago \
             (not at a newer checkpoint: s1.k5 is gone)"
        );
    }
}
