//! The tasks that own what the pool decides about: one per zygote, one per worker that nobody has leased yet. They
//! tell the pool what happens ([`Event`]) and do what it says; they decide nothing.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cob_protocol::zygote::Prepared;
use tokio::sync::{mpsc, oneshot};

use crate::enclosure::{Enclosure, Local};
use crate::limits::Cgroups;
use crate::parked::Parked;
use crate::slots::{Origin, Refusal, SlotId, ZygoteId};
use crate::spawn::Program;
use crate::start_error::StartError;
use crate::usage::MemorySample;
use crate::zygote::{Failed, Zygote, ZygoteEvent};

/// What happened to a zygote or a worker.
#[derive(Debug)]
pub(crate) enum Event {
    /// A zygote can be forked; its size in bytes.
    Prepared(ZygoteId, Prepared, u64),
    /// A zygote is of no use any more.
    Gone(ZygoteId, Failed),
    /// A worker waits for its session. Its size in bytes, if it was weighed.
    Settled(SlotId, Option<u64>),
    /// A worker did not come to be.
    Failed(SlotId, StartError),
    /// A worker is gone, or its session is over.
    Died(SlotId),
}

/// A worker for whoever asked.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) parked: Parked,
    pub(crate) origin: Origin,
}

/// Whom a worker goes to, or why none does.
pub(crate) type Taker = oneshot::Sender<Result<Grant, Refusal>>;

/// What the keeper of a worker is told: whom to give it to, and where it comes from. Dropped: to end it.
pub(crate) type Give = (Taker, Origin);

/// A worker that is to be forked.
pub(crate) type Waiting = (SlotId, oneshot::Receiver<Give>);

/// What a worker needs from the start.
#[derive(Clone, Debug)]
pub(crate) struct Nursery {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) cgroups: Arc<Cgroups>,
    /// Processes that were ended because their session was over.
    pub(crate) reaped: Arc<AtomicU64>,
}

impl Nursery {
    /// Tells the pool; it is gone only when the process ends.
    async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    /// Starts a program as a worker and keeps it until somebody leases it.
    pub(crate) async fn start(self, slot: SlotId, program: Program, give: oneshot::Receiver<Give>) {
        match Parked::start(&program) {
            Ok(parked) => self.keep(slot, parked, give, false).await,
            Err(error) => self.tell(Event::Failed(slot, error)).await,
        }
    }

    /// Keeps a worker until somebody leases it.
    pub(crate) async fn keep(
        self,
        slot: SlotId,
        mut parked: Parked,
        give: oneshot::Receiver<Give>,
        is_weighed: bool,
    ) {
        // Attaching can take milliseconds, so it is done before anybody waits for this worker.
        let (released, release) = oneshot::channel();
        let reaped = Some(Arc::clone(&self.reaped));
        let local = Local::admit(Some(&self.cgroups), &parked, Some(released), reaped).await;
        parked.enclosure = Enclosure::Local(Box::new(local));
        if let Err(error) = parked.settled().await {
            return self.tell(Event::Failed(slot, error)).await;
        }
        let sample = || MemorySample::take(parked.life.pid()).ok();
        let bytes = is_weighed.then(sample).flatten().map(|sample| sample.private_bytes);
        self.tell(Event::Settled(slot, bytes)).await;
        tokio::select! {
            given = give => match given {
                // It has, but that was not heard yet. Nobody shall have a dead worker.
                Ok((taker, _)) if parked.life.is_over() => {
                    drop(taker);
                    self.tell(Event::Died(slot)).await;
                }
                Ok((taker, origin)) => {
                    // A taker that has gone away drops it, which ends it.
                    let _ = taker.send(Ok(Grant { parked, origin }));
                    // The other half goes when the enclosure does.
                    let _ = release.await;
                    self.tell(Event::Died(slot)).await;
                }
                // The pool wants it no more.
                Err(_) => {
                    drop(parked);
                    self.tell(Event::Died(slot)).await;
                }
            },
            () = death(&mut parked) => self.tell(Event::Died(slot)).await,
        }
    }

    /// Prepares a zygote and forks whatever is asked for, until nobody can ask any more; then waits for the end of
    /// its workers.
    pub(crate) async fn zygote(
        self,
        id: ZygoteId,
        program: Program,
        imports: Vec<String>,
        mut forks: mpsc::Receiver<Waiting>,
    ) {
        let failed = |error: io::Error| {
            let reason = format!("`{}` cannot be started: {error}", program.name());
            Failed { module: None, is_final: false, reason }
        };
        let mut zygote = match Zygote::start(&program) {
            Ok(zygote) => zygote,
            Err(error) => return self.tell(Event::Gone(id, failed(error))).await,
        };
        // It fails when the process has ended already: how, and what it said, is told below.
        let _ = zygote.prepare(imports).await;
        let mut waiting = HashMap::new();
        let mut is_first = true;
        loop {
            tokio::select! {
                biased;
                event = zygote.next() => match event {
                    ZygoteEvent::Prepared(prepared) => {
                        let bytes = MemorySample::take(zygote.pid()).map_or(0, |it| it.proportional_bytes);
                        self.tell(Event::Prepared(id, prepared, bytes)).await;
                    }
                    ZygoteEvent::Forked(number, parked) => {
                        if let Some((slot, give)) = waiting.remove(&number) {
                            tokio::spawn(self.clone().keep(slot, *parked, give, std::mem::take(&mut is_first)));
                        }
                    }
                    ZygoteEvent::ForkFailed(number, reason) => {
                        if let Some((slot, _)) = waiting.remove(&number) {
                            self.tell(Event::Failed(slot, fork_failed(&program, reason))).await;
                        }
                    }
                    ZygoteEvent::Gone(why) => {
                        self.give_up(&program, waiting, &why.reason).await;
                        return self.tell(Event::Gone(id, why)).await;
                    }
                },
                asked = forks.recv() => {
                    let Some((slot, give)) = asked else { break };
                    if let Err(error) = zygote.fork(slot.number()).await {
                        self.tell(Event::Failed(slot, fork_failed(&program, error.to_string()))).await;
                    } else {
                        waiting.insert(slot.number(), (slot, give));
                    }
                }
            }
        }
        self.give_up(&program, waiting, "its zygote was retired").await;
        zygote.retire().await;
    }

    async fn give_up(&self, program: &Program, waiting: HashMap<u64, Waiting>, why: &str) {
        for (slot, _) in waiting.into_values() {
            self.tell(Event::Failed(slot, fork_failed(program, why.to_owned()))).await;
        }
    }
}

fn fork_failed(program: &Program, reason: String) -> StartError {
    let program = format!("a fork of {}", program.name());
    StartError::Spawn { program, source: io::Error::other(reason) }
}

/// Waits for the end of a worker that does nothing.
async fn death(parked: &mut Parked) {
    while parked.life.ended().is_none() {
        if parked.life.changed().await.is_err() {
            return;
        }
    }
}
