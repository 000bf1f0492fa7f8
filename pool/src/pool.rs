//! The pool: workers that wait for sessions. One task owns the machine that decides ([`crate::slots`]) and carries
//! its actions out; processes are owned by the tasks in [`crate::keeper`].

mod keeping;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cob_protocol::limits::{POOL_MEMORY_BYTES, SPARES};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::keeper::{Grant, Taker};
use crate::lease::{LeaseError, Leased, Request};
use crate::metrics::Info;
pub(crate) use crate::slots::Cold;
use crate::slots::{Refusal, RequestId};
use crate::spawn::Program;
use keeping::Keeping;

/// Messages on their way to the pool's task.
const IN_FLIGHT: usize = 256;

/// How a pool is set up.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Modules that zygotes import in advance. One that is missing or cannot be forked with is left out.
    pub imports: Vec<String>,
    /// Workers kept warm per environment.
    pub spares: usize,
    /// Memory of zygotes and warm workers together, in bytes.
    pub memory_bytes: u64,
    /// Whether sessions can have limits that only a cgroup enforces.
    pub cgroups: bool,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { imports: Vec::new(), spares: SPARES, memory_bytes: POOL_MEMORY_BYTES, cgroups: true }
    }
}

/// How one environment is kept warm, where that differs from the others.
#[derive(Clone, Debug, Default)]
pub struct Warmth {
    /// Modules to import in advance.
    pub imports: Option<Vec<String>>,
    /// Workers kept warm.
    pub spares: Option<usize>,
}

/// A handle on a pool. The pool lives until all are gone, and its workers do until their sessions end.
#[derive(Clone, Debug)]
pub struct Pool {
    messages: mpsc::Sender<Message>,
    requests: Arc<AtomicU64>,
}

enum Message {
    Lease {
        request: RequestId,
        program: Program,
        cold: Cold,
        taker: Taker,
    },
    /// The worker that was given to the request ended before its session began.
    Bounced {
        request: RequestId,
        error: String,
        taker: Taker,
    },
    /// The worker that was given to the request never reached it.
    Missed {
        request: RequestId,
        taker: Taker,
    },
    /// Its session has begun.
    Begun {
        request: RequestId,
        took: Duration,
    },
    /// The asker went away.
    Cancel(RequestId),
    Warm(Program, Warmth),
    Info(oneshot::Sender<Info<serde_json::Value>>),
    Close(oneshot::Sender<()>),
}

impl Pool {
    /// Starts a pool in this runtime; nothing is warm yet.
    #[must_use]
    pub fn start(config: PoolConfig) -> Self {
        let (messages, inbox) = mpsc::channel(IN_FLIGHT);
        let (sender, events) = mpsc::channel(IN_FLIGHT);
        let keeping = Keeping::new(config, sender);
        tokio::spawn(keeping.run(inbox, events));
        Self { messages, requests: Arc::default() }
    }

    /// A worker for a session, ready to run code. One that dies before it is ready is replaced, once.
    ///
    /// # Errors
    /// [`LeaseError`]: there is none.
    pub async fn lease(&self, request: &Request) -> Result<Leased, LeaseError> {
        let began = Instant::now();
        let mut asking = self.ask(&request.program, Cold::Accepted).await?;
        loop {
            let mut grant = asking.grant().await?;
            let pid = grant.parked.life.pid();
            let enforced = grant.parked.enclosure.apply(pid, &request.limits);
            let limits = (request.limits.clone(), enforced);
            match Leased::greet(grant.parked, grant.origin.into(), limits, request).await {
                Ok(leased) => {
                    asking.begun(began.elapsed()).await;
                    return Ok(leased);
                }
                Err(error) => asking.bounced(error.to_string()).await?,
            }
        }
    }

    /// A worker that nobody has greeted, for another process.
    pub(crate) async fn take(&self, program: &Program, cold: Cold) -> Result<Grant, LeaseError> {
        let began = Instant::now();
        let mut asking = self.ask(program, cold).await?;
        let grant = asking.grant().await?;
        asking.begun(began.elapsed()).await;
        Ok(grant)
    }

    async fn ask(&self, program: &Program, cold: Cold) -> Result<Asking, LeaseError> {
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let (taker, answer) = oneshot::channel();
        let message = Message::Lease { request, program: program.clone(), cold, taker };
        self.messages.send(message).await.map_err(|_| LeaseError::Closing)?;
        Ok(Asking { messages: self.messages.clone(), request, answer, is_open: true })
    }

    /// Makes the environment of `program` warm before anybody asks for it, in its own way if one is given.
    pub async fn warm(&self, program: &Program, warmth: Warmth) {
        let _ = self.messages.send(Message::Warm(program.clone(), warmth)).await;
    }

    /// What the pool holds and has done.
    pub async fn info(&self) -> Option<Info<serde_json::Value>> {
        let (sender, answer) = oneshot::channel();
        self.messages.send(Message::Info(sender)).await.ok()?;
        answer.await.ok()
    }

    /// Gives nothing more, and ends all that nobody uses. Returns when that has ended.
    pub async fn close(&self) {
        let (sender, closed) = oneshot::channel();
        if self.messages.send(Message::Close(sender)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

/// A request under way. Dropped before its session has begun, it is taken back.
struct Asking {
    messages: mpsc::Sender<Message>,
    request: RequestId,
    answer: oneshot::Receiver<Result<Grant, Refusal>>,
    is_open: bool,
}

impl Asking {
    async fn grant(&mut self) -> Result<Grant, LeaseError> {
        loop {
            match (&mut self.answer).await {
                Ok(Ok(grant)) => return Ok(grant),
                Ok(Err(refusal)) => {
                    self.is_open = false;
                    return Err(refusal.into());
                }
                // It died on the way.
                Err(_) => {
                    let (taker, answer) = oneshot::channel();
                    self.answer = answer;
                    let message = Message::Missed { request: self.request, taker };
                    self.messages.send(message).await.map_err(|_| LeaseError::Closing)?;
                }
            }
        }
    }

    async fn bounced(&mut self, error: String) -> Result<(), LeaseError> {
        let (taker, answer) = oneshot::channel();
        self.answer = answer;
        let message = Message::Bounced { request: self.request, error, taker };
        self.messages.send(message).await.map_err(|_| LeaseError::Closing)
    }

    async fn begun(mut self, took: Duration) {
        self.is_open = false;
        let _ = self.messages.send(Message::Begun { request: self.request, took }).await;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.is_open {
            let (messages, request) = (self.messages.clone(), self.request);
            tokio::spawn(async move {
                let _ = messages.send(Message::Cancel(request)).await;
            });
        }
    }
}

impl From<Refusal> for LeaseError {
    fn from(refusal: Refusal) -> Self {
        let text = |reason: Arc<str>| reason.as_ref().to_owned();
        match refusal {
            Refusal::Broken { error, retry_after } => Self::Broken {
                error: text(error),
                retry_after_ms: u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
            },
            Refusal::Full => Self::Full,
            Refusal::Closing => Self::Closing,
            Refusal::NotWarm { reason } => Self::NotWarm { reason: text(reason) },
            Refusal::Failed { error } => Self::Failed { error: text(error) },
        }
    }
}
