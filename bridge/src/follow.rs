//! Reading along: the events of one execution, at the reader's own pace.

use cob_protocol::event::EventNumber;
use cob_protocol::ids::PromiseId;
use cob_protocol::limits::{READ_BYTES_MAX, READ_EVENTS_MAX};

use crate::bridge::Bridge;
use crate::store::{BridgeError, Read, Recorded};
use crate::wakes::Listener;

/// A reader of the events of one execution. It keeps its place and nothing else: the journal is its buffer, so any
/// number of them, as slow as they like, cost no memory and hold up nobody.
///
/// **Invariant:** it gives every number from its first on, once, in order.
#[derive(Debug)]
pub struct Follower {
    bridge: Bridge,
    listener: Listener,
    id: PromiseId,
    next: EventNumber,
}

/// What a look brought.
enum Look {
    Events(Vec<Recorded>),
    /// Everything was given, and the execution is settled.
    End,
    /// Nothing new.
    Nothing,
}

impl Follower {
    pub(crate) fn new(bridge: Bridge, id: PromiseId, from: EventNumber) -> Self {
        let listener = bridge.wakes().listen(id);
        Self { bridge, listener, id, next: from.max(1) }
    }

    /// The number of the event that comes next.
    #[must_use]
    pub fn next_number(&self) -> EventNumber {
        self.next
    }

    /// Goes on with another number: behind events that are forgotten or damaged.
    pub fn skip_to(&mut self, number: EventNumber) {
        self.next = number.max(1);
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
        let (id, from, count_max) = (self.id, self.next, credit.clamp(1, READ_EVENTS_MAX));
        loop {
            let rung = self.listener.bell().notified();
            tokio::pin!(rung);
            // Registered before the look, so that no event falls between look and wait.
            rung.as_mut().enable();
            let read_only = self.bridge.read_only();
            match self.bridge.read(move |store| look(store, id, from, count_max)).await? {
                Look::Events(events) => {
                    self.next = events.last().map_or(from, |last| last.number + 1);
                    return Ok(events);
                }
                Look::End => return Ok(Vec::new()),
                Look::Nothing => {}
            }
            if let Some(reason) = read_only {
                return Err(reason.into());
            }
            rung.await;
        }
    }
}

fn look(
    store: &mut dyn Read,
    id: PromiseId,
    from: EventNumber,
    count_max: usize,
) -> Result<Look, BridgeError> {
    let events = store.events(id, from, count_max, READ_BYTES_MAX)?;
    if !events.is_empty() {
        return Ok(Look::Events(events));
    }
    let promise = store.promise(id)?.ok_or(BridgeError::Unknown(id))?;
    if !promise.state.is_settled() {
        return Ok(Look::Nothing);
    }
    // What was recorded with the settlement, or between the two looks.
    let events = store.events(id, from, count_max, READ_BYTES_MAX)?;
    Ok(if events.is_empty() { Look::End } else { Look::Events(events) })
}
