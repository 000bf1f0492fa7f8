//! Where a session gets its workers from.

use cob_protocol::resources::Limits;
use serde_json::Value;

use crate::enclosure::{Enclosure, Local};
use crate::lease::{LeaseError, Leased, Origin, Request};
use crate::parked::Parked;
use crate::pool::Pool;
use crate::share::SharedPool;

/// A source of workers.
#[derive(Clone, Debug)]
pub enum Workers {
    /// Each is started when it is needed.
    Cold,
    /// Warm ones, if another process of this user keeps them; else they are started.
    Shared(SharedPool),
    /// A pool of this process.
    Pool(Pool),
}

impl Workers {
    /// A worker for a session, ready to run code.
    ///
    /// # Errors
    /// [`LeaseError`]: there is none.
    pub async fn lease(&self, request: &Request) -> Result<Leased, LeaseError> {
        match self {
            Self::Cold => start(request).await,
            Self::Shared(shared) => match shared.lease(request).await? {
                Some(leased) => Ok(leased),
                None => start(request).await,
            },
            Self::Pool(pool) => pool.lease(request).await,
        }
    }
}

/// Starts a worker for one session, of which it is the only one.
async fn start(request: &Request) -> Result<Leased, LeaseError> {
    let mut parked = Parked::start(&request.program)?;
    let mut enforced = Value::Array(Vec::new());
    if request.limits != Limits::default() {
        let local = Local::admit(None, &parked, None, None).await;
        parked.enclosure = Enclosure::Local(Box::new(local));
        // To set itself up it needs more than some limits leave it, as one that was forked had.
        parked.settled().await?;
        enforced = parked.enclosure.apply(parked.life.pid(), &request.limits);
    }
    let mut worker = parked.greet(request.hello.clone(), None)?;
    let ready = worker.ready().await?;
    let limits = request.limits.clone();
    Ok(Leased { worker, ready, origin: Origin::Cold, limits, enforced })
}
