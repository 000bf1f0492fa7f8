//! Reading along: the events of one execution, at the reader's own pace.

use std::sync::Arc;

use cob_protocol::event::EventNumber;
use cob_protocol::ids::PromiseId;
use cob_protocol::limits::{READ_BYTES_MAX, READ_EVENTS_MAX};
use cob_protocol::promise::Promise;

use crate::bridge::Bridge;
use crate::store::{BridgeError, Read, Recorded};
use crate::tail::{Found, Tail};
use crate::wakes::Listener;

/// A reader of the events of one execution. One who keeps up is given them as they are committed, from a short tail in
/// memory; for one who is slower the journal is the buffer, so that any number of them, as slow as they like, cost
/// little memory and hold up nobody.
///
/// **Invariant:** it gives every number from its first on, once, in order.
#[derive(Debug)]
pub struct Follower {
    bridge: Bridge,
    listener: Listener,
    id: PromiseId,
    next: EventNumber,
    /// Since it listens, there was a moment when the store had nothing from `next` on that was not given: whatever
    /// comes now is pushed.
    is_caught_up: bool,
    /// Since it listens, there was a moment when the promise was not settled: its settlement is pushed.
    was_open: bool,
    /// The store has the next event; it was not taken for want of credit.
    is_blocked: bool,
    settled: Option<Arc<Promise>>,
}

/// What a look brought.
pub(crate) enum Look {
    Events(Vec<Recorded>),
    /// There is an event, and no credit.
    Blocked,
    /// Everything was given, and the execution is settled.
    End,
    /// Nothing new.
    Nothing,
}

impl Follower {
    pub(crate) fn new(bridge: Bridge, id: PromiseId, from: EventNumber) -> Self {
        let mut follower = Self::listening(bridge, id, Tail::of_events());
        follower.next = from.max(1);
        follower
    }

    /// Of a promise that has nothing yet.
    pub(crate) fn of_new(bridge: Bridge, id: PromiseId) -> Self {
        let follower = Self::listening(bridge, id, Tail::of_events());
        Self { is_caught_up: true, was_open: true, ..follower }
    }

    /// One that only waits for the settlement.
    pub(crate) fn of_end(bridge: Bridge, id: PromiseId) -> Self {
        Self::listening(bridge, id, Tail::default())
    }

    fn listening(bridge: Bridge, id: PromiseId, tail: Tail) -> Self {
        let listener = bridge.wakes().listen(id, tail);
        Self {
            bridge,
            listener,
            id,
            next: 1,
            is_caught_up: false,
            was_open: false,
            is_blocked: false,
            settled: None,
        }
    }

    /// Whose events these are.
    #[must_use]
    pub fn promise(&self) -> PromiseId {
        self.id
    }

    /// The number of the event that comes next.
    #[must_use]
    pub fn next_number(&self) -> EventNumber {
        self.next
    }

    /// Goes on with another number: behind events that are forgotten or damaged.
    pub fn skip_to(&mut self, number: EventNumber) {
        self.is_caught_up &= number == self.next;
        self.is_blocked &= number == self.next;
        self.next = number.max(1);
    }

    /// The promise as it was settled: known at the latest when [`Follower::next`] has said that nothing follows.
    #[must_use]
    pub fn settled(&self) -> Option<&Promise> {
        self.settled.as_deref()
    }

    /// The next events, at most `credit` (0 counts as 1) and as many as one read may bring: waits until there is one.
    /// None at all: the execution is settled, and every event that it had by then was given.
    ///
    /// # Errors
    /// [`BridgeError::Unknown`]; [`BridgeError::Forgotten`] when the journal no longer has the next one;
    /// [`BridgeError::Store`], also when the store will record no end any more. The follower keeps its place.
    ///
    /// # Cancel safety
    /// When it is dropped before it has given something, nothing was given.
    pub async fn next(&mut self, credit: usize) -> Result<Vec<Recorded>, BridgeError> {
        loop {
            // Asked before the look: whatever was recorded before the end is found by it.
            let over = self.bridge.why_over();
            match self.look(credit.max(1)).await? {
                Look::Events(events) => return Ok(events),
                Look::End => return Ok(Vec::new()),
                Look::Nothing | Look::Blocked => {}
            }
            if let Some(reason) = over {
                return Err(reason.into());
            }
            self.listener.rung().await;
        }
    }

