//! Those who look on: at requests before they are routed, and at what became of them.
//!
//! **Invariant:** nobody waits for them. Each has a thread and a bounded queue; what does not fit is dropped and
//! counted, and one that is too slow too often is not shown anything any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cob_clients::agent::AgentPeer;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::limits::{INTERCEPTOR_BUDGET_MICROS, INTERCEPTOR_STRIKES_MAX};
use cob_protocol::promise::State;
use cob_protocol::time::Timestamp;
use serde::Serialize;
use tokio::sync::oneshot;

use super::sightings::{Sighting, Sightings};

/// What they see: never code, values or output.
#[derive(Clone, Debug)]
pub(crate) enum Observation {
    /// A request came.
    Asked {
        name: &'static str,
        peer: AgentPeer,
        principal: Option<Arc<str>>,
        session: Option<SessionId>,
        bytes: usize,
        trace: Option<Arc<str>>,
        at: Timestamp,
    },
    /// It was replied to; `code` says what was wrong.
    Answered { name: &'static str, code: Option<&'static str>, took: Duration },
    /// An execution is recorded.
    Acknowledged { promise: PromiseId, took: Duration },
    /// It is settled, and its reply was sent.
    Executed { promise: PromiseId, state: State, took: Duration },
}

/// One who looks on.
pub(crate) trait Interceptor: Send + 'static {
    /// For people.
    fn name(&self) -> &'static str;

    /// Must take no longer than its budget.
    fn observe(&mut self, observation: &Observation);
}

/// What is known of an interceptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Figures {
    pub(crate) observed: u64,
    /// They did not fit into its queue, or came when it was not shown anything any more.
    pub(crate) dropped: u64,
    pub(crate) over_budget: u64,
    pub(crate) is_quarantined: bool,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Interceptors {
    posts: Vec<Post>,
}

/// Where one of them is reached.
struct Post {
    name: &'static str,
    queue: Arc<Sightings>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    observed: AtomicU64,
    dropped: AtomicU64,
    over_budget: AtomicU64,
    is_quarantined: AtomicBool,
}

impl Interceptors {
    /// Gives each one a thread. One for which the system has none is left out, with a line in the log.
    pub(crate) fn start(interceptors: Vec<Box<dyn Interceptor>>) -> Self {
        let posts = interceptors.into_iter().filter_map(|interceptor| {
            let name = interceptor.name();
            let queue = Arc::<Sightings>::default();
            let shown = Arc::clone(&queue);
            let counts = Arc::<Counts>::default();
            let mut guard = Guard::new(interceptor, Arc::clone(&counts), monotonic());
            let thread =
                thread::Builder::new().name(format!("cob-{name}")).spawn(move || guard.stand(&shown));
            match thread {
                Ok(_) => Some(Post { name, queue, counts }),
                Err(error) => {
                    tracing::error!(name, %error, "an interceptor has no thread and sees nothing");
                    None
                }
            }
        });
        Self { posts: posts.collect() }
    }

