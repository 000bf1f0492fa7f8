//! What the pool shows of itself: counters, the latency of leases, and [`Info`], through which all of it is visible.
//!
//! Only data: whoever shows it to people lays it out. Field names are a stable interface; times are in the unit that
//! ends the name, and relative to the moment of asking, since the pool's clock means nothing to others.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Everything about a pool at one moment. `L` is what the caller knows of limits and how they are enforced.
#[derive(Clone, Debug, Serialize)]
pub struct Info<L> {
    /// What is known of each environment, in the order of their numbers.
    pub environments: Vec<EnvironmentInfo>,
    /// What has happened since the pool began.
    pub counters: Counters,
    /// Of the workers that were ever kept warm, the part that was leased; absent before the first.
    pub warm_efficiency: Option<f64>,
    /// From asking for a worker to having it.
    pub latency: Latency,
    /// Memory of zygotes and warm workers.
    pub budget: BudgetInfo,
    /// The pool is being closed: it gives no more workers.
    pub closing: bool,
    /// How limits of sessions are enforced, in the caller's words.
    pub limits: L,
}

/// An environment: an interpreter, modules imported in advance, environment variables.
#[derive(Clone, Debug, Serialize)]
pub struct EnvironmentInfo {
    /// Its name for people.
    pub name: String,
    /// The modules that are imported in advance, and those that could not be.
    pub imports: ImportsInfo,
    /// The process that workers are forked from.
    pub zygote: ZygoteInfo,
    /// How many workers shall be warm.
    pub warm_target: usize,
    /// Workers that wait to be leased.
    pub warm: usize,
    /// Workers that are being forked or started.
    pub starting: usize,
    /// Workers that belong to sessions.
    pub leased: usize,
    /// Workers that are ending.
    pub retiring: usize,
    /// Requests that wait for a worker.
    pub waiting: usize,
    /// Whether starting workers is being left alone because it failed.
    pub breaker: BreakerInfo,
    /// Proportional memory of the zygote and the workers kept warm, in bytes.
    pub bytes: u64,
    /// Milliseconds since it was last leased from; absent when it never was.
    pub last_used_ms_ago: Option<u64>,
}

/// Modules imported in advance.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ImportsInfo {
    /// Those that are there.
    pub imported: Vec<String>,
    /// Those that could not be imported.
    pub missing: Vec<ImportProblem>,
    /// Those that were left out, because with them the zygote could not be forked.
    pub left_out: Vec<ImportProblem>,
}

/// A module that is not imported in advance though it was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct ImportProblem {
    /// The module.
    pub module: String,
    /// One sentence.
    pub reason: String,
}

/// The state of a zygote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ZygoteInfo {
    /// There is none yet.
    Cold,
    /// It imports.
    Preparing {
        /// For how long.
        since_ms: u64,
    },
    /// Workers can be forked from it.
    Ready {
        /// For how long.
        since_ms: u64,
        /// Its proportional memory.
        bytes: u64,
    },
    /// It failed or died and is prepared again after a pause.
    Lost {
        /// Why.
        reason: String,
        /// What is left of the pause.
        retry_after_ms: u64,
    },
    /// This environment cannot have one: its workers are started cold.
    Unfit {
        /// Why.
        reason: String,
    },
    /// It was ended to make room.
    Retired,
}

/// The state of the breaker on starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum BreakerInfo {
    /// Starts are allowed.
    Closed {
        /// How many starts failed since the last that succeeded.
        failures: u32,
        /// The last failure among them.
        last_error: Option<String>,
    },
    /// Requests that need a start are refused.
    Open {
        /// The last failure.
        last_error: String,
        /// What is left of the pause.
        retry_after_ms: u64,
    },
    /// The pause is over; one start decides.
    HalfOpen {
        /// The last failure.
        last_error: String,
    },
}

/// Memory that the pool uses in advance.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BudgetInfo {
    /// Used by zygotes and warm workers.
    pub bytes: u64,
    /// Allowed.
    pub bytes_max: u64,
}

/// What has happened since the pool began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Leases from workers that were warm: hits.
    pub leased_warm: u64,
    /// Leases from workers forked for the request.
    pub leased_forked: u64,
    /// Leases from workers started cold for the request: misses.
    pub leased_cold: u64,
    /// Requests refused, for whatever reason.
    pub refused: u64,
    /// Cold starts begun.
    pub starts: u64,
    /// Cold starts that failed.
    pub start_failures: u64,
    /// Forks begun.
    pub forks: u64,
    /// Forks that failed.
    pub fork_failures: u64,
    /// Zygotes that became ready.
    pub zygotes_prepared: u64,
    /// Zygotes ended to make room, or because the pool closed.
    pub zygotes_retired: u64,
    /// Environments judged unable to have a zygote.
    pub zygotes_unfit: u64,
    /// Workers that became warm.
    pub warmed: u64,
    /// Warm workers that died before they were leased.
    pub warm_deaths: u64,
    /// Workers that were killed without having been used.
    pub discarded: u64,
    /// Requests whose worker died before it was ready.
    pub bounced: u64,
    /// Processes that were waited for after their end.
    pub reaped: u64,
}

