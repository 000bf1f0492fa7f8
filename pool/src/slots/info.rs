//! What can be seen of the machine from outside. Reads only.

use std::time::Duration;

use super::environment::Environment;
use super::zygote::Zygote;
use super::{EnvironmentId, Slots};
use crate::breaker::{Permit, State};
use crate::metrics::{
    BreakerInfo, BudgetInfo, Counters, EnvironmentInfo, Histogram, ImportsInfo, Info, ZygoteInfo,
};

/// What only the owner knows of an environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Description {
    /// Its name for people.
    pub(crate) name: String,
    /// What became of its imports.
    pub(crate) imports: ImportsInfo,
}

impl Slots {
    /// Everything at one moment. The owner adds what it alone knows: names and imports, the latency it measured,
    /// processes it reaped, and how limits are enforced.
    pub(crate) fn info<L>(
        &self,
        now: Duration,
        describe: impl Fn(EnvironmentId) -> Description,
        latency: &Histogram,
        reaped: u64,
        limits: L,
    ) -> Info<L> {
        Info {
            environments: self.environments.values().map(|it| it.info(now, describe(it.id))).collect(),
            counters: Counters { reaped, ..self.counters },
            warm_efficiency: self.counters.warm_efficiency(),
            latency: latency.latency(),
            budget: BudgetInfo { bytes: self.bytes(), bytes_max: self.config.budget_bytes },
            closing: self.closing,
            limits,
        }
    }

    /// How many workers there are in all environments: warm, starting, leased, retiring.
    pub(crate) fn population(&self) -> [usize; 4] {
        let of = |count: fn(&Environment) -> usize| self.environments.values().map(count).sum();
        [
            of(|it| it.workers.warm()),
            of(|it| it.workers.starting()),
            of(|it| it.workers.leased()),
            of(|it| it.workers.retiring()),
        ]
    }

    /// Memory held in advance, by all environments.
    pub(crate) fn bytes(&self) -> u64 {
        self.environments.values().map(Environment::bytes).fold(0, u64::saturating_add)
    }

    /// Has the pool been closed, and has everything ended that nobody uses?
    pub(crate) fn is_over(&self) -> bool {
        let is_used =
            |it: &Environment| it.workers.starting() + it.workers.warm() + it.workers.retiring() == 0;
        self.closing && self.environments.values().all(is_used)
    }
}

impl Environment {
    fn info(&self, now: Duration, Description { name, imports }: Description) -> EnvironmentInfo {
        EnvironmentInfo {
            name,
            imports,
            zygote: self.zygote_info(now),
            warm_target: self.warm_target,
            warm: self.workers.warm(),
            starting: self.workers.starting(),
            leased: self.workers.leased(),
            retiring: self.workers.retiring(),
            waiting: self.waiting.len(),
            breaker: self.breaker_info(now),
            bytes: self.bytes(),
            last_used_ms_ago: self.last_leased.map(|then| millis(now.saturating_sub(then))),
        }
    }

    fn zygote_info(&self, now: Duration) -> ZygoteInfo {
        let ago = |since: &Duration| millis(now.saturating_sub(*since));
        match &self.zygote {
            Zygote::Cold => ZygoteInfo::Cold,
            Zygote::Preparing { since, .. } => ZygoteInfo::Preparing { since_ms: ago(since) },
            Zygote::Ready { since, bytes, .. } => ZygoteInfo::Ready { since_ms: ago(since), bytes: *bytes },
            Zygote::Lost { reason } => ZygoteInfo::Lost {
                reason: reason.to_string(),
                retry_after_ms: millis(self.zygotes.until().unwrap_or(now).saturating_sub(now)),
            },
            Zygote::Unfit { reason } => ZygoteInfo::Unfit { reason: reason.to_string() },
            Zygote::Retired => ZygoteInfo::Retired,
        }
    }

    fn breaker_info(&self, now: Duration) -> BreakerInfo {
        match (self.starts.state(), self.starts.permit(now, 0)) {
            (State::Closed, _) => BreakerInfo::Closed { failures: 0, last_error: None },
            (State::Failing { failures, error }, _) => {
                BreakerInfo::Closed { failures: *failures, last_error: Some(error.to_string()) }
            }
            (State::Open { error, .. }, Permit::Shut { retry_after, .. }) => {
                BreakerInfo::Open { last_error: error.to_string(), retry_after_ms: millis(retry_after) }
            }
            (State::Open { error, .. }, _) => BreakerInfo::HalfOpen { last_error: error.to_string() },
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
