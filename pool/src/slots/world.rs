//! A world for the machine, for tests: carries out its actions, answers in any order, lets things fail, and checks after
//! every step what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::info::Description;
use super::*;
use crate::breaker::Reason;
use crate::metrics::Histogram;

/// One step of the world. Numbers choose among what is possible at the time.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Lease(u64),
    Cancel(usize),
    Answer(usize, Outcome),
    EndSession(usize, End),
    KillWarm(usize),
    KillZygote(usize),
    Measure(u64, u64),
    Configure(u64, usize),
    Pass(u64),
    Close,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Success,
    Failure,
    Worse,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Died,
    Bounced,
}

/// What the owner still has to report.
#[derive(Clone, Debug)]
enum Pending {
    Prepare(EnvironmentId, ZygoteId),
    Fork(SlotId),
    Start(SlotId),
    End(SlotId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    Forking,
    Starting,
    Warm,
    Leased(RequestId),
    Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Waits(EnvironmentId),
    Has(SlotId),
    Over,
}

pub(super) struct World {
    slots: Slots,
    config: Config,
    now: Duration,
    wake_at: Option<Duration>,
    pub(super) requests: BTreeMap<RequestId, (Asked, usize)>,
    workers: BTreeMap<SlotId, Worker>,
    given: BTreeSet<SlotId>,
    /// Preparing (`None`) or ready with its size.
    zygotes: BTreeMap<EnvironmentId, (ZygoteId, Option<u64>)>,
    targets: BTreeMap<EnvironmentId, usize>,
    recency: BTreeMap<EnvironmentId, u64>,
    clock: u64,
    pending: Vec<Pending>,
    closing: bool,
}

fn reason() -> Reason {
    "no".into()
}

impl World {
    pub(super) fn new(config: Config) -> Self {
        Self {
            slots: Slots::new(config.clone()),
            config,
            now: Duration::ZERO,
            wake_at: None,
            requests: BTreeMap::new(),
            workers: BTreeMap::new(),
            given: BTreeSet::new(),
            zygotes: BTreeMap::new(),
            targets: BTreeMap::new(),
            recency: BTreeMap::new(),
            clock: 0,
            pending: Vec::new(),
            closing: false,
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Lease(environment) => {
                let (request, environment) =
                    (RequestId(self.requests.len() as u64), EnvironmentId(environment));
                self.requests.insert(request, (Asked::Waits(environment), 0));
                if !self.closing {
                    self.clock += 1;
                    self.recency.insert(environment, self.clock);
                    self.targets.entry(environment).or_insert(self.config.warm_target);
                }
                let cold = if request.0 % 3 == 0 { Cold::Refused } else { Cold::Accepted };
                self.apply(Input::Lease { request, environment, cold });
            }
            Step::Cancel(n) => self.cancel(n),
            Step::Answer(n, outcome) => {
                if !self.pending.is_empty() {
                    let pending = self.pending.remove(n % self.pending.len());
                    self.answer(&pending, outcome);
                }
            }
            Step::EndSession(n, end) => self.end_session(n, end),
            Step::KillWarm(n) => {
                if let Some(slot) = pick(&self.all(|worker| worker == Worker::Warm), n) {
                    self.workers.remove(&slot);
                    self.apply(Input::Died { slot });
                }
            }
            Step::KillZygote(n) => {
                let ids: Vec<_> = self.zygotes.keys().copied().collect();
                if let Some(environment) = pick(&ids, n) {
                    let (zygote, _) = self.zygotes.remove(&environment).unwrap();
                    self.apply(Input::ZygoteGone { environment, zygote, reason: reason() });
                }
            }
            Step::Measure(environment, bytes) => {
                self.apply(Input::Measured { environment: EnvironmentId(environment), bytes });
            }
            Step::Configure(environment, warm_target) => {
                let environment = EnvironmentId(environment);
                if !self.closing {
                    if !self.targets.contains_key(&environment) {
                        self.clock += 1;
                        self.recency.insert(environment, self.clock);
                    }
                    self.targets.insert(environment, warm_target);
                }
                self.apply(Input::Configure { environment, warm_target });
            }
            Step::Pass(ms) => {
                self.now += Duration::from_millis(ms);
                self.wake();
            }
            Step::Close => {
                self.closing = true;
                self.apply(Input::Close);
            }
        }
    }

    fn wake(&mut self) {
        if self.wake_at.is_some_and(|at| at <= self.now) {
            self.wake_at = None;
            self.apply(Input::Due);
        }
    }

    fn cancel(&mut self, n: usize) {
        let open: Vec<_> =
            self.requests.iter().filter(|(_, (asked, _))| *asked != Asked::Over).map(|(id, _)| *id).collect();
        let Some(request) = pick(&open, n) else { return };
        let (asked, _) = self.requests.insert(request, (Asked::Over, 0)).unwrap();
        let actions = self.apply(Input::Cancel { request });
        if let Asked::Has(slot) = asked {
            assert!(actions.contains(&Action::Discard { slot }), "its worker must be discarded");
        }
    }

