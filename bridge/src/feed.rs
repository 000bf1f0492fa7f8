//! Reading along with a whole session: every execution from a number on, with its events and its end.
//!
//! A reader first looks through the store, and is told by commits from then on. What is not begun waits in a set of
//! numbers until it begins, whichever does so first; so a request that many overtake holds up nobody.

mod details;
mod scan;

use std::collections::{BTreeSet, VecDeque};

use cob_protocol::event::EventNumber;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::limits::{FEED_ITEMS_MAX, FEED_LATE_MAX, FEED_TOGETHER, READ_BYTES_MAX};
use cob_protocol::promise::Promise;

use crate::bridge::Bridge;
use crate::follow::{Follower, Look, Page};
use crate::news::Begun;
use crate::store::{BridgeError, Read, Recorded};
use crate::wakes::SessionListener;
use details::Details;
use scan::Scan;

/// Something of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// An execution was started, or settled without.
    Began {
        /// Its name.
        promise: PromiseId,
        /// What it runs, as far as that is known: of one that has ended, while the history has it.
        code: Option<String>,
        /// `In [count]`, if it was started.
        count: Option<u32>,
        /// Who asked for it: known until it is settled.
        principal: Option<String>,
    },
    /// An event of one that has begun; late output also after its end.
    Event {
        /// Whose.
        promise: PromiseId,
        /// The event.
        recorded: Recorded,
    },
    /// Events that the journal has forgotten or cannot read.
    Gap {
        /// Whose.
        promise: PromiseId,
        /// The first that is missing.
        from: EventNumber,
        /// The next one that there is.
        next: EventNumber,
    },
    /// It is settled, and every event that it had by then was given.
    Ended(Box<Promise>),
}

/// A reader of everything that happens in a session. It may come before, during or after that.
///
/// **Invariant:** every execution from its first number on begins once and ends once, with all of its events in order
/// between the two; channels are none of them. One begins after the one before it has ended.
#[derive(Debug)]
pub struct SessionFollower {
    bridge: Bridge,
    listener: SessionListener,
    session: SessionId,
    /// Executions up to this number are known: they were given, are `ready`, or wait.
    after: u64,
    /// Those of them that had not begun.
    waiting: BTreeSet<u64>,
    /// Those that have begun and are to be given.
    ready: VecDeque<Begun>,
    /// The first of these, looked into.
    next: VecDeque<Opened>,
    /// The store is being looked through.
    scan: Option<Scan>,
    current: Option<Follower>,
    /// The last ones that ended: children of their code may still print.
    late: VecDeque<Follower>,
    items: VecDeque<Feed>,
    /// Events in `items`, and their weight.
    events: usize,
    bytes: usize,
    is_closed: bool,
}

/// An execution that was looked into.
#[derive(Debug)]
struct Opened {
    begun: Begun,
    follower: Follower,
    details: Option<Details>,
    page: Result<Page, BridgeError>,
}

/// What a step brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It goes on.
    Forward,
    /// Nothing more at this moment.
    Idle,
    /// All was given, and the session is closed.
    End,
}

impl SessionFollower {
    pub(crate) fn new(bridge: Bridge, session: SessionId, from_execution: u64) -> Self {
        Self {
            listener: bridge.wakes().listen_to_session(session),
            bridge,
            session,
            after: from_execution.saturating_sub(1),
            waiting: BTreeSet::new(),
            ready: VecDeque::new(),
            next: VecDeque::new(),
            scan: Some(Scan::First),
            current: None,
            late: VecDeque::new(),
            items: VecDeque::new(),
            events: 0,
            bytes: 0,
            is_closed: false,
        }
    }

    /// What comes next, in order, with at most `credit` events; all else costs none. Waits until there is something
    /// that may be given. Nothing at all: the session is closed, and everything was given.
    ///
    /// # Errors
    /// [`BridgeError::UnknownSession`]; [`BridgeError::Store`], also when the store will record no more. The follower
    /// keeps its place.
    ///
    /// # Cancel safety
    /// When it is dropped before it has given something, nothing was given.
    pub async fn next(&mut self, credit: usize) -> Result<Vec<Feed>, BridgeError> {
        loop {
            // Asked before the look: whatever was recorded before the end is found by it.
            let over = self.bridge.why_over();
            let step = self.collect(credit).await;
            let given = self.give(credit);
            if !given.is_empty() {
                return Ok(given);
            }
            if step? == Step::End && self.items.is_empty() {
                return Ok(Vec::new());
            }
            if let Some(reason) = over {
                return Err(reason.into());
            }
            self.listener.rung().await;
        }
    }

    /// Takes what there is, as far as it may be given at once.
    async fn collect(&mut self, credit: usize) -> Result<Step, BridgeError> {
        while self.items.len() < FEED_ITEMS_MAX && self.bytes < READ_BYTES_MAX {
            match self.step(credit.saturating_sub(self.events)).await? {
                Step::Forward => {}
                step => return Ok(step),
            }
        }
        Ok(Step::Idle)
    }

    fn give(&mut self, credit: usize) -> Vec<Feed> {
        let mut given = Vec::new();
        let mut credit = credit;
        while let Some(item) = self.items.front() {
            if let Feed::Event { recorded, .. } = item {
                if credit == 0 {
                    break;
                }
                credit -= 1;
                self.events -= 1;
                self.bytes -= recorded.event.bytes();
            }
            given.extend(self.items.pop_front());
        }
        given
    }

    fn put(&mut self, promise: PromiseId, events: Vec<Recorded>) {
        for recorded in events {
            self.events += 1;
            self.bytes += recorded.event.bytes();
            self.items.push_back(Feed::Event { promise, recorded });
        }
    }

