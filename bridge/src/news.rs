//! What a reader of a whole session is told: which executions have begun, and that something has happened.

use std::collections::VecDeque;

use cob_protocol::ids::SessionId;
use cob_protocol::limits::FEED_NEWS_MAX;

use crate::store::{Created, Write, Written};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct News {
    begun: VecDeque<Begun>,
    /// More began than is kept: the store knows.
    is_missed: bool,
    is_closed: bool,
}

/// An execution has begun, or was settled without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Its number.
    pub(crate) number: u64,
    /// `In [count]`, if it was started.
    pub(crate) count: Option<u32>,
    /// It is a durable channel: nothing begins.
    pub(crate) is_channel: bool,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tidings {
    Begun(Begun),
    /// Something of an execution that has begun.
    More,
    Closed,
}

/// What a write means to readers of its session.
pub(crate) fn tidings(write: &Write, written: &Written) -> Option<(SessionId, Tidings)> {
    let begun = |number, count, is_channel| Tidings::Begun(Begun { number, count, is_channel });
    Some(match (write, written) {
        (Write::CreateExecution(new), Written::Created(Created::New(id))) => {
            let is_channel = new.key.as_ref().is_some_and(|key| key.is_channel());
            (is_channel || new.start.is_some())
                .then(|| (id.session, begun(id.execution, new.start, is_channel)))?
        }
        (Write::Start { id, count }, _) => (id.session, begun(id.execution, Some(*count), false)),
        (Write::Append { id, .. }, _) => (id.session, Tidings::More),
        (_, Written::Settled(promise)) if promise.id.call.is_none() => {
            let (session, number) = (promise.id.session, promise.id.execution);
            let is_silent = promise.started_at.is_some() || promise.is_channel();
            (session, if is_silent { Tidings::More } else { begun(number, None, false) })
        }
        (Write::CloseSession { session }, _) => (*session, Tidings::Closed),
        _ => return None,
    })
}

impl News {
    /// Takes notice; always news to the reader.
    pub(crate) fn hear(&mut self, tidings: Tidings) -> bool {
        match tidings {
            Tidings::Begun(_) if self.is_missed => {}
            Tidings::Begun(begun) if self.begun.len() < FEED_NEWS_MAX => self.begun.push_back(begun),
            Tidings::Begun(_) => {
                self.begun.clear();
                self.is_missed = true;
            }
            Tidings::More => {}
            Tidings::Closed => self.is_closed = true,
        }
        true
    }

    /// The reader is about to look into the store: what he was told before is there.
    pub(crate) fn forget(&mut self) {
        self.begun.clear();
        self.is_missed = false;
    }

    /// What has begun; `None`: the store must be asked.
    pub(crate) fn take(&mut self) -> Option<VecDeque<Begun>> {
        (!self.is_missed).then(|| std::mem::take(&mut self.begun))
    }

    /// Whether the session was closed since somebody listens.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }
}
