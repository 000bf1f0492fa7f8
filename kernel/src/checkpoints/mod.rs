//! The checkpoints of a session: which there are, and how the present variables came of them.
//!
//! Here is only what is known; `wishes` says what waits for the moment at which no code runs, `taking`, `saving`,
//! `going_back`, `merging` and `sleeping` do it, `starting` is the road of a worker that does not begin empty, `loss`
//! what is said of an execution whose worker was lost on the way, `policy` what is kept, `asked` what code asks.
//!
//! **Invariants:** nothing here waits: whatever takes time is a task whose news come into the loop of the session. A
//! number that was told is never given again. What a checkpoint is made of is decided by the place of its frame among
//! the others, so nobody has to wait for it.

mod asked;
mod commands;
mod going_back;
mod loss;
mod merging;
mod policy;
mod rebuild;
mod saving;
mod sleeping;
mod starting;
mod taking;
mod wishes;

use std::collections::VecDeque;
use std::io;

use cob_pool::{FreezeError, Frozen};
use cob_protocol::checkpoint::{CheckpointView, Restoration, Tier};
use cob_protocol::frame::Call;
use cob_protocol::ids::{CheckpointId, SessionId};
use cob_protocol::limits::CHECKPOINT_NUMBERS;
use cob_protocol::time::Timestamp;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::request::{GoBack, Refusal};
use crate::session::Session;
use going_back::Moving;
pub(crate) use going_back::Successor;
pub(crate) use loss::{Held, How, Loss};
pub(crate) use merging::Merging;
use rebuild::Lines;
use saving::Save;
use sleeping::Sleep;
pub(crate) use starting::{Asking, NotStarted, Route, Started, Step, start};
use wishes::{Asker, Taking, Wish};

/// What comes of a task.
pub(crate) enum Heard {
    /// A checkpoint is there, or there is none; how long it took since it was asked for.
    Frozen(CheckpointId, Instant, Result<Frozen, FreezeError>),
    /// Bytes that only these hold.
    Measured(Vec<(CheckpointId, io::Result<u64>)>),
    /// A bundle is in the store, or not.
    Saved(Box<Result<CheckpointView, Refusal>>),
    /// A worker has begun where the session is to go back to.
    Moved(Box<Result<Started, NotStarted>>),
    /// A bundle was read, or not.
    Pumped(Box<Result<CheckpointView, Refusal>>),
    /// A bundle was taken in from a file.
    Imported(Box<CheckpointView>),
    /// A bundle is not there any more, if this is true.
    Deleted(CheckpointId, bool),
}

/// Whether something has changed since the last checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Nothing ran.
    None,
    /// Code ran that is nobody's cell: it is worth a checkpoint only when a cell follows.
    Slight,
    /// A cell ran, or nothing was ever kept of this worker.
    Full,
}

/// A checkpoint.
pub(crate) struct Known {
    /// What clients see of it, but for the tier.
    pub(crate) view: CheckpointView,
    /// It is in memory.
    pub(crate) frozen: Option<Frozen>,
    /// It is in the store.
    pub(crate) is_durable: bool,
    /// It was asked for, and has not come.
    coming: Option<Box<Taking>>,
    /// It is being written, or waits for it.
    is_saving: bool,
    /// The one before it on its way.
    before: Option<CheckpointId>,
    /// Cells on its way.
    ran: u64,
    /// Cells that the session had run by then, on whichever way.
    total: u64,
}

impl Known {
    pub(crate) fn id(&self) -> CheckpointId {
        self.view.checkpoint
    }

    /// One can go back to it.
    fn is_there(&self) -> bool {
        self.frozen.is_some() || self.is_durable
    }

    fn is_needed(&self) -> bool {
        self.is_there() || self.coming.is_some() || self.is_saving
    }

    pub(crate) fn view(&self) -> CheckpointView {
        let tier = match (&self.frozen, self.is_durable) {
            (Some(_), true) => Tier::Both,
            (None, true) => Tier::Durable,
            (_, false) => Tier::Memory,
        };
        let private_bytes = self.view.private_bytes.filter(|_| self.frozen.is_some());
        CheckpointView { tier, private_bytes, ..self.view.clone() }
    }
}

/// When that was where a session goes back to.
pub(crate) struct Place {
    taken_at: i64,
    /// How many cells ran since.
    since: u64,
}

