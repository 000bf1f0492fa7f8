//! Workers that go on from a checkpoint.

use std::time::Duration;

use bytes::Bytes;
use cob_protocol::handshake::Hello;
use cob_protocol::limits::WORKER_START_MS_MAX;
use cob_protocol::resources::Limits;
use tokio::sync::oneshot;

use super::task::Wanted;
use super::{Frozen, GONE};
use crate::lease::{LeaseError, Leased, Origin};
use crate::parked::{Parked, Surroundings};
use crate::spawn::Program;
use crate::worker::Worker;

/// A worker that goes on from a checkpoint.
#[derive(Clone, Debug)]
pub struct Thaw {
    /// How it is greeted; `resumes` is set for it.
    pub hello: Hello,
    /// What it may use.
    pub limits: Limits,
    /// Whose it is.
    pub place: Place,
}

/// Whose worker it is that comes of a checkpoint.
#[derive(Clone, Debug)]
pub enum Place {
    /// The same session's: it takes the place of the worker there was, in the same enclosure.
    Same,
    /// Another session's: enclosed by itself; the program's variables are set and its directory is entered.
    Other(Program),
}

impl Frozen {
    /// A worker that goes on from here. May be asked for any number of times, also at once.
    ///
    /// # Errors
    /// [`LeaseError`]
    pub async fn thaw(&self, thaw: &Thaw) -> Result<Leased, LeaseError> {
        let mut parked = self.fork().await?;
        let (origin, payloads) = match &thaw.place {
            Place::Same => {
                parked.enclosure = self.0.household.worker(&parked);
                (Origin::Restored, vec![Surroundings::marker(&parked.marker), Bytes::new()])
            }
            Place::Other(program) => {
                parked.enclosure = self.0.household.branch(&parked, &thaw.limits).await;
                (Origin::Branched, Surroundings(program).changes(&parked.marker))
            }
        };
        let enforced = parked.enclosure.apply(parked.life.pid(), &thaw.limits);
        let hello = Hello { resumes: true, ..thaw.hello.clone() };
        let mut worker = Worker::greet(parked, hello, payloads)?;
        let ready = worker.ready().await?;
        Ok(Leased { worker, ready, origin, limits: thaw.limits.clone(), enforced })
    }

    async fn fork(&self) -> Result<Parked, LeaseError> {
        let failed = |error: String| LeaseError::Failed { error };
        let (answer, answered) = oneshot::channel();
        let forked = async {
            self.0.wanted.send(Wanted::Worker(answer)).await.ok()?;
            answered.await.ok()
        };
        let patience = Duration::from_millis(WORKER_START_MS_MAX);
        let forked = tokio::time::timeout(patience, forked).await;
        let late = |_| failed(format!("the checkpoint forked no worker within {} s", patience.as_secs()));
        forked.map_err(late)?.unwrap_or_else(|| Err(GONE.to_owned())).map_err(failed)
    }
}
