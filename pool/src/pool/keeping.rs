//! The task behind a pool: tells the machine what happens, and carries out what it decides.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cob_protocol::limits::{
    COLD_STARTS_MAX, ENVIRONMENTS_MAX, FORKS_MAX, REFILL_PAUSE_MS, SPARE_BYTES, WAITING_LEASES_MAX,
};
use cob_protocol::zygote::Prepared;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::{Message, PoolConfig, Warmth};
use crate::environment::Environment;
use crate::keeper::{Event, Give, Nursery, Taker, Waiting};
use crate::limits::{self, Cgroups};
use crate::metrics::{Histogram, ImportProblem, ImportsInfo, Info};
use crate::slots::info::Description;
use crate::slots::{Action, Again, Config, EnvironmentId, Input, Origin, RequestId, SlotId, Slots, ZygoteId};
use crate::spawn::Program;
use crate::zygote::Failed;

/// An environment that the machine knows by a number.
struct Known {
    environment: Environment,
    image: Option<&'static [u8]>,
    /// What is still asked for.
    imports: Vec<String>,
    became: ImportsInfo,
    zygote: Option<(ZygoteId, mpsc::Sender<Waiting>)>,
    /// The present zygote has been ready.
    was_ready: bool,
}

/// A worker given to a request whose session has not begun.
struct Given {
    slot: SlotId,
    origin: Origin,
    /// It has ended meanwhile, which its asker is about to find out.
    has_died: bool,
}

/// The task's state.
pub(super) struct Keeping {
    nursery: Nursery,
    slots: Slots,
    imports: Vec<String>,
    spares: usize,
    special: HashMap<Environment, Warmth>,
    began: Instant,
    wake_at: Option<Instant>,
    known: BTreeMap<EnvironmentId, Known>,
    /// The last number given to an environment.
    numbers: u64,
    takers: HashMap<RequestId, Taker>,
    given: HashMap<RequestId, Given>,
    /// Workers that nobody has: how to tell their keepers.
    kept: HashMap<SlotId, oneshot::Sender<Give>>,
    latency: Histogram,
    /// Workers that will be forked at `hold_until`, or as soon as somebody waits.
    held: Vec<(EnvironmentId, ZygoteId, SlotId, oneshot::Receiver<Give>)>,
    hold_until: Instant,
    /// As it was last logged.
    population: [usize; 4],
}

impl Keeping {
    /// The state of a pool in which nothing is warm. What happens to its processes comes through `events`.
    pub(super) fn new(config: PoolConfig, events: mpsc::Sender<Event>) -> Self {
        let cgroups = match config.cgroups {
            true => Cgroups::detect(),
            false => Cgroups::none("cgroups were not asked for"),
        };
        Self {
            nursery: Nursery { events, cgroups: Arc::new(cgroups), reaped: Arc::default() },
            slots: Slots::new(Config {
                warm_target: config.spares,
                starting_max: COLD_STARTS_MAX,
                forking_max: FORKS_MAX,
                waiting_max: WAITING_LEASES_MAX,
                environments_max: ENVIRONMENTS_MAX,
                budget_bytes: config.memory_bytes,
                slot_bytes: SPARE_BYTES,
            }),
            imports: config.imports,
            spares: config.spares,
            special: HashMap::new(),
            began: Instant::now(),
            wake_at: None,
            known: BTreeMap::new(),
            numbers: 0,
            takers: HashMap::new(),
            given: HashMap::new(),
            kept: HashMap::new(),
            latency: Histogram::default(),
            held: Vec::new(),
            hold_until: Instant::now(),
            population: [0; 4],
        }
    }