    fn answer(&mut self, pending: &Pending, outcome: Outcome) {
        match (pending.clone(), outcome) {
            (Pending::Prepare(environment, zygote), outcome) => {
                let live = self.zygotes.get(&environment).is_some_and(|(id, _)| *id == zygote);
                self.prepare_ended(environment, zygote, live, outcome);
            }
            (Pending::Fork(slot), Outcome::Success) => self.arrive(Input::Arrived { slot }, slot),
            (Pending::Start(slot), Outcome::Success) => self.arrive(Input::Arrived { slot }, slot),
            (Pending::Fork(slot), Outcome::Failure) => {
                self.end(Input::Failed { slot, error: reason() }, slot);
            }
            (Pending::Start(slot), Outcome::Failure) => {
                self.end(Input::Failed { slot, error: reason() }, slot);
            }
            (Pending::End(slot) | Pending::Fork(slot) | Pending::Start(slot), _) => {
                self.end(Input::Died { slot }, slot);
            }
        }
    }

    fn prepare_ended(&mut self, environment: EnvironmentId, zygote: ZygoteId, live: bool, outcome: Outcome) {
        let input = match outcome {
            Outcome::Success => {
                let bytes = 40 + zygote.0 % 50;
                if live && bytes <= self.config.budget_bytes {
                    self.zygotes.insert(environment, (zygote, Some(bytes)));
                }
                Input::Prepared { environment, zygote, bytes }
            }
            Outcome::Failure | Outcome::Worse => {
                if live {
                    self.zygotes.remove(&environment);
                }
                let again = match (outcome, zygote.0 % 4) {
                    (Outcome::Worse, 0) => Again::Never,
                    (Outcome::Worse, _) => Again::AtOnce,
                    _ => Again::Later,
                };
                Input::Unprepared { environment, zygote, reason: reason(), again }
            }
        };
        self.apply(input);
    }

    /// A worker arrives: given, discarded, or warm from now on.
    fn arrive(&mut self, input: Input, slot: SlotId) {
        self.workers.insert(slot, Worker::Warm);
        self.apply(input);
    }

    fn end(&mut self, input: Input, slot: SlotId) {
        self.workers.remove(&slot);
        self.apply(input);
    }

    fn end_session(&mut self, n: usize, end: End) {
        let Some(slot) = pick(&self.all(|worker| matches!(worker, Worker::Leased(_))), n) else { return };
        let Some(Worker::Leased(request)) = self.workers.remove(&slot) else { return };
        let (_, bounces) = self.requests.insert(request, (Asked::Over, 0)).unwrap();
        match end {
            End::Died => {
                self.apply(Input::Died { slot });
            }
            End::Bounced => {
                self.requests.insert(request, (Asked::Waits(slot.environment()), bounces + 1));
                let actions = self.apply(Input::Bounced { slot, error: reason() });
                let failed = Action::Refuse { request, why: Refusal::Failed { error: reason() } };
                // It may fail already the first time: if a start for it had failed before.
                assert!(bounces == 0 || actions.contains(&failed), "a request moves once");
            }
        }
    }

    fn apply(&mut self, input: Input) -> Vec<Action> {
        let actions = self.slots.apply(self.now, input.clone());
        for action in &actions {
            self.carry_out(&input, action);
        }
        self.check(&actions);
        actions
    }

    fn carry_out(&mut self, input: &Input, action: &Action) {
        match action.clone() {
            Action::Prepare { environment, zygote } => {
                assert!(self.zygotes.insert(environment, (zygote, None)).is_none(), "one zygote at a time");
                self.pending.push(Pending::Prepare(environment, zygote));
            }
            Action::Fork { environment, zygote, slot } => {
                assert!(matches!(self.zygotes.get(&environment), Some((id, Some(_))) if *id == zygote));
                assert!(self.workers.insert(slot, Worker::Forking).is_none());
                self.pending.push(Pending::Fork(slot));
            }
            Action::Start { slot, .. } => {
                assert!(self.workers.insert(slot, Worker::Starting).is_none());
                self.pending.push(Pending::Start(slot));
            }
            Action::Give { request, slot, .. } => {
                let (asked, bounces) = self.requests[&request];
                assert_eq!(asked, Asked::Waits(slot.environment()), "only who waits is given a worker");
                assert_eq!(self.workers[&slot], Worker::Warm, "only a live worker is given");
                assert!(self.given.insert(slot), "a worker is given once");
                self.workers.insert(slot, Worker::Leased(request));
                self.requests.insert(request, (Asked::Has(slot), bounces));
            }
            Action::Refuse { request, .. } => {
                assert!(matches!(self.requests[&request].0, Asked::Waits(_)), "only who waits is refused");
                self.requests.insert(request, (Asked::Over, 0));
            }
            Action::Discard { slot } => {
                let worker = self.workers.insert(slot, Worker::Ending).unwrap();
                assert!(matches!(worker, Worker::Warm | Worker::Leased(_)), "{worker:?}");
                self.pending.push(Pending::End(slot));
            }
            Action::Retire { environment, zygote } => self.retired(input, environment, zygote),
            Action::Forget { environment } => {
                self.targets.remove(&environment).expect("it was known");
                assert!(self.workers.keys().all(|slot| slot.environment() != environment));
            }
            Action::WakeAt(at) => {
                assert!(at > self.now && self.wake_at.is_none_or(|before| at < before || before <= self.now));
                self.wake_at = Some(at);
            }
        }
    }