impl Counters {
    /// Of the workers that were ever kept warm, the part that was leased.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn warm_efficiency(&self) -> Option<f64> {
        (self.warmed > 0).then(|| self.leased_warm as f64 / self.warmed as f64)
    }
}

/// The latency of leases in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Their sum.
    pub sum_us: u64,
    /// The longest, exactly.
    pub max_us: u64,
    /// Half took no longer; at most an eighth too high.
    pub p50_us: u64,
    /// Nine of ten took no longer; at most an eighth too high.
    pub p90_us: u64,
    /// 99 of 100 took no longer; at most an eighth too high.
    pub p99_us: u64,
}

/// Each doubling is divided into this many buckets (as a power of two).
const STEP_BITS: u32 = 3;
const STEPS: usize = 1 << STEP_BITS;
/// Values of 2^26 µs (67 s) and more are in the last bucket: no start may take as long.
const OCTAVES: usize = 26;
const BUCKETS: usize = (OCTAVES - STEP_BITS as usize + 1) * STEPS;

/// Counts durations from a microsecond to a minute in buckets whose width grows with the value. Recording allocates
/// nothing and takes a constant time.
#[derive(Clone)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    count: u64,
    sum_us: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, sum_us: 0, max_us: 0 }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.latency().fmt(f)
    }
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket_of(us)) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
    }

    /// The figures.
    #[must_use]
    pub fn latency(&self) -> Latency {
        Latency {
            count: self.count,
            sum_us: self.sum_us,
            max_us: self.max_us,
            p50_us: self.quantile(50),
            p90_us: self.quantile(90),
            p99_us: self.quantile(99),
        }
    }

    /// The upper end of the bucket in which the value at this rank lies.
    fn quantile(&self, percent: u64) -> u64 {
        let rank = u128::from(self.count) * u128::from(percent);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count) * 100;
            if seen >= rank && seen > 0 {
                return if index + 1 == BUCKETS { self.max_us } else { last_of(index).min(self.max_us) };
            }
        }
        0
    }
}

fn bucket_of(us: u64) -> usize {
    let Some(octave) = us.checked_ilog2().filter(|octave| *octave >= STEP_BITS) else {
        return usize::try_from(us).unwrap_or(0);
    };
    let step = usize::try_from((us >> (octave - STEP_BITS)) & (STEPS as u64 - 1)).unwrap_or(0);
    ((octave - STEP_BITS + 1) as usize * STEPS + step).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn last_of(index: usize) -> u64 {
    match (index / STEPS).checked_sub(1) {
        None => index as u64,
        Some(doublings) => (((STEPS + index % STEPS + 1) as u64) << doublings) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn figures_of_a_thousand_even_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.latency(), Latency::default());
        (1..=1000).for_each(|us| histogram.record(Duration::from_micros(us)));
        let latency = histogram.latency();
        assert_eq!((latency.count, latency.sum_us, latency.max_us), (1000, 500_500, 1000));
        assert_eq!((latency.p50_us, latency.p90_us, latency.p99_us), (511, 959, 1000));
    }

    #[test]
    fn what_takes_longer_than_a_minute_is_still_counted() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_secs(3600));
        histogram.record(Duration::MAX);
        let latency = histogram.latency();
        assert_eq!((latency.count, latency.max_us, latency.p50_us), (2, u64::MAX, u64::MAX));
    }

    #[test]
    fn efficiency_needs_a_warm_worker() {
        assert_eq!(Counters::default().warm_efficiency(), None);
        let counters = Counters { warmed: 4, leased_warm: 3, ..Counters::default() };
        assert_eq!(counters.warm_efficiency(), Some(0.75));
    }

    proptest! {
        #[test]
        fn a_value_is_at_most_an_eighth_below_the_end_of_its_bucket(us in 0u64..(1 << OCTAVES) ) {
            let last = last_of(bucket_of(us));
            prop_assert!(us <= last && last - us <= us / STEPS as u64);
            prop_assert!(bucket_of(last) == bucket_of(us) && bucket_of(last + 1) == (bucket_of(us) + 1).min(BUCKETS - 1));
        }
    }
}
