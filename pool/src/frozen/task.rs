//! The task that owns a checkpoint: its process, the connection to it, and what was asked of it.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use cob_protocol::checkpoint::Finding;
use cob_protocol::limits::{CHECKPOINT_ORDERS_MAX, LAST_WORDS_MS_MAX};
use cob_protocol::zygote::{Order, Report};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Frozen, GONE, Handle};
use crate::enclosure::UnderWay;
use crate::forks::{Forks, status_pipe};
use crate::household::{Checkpoint, Household};
use crate::life::{Life, Parent, Process};
use crate::packets::Packets;
use crate::parked::Parked;
use crate::pidfd::{self, Named};
use crate::processes::Stat;

/// What is asked of a checkpoint, and who waits for it.
#[derive(Debug)]
pub(super) enum Wanted {
    /// A worker.
    Worker(Answer<Parked>),
    /// Somebody who writes into a pipe and ends with his lifeline.
    Saver { pipe: OwnedFd, lifeline: OwnedFd, answer: Answer<Life> },
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, String>>;

/// See the module.
pub(super) struct Task {
    program: String,
    control: Packets,
    life: Life,
    checkpoint: Checkpoint,
    forks: Forks,
    number: u64,
    workers: HashMap<u64, Answer<Parked>>,
    savers: HashMap<u64, (OwnedFd, Answer<Life>)>,
    wanted: mpsc::Receiver<Wanted>,
    gone: watch::Sender<bool>,
    /// Dropped last.
    _ending: oneshot::Receiver<UnderWay>,
}

impl Task {
    /// The task, which is to be run, and the handle on its checkpoint.
    pub(super) fn new(
        program: String,
        household: Household,
        control: Packets,
        life: Life,
        findings: Vec<Finding>,
    ) -> (Frozen, Self) {
        let (sender, wanted) = mpsc::channel(CHECKPOINT_ORDERS_MAX);
        let (gone, is_gone) = watch::channel(false);
        let pid = life.pid();
        let checkpoint = household.checkpoint(pid);
        let (end, ending) = oneshot::channel();
        let handle = Handle { pid, findings, household, wanted: sender, is_gone, ending: Some(end) };
        let frozen = Frozen(Arc::new(handle));
        let (workers, savers) = (HashMap::new(), HashMap::new());
        let forks = Forks::default();
        let number = 0;
        let task = Self {
            program,
            control,
            life,
            checkpoint,
            forks,
            number,
            workers,
            savers,
            wanted,
            gone,
            _ending: ending,
        };
        (frozen, task)
    }

    /// Serves until nobody has a handle any more, or the process is gone.
    pub(super) async fn run(mut self) {
        let ended = self.serve().await;
        self.gone.send_replace(true);
        match ended {
            Ok(Served::Unwanted) => self.drop_it().await,
            Ok(Served::Gone) => self.checkpoint.lost(),
            Err(error) => {
                tracing::warn!(pid = self.life.pid(), %error, "a checkpoint cannot be talked to, and is ended");
                self.drop_it().await;
            }
        }
    }

    async fn serve(&mut self) -> io::Result<Served> {
        loop {
            if self.life.ended().is_some() {
                return Ok(Served::Gone);
            }
            let has_room = self.workers.len() + self.savers.len() < CHECKPOINT_ORDERS_MAX;
            tokio::select! {
                biased;
                packet = self.control.receive() => match packet? {
                    Some((packet, descriptors)) => {
                        let report = Report::decode(&packet).map_err(invalid)?;
                        self.hear(report, descriptors)?;
                    }
                    // Nothing more comes of it, and it ends by itself once it has no workers.
                    None => {
                        self.end().await;
                        return Ok(Served::Gone);
                    }
                },
                changed = self.life.changed() => changed?,
                wanted = self.wanted.recv(), if has_room => match wanted {
                    None => return Ok(Served::Unwanted),
                    Some(Wanted::Worker(answer)) => self.fork(answer).await,
                    Some(Wanted::Saver { pipe, lifeline, answer }) => self.save(pipe, lifeline, answer).await,
                },
            }
        }
    }

