//! What encloses workers that came from another process: that process looks after them, while it can be reached. Then
//! what can be found of them without their group is ended here.

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use cob_protocol::limits::TREE_KILL_MS_MAX;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::client::{encode, receive};
use super::wire::{Ask, Reply};
use crate::enclosure::Clearing;
use crate::exit::Exit;
use crate::packets::{Packets, send};
use crate::spared::Spared;
use crate::tree::Tree;

/// What encloses one worker.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    link: Arc<Link>,
    pid: u32,
    /// It was asked to clear up, and has not answered; it is not waited for longer than this.
    asked: Option<Instant>,
    /// Absent if it was gone at once.
    tree: Option<Tree>,
    /// The end of the tree under way, since nobody answers: whoever waits for it may be interrupted and come back.
    clearing: Option<JoinHandle<usize>>,
    /// Nobody ends it for the sake of another one.
    _spared: Option<Spared>,
}

/// The connection over which a worker was leased: all workers and checkpoints of its session share it.
#[derive(Debug)]
pub(crate) struct Link {
    connection: Packets,
    /// Says what enforces the limits of the session.
    enforced: Value,
    /// Answers that came while somebody waited for his. Whoever has this reads.
    answers: Mutex<HashMap<u32, Exit>>,
}

impl Link {
    fn new(connection: Packets, enforced: Value) -> Arc<Self> {
        Arc::new(Self { connection, enforced, answers: Mutex::default() })
    }

    pub(crate) fn enforced(&self) -> &Value {
        &self.enforced
    }

    /// Says what is not answered.
    fn say(&self, ask: &Ask) {
        // Whoever is gone has nobody to tell. One that does not read is stopped, and would not sweep either.
        let _ = encode(ask).map(|ask| send(self.connection.socket(), &ask, &[]));
    }

    /// Takes in worker `pid`, which was forked off a checkpoint.
    pub(crate) fn join(self: &Arc<Self>, pid: u32, marker: &str, pipes: Vec<u64>) -> Elsewhere {
        let tree = Tree::of(pid, marker, &pipes);
        self.say(&Ask::Join { pid, marker: marker.to_owned(), pipes });
        Elsewhere::new(Arc::clone(self), pid, tree)
    }

    /// Waits for the answer to `pid`. Cancel-safe.
    async fn answer(&self, pid: u32) -> io::Result<Exit> {
        let mut answers = self.answers.lock().await;
        loop {
            if let Some(exit) = answers.remove(&pid) {
                return Ok(exit);
            }
            match receive(&self.connection).await? {
                (Reply::Cleared { pid, exit }, _) => drop(answers.insert(pid, exit)),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

impl Elsewhere {
    fn new(link: Arc<Link>, pid: u32, tree: Option<Tree>) -> Self {
        let spared = tree.as_ref().map(|tree| Spared::new(tree.leader()));
        Self { link, pid, asked: None, tree, clearing: None, _spared: spared }
    }

    /// That of worker `pid`, which came over `connection`.
    pub(crate) fn first(connection: Packets, pid: u32, tree: Option<Tree>, enforced: &Value) -> Self {
        Self::new(Link::new(connection, enforced.clone()), pid, tree)
    }

    /// One whose connection came from somebody who kept it.
    pub(crate) fn of(connection: OwnedFd, tree: Tree) -> io::Result<Self> {
        let pid = tree.leader().pid;
        Ok(Self::first(Packets::new(connection)?, pid, Some(tree), &Value::Array(Vec::new())))
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The connection, for somebody to keep: the worker is cleared up after when it ends.
    pub(crate) fn connection(&self) -> BorrowedFd<'_> {
        self.link.connection.socket()
    }

    /// Says that process `owner` keeps the worker alive.
    pub(crate) fn lend_to(&self, owner: u32) {
        self.link.say(&Ask::Keep { owner });
    }

    /// Has whatever the worker left behind ended; how it ended, after a look at its limits. Cancel-safe.
    pub(crate) async fn clear(&mut self, exit: Exit, cpu_ms: Option<u64>) -> Exit {
        match self.ask_to_clear(&exit, cpu_ms).await {
            Ok(exit) => exit,
            // A server that is gone or does not answer leaves what is known from outside.
            Err(_) => {
                if let Some(tree) = &self.tree {
                    let start = || Clearing::new(tree.clone(), None).start();
                    let _ = self.clearing.get_or_insert_with(start).await;
                }
                (self.tree, self.clearing) = (None, None);
                exit
            }
        }
    }

    async fn ask_to_clear(&mut self, exit: &Exit, cpu_ms: Option<u64>) -> io::Result<Exit> {
        let until = match self.asked {
            Some(until) => until,
            None => {
                let ask = Ask::Clear { pid: self.pid, exit: exit.clone(), cpu_ms };
                self.link.connection.send(&encode(&ask)?, &[]).await?;
                *self.asked.insert(Instant::now() + Duration::from_millis(TREE_KILL_MS_MAX))
            }
        };
        tokio::time::timeout_at(until, self.link.answer(self.pid)).await?
    }
}

/// A process that whoever looks after the session shall not end with one of its workers, as long as this lives.
#[derive(Debug)]
pub(crate) struct Away {
    link: Arc<Link>,
    pid: u32,
    is_lost: bool,
}

impl Away {
    pub(crate) fn spare(link: &Arc<Link>, pid: u32) -> Self {
        link.say(&Ask::Spare { pid });
        Self { link: Arc::clone(link), pid, is_lost: false }
    }

    /// It ended and nobody wanted it to.
    pub(crate) fn lost(&mut self) {
        self.is_lost = true;
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        self.link.say(&Ask::Forget { pid: self.pid, is_lost: self.is_lost });
    }
}