    /// Serves until nobody can ask any more.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Message>, mut events: mpsc::Receiver<Event>) {
        let mut closing: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            let wake_at = self.wake_at;
            tokio::select! {
                biased;
                Some(event) = events.recv() => self.event(event),
                message = inbox.recv() => match message {
                    Some(Message::Close(sender)) => {
                        closing.push(sender);
                        self.apply(Input::Close);
                    }
                    Some(message) => self.message(message),
                    // Nobody can ask any more.
                    None => return,
                },
                () = sleep_until(self.hold_until), if !self.held.is_empty() => {}
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {
                    self.wake_at = None;
                    self.apply(Input::Due);
                }
            }
            self.release();
            if !closing.is_empty() && self.slots.is_over() {
                // Whoever asked may have gone.
                for sender in closing.drain(..) {
                    let _ = sender.send(());
                }
            }
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Lease { request, program, cold, taker } => {
                let environment = self.environment(&program);
                self.takers.insert(request, taker);
                self.apply(Input::Lease { request, environment, cold });
            }
            Message::Bounced { request, error, taker } => {
                let Some(given) = self.given.remove(&request) else { return };
                self.takers.insert(request, taker);
                self.apply(Input::Bounced { slot: given.slot, error: error.into() });
            }
            Message::Missed { request, taker } => {
                let Some(Given { slot, origin, .. }) = self.given.remove(&request) else { return };
                self.takers.insert(request, taker);
                self.apply(match origin {
                    Origin::Warm => Input::Missed { slot },
                    Origin::Forked | Origin::Cold => {
                        Input::Bounced { slot, error: "the worker ended before it was given".into() }
                    }
                });
            }
            Message::Begun { request, took } => {
                self.latency.record(took);
                self.forget_given(request);
            }
            Message::Cancel(request) => {
                self.takers.remove(&request);
                self.apply(Input::Cancel { request });
                self.forget_given(request);
            }
            Message::Warm(program, warmth) => {
                self.special.insert(Environment::of(&program), warmth);
                let environment = self.environment(&program);
                self.configure(environment);
            }
            Message::Info(sender) => {
                let _ = sender.send(self.info());
            }
            Message::Close(_) => {}
        }
    }

    fn forget_given(&mut self, request: RequestId) {
        if let Some(Given { slot, has_died: true, .. }) = self.given.remove(&request) {
            self.apply(Input::Died { slot });
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Prepared(zygote, prepared, bytes) => self.prepared(zygote, prepared, bytes),
            Event::Gone(zygote, failed) => self.zygote_gone(zygote, failed),
            Event::Settled(slot, bytes) => {
                if let Some(bytes) = bytes {
                    self.apply(Input::Measured { environment: slot.environment(), bytes });
                }
                self.apply(Input::Arrived { slot });
            }
            Event::Failed(slot, error) => {
                self.kept.remove(&slot);
                self.apply(Input::Failed { slot, error: error.to_string().into() });
            }
            Event::Died(slot) => {
                self.kept.remove(&slot);
                // Its asker says so, and is then given another.
                match self.given.values_mut().find(|given| given.slot == slot) {
                    Some(given) => given.has_died = true,
                    None => self.apply(Input::Died { slot }),
                }
            }
        }
    }

    fn with_zygote(&mut self, zygote: ZygoteId) -> Option<(EnvironmentId, &mut Known)> {
        let is_its = |known: &Known| known.zygote.as_ref().is_some_and(|(id, _)| *id == zygote);
        self.known.iter_mut().find(|(_, known)| is_its(known)).map(|(id, known)| (*id, known))
    }

    fn prepared(&mut self, zygote: ZygoteId, prepared: Prepared, bytes: u64) {
        let Some((environment, known)) = self.with_zygote(zygote) else { return };
        known.was_ready = true;
        known.became.imported = prepared.imported;
        let problem = |missing: cob_protocol::zygote::Missing| ImportProblem {
            module: missing.module,
            reason: missing.reason,
        };
        known.became.missing = prepared.missing.into_iter().map(problem).collect();
        tracing::info!(program = known.environment.name(), bytes, "zygote ready");
        self.apply(Input::Prepared { environment, zygote, bytes });
    }

    fn zygote_gone(&mut self, zygote: ZygoteId, Failed { module, is_final, reason }: Failed) {
        let Some((environment, known)) = self.with_zygote(zygote) else { return };
        tracing::warn!(program = known.environment.name(), reason, "zygote lost");
        known.zygote = None;
        let shared: Arc<str> = reason.as_str().into();
        if known.was_ready {
            return self.apply(Input::ZygoteGone { environment, zygote, reason: shared });
        }
        let guilty = module.filter(|module| known.imports.contains(module));
        let again = match guilty {
            Some(module) => {
                known.imports.retain(|import| *import != module);
                known.became.left_out.push(ImportProblem { module, reason });
                Again::AtOnce
            }
            None if is_final => Again::Never,
            None => Again::Later,
        };
        self.apply(Input::Unprepared { environment, zygote, reason: shared, again });
    }

    /// The number of the environment that a program is started in.
    fn environment(&mut self, program: &Program) -> EnvironmentId {
        let environment = Environment::of(program);
        if let Some((id, _)) = self.known.iter().find(|(_, known)| known.environment == environment) {
            return *id;
        }
        self.numbers += 1;
        let id = EnvironmentId(self.numbers);
        let own = self.special.get(&environment).and_then(|warmth| warmth.imports.clone());
        let imports = match environment.takes_imports() {
            true => own.unwrap_or_else(|| self.imports.clone()),
            false => Vec::new(),
        };
        let known = Known {
            environment,
            image: program.image,
            imports,
            became: ImportsInfo::default(),
            zygote: None,
            was_ready: false,
        };
        self.known.insert(id, known);
        self.configure(id);
        id
    }

    /// Tells the machine what is special about an environment, which it forgets with it.
    fn configure(&mut self, environment: EnvironmentId) {
        let Some(known) = self.known.get(&environment) else { return };
        if let Some(warmth) = self.special.get(&known.environment) {
            let warm_target = warmth.spares.unwrap_or(self.spares);
            self.apply(Input::Configure { environment, warm_target });
        }
    }

    fn apply(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for action in self.slots.apply(self.began.elapsed(), input) {
                // What cannot be done is told as the next input.
                inputs.extend(self.carry_out(action));
            }
        }
        let population = self.slots.population();
        if population != self.population {
            self.population = population;
            let [warm, starting, leased, retiring] = population;
            tracing::debug!(warm, starting, leased, retiring, "workers");
        }
    }

    fn carry_out(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Prepare { environment, zygote } => self.prepare(environment, zygote),
            Action::Fork { environment, zygote, slot } => return self.fork(environment, zygote, slot),
            Action::Start { environment, slot } => {
                let program = self.program(environment)?;
                let (sender, give) = oneshot::channel();
                self.kept.insert(slot, sender);
                tokio::spawn(self.nursery.clone().start(slot, program, give));
            }
            Action::Give { request, slot, origin } => {
                let taker = self.takers.remove(&request)?;
                self.hold_until = Instant::now() + Duration::from_millis(REFILL_PAUSE_MS);
                self.given.insert(request, Given { slot, origin, has_died: false });
                // A keeper whose worker has just died drops it, and the asker comes back.
                let _ = self.kept.remove(&slot).map(|keeper| keeper.send((taker, origin)));
            }
            Action::Refuse { request, why } => {
                let _ = self.takers.remove(&request)?.send(Err(why));
            }
            Action::Discard { slot } => drop(self.kept.remove(&slot)),
            Action::Retire { environment, .. } => {
                let known = self.known.get_mut(&environment)?;
                known.zygote = None;
                known.was_ready = false;
            }
            Action::Forget { environment } => drop(self.known.remove(&environment)),
            Action::WakeAt(at) => self.wake_at = Some(self.began + at),
        }
        None
    }

    fn program(&self, environment: EnvironmentId) -> Option<Program> {
        self.known.get(&environment).map(|known| known.environment.zygote(known.image))
    }

    fn prepare(&mut self, environment: EnvironmentId, zygote: ZygoteId) {
        let Some(program) = self.program(environment) else { return };
        let Some(known) = self.known.get_mut(&environment) else { return };
        let (sender, forks) = mpsc::channel(FORKS_MAX);
        known.zygote = Some((zygote, sender));
        known.was_ready = false;
        tokio::spawn(self.nursery.clone().zygote(zygote, program, known.imports.clone(), forks));
    }

    fn fork(&mut self, environment: EnvironmentId, zygote: ZygoteId, slot: SlotId) -> Option<Input> {
        let (keeper, give) = oneshot::channel();
        self.kept.insert(slot, keeper);
        if self.takers.is_empty() && Instant::now() < self.hold_until {
            self.held.push((environment, zygote, slot, give));
            return None;
        }
        self.order(environment, zygote, slot, give)
    }

    fn order(
        &mut self,
        environment: EnvironmentId,
        zygote: ZygoteId,
        slot: SlotId,
        give: oneshot::Receiver<Give>,
    ) -> Option<Input> {
        let its = self.known.get(&environment).and_then(|known| known.zygote.as_ref());
        let reason = match its.filter(|(id, _)| *id == zygote) {
            Some((_, sender)) if sender.try_send((slot, give)).is_ok() => return None,
            Some(_) => "its zygote does not answer",
            None => "its zygote is gone",
        };
        self.kept.remove(&slot);
        Some(Input::Failed { slot, error: reason.into() })
    }

    /// Has forked what was held back, once its time has come.
    fn release(&mut self) {
        if self.takers.is_empty() && Instant::now() < self.hold_until {
            return;
        }
        for (environment, zygote, slot, give) in std::mem::take(&mut self.held) {
            if let Some(input) = self.order(environment, zygote, slot, give) {
                self.apply(input);
            }
        }
    }

    fn info(&self) -> Info<serde_json::Value> {
        let describe = |id| match self.known.get(&id) {
            Some(known) => Description { name: known.environment.name(), imports: known.became.clone() },
            None => Description::default(),
        };
        let limits = serde_json::to_value(limits::forecast(&self.nursery.cgroups)).unwrap_or_default();
        let reaped = self.nursery.reaped.load(Ordering::Relaxed);
        self.slots.info(self.began.elapsed(), describe, &self.latency, reaped, limits)
    }
}
