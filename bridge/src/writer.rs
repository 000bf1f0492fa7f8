//! Who writes: a thread. It takes what waits, commits it together, and tells everybody; when the store fails it
//! decides what that means.
//!
//! | the store says | the groups | from then on |
//! |---|---|---|
//! | busy (it has waited itself) | fail | as before |
//! | full | what begins something is refused, the rest tried again with the ballast | full, until there is room |
//! | failed | fail | [`STORE_FAILURES_MAX`] in a row: only read |
//! | corrupt, read only | fail | only read |
//! | not synchronised | | the process ends: nothing can be believed any more |
//!
//! One small group that finds the thread asleep is written by whoever submits it: the two changes of thread would take
//! as long as the commit again (measured on an idle machine: 90 µs for the two, 65 µs for the commit). Whatever is large,
//! comes in a flood, must reach the disk, is waited for by nobody, would have to wait or fails goes to the thread; except
//! that a disk which turns out not to be synchronised is not asked again by anybody. A thread that stays awake for a
//! while after each commit was tried: between the two commits of a cell lie some hundred microseconds, so it helped only
//! when it kept a processor busy.
//!
//! A panic here ends the process too, on whichever thread: a crash is better than a store that is half written.

use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use cob_protocol::crash_point;
use cob_protocol::limits::{
    BALLAST_BYTES, CLAIM_BYTES_MAX, CLAIM_PAUSE_MICROS, CLAIM_SLOW_MICROS, CLAIM_SLOW_PAUSE_MS,
    NEED_BYTES_MAX, STORE_FAILURES_MAX, STORE_FREE_BYTES_MIN, STORE_LOOK_BYTES, TIDY_COMMITS,
};
use cob_protocol::promise::Durability;

use crate::health::Health;
use crate::queue::{Batch, Queue, Verdict, Work};
use crate::shared::{Shared, lock};
use crate::store::{Group, Outcomes, Store, StoreError, Write};
use crate::submitted::Submitted;
use crate::weight;

/// Ends the process, saying why. Tests put something else in its place.
pub(crate) type Abort = fn(&str);

/// See [`Abort`].
pub(crate) fn abort(why: &str) {
    eprintln!("cob: {why}");
    std::process::abort();
}

/// Starts the thread.
pub(crate) fn start(name: &str, shared: Arc<Shared>) -> Result<(), StoreError> {
    std::thread::Builder::new()
        .name("cob-store".to_owned())
        .spawn(move || run(&shared))
        .map(drop)
        .map_err(|error| StoreError::Failed { store: name.to_owned(), what: format!("no thread: {error}") })
}

fn run(shared: &Shared) {
    let Some((queue, writer)) = shared.durable() else { return };
    queue.ask_for_chores();
    let mut batch = Batch::default();
    let mut wakers: Vec<Waker> = Vec::new();
    loop {
        let work = queue.take(&mut batch);
        let mut held = lock(writer);
        let Some(writer) = held.as_mut() else { return };
        let _watch = PanicWatch(writer.abort);
        match work {
            Work::Write => {
                let verdicts = writer.record(shared, &batch);
                // Readers and waiters before those who submitted: whoever hears of it finds it.
                shared.follow(&batch.groups, &verdicts);
                queue.answer(&mut batch, verdicts, &mut wakers, Instant::now() + CLAIM_PAUSE);
                if writer.is_untidy() {
                    queue.ask_for_chores();
                }
            }
            Work::Look => writer.look_for_room(shared),
            Work::Chores => {
                if writer.chores(shared) {
                    queue.ask_for_chores();
                }
            }
            Work::End => {
                if let Err(error) = writer.store.close() {
                    tracing::warn!(%error, "the store could not be tidied up at its end");
                    writer.judge(shared, &error);
                }
                // The lock of the store is given back before anybody hears that it is closed.
                *held = None;
                return shared.end();
            }
        }
    }
}

