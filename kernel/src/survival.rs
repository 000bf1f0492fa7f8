//! Sessions that outlive their server: a custodian keeps a second handle on everything that belongs to a worker, and
//! the store says where the next server finds it.

use std::path::PathBuf;
use std::time::Duration;

use cob_bridge::{Custody, Write};
use cob_pool::{Custodian, CustodyError, Deposit, LeaseError, Leased, Origin, Program, Request, Worker};
use cob_protocol::handshake::{Hello, Ready, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::resources::Limits;
use serde::{Deserialize, Serialize};

use crate::records::Effect;
use crate::session::{Session, WorkerState};

/// How the workers of a session outlive this process.
#[derive(Clone, Debug)]
pub struct Survival {
    /// The program that becomes the custodian.
    pub custodian: Program,
    /// A private folder for its socket.
    pub folder: PathBuf,
    /// How long workers go on without a server.
    pub grace: Duration,
}

/// A worker that a custodian keeps.
#[derive(Debug)]
pub(crate) struct Kept {
    custodian: Custodian,
    deposit: Deposit,
}

/// A worker for the session, and who keeps it.
pub(crate) struct Started {
    pub(crate) leased: Leased,
    pub(crate) kept: Option<Kept>,
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

    fn custody(&self) -> Custody {
        let Deposit { socket, secret } = &self.deposit;
        Custody { socket: socket.display().to_string(), secret: secret.clone() }
    }
}

impl Survival {
    /// Gives a worker to a custodian: the one there is, or a new one.
    pub(crate) async fn keep(
        &self,
        custodian: Option<Custodian>,
        worker: &Worker,
        note: &Note,
    ) -> Result<Kept, CustodyError> {
        let custodian = match custodian {
            Some(custodian) => custodian,
            None => Custodian::start(&self.custodian, &self.folder, self.grace).await?,
        };
        let note = Json::of(note).unwrap_or_default();
        let deposit = custodian.deposit(worker, note.as_str()).await?;
        Ok(Kept { custodian, deposit })
    }
}

impl Session {
    /// Asks for a worker.
    pub(crate) fn start_worker(&mut self) {
        let survival = self.config.survival.clone();
        let hello = Hello {
            versions: VERSIONS,
            session: self.config.id.to_string(),
            options: self.config.options.clone(),
            umask: self.config.umask,
            confined: self.config.is_confined,
            survives: survival.is_some(),
        };
        let request =
            Request { program: self.config.program.clone(), hello, limits: self.config.limits.clone() };
        let (workers, custodian) = (self.config.workers.clone(), self.custodian.take());
        self.generation += 1;
        self.worker = WorkerState::Starting(tokio::spawn(async move {
            let leased = workers.lease(&request).await?;
            let kept = match survival {
                None => None,
                Some(survival) => kept(&survival, custodian, &leased).await,
            };
            Ok::<_, LeaseError>(Started { leased, kept })
        }));
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
        tracing::warn!("the custodian is gone; starting another");
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
        let Some(Kept { custodian, deposit }) = self.kept.take() else { return };
        custodian.release(&deposit.secret);
        self.custodian = Some(custodian);
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

async fn kept(survival: &Survival, custodian: Option<Custodian>, leased: &Leased) -> Option<Kept> {
    let Leased { worker, ready, origin, limits, enforced } = leased;
    let note = Note {
        ready: ready.clone(),
        origin: *origin,
        limits: limits.clone(),
        enforced: Json::from(enforced.clone()),
    };
    survival
        .keep(custodian, worker, &note)
        .await
        .inspect_err(|error| tracing::error!(%error, "the worker will not outlive this process"))
        .ok()
}
