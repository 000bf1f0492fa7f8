//! Sessions that outlive their server: a custodian keeps a second handle on everything that belongs to a worker, and
//! the store says where the next server finds it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cob_bridge::{Custody, Write};
use cob_pool::{
    Custodian, CustodyError, Deposit, Leased, Origin, Program, Progress, Request, Taken, Worker, take_over,
};
use cob_protocol::handshake::{Hello, Ready, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::limits::TAKING_OVER_MAX;
use cob_protocol::resources::Limits;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore};

use crate::checkpoints::{Asking, Route, Step, start};
use crate::records::Effect;
use crate::session::{Session, WorkerState};

/// How the workers of sessions outlive this process. All clones share one custodian, which is started when the first
/// worker is to be kept, and again when it was lost.
#[derive(Clone, Debug)]
pub struct Survival(Arc<Surviving>);

#[derive(Debug)]
struct Surviving {
    program: Program,
    folder: PathBuf,
    grace: Duration,
    /// The one there is. Whoever starts another holds the lock meanwhile, so that only one is started.
    custodian: Mutex<Option<Custodian>>,
    /// Workers that may be taken over at a time: a custodian hears only so many strangers.
    turns: Semaphore,
}

/// A worker that a custodian keeps.
#[derive(Debug)]
pub(crate) struct Kept {
    custodian: Custodian,
    deposit: Deposit,
}

/// What the next server is told of a worker: how it introduced itself, and what it may use.
#[derive(Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) ready: Ready,
    pub(crate) origin: Origin,
    pub(crate) limits: Limits,
    pub(crate) enforced: Json,
}

impl Kept {
    /// Resolves when nobody keeps it any more. Cancel-safe.
    pub(crate) async fn lost(&self) {
        self.custodian.lost().await;
    }

    /// It can be found under another secret: the old one is of no more use to anybody.
    pub(crate) fn forget(&self, secret: &str) {
        self.custodian.release(secret);
    }

    /// Nobody is to keep it.
    pub(crate) fn release(&self) {
        self.custodian.release(&self.deposit.secret);
    }

    fn custody(&self) -> Custody {
        let Deposit { socket, secret } = &self.deposit;
        Custody { socket: socket.display().to_string(), secret: secret.clone() }
    }
}

impl Survival {
    /// `program` becomes the custodian, `folder` is a private one for its socket, and workers go on without a server for
    /// `grace`.
    #[must_use]
    pub fn new(program: Program, folder: PathBuf, grace: Duration) -> Self {
        let turns = Semaphore::new(TAKING_OVER_MAX);
        Self(Arc::new(Surviving { program, folder, grace, custodian: Mutex::default(), turns }))
    }

    /// Starts the custodian before it is needed: the first worker does not wait for it then.
    ///
    /// # Errors
    /// [`CustodyError::Start`].
    pub async fn prepare(&self) -> Result<(), CustodyError> {
        self.custodian(None).await.map(drop)
    }

    /// Lets go of the custodian and waits for its end, and with it that of its socket; not for ever. Nothing is kept any
    /// more.
    pub async fn end(&self, patience: Duration) {
        let ended = async {
            let Some(custodian) = self.0.custodian.lock().await.take() else { return };
            let pid = custodian.pid();
            drop(custodian);
            // One that cannot be watched has ended.
            let _ = cob_pool::exit_of(pid).await;
        };
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!("the custodian has not ended in time");
        }
    }

    /// The custodian there is, else the one that was `found`, else a new one.
    async fn custodian(&self, found: Option<Custodian>) -> Result<Custodian, CustodyError> {
        let Surviving { program, folder, grace, custodian, .. } = &*self.0;
        let mut known = custodian.lock().await;
        if let Some(custodian) = known.as_ref().filter(|custodian| !custodian.is_gone()) {
            return Ok(custodian.clone());
        }
        let next = match found.filter(|custodian| !custodian.is_gone()) {
            Some(found) => found,
            None => Custodian::start(program, folder, *grace).await?,
        };
        Ok(known.insert(next).clone())
    }

    /// Fetches a worker from the custodian of the last server.
    pub(crate) async fn fetch(
        &self,
        place: (&Path, &str),
        recorded: Progress,
    ) -> Result<Taken, CustodyError> {
        // It is never closed.
        let _turn = self.0.turns.acquire().await;
        take_over(place, recorded).await
    }

    /// Gives a worker to the custodian; `found` is the one that it came from, if it did.
    pub(crate) async fn keep(
        &self,
        found: Option<Custodian>,
        worker: &Worker,
        note: &Note,
    ) -> Result<Kept, CustodyError> {
        let custodian = self.custodian(found).await?;
        let note = Json::of(note).unwrap_or_default();
        let deposit = custodian.deposit(worker, note.as_str()).await?;
        Ok(Kept { custodian, deposit })
    }
}