/// Records a small group on the thread of whoever submits it, if that takes no waiting; else it goes to the thread.
pub(crate) fn submit(
    shared: &Shared,
    queue: &Arc<Queue>,
    writer: &Mutex<Option<Writer>>,
    group: Group,
) -> Submitted {
    let may = group.durability == Durability::Process
        && shared.health.is_good()
        && weight::of_group(&group) <= CLAIM_BYTES_MAX;
    let now = Instant::now();
    if !may || !queue.claim(now) {
        return queue.push(group);
    }
    let mut held = lock(writer);
    let Some(writer) = held.as_mut() else { return queue.hand_over(group) };
    // Also over what follows the commit: a claim that nobody gives back would stop everybody for ever.
    let _watch = PanicWatch(writer.abort);
    let groups = [group];
    let verdict = writer.record_now(shared, &groups);
    let is_untidy = writer.is_untidy();
    drop(held);
    let [group] = &groups;
    let Some(verdict) = verdict else { return queue.hand_over(group.clone()) };
    let verdicts = [verdict];
    shared.follow(&groups, &verdicts);
    let end = Instant::now();
    let is_slow = end - now > Duration::from_micros(CLAIM_SLOW_MICROS);
    let pause = if is_slow { Duration::from_millis(CLAIM_SLOW_PAUSE_MS) } else { CLAIM_PAUSE };
    queue.unclaim(end + pause, is_untidy);
    let [verdict] = verdicts;
    Submitted::ready(verdict)
}

/// Who comes sooner than this after a commit goes to the thread: there is a flood, which is better committed together.
const CLAIM_PAUSE: Duration = Duration::from_micros(CLAIM_PAUSE_MICROS);

/// What may be recorded besides ends on a full disk: the same part of every ballast.
fn allowance(store: &dyn Store) -> usize {
    let bytes = NEED_BYTES_MAX as u64 * (store.ballast_bytes() / BALLAST_BYTES).max(1);
    usize::try_from(bytes).unwrap_or(NEED_BYTES_MAX)
}

/// Owns the store.
pub(crate) struct Writer {
    name: String,
    store: Box<dyn Store>,
    abort: Abort,
    /// Commits that failed in a row.
    failures: u32,
    /// The space in reserve was given up.
    is_ballast_out: bool,
    /// Bytes written since the disk was looked at.
    unlooked: usize,
    /// What may still be recorded besides ends while the ballast is out.
    allowance: usize,
    /// Commits since it was tidied up.
    untidy: u32,
}

impl Writer {
    pub(crate) fn new(name: &str, mut store: Box<dyn Store>, abort: Abort) -> Self {
        Self {
            name: name.to_owned(),
            is_ballast_out: !store.has_ballast(),
            allowance: allowance(&*store),
            store,
            abort,
            failures: 0,
            unlooked: 0,
            // What was left of the last time.
            untidy: TIDY_COMMITS,
        }
    }

    /// Whether it is time to tidy up.
    fn is_untidy(&self) -> bool {
        self.untidy >= TIDY_COMMITS
    }

    /// What can wait until nobody waits; says whether there is more.
    fn chores(&mut self, shared: &Shared) -> bool {
        if shared.health.read_only().is_none() {
            // Also, and above all, while there is no room.
            match self.store.discard() {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => self.untidied(shared, &error),
            }
        }
        self.look_for_room(shared);
        if !shared.health.is_good() {
            return false;
        }
        if self.is_ballast_out && self.has_room_for_ballast() {
            // There was no room for it when the store was opened.
            self.is_ballast_out = !self.store.restore_ballast();
        }
        self.untidy = 0;
        match self.store.tidy(shared.clock.now()) {
            Ok(is_more) => is_more,
            Err(error) => {
                self.untidied(shared, &error);
                false
            }
        }
    }

    fn untidied(&mut self, shared: &Shared, error: &StoreError) {
        tracing::warn!(%error, "the store could not be tidied up");
        self.judge(shared, error);
    }