    fn retired(&mut self, input: &Input, environment: EnvironmentId, zygote: ZygoteId) {
        let (live, _) = self.zygotes.remove(&environment).expect("it had a zygote");
        assert_eq!(live, zygote);
        let too_big = matches!(input, Input::Prepared { zygote: it, bytes, .. }
            if *it == zygote && *bytes > self.config.budget_bytes);
        if self.closing || too_big {
            return;
        }
        assert!(!matches!(input, Input::Lease { environment: leased, .. } if *leased == environment));
        for (other, (_, bytes)) in &self.zygotes {
            assert!(
                bytes.is_none() || self.recency[other] > self.recency[&environment],
                "the oldest goes first"
            );
        }
    }

    fn all(&self, f: impl Fn(Worker) -> bool) -> Vec<SlotId> {
        self.workers.iter().filter(|(_, worker)| f(**worker)).map(|(slot, _)| *slot).collect()
    }

    fn count(&self, environment: EnvironmentId, f: impl Fn(Worker) -> bool) -> usize {
        self.all(f).iter().filter(|slot| slot.environment() == environment).count()
    }

    fn waiting(&self, environment: EnvironmentId) -> usize {
        self.requests.values().filter(|(asked, _)| *asked == Asked::Waits(environment)).count()
    }

    fn check(&self, actions: &[Action]) {
        for (&environment, &target) in &self.targets {
            let forking = self.count(environment, |worker| worker == Worker::Forking);
            let starting = self.count(environment, |worker| worker == Worker::Starting);
            let warm = self.count(environment, |worker| worker == Worker::Warm);
            let waiting = self.waiting(environment);
            assert!(forking <= self.config.forking_max && starting <= self.config.starting_max);
            assert!(warm <= target, "{warm} are warm, not {target}");
            assert!(warm == 0 || waiting == 0, "nobody waits beside a warm worker");
            assert!(waiting == 0 || forking + starting > 0, "who waits, waits for something");
            if actions
                .iter()
                .any(|it| matches!(it, Action::Fork { environment: of, .. } if *of == environment))
            {
                let for_warmth = (warm + forking + starting).saturating_sub(waiting);
                assert!(forking <= waiting || for_warmth <= target, "forked beyond the target");
            }
        }
        let on_the_way = self.all(|worker| matches!(worker, Worker::Forking | Worker::Starting)).len();
        assert!(self.slots.bytes() <= self.config.budget_bytes || on_the_way > 0, "over the budget");
        self.check_info();
    }

    /// What is shown is what there is.
    fn check_info(&self) {
        let describe = |id: EnvironmentId| Description { name: id.0.to_string(), ..Description::default() };
        let info = self.slots.info(self.now, describe, &Histogram::default(), 0, ());
        assert_eq!(info.environments.len(), self.targets.len());
        for it in &info.environments {
            let id = EnvironmentId(it.name.parse().unwrap());
            let starts = |worker| matches!(worker, Worker::Forking | Worker::Starting);
            assert_eq!(it.starting, self.count(id, starts));
            assert_eq!(it.warm, self.count(id, |worker| worker == Worker::Warm));
            assert_eq!(it.leased, self.count(id, |worker| matches!(worker, Worker::Leased(_))));
            assert_eq!(it.retiring, self.count(id, |worker| worker == Worker::Ending));
            assert_eq!(it.waiting, self.waiting(id));
            assert_eq!(it.warm_target, self.targets[&id]);
        }
    }

    /// The world answers all there is to answer; then nobody may wait.
    pub(super) fn calm(&mut self, outcome: Outcome) {
        for _ in 0..10_000 {
            let Some(pending) = self.pending.pop() else { break };
            self.answer(&pending, outcome);
        }
        assert!(self.requests.values().all(|(asked, _)| !matches!(asked, Asked::Waits(_))), "somebody waits");
    }

    pub(super) fn close(&mut self) {
        self.step(&Step::Close);
        assert_eq!(self.slots.bytes(), 0, "what is closed holds nothing");
        self.calm(Outcome::Success);
        while !self.all(|worker| matches!(worker, Worker::Leased(_))).is_empty() {
            self.step(&Step::EndSession(0, End::Died));
        }
        self.calm(Outcome::Success);
        assert!(self.workers.is_empty() && self.zygotes.is_empty() && self.slots.is_over());
    }
}

fn pick<T: Copy>(from: &[T], n: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[n % from.len()])
}