    /// Waits until the promise is settled, and takes no events.
    ///
    /// # Errors
    /// As above.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub async fn wait_settled(&mut self) -> Result<Promise, BridgeError> {
        loop {
            let over = self.bridge.why_over();
            if let Some(promise) = self.hear_of_settlement() {
                return Ok(Promise::clone(promise));
            }
            if !self.was_open {
                let promise = self.bridge.promise(self.id).await?.ok_or(BridgeError::Unknown(self.id))?;
                self.saw(Arc::new(promise));
                continue;
            }
            if let Some(reason) = over {
                return Err(reason.into());
            }
            self.listener.rung().await;
        }
    }

    /// What there is at this moment, without waiting for more. With no credit it says whether there is anything.
    ///
    /// # Cancel safety
    /// As [`Follower::next`].
    pub(crate) async fn look(&mut self, credit: usize) -> Result<Look, BridgeError> {
        let count_max = credit.min(READ_EVENTS_MAX);
        loop {
            let found = self.listener.told().take(self.next, count_max);
            match found {
                Found::Events(events) => return Ok(self.give(events)),
                Found::Blocked => return Ok(Look::Blocked),
                Found::Nothing if self.is_caught_up => {
                    let is_settled = self.hear_of_settlement().is_some();
                    return Ok(if is_settled { Look::End } else { Look::Nothing });
                }
                Found::Behind | Found::Nothing if self.is_blocked && count_max == 0 => {
                    return Ok(Look::Blocked);
                }
                Found::Behind | Found::Nothing => {}
            }
            let ask = self.page(count_max);
            let page = self.bridge.read(ask).await?;
            if let Some(look) = self.turn(page, count_max) {
                return Ok(look);
            }
        }
    }

    /// Asks the store for what comes next; what is committed from now on comes into the tail.
    pub(crate) fn page(
        &mut self,
        credit: usize,
    ) -> impl FnOnce(&mut dyn Read) -> Result<Page, BridgeError> + Send + 'static {
        self.listener.told().hold();
        let (id, from, count_max) = (self.id, self.next, credit.clamp(1, READ_EVENTS_MAX));
        move |store| look(store, id, from, count_max)
    }

    /// Goes on with what the store had; `None`: the tail is to be looked at.
    pub(crate) fn turn(&mut self, page: Page, credit: usize) -> Option<Look> {
        if credit == 0 && !page.events.is_empty() {
            self.is_blocked = true;
            return Some(Look::Blocked);
        }
        if let Some(promise) = page.last_of {
            self.is_caught_up = true;
            self.saw(promise);
        }
        (!page.events.is_empty()).then(|| self.give(page.events))
    }

    fn give(&mut self, events: Vec<Recorded>) -> Look {
        self.next = events.last().map_or(self.next, |last| last.number + 1);
        self.is_blocked = false;
        Look::Events(events)
    }

    /// The promise as the store has it.
    fn saw(&mut self, promise: Arc<Promise>) {
        self.was_open = true;
        if promise.state.is_settled() {
            self.settled = Some(promise);
        }
    }

    fn hear_of_settlement(&mut self) -> Option<&Arc<Promise>> {
        if self.settled.is_none() {
            self.settled = self.listener.told().settled().cloned();
        }
        self.settled.as_ref()
    }
}

/// What the store has from a number on.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) events: Vec<Recorded>,
    /// The promise, if nothing follows these events: not before its end either, if it has ended.
    last_of: Option<Arc<Promise>>,
}

fn look(
    store: &mut dyn Read,
    id: PromiseId,
    from: EventNumber,
    count_max: usize,
) -> Result<Page, BridgeError> {
    let mut events = store.events(id, from, count_max, READ_BYTES_MAX)?;
    let next = events.last().map_or(from, |last| last.number + 1);
    let is_more = |store: &mut dyn Read| !matches!(store.events(id, next, 1, 1), Ok(more) if more.is_empty());
    if !events.is_empty() && is_more(store) {
        return Ok(Page { events, last_of: None });
    }
    let promise = store.promise(id)?.ok_or(BridgeError::Unknown(id))?;
    // What was recorded with the settlement, or between the two looks.
    if promise.state.is_settled() && is_more(store) {
        if events.is_empty() {
            events = store.events(id, from, count_max, READ_BYTES_MAX)?;
        }
        return Ok(Page { events, last_of: None });
    }
    Ok(Page { events, last_of: Some(Arc::new(promise)) })
}