impl Session {
    /// What a worker of this session is asked for with.
    pub(crate) fn asking_for_worker(&mut self) -> Asking {
        let survival = self.config.survival.clone();
        let hello = Hello {
            versions: VERSIONS,
            session: self.config.id.to_string(),
            options: self.config.options.clone(),
            umask: self.config.umask,
            confined: self.config.is_confined,
            survives: survival.is_some(),
            resumes: false,
        };
        let request =
            Request { program: self.config.program.clone(), hello, limits: self.config.limits.clone() };
        self.next_question += 1;
        Asking {
            request,
            workers: self.config.workers.clone(),
            survival,
            bridge: self.bridge.clone(),
            question: self.next_question,
        }
    }

    /// Asks for a worker that begins where the session is to begin: at what it comes of, where it fell asleep, or empty.
    pub(crate) fn start_worker(&mut self) {
        let route = match (self.config.seed.take(), self.wakes_at()) {
            (Some(seed), _) => {
                let steps = vec![Step::Memory(seed.checkpoint, seed.frozen)];
                Route { steps, is_fresh_enough: false, is_branch: true }
            }
            (None, Some(id)) => {
                // A front end that starts its own kernel has no other way to get one.
                let is_fresh_enough = !self.config.is_hosted;
                Route { steps: vec![Step::Durable(id, false)], is_fresh_enough, is_branch: false }
            }
            (None, None) => Route::default(),
        };
        self.start_worker_along(route);
    }

    /// Asks for a worker.
    pub(crate) fn start_worker_along(&mut self, route: Route) {
        let asking = self.asking_for_worker();
        self.generation += 1;
        self.worker = WorkerState::Starting(tokio::spawn(start(asking, route)));
    }

    /// Writes down who keeps the present worker.
    pub(crate) fn keep(&mut self, kept: Option<Kept>) {
        self.progress = None;
        if let Some(kept) = &kept {
            let custody = Some(kept.custody());
            self.records.write(self.config.durability, Write::Custody { session: self.config.id, custody });
        }
        self.kept = kept;
    }

    /// The custodian is gone, and the worker is not: another one takes its place.
    pub(crate) async fn keep_again(&mut self) {
        let lost = self.kept.take();
        let (WorkerState::Live(worker), Some(survival), Some(note)) =
            (&self.worker, self.config.survival.clone(), self.note())
        else {
            return;
        };
        tracing::warn!(session = %self.config.id, "the custodian is gone; another one keeps the worker from now on");
        match survival.keep(None, worker, &note).await {
            Ok(kept) => {
                let progress = self.progress.take();
                self.keep(Some(kept));
                self.progress = progress;
            }
            Err(error) => tracing::error!(%error, "the worker will not outlive this process"),
        }
        drop(lost);
    }

    /// The worker has ended: nothing is to be kept.
    pub(crate) fn release_kept(&mut self) {
        let Some(kept) = self.kept.take() else { return };
        kept.release();
        let session = self.config.id;
        self.records.write(self.config.durability, Write::Custody { session, custody: None });
    }

    pub(crate) fn note(&self) -> Option<Note> {
        Some(Note {
            ready: self.ready.clone()?,
            origin: self.origin?,
            limits: self.config.limits.clone(),
            enforced: self.enforced.clone(),
        })
    }

    /// With whatever is written down now: how far the worker is recorded by it.
    pub(crate) fn write_progress(&mut self) {
        // An end that is not settled yet is not recorded.
        if self.config.survival.is_none() || self.measuring.is_some() {
            return;
        }
        let WorkerState::Live(worker) = &self.worker else { return };
        let given = worker.given();
        if self.progress == Some(given) {
            return;
        }
        self.progress = Some(given);
        let progress =
            cob_bridge::Progress { frames: given.frames, stdout: given.stdout, stderr: given.stderr };
        self.records.write(self.config.durability, Write::Progress { session: self.config.id, progress });
        self.records.then(Effect::Acknowledge { generation: self.generation, progress: given });
    }

    /// With the events of an execution: how much of its text is in none.
    pub(crate) fn write_output(&mut self, execution: u64) {
        if self.config.survival.is_none() {
            return;
        }
        let Some(context) = self.contexts.get_mut(execution) else { return };
        let (id, output) = (context.promise, context.output());
        self.records.write(self.config.durability, Write::Output { id, output });
    }
}

/// Gives a worker to the custodian, if there can be one.
pub(crate) async fn kept(survival: &Survival, leased: &Leased) -> Option<Kept> {
    let Leased { worker, ready, origin, limits, enforced } = leased;
    let note = Note {
        ready: ready.clone(),
        origin: *origin,
        limits: limits.clone(),
        enforced: Json::from(enforced.clone()),
    };
    survival
        .keep(None, worker, &note)
        .await
        .inspect_err(|error| tracing::error!(%error, "the worker will not outlive this process"))
        .ok()
}