/// See the module.
pub(crate) struct Checkpoints {
    session: SessionId,
    /// In the order in which they were taken.
    known: Vec<Known>,
    /// The last one on the way to the present variables.
    head: Option<CheckpointId>,
    /// Where the session last came from.
    pub(crate) came_from: Option<CheckpointId>,
    /// Cells that the present variables know of.
    ran: u64,
    /// Cells that the session ever ran.
    total: u64,
    pub(crate) change: Change,
    /// The last number that was given.
    number: u64,
    /// Numbers up to this one are recorded as given, or about to be.
    reserved: u64,
    /// What waits for the next moment at which no code runs.
    wishes: VecDeque<Wish>,
    /// Whatever takes time.
    pub(crate) tasks: JoinSet<Heard>,
    /// The session is going back.
    moving: Option<Moving>,
    /// Its worker is gone, and what it goes on from may still come.
    is_waiting: bool,
    /// Where it is to go back to as soon as everything that was asked for has come, or has not.
    way_later: Option<(GoBack, Asker)>,
    /// What code asks, and is answered then as well.
    call_later: Option<Call>,
    /// The bundle that is being written, and those that wait for that.
    saves: VecDeque<Save>,
    is_measuring: bool,
    measures_again: bool,
    sleep: Sleep,
    /// What the variables came from, until code runs; and whether somebody has been told.
    pub(crate) restored: Option<(Restoration, bool)>,
    lines: Lines,
    /// Why there was no automatic checkpoint when there should have been one.
    pub(crate) skipped: Option<String>,
}

impl Checkpoints {
    pub(crate) fn new(session: SessionId) -> Self {
        Self {
            session,
            known: Vec::new(),
            head: None,
            came_from: None,
            ran: 0,
            total: 0,
            change: Change::Full,
            number: 0,
            reserved: 0,
            wishes: VecDeque::new(),
            tasks: JoinSet::new(),
            moving: None,
            is_waiting: false,
            way_later: None,
            call_later: None,
            saves: VecDeque::new(),
            is_measuring: false,
            measures_again: false,
            sleep: Sleep::default(),
            restored: None,
            lines: Lines::default(),
            skipped: None,
        }
    }

    /// Goes on after a process that died: with what is in the store, oldest first.
    pub(crate) fn recover(&mut self, given: u64, executions: u64, stored: Vec<CheckpointView>) {
        (self.ran, self.total) = (executions, executions);
        let last = stored.iter().map(|view| view.checkpoint.number).max().unwrap_or(0);
        self.number = given.max(last);
        self.reserved = self.number;
        for view in stored {
            let (before, ran) = (self.head, view.execution);
            self.head = Some(view.checkpoint);
            self.known.push(Known { is_durable: true, ran, total: ran, ..known(view, before) });
        }
    }

    /// The next number, and up to which number they must be recorded as given before it is told.
    fn next_number(&mut self) -> (CheckpointId, Option<u64>) {
        self.number += 1;
        let up_to = (self.number > self.reserved).then(|| self.number + CHECKPOINT_NUMBERS - 1);
        self.reserved = up_to.unwrap_or(self.reserved);
        (CheckpointId { session: self.session, number: self.number }, up_to)
    }

    /// Code begins to run.
    pub(crate) fn code_runs(&mut self, is_cell: bool) {
        self.change = self.change.max(if is_cell { Change::Full } else { Change::Slight });
        self.ran += u64::from(is_cell);
        self.total += u64::from(is_cell);
        self.sleep.code_runs();
    }

    /// A cell that begins has this place in the history.
    pub(crate) fn stands_at(&mut self, execution: u64, line: u32) {
        self.lines.push(execution, line);
    }

    /// One was asked for: it will know what ran so far.
    fn expect(&mut self, view: CheckpointView, taking: Box<Taking>) {
        let id = view.checkpoint;
        let (ran, total) = (self.ran, self.total);
        self.known.push(Known { coming: Some(taking), ran, total, ..known(view, self.head) });
        self.head = Some(id);
    }

    /// One that came from elsewhere; the variables have nothing to do with it.
    fn add(&mut self, view: CheckpointView) {
        let (ran, total) = (view.execution, view.execution);
        self.known.push(Known { is_durable: true, ran, total, ..known(view, None) });
    }

    pub(crate) fn get(&self, id: CheckpointId) -> Option<&Known> {
        self.known.iter().find(|known| known.id() == id)
    }