    /// Shows them something. Never waits.
    pub(crate) fn observe(&self, observation: Observation) {
        let observation = Arc::new(observation);
        for post in &self.posts {
            let is_shown = !post.counts.is_quarantined.load(Ordering::Relaxed)
                && post.queue.push(Sighting::Shown(Arc::clone(&observation)));
            if !is_shown {
                post.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until one of them has seen what it was shown so far; not when it has no room for the question.
    pub(crate) async fn caught_up(&self, name: &str) {
        let Some(post) = self.posts.iter().find(|post| post.name == name) else { return };
        let (seen, answer) = oneshot::channel();
        if post.queue.push(Sighting::Seen(seen)) {
            // It fails when the thread has ended, and then there is nothing to wait for.
            drop(answer.await);
        }
    }

    pub(crate) fn figures(&self) -> Vec<(&'static str, Figures)> {
        self.posts.iter().map(|post| (post.name, post.counts.get())).collect()
    }
}

impl std::fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.posts.iter().map(|post| post.name)).finish()
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Counts {
    fn get(&self) -> Figures {
        Figures {
            observed: self.observed.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            over_budget: self.over_budget.load(Ordering::Relaxed),
            is_quarantined: self.is_quarantined.load(Ordering::Relaxed),
        }
    }
}

/// Stands beside an interceptor and looks at its watch.
struct Guard<C> {
    interceptor: Box<dyn Interceptor>,
    counts: Arc<Counts>,
    /// The time since some moment.
    clock: C,
    strikes: u32,
}

impl<C: FnMut() -> Duration> Guard<C> {
    fn new(interceptor: Box<dyn Interceptor>, counts: Arc<Counts>, clock: C) -> Self {
        Self { interceptor, counts, clock, strikes: 0 }
    }

    fn stand(&mut self, queue: &Sightings) {
        let mut sightings = Vec::new();
        loop {
            queue.take(&mut sightings);
            if sightings.is_empty() {
                return;
            }
            for sighting in sightings.drain(..) {
                match sighting {
                    Sighting::Shown(observation) => self.show(&observation),
                    // Whoever asked may have gone.
                    Sighting::Seen(seen) => drop(seen.send(())),
                }
            }
        }
    }

    fn show(&mut self, observation: &Observation) {
        if self.counts.is_quarantined.load(Ordering::Relaxed) {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let began = (self.clock)();
        self.interceptor.observe(observation);
        let took = (self.clock)().saturating_sub(began);
        self.counts.observed.fetch_add(1, Ordering::Relaxed);
        if took <= Duration::from_micros(INTERCEPTOR_BUDGET_MICROS) {
            self.strikes = 0;
            return;
        }
        self.counts.over_budget.fetch_add(1, Ordering::Relaxed);
        self.strikes += 1;
        if self.strikes >= INTERCEPTOR_STRIKES_MAX {
            self.counts.is_quarantined.store(true, Ordering::Relaxed);
            let name = self.interceptor.name();
            tracing::warn!(name, ?took, "an interceptor is too slow: it sees nothing any more");
        }
    }
}

fn monotonic() -> impl FnMut() -> Duration + Send + 'static {
    let start = Instant::now();
    move || start.elapsed()
}

/// Says which requests belong to a trace, at the level `debug`.
#[derive(Debug)]
pub(crate) struct Trace;

impl Interceptor for Trace {
    fn name(&self) -> &'static str {
        "trace"
    }

    fn observe(&mut self, observation: &Observation) {
        if let Observation::Asked { name, trace: Some(trace), session, at, .. } = observation {
            let session = session.map(tracing::field::display);
            tracing::debug!(target: "cob::trace", name, trace = &**trace, session, %at, "traced request");
        }
    }
}

/// Says what was refused, at the level `debug`, and everything else at `trace`.
#[derive(Debug)]
pub(crate) struct Log;

impl Interceptor for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn observe(&mut self, observation: &Observation) {
        match observation {
            Observation::Asked { name, peer, principal, session, bytes, .. } => {
                let session = session.map(tracing::field::display);
                tracing::trace!(name, ?peer, principal = principal.as_deref(), session, bytes, "asked");
            }
            Observation::Answered { name, code: Some(code), took } => {
                tracing::debug!(name, code, ?took, "refused");
            }
            Observation::Answered { name, code: None, took } => tracing::trace!(name, ?took, "answered"),
            Observation::Acknowledged { promise, took } => tracing::trace!(%promise, ?took, "recorded"),
            Observation::Executed { promise, state, took } => {
                tracing::trace!(%promise, state = state.as_str(), ?took, "delivered");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use cob_protocol::limits::INTERCEPTOR_QUEUE_MAX;

    use super::*;

    /// Takes as long as it is told, by a clock that only it moves.
    struct Slow {
        now: Arc<Mutex<Duration>>,
        takes: Vec<u64>,
    }

    impl Interceptor for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }

        fn observe(&mut self, _: &Observation) {
            *self.now.lock().unwrap() += Duration::from_micros(self.takes.pop().unwrap());
        }
    }

    fn seen() -> Observation {
        Observation::Answered { name: "ping", code: None, took: Duration::ZERO }
    }

    fn guard(takes: &[u64]) -> (Guard<impl FnMut() -> Duration + use<>>, Arc<Counts>) {
        let (now, counts) = (Arc::<Mutex<Duration>>::default(), Arc::<Counts>::default());
        let slow = Slow { now: Arc::clone(&now), takes: takes.iter().rev().copied().collect() };
        (Guard::new(Box::new(slow), Arc::clone(&counts), move || *now.lock().unwrap()), counts)
    }

    #[test]
    fn one_that_is_too_slow_so_often_in_a_row_sees_nothing_any_more() {
        let strikes = INTERCEPTOR_STRIKES_MAX as usize;
        let (mut guard, counts) = guard(&vec![INTERCEPTOR_BUDGET_MICROS + 1; strikes]);
        for _ in 0..strikes + 2 {
            guard.show(&seen());
        }
        let expected = Figures {
            observed: strikes as u64,
            dropped: 2,
            over_budget: strikes as u64,
            is_quarantined: true,
        };
        assert_eq!(counts.get(), expected);
    }

    #[test]
    fn one_that_is_slow_now_and_then_is_left_alone() {
        let strikes = INTERCEPTOR_STRIKES_MAX as usize;
        let mut takes = vec![INTERCEPTOR_BUDGET_MICROS + 1; strikes - 1];
        takes.push(INTERCEPTOR_BUDGET_MICROS);
        takes.extend(vec![INTERCEPTOR_BUDGET_MICROS + 1; strikes - 1]);
        let (mut guard, counts) = guard(&takes);
        takes.iter().for_each(|_| guard.show(&seen()));
        assert!(!counts.get().is_quarantined);
        assert_eq!(counts.get().over_budget, 2 * (strikes as u64 - 1));
    }

    /// Holds its thread until it is let go.
    struct Stuck(Receiver<()>);

    impl Interceptor for Stuck {
        fn name(&self) -> &'static str {
            "stuck"
        }

        fn observe(&mut self, _: &Observation) {
            let _ = self.0.recv();
        }
    }

    #[tokio::test]
    async fn one_that_hangs_holds_up_nobody_and_what_it_misses_is_counted() {
        let (release, held) = channel();
        let all = Interceptors::start(vec![Box::new(Stuck(held)), Box::new(Log)]);
        let shown = INTERCEPTOR_QUEUE_MAX as u64 + 2;
        for _ in 0..shown {
            all.observe(seen());
            // The other one keeps up.
            all.caught_up("log").await;
        }
        let figures = |name| all.figures().into_iter().find(|(known, _)| *known == name).unwrap().1;
        assert_eq!((figures("log").observed, figures("log").dropped), (shown, 0));
        assert!(figures("stuck").dropped >= 1);
        drop(release);
    }
}