    /// Records one group if that takes no waiting and all is well.
    fn record_now(&mut self, shared: &Shared, groups: &[Group; 1]) -> Option<Verdict> {
        let [group] = groups;
        let bytes = weight::of_group(group);
        self.look(shared, groups, bytes);
        if !shared.health.is_good() {
            return None;
        }
        crash_point!("commit_begins");
        let outcomes = match self.store.commit_now(group) {
            Ok(outcomes) => outcomes?,
            Err(error) => {
                self.judge(shared, &error);
                return Some(Err(error));
            }
        };
        crash_point!("commit_done");
        self.failures = 0;
        self.untidy = self.untidy.saturating_add(1);
        shared.counters.committed(1, group.writes.len(), bytes);
        Some(Ok(outcomes))
    }

    /// Records a batch: one verdict for each group.
    fn record(&mut self, shared: &Shared, batch: &Batch) -> Vec<Verdict> {
        let groups = &batch.groups;
        if let Some(reason) = shared.health.read_only() {
            shared.counters.refused(groups.len());
            return refuse(groups, &reason);
        }
        self.look(shared, groups, batch.bytes);
        if shared.health.is_full() {
            return self.record_in_need(shared, groups);
        }
        match self.commit(shared, groups) {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(error @ StoreError::Full { .. }) => {
                self.set_full(shared, error);
                self.release_ballast();
                self.record_in_need(shared, groups)
            }
            Err(error) => refuse(groups, &error),
        }
    }

    /// One commit, and what its failure means.
    fn commit(&mut self, shared: &Shared, groups: &[Group]) -> Result<Vec<Outcomes>, StoreError> {
        crash_point!("commit_begins");
        let result = self.store.commit(groups);
        crash_point!("commit_done");
        self.untidy = self.untidy.saturating_add(1);
        match &result {
            Ok(_) => {
                self.failures = 0;
                let writes = groups.iter().map(|group| group.writes.len()).sum();
                let bytes = groups.iter().map(weight::of_group).sum();
                shared.counters.committed(groups.len(), writes, bytes);
            }
            Err(error) => self.judge(shared, error),
        }
        result
    }

    /// What a failure means for what follows.
    fn judge(&mut self, shared: &Shared, error: &StoreError) {
        shared.counters.failed();
        match error {
            StoreError::Full { .. } | StoreError::Busy { .. } => {}
            StoreError::Corrupt { .. } | StoreError::ReadOnly { .. } => {
                self.set_read_only(shared, error.clone());
            }
            StoreError::Unsynced { .. } => {
                (self.abort)(&error.to_string());
                self.set_read_only(shared, error.clone());
            }
            error => {
                self.failures += 1;
                if self.failures >= STORE_FAILURES_MAX {
                    let (store, what) = (self.name.clone(), error.to_string());
                    self.set_read_only(shared, StoreError::ReadOnly { store, what });
                }
            }
        }
    }

    /// Records while there is no room on the disk: ends first, beginnings not at all.
    fn record_in_need(&mut self, shared: &Shared, groups: &[Group]) -> Vec<Verdict> {
        let full = self.full();
        let may: Vec<bool> = groups.iter().map(|group| self.may_in_need(group)).collect();
        let rest: Vec<Group> =
            groups.iter().zip(&may).filter(|(_, may)| **may).map(|(group, _)| group.clone()).collect();
        shared.counters.refused(groups.len() - rest.len());
        let mut verdicts = self.try_hard(shared, &rest).into_iter();
        may.iter()
            .map(|may| if *may { verdicts.next() } else { None })
            .map(|verdict| verdict.unwrap_or_else(|| Err(full.clone())))
            .collect()
    }