    fn get_mut(&mut self, id: CheckpointId) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.id() == id)
    }

    /// Forgets what nobody can go back to: ways lead past it.
    fn tidy(&mut self) {
        for known in &mut self.known {
            if known.frozen.as_ref().is_some_and(Frozen::is_gone) {
                tracing::warn!(checkpoint = %known.id(), "a checkpoint has ended by itself: memory was short");
                known.frozen = None;
            }
        }
        while let Some(place) = self.known.iter().position(|known| !known.is_needed()) {
            let gone = self.known.remove(place);
            let (id, before) = (gone.id(), gone.before);
            let ways = self.known.iter_mut().map(|known| &mut known.before);
            ways.chain([&mut self.head]).filter(|way| **way == Some(id)).for_each(|way| *way = before);
        }
    }

    /// Those that there are.
    pub(crate) fn there(&self) -> impl DoubleEndedIterator<Item = &Known> {
        self.known.iter().filter(|known| known.is_there())
    }

    pub(crate) fn views(&mut self) -> Vec<CheckpointView> {
        self.tidy();
        self.there().map(Known::view).collect()
    }

    /// Those in memory.
    pub(crate) fn in_memory(&self) -> impl Iterator<Item = (&Known, &Frozen)> {
        self.known.iter().filter_map(|known| Some((known, known.frozen.as_ref()?)))
    }

    /// Whether it is not known yet which there are.
    fn has_any_coming(&self) -> bool {
        self.known.iter().any(|known| known.coming.is_some())
    }

    /// Whether some checkpoint in memory is there, or on its way.
    fn has_any_in_memory(&self) -> bool {
        self.known.iter().any(|known| known.frozen.is_some() || known.coming.is_some())
    }

    /// The way to the present variables, backwards.
    fn way(&self) -> impl Iterator<Item = &Known> {
        let next = |known: &&Known| known.before.and_then(|id| self.get(id));
        std::iter::successors(self.head.and_then(|id| self.get(id)), next)
    }

    /// A worker is being made where the session is to go back to.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.moving.is_some()
    }

    /// Nobody knows yet whether the session is where it is to be.
    pub(crate) fn is_moving(&self) -> bool {
        self.moving.is_some() || self.is_waiting || self.way_later.is_some()
    }

    /// Whether something is yet to be done that was asked for.
    pub(crate) fn is_at_work(&self) -> bool {
        self.is_moving() || self.has_wishes()
    }

    pub(crate) fn has_wishes(&self) -> bool {
        !self.wishes.is_empty()
    }

    /// The variables are those of this checkpoint from now on; what is known of the way.
    fn arrive(&mut self, id: CheckpointId) -> Option<Place> {
        self.came_from = Some(id);
        let found = self.get(id).map(|known| {
            let since = self.total.saturating_sub(known.total);
            let place = Place { taken_at: known.view.taken_at, since };
            (place, known.ran)
        });
        self.head = found.is_some().then_some(id);
        found.map(|(place, ran)| {
            self.ran = ran;
            place
        })
    }

    /// The variables are nothing's.
    fn begin_anew(&mut self) {
        self.head = None;
        self.change = Change::Full;
        self.restored = None;
    }
}

impl Session {
    /// Something has come of a task.
    pub(crate) fn heard_of_checkpoint(&mut self, heard: Result<Heard, JoinError>) {
        match heard {
            Ok(Heard::Frozen(id, since, frozen)) => {
                self.frozen(id, since, frozen);
                self.do_what_waited();
            }
            Ok(Heard::Measured(measured)) => self.weighed(measured),
            Ok(Heard::Saved(saved)) => self.saved(*saved),
            Ok(Heard::Moved(started)) => self.moved(*started),
            Ok(Heard::Pumped(pumped)) => self.pumped(*pumped),
            Ok(Heard::Imported(view)) => self.checkpoints.add(*view),
            Ok(Heard::Deleted(id, is_gone)) => {
                if let Some(known) = self.checkpoints.get_mut(id).filter(|_| is_gone) {
                    known.is_durable = false;
                }
                self.checkpoints.tidy();
            }
            // It can only have panicked: nothing that anybody waits for is told any more.
            Err(error) => tracing::error!(%error, "a task of a checkpoint failed"),
        }
    }
}

impl Session {
    /// It may be known by now which checkpoints there are.
    fn do_what_waited(&mut self) {
        if self.checkpoints.is_waiting {
            self.replace_worker();
        }
        if self.checkpoints.has_any_coming() {
            return;
        }
        if let Some(call) = self.checkpoints.call_later.take() {
            self.checkpoint_call(call);
        }
        if let Some((go, asker)) = self.checkpoints.way_later.take() {
            self.go_back(go, asker);
        }
    }
}

fn known(view: CheckpointView, before: Option<CheckpointId>) -> Known {
    let (frozen, coming) = (None, None);
    Known { view, frozen, is_durable: false, coming, is_saving: false, before, ran: 0, total: 0 }
}

/// What there is to say of a way back, at this moment.
fn restoration(to: CheckpointId, tier: Tier, place: &Place, now: Timestamp) -> Restoration {
    Restoration {
        checkpoint: to,
        tier,
        age_ms: u64::try_from((now.micros() - place.taken_at) / 1000).unwrap_or(0),
        executions_since: place.since,
        restored: Vec::new(),
        missing: Vec::new(),
        kept: Vec::new(),
        findings: Vec::new(),
        rebuild: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