    async fn fork(&mut self, answer: Answer<Parked>) {
        self.number += 1;
        match in_time(self.forks.order(&self.control, self.number)).await {
            Ok(()) => drop(self.workers.insert(self.number, answer)),
            Err(error) => drop(answer.send(Err(unheard(&error)))),
        }
    }

    async fn save(&mut self, pipe: OwnedFd, lifeline: OwnedFd, answer: Answer<Life>) {
        self.number += 1;
        let order = async {
            let packet = Order::Save { number: self.number }.encode().map_err(io::Error::other)?;
            let (status, status_writer) = status_pipe()?;
            let descriptors = [&pipe, &lifeline, &status_writer].map(AsFd::as_fd);
            self.control.send(&packet, &descriptors).await?;
            Ok(status)
        };
        match in_time(order).await {
            Ok(status) => drop(self.savers.insert(self.number, (status, answer))),
            Err(error) => drop(answer.send(Err(unheard(&error)))),
        }
    }

    /// Takes a report. Who waited and has gone drops what comes, which ends it.
    fn hear(&mut self, report: Report, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        match report {
            Report::Forked { number, pid } => {
                // Whoever may not signal others must not have us do it.
                let is_child = Stat::of(pid).is_none_or(|stat| stat.parent == self.life.pid());
                if !is_child {
                    return Err(invalid("it names a worker that is not its own"));
                }
                if let Some(answer) = self.workers.remove(&number) {
                    let parked = self.forks.forked(&self.program, (number, pid), descriptors)?;
                    drop(answer.send(parked.ok_or_else(|| "it ended at once".to_owned())));
                } else if let Some((status, answer)) = self.savers.remove(&number) {
                    // A small bundle may be written already.
                    let Named { pid, pidfd, is_gone } = pidfd::named_at_any_time(pid, descriptors)?;
                    let process = Process { pid, pidfd, parent: Parent::Zygote(status) };
                    let life = if is_gone { Life::watch_gone(process)? } else { Life::watch(process)? };
                    drop(answer.send(Ok(life)));
                }
            }
            Report::ForkFailed { number, reason } => {
                self.forks.failed(number);
                if let Some(answer) = self.workers.remove(&number) {
                    drop(answer.send(Err(reason)));
                } else if let Some((_, answer)) = self.savers.remove(&number) {
                    drop(answer.send(Err(reason)));
                }
            }
            Report::Importing { .. }
            | Report::Unfit { .. }
            | Report::Prepared(_)
            | Report::Frozen { .. }
            | Report::Refused { .. } => return Err(invalid("it speaks as somebody else does")),
        }
        Ok(())
    }

    /// Nobody wants it any more. Its workers live on.
    async fn drop_it(&mut self) {
        if let Ok(packet) = Order::Drop.encode() {
            // One that does not hear it is killed below.
            let _ = in_time(async { self.control.send(&packet, &[]).await }).await;
        }
        self.end().await;
    }

    /// Waits for its end, for a while.
    async fn end(&mut self) {
        let life = &mut self.life;
        let gone = async {
            while life.ended().is_none() {
                life.changed().await?;
            }
            Ok(())
        };
        if in_time(gone).await.is_err() {
            life.kill();
            while life.ended().is_none() && life.changed().await.is_ok() {}
        }
    }
}

/// Why a checkpoint is served no more.
enum Served {
    Unwanted,
    Gone,
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn unheard(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => GONE.to_owned(),
        _ => format!("the checkpoint cannot be asked: {error}"),
    }
}

/// A process that waits answers soon.
async fn in_time<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let patience = Duration::from_millis(LAST_WORDS_MS_MAX);
    tokio::time::timeout(patience, what).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