    async fn step(&mut self, credit: usize) -> Result<Step, BridgeError> {
        let is_late_blocked = match self.look_at_late(credit).await? {
            Some(is_blocked) => is_blocked,
            None => return Ok(Step::Forward),
        };
        if self.current.is_some() {
            return self.look_at_current(credit).await;
        }
        if let Some(opened) = self.next.pop_front() {
            return self.begin(opened, credit);
        }
        if !self.items.is_empty() {
            // Given before the store is asked for more.
            return Ok(Step::Idle);
        }
        if !self.ready.is_empty() {
            return self.look_into(credit).await;
        }
        if let Some(scan) = self.scan {
            return self.look_through(scan).await;
        }
        let mut told = self.listener.told();
        self.is_closed |= told.is_closed();
        let begun = told.take();
        drop(told);
        match begun {
            None => self.scan = Some(Scan::First),
            Some(begun) if begun.is_empty() => {
                let is_end = self.is_closed && !is_late_blocked;
                return Ok(if is_end { Step::End } else { Step::Idle });
            }
            Some(begun) => begun.into_iter().for_each(|begun| self.hear(begun)),
        }
        Ok(Step::Forward)
    }

    /// Late output: `None`: there was some; else whether there is some that there is no credit for.
    async fn look_at_late(&mut self, credit: usize) -> Result<Option<bool>, BridgeError> {
        let mut is_blocked = false;
        let mut index = 0;
        while let Some(follower) = self.late.get_mut(index) {
            let id = follower.promise();
            match follower.look(credit).await {
                Ok(Look::Events(events)) => {
                    self.put(id, events);
                    return Ok(None);
                }
                Ok(Look::Blocked) => is_blocked = true,
                Ok(Look::End | Look::Nothing) => {}
                Err(error @ BridgeError::Store(_)) => return Err(error),
                Err(_) => {
                    // Forgotten so soon.
                    self.late.remove(index);
                    continue;
                }
            }
            index += 1;
        }
        Ok(Some(is_blocked))
    }

    async fn look_at_current(&mut self, credit: usize) -> Result<Step, BridgeError> {
        let Some(follower) = &mut self.current else { return Ok(Step::Idle) };
        let look = follower.look(credit).await;
        self.take_look(look)
    }

    /// What a look at the current execution means.
    fn take_look(&mut self, look: Result<Look, BridgeError>) -> Result<Step, BridgeError> {
        let Some(follower) = &mut self.current else { return Ok(Step::Idle) };
        let (promise, from) = (follower.promise(), follower.next_number());
        let next = match look {
            Ok(Look::Events(events)) => {
                self.put(promise, events);
                return Ok(Step::Forward);
            }
            Ok(Look::Blocked | Look::Nothing) => return Ok(Step::Idle),
            Ok(Look::End) => {
                self.end_current();
                return Ok(Step::Forward);
            }
            Err(BridgeError::Forgotten { first, .. }) => first,
            Err(BridgeError::Damaged { number, .. }) => number + 1,
            // A store in memory has forgotten all of it.
            Err(BridgeError::Unknown(_)) => {
                self.current = None;
                return Ok(Step::Forward);
            }
            Err(error) => return Err(error),
        };
        follower.skip_to(next);
        self.items.push_back(Feed::Gap { promise, from, next });
        Ok(Step::Forward)
    }

    fn end_current(&mut self) {
        let Some(follower) = self.current.take() else { return };
        if let Some(promise) = follower.settled() {
            self.items.push_back(Feed::Ended(Box::new(promise.clone())));
        }
        self.late.push_back(follower);
        if self.late.len() > FEED_LATE_MAX {
            self.late.pop_front();
        }
    }

    /// Looks into the next executions that have begun: one visit to the store for what they are, and for the first of
    /// their events.
    async fn look_into(&mut self, credit: usize) -> Result<Step, BridgeError> {
        let mut followers = Vec::new();
        let mut asks = Vec::new();
        for begun in self.ready.iter().take(FEED_TOGETHER) {
            let id = PromiseId::execution(self.session, begun.number);
            let mut follower = Follower::new(self.bridge.clone(), id, 1);
            asks.push((id, follower.page(credit)));
            followers.push((*begun, follower));
        }
        let ask = move |store: &mut dyn Read| {
            let (mut found, mut bytes) = (Vec::with_capacity(asks.len()), 0);
            for (id, page) in asks {
                let (details, page) = (Details::read(store, id)?, page(store));
                let events = page.as_ref().map(|page| page.events.as_slice()).unwrap_or_default();
                bytes += events.iter().map(|recorded| recorded.event.bytes()).sum::<usize>();
                found.push((details, page));
                if bytes >= READ_BYTES_MAX {
                    break;
                }
            }
            Ok(found)
        };
        let found = self.bridge.read(ask).await?;
        self.ready.drain(..found.len());
        self.next = followers
            .into_iter()
            .zip(found)
            .map(|((begun, follower), (details, page))| Opened { begun, follower, details, page })
            .collect();
        Ok(Step::Forward)
    }

    /// Takes up an execution that has begun.
    fn begin(&mut self, opened: Opened, credit: usize) -> Result<Step, BridgeError> {
        let Opened { begun, mut follower, details, page } = opened;
        // None: forgotten by a store in memory.
        let Some(Details { code, count, principal }) = details else { return Ok(Step::Forward) };
        let (promise, count) = (follower.promise(), begun.count.or(count));
        self.items.push_back(Feed::Began { promise, code, count, principal });
        let look = page.map(|page| follower.turn(page, credit).unwrap_or(Look::Nothing));
        self.current = Some(follower);
        self.take_look(look)?;
        Ok(Step::Forward)
    }
}