    /// Commits with whatever space can be found: with the ballast, and at last each group for itself.
    fn try_hard(&mut self, shared: &Shared, groups: &[Group]) -> Vec<Verdict> {
        if groups.is_empty() {
            return Vec::new();
        }
        let mut result = self.commit(shared, groups);
        if matches!(result, Err(StoreError::Full { .. })) && self.release_ballast() {
            result = self.commit(shared, groups);
        }
        match result {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(StoreError::Full { .. }) if groups.len() > 1 => groups
                .iter()
                .map(|group| {
                    let outcomes = self.commit(shared, std::slice::from_ref(group))?;
                    Ok(outcomes.into_iter().next().unwrap_or_default())
                })
                .collect(),
            Err(error) => refuse(groups, &error),
        }
    }

    /// Gives up the space in reserve; says whether that was new.
    fn release_ballast(&mut self) -> bool {
        if self.is_ballast_out {
            return false;
        }
        tracing::warn!(store = self.name, "no room on the disk: the space in reserve is used");
        self.store.release_ballast();
        self.is_ballast_out = true;
        self.allowance = allowance(&*self.store);
        true
    }

    /// Whether a group may be recorded while there is no room.
    fn may_in_need(&mut self, group: &Group) -> bool {
        if begins(group) {
            return false;
        }
        if !self.is_ballast_out || ends(group) {
            return true;
        }
        let weight = weight::of_group(group);
        let may = weight <= self.allowance;
        self.allowance = self.allowance.saturating_sub(weight);
        may
    }

    /// Looks at the disk when there is reason to: before it is full, and while it is.
    fn look(&mut self, shared: &Shared, groups: &[Group], bytes: usize) {
        self.unlooked = self.unlooked.saturating_add(bytes);
        if shared.health.is_full() {
            self.look_for_room(shared);
        } else if self.unlooked >= STORE_LOOK_BYTES || groups.iter().any(begins) {
            self.unlooked = 0;
            if self.store.free_bytes().is_some_and(|free| free < STORE_FREE_BYTES_MIN) {
                self.set_full(shared, self.full());
            }
        }
    }

    /// All is well again when there is room: clearly more than the least, and enough for the ballast.
    fn look_for_room(&mut self, shared: &Shared) {
        if !shared.health.is_full() {
            return;
        }
        if !self.has_room_for_ballast() {
            return;
        }
        if self.is_ballast_out && !self.store.restore_ballast() {
            return;
        }
        self.is_ballast_out = false;
        tracing::info!(store = self.name, "there is room on the disk again");
        shared.health.set(Health::Good);
    }

    /// Clearly more than the least, beside the ballast.
    fn has_room_for_ballast(&mut self) -> bool {
        let ballast = if self.is_ballast_out { self.store.ballast_bytes() } else { 0 };
        self.store.free_bytes().is_none_or(|free| free >= 2 * STORE_FREE_BYTES_MIN + ballast)
    }

    fn full(&self) -> StoreError {
        StoreError::Full { store: self.name.clone() }
    }

    fn set_full(&self, shared: &Shared, error: StoreError) {
        tracing::warn!(%error, "nothing new is taken");
        shared.health.set(Health::Full(error));
    }

    fn set_read_only(&self, shared: &Shared, error: StoreError) {
        tracing::error!(%error, "nothing is recorded any more");
        shared.health.set(Health::ReadOnly(error));
        shared.wake_all();
    }
}

/// The same verdict for all.
fn refuse(groups: &[Group], error: &StoreError) -> Vec<Verdict> {
    groups.iter().map(|_| Err(error.clone())).collect()
}

/// Whether a group begins something that would need room later.
fn begins(group: &Group) -> bool {
    let begins = |write: &Write| {
        matches!(write, Write::OpenSession { .. } | Write::CreateExecution(_) | Write::KeepBundle(_))
    };
    group.writes.iter().any(begins)
}

fn ends(group: &Group) -> bool {
    let ends = |write: &Write| {
        // The last one makes room.
        matches!(
            write,
            Write::Settle { .. }
                | Write::Expire { .. }
                | Write::CloseSession { .. }
                | Write::RemoveBundle { .. }
        )
    };
    group.writes.iter().any(ends)
}

/// Ends the process when the writer panics.
struct PanicWatch(Abort);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)("the writer of the store panicked");
        }
    }
}
