//! Durable channels: what code and client send each other, item by item, as events of two promises of their own.
//! Which items there are, which are recorded, and which the other side has not taken. The road of an item is in
//! [`crate::streams`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use cob_bridge::{BridgeError, Outcomes, Recorded, StoreError, Submitted, Unsettled};
use cob_protocol::event::EventNumber;
use cob_protocol::frame::RequestNumber;
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::{
    CHANNEL_ITEM_BYTES_MAX, CHANNEL_UNREAD_BYTES_MAX, READ_BYTES_MAX, READ_EVENTS_MAX,
};
use cob_protocol::promise::{CHANNEL_PRINCIPAL, Key, Promise};
use tokio::task::JoinHandle;

use crate::request::Command;

/// Longest name of a channel.
pub(crate) const NAME_BYTES_MAX: usize = cob_protocol::limits::ID_BYTES_MAX - 8;

/// Which way items go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the code to the client.
    Out,
    /// From the client to the code.
    In,
}

/// Whether a channel can have this name.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

pub(crate) fn key(name: &str, way: Way) -> Key {
    let way = match way {
        Way::Out => "out",
        Way::In => "in",
    };
    Key { principal: CHANNEL_PRINCIPAL.to_owned(), key: format!("{name}/{way}"), body: [0; 32] }
}

/// The items of one direction.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) promise: PromiseId,
    /// The number that the next item will have.
    pub(crate) next: EventNumber,
    /// Items below this number are recorded.
    pub(crate) recorded: EventNumber,
    pub(crate) is_closed: bool,
    /// The last item that the other side has taken, or will without being asked.
    pub(crate) taken: EventNumber,
    unread: VecDeque<Item>,
    unread_bytes: usize,
    kept_bytes: usize,
}

#[derive(Debug)]
struct Item {
    number: EventNumber,
    bytes: usize,
    /// Absent: it is read from the journal when it is needed.
    data: Option<Json>,
}

/// What there is to be taken.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// These, from the number that was asked for on.
    Items(Vec<Json>),
    /// There is more, in the journal only.
    InJournal,
    /// Nothing will follow.
    End,
    /// Nothing so far.
    Nothing,
}

impl Lane {
    pub(crate) fn new(promise: PromiseId, next: EventNumber, is_closed: bool) -> Self {
        let unread = VecDeque::new();
        Self { promise, next, recorded: next, is_closed, taken: 0, unread, unread_bytes: 0, kept_bytes: 0 }
    }

    /// Whether so little is unread that one more item may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.unread_bytes < CHANNEL_UNREAD_BYTES_MAX
    }

    /// Adds an item that is on its way into the journal; its number.
    pub(crate) fn add(&mut self, bytes: usize, data: Option<Json>) -> EventNumber {
        let number = self.next;
        self.next += 1;
        if number <= self.taken {
            return number;
        }
        let data = data.filter(|data| self.kept_bytes + data.as_str().len() <= CHANNEL_ITEM_BYTES_MAX);
        self.kept_bytes += data.as_ref().map_or(0, |data| data.as_str().len());
        self.unread_bytes += bytes;
        self.unread.push_back(Item { number, bytes, data });
        number
    }

    /// The other side has everything up to here, or may have it.
    pub(crate) fn take(&mut self, up_to: EventNumber) {
        self.taken = self.taken.max(up_to);
        while self.unread.front().is_some_and(|item| item.number <= self.taken) {
            let item = self.unread.pop_front();
            self.forget(item);
        }
    }

    /// This item is recorded.
    pub(crate) fn committed(&mut self, number: EventNumber) {
        self.recorded = self.recorded.max(number + 1).min(self.next);
    }

    /// This item is not recorded, and so none after it: their numbers are given again.
    pub(crate) fn failed(&mut self, number: EventNumber) {
        self.next = self.next.min(number.max(self.recorded));
        while self.unread.back().is_some_and(|item| item.number >= self.next) {
            let item = self.unread.pop_back();
            self.forget(item);
        }
    }

    fn forget(&mut self, item: Option<Item>) {
        let Some(Item { bytes, data, .. }) = item else { return };
        self.unread_bytes -= bytes;
        self.kept_bytes -= data.map_or(0, |data| data.as_str().len());
    }

    /// What is recorded from this number on, as much of it as one answer may hold.
    pub(crate) fn from(&self, number: EventNumber) -> Found {
        if number >= self.recorded {
            let is_end = self.is_closed && self.recorded == self.next;
            return if is_end { Found::End } else { Found::Nothing };
        }
        let mut bytes = 0;
        let items = self.unread.iter().skip_while(|item| item.number < number);
        let ready = items.take_while(|item| item.number < self.recorded).zip(number..);
        let kept = ready.map_while(|(item, expected)| item.data.as_ref().filter(|_| item.number == expected));
        let fits = kept.take(READ_EVENTS_MAX).take_while(|data| {
            bytes += data.as_str().len();
            bytes <= READ_BYTES_MAX
        });
        let found: Vec<Json> = fits.cloned().collect();
        if found.is_empty() { Found::InJournal } else { Found::Items(found) }
    }
}

/// A channel of a session.
#[derive(Debug)]
pub(crate) enum Channel {
    /// Its promises are being made; what was asked of it meanwhile.
    Opening(Vec<Command>),
    Open(Box<Both>),
}

/// Both directions.
#[derive(Debug)]
pub(crate) struct Both {
    /// From the code.
    pub(crate) out: Lane,
    /// To the code.
    pub(crate) into: Lane,
}

impl Both {
    pub(crate) fn lane(&mut self, way: Way) -> &mut Lane {
        match way {
            Way::Out => &mut self.out,
            Way::In => &mut self.into,
        }
    }
}

/// What was waited for.
pub(crate) enum Happened {
    /// The promises of a channel are there, or not.
    Opened(String, Result<Outcomes, StoreError>),
    /// What the code asked for was read.
    Read(RequestNumber, Result<Vec<Recorded>, BridgeError>),
}

pub(crate) type Reading = JoinHandle<Result<Vec<Recorded>, BridgeError>>;

/// The channels of a session.
#[derive(Default)]
pub(crate) struct Channels {
    pub(crate) known: BTreeMap<String, Channel>,
    /// What was found when the session was taken up and nobody has asked for since.
    left: BTreeMap<PromiseId, (String, EventNumber)>,
    opening: VecDeque<(String, Submitted)>,
    /// What code waits for that is in the journal only: one question at a time.
    pub(crate) reading: Option<(RequestNumber, Reading)>,
}

impl Channels {
    /// The channel, if both its directions are there.
    pub(crate) fn open(&mut self, name: &str) -> Option<&mut Both> {
        match self.known.get_mut(name)? {
            Channel::Open(both) => Some(both),
            Channel::Opening(_) => None,
        }
    }

    pub(crate) fn names(&self) -> BTreeSet<&str> {
        let left = self.left.values().filter_map(|(key, _)| key.rsplit_once('/').map(|(name, _)| name));
        self.known.keys().map(String::as_str).chain(left).collect()
    }

    pub(crate) fn make(&mut self, name: &str, submitted: Submitted) {
        self.known.insert(name.to_owned(), Channel::Opening(Vec::new()));
        self.opening.push_back((name.to_owned(), submitted));
    }

    /// Whether the promises of some channel are on their way.
    pub(crate) fn is_opening(&self) -> bool {
        !self.opening.is_empty()
    }

    /// A direction that was not closed when the session was taken up.
    pub(crate) fn leave(&mut self, known: &Unsettled) {
        let Some(key) = &known.promise.key else { return };
        self.left.insert(known.promise.id, (key.key.clone(), known.next_event));
    }

    /// A direction that was there before.
    pub(crate) fn found(&mut self, promise: &Promise) -> Lane {
        let is_closed = promise.state.is_settled();
        let left = self.left.remove(&promise.id).map(|(_, next)| next);
        Lane::new(promise.id, left.unwrap_or(promise.last_event + 1), is_closed)
    }

    /// Directions that are open, with the number of their last item: closed from now on.
    pub(crate) fn close_all(&mut self) -> Vec<(PromiseId, EventNumber)> {
        let mut open: Vec<_> =
            std::mem::take(&mut self.left).into_iter().map(|(id, (_, next))| (id, next - 1)).collect();
        for channel in self.known.values_mut() {
            let Channel::Open(both) = channel else { continue };
            for lane in [&mut both.out, &mut both.into] {
                if !std::mem::replace(&mut lane.is_closed, true) {
                    open.push((lane.promise, lane.next - 1));
                }
            }
        }
        open
    }

    /// The next thing that was waited for. Cancel-safe.
    pub(crate) async fn happened(&mut self) -> Happened {
        poll_fn(|context| self.poll_happened(context)).await
    }

    fn poll_happened(&mut self, context: &mut Context<'_>) -> Poll<Happened> {
        if let Some((_, submitted)) = self.opening.front_mut()
            && let Poll::Ready(outcome) = Pin::new(submitted).poll(context)
            && let Some((name, _)) = self.opening.pop_front()
        {
            return Poll::Ready(Happened::Opened(name, outcome));
        }
        if let Some((_, reading)) = &mut self.reading
            && let Poll::Ready(read) = Pin::new(reading).poll(context)
            && let Some((request, _)) = self.reading.take()
        {
            let gone = |_| Err(StoreError::Closed.into());
            return Poll::Ready(Happened::Read(request, read.unwrap_or_else(gone)));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use cob_protocol::ids::SessionId;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn lane() -> Lane {
        Lane::new(PromiseId::execution(SessionId(1), 1), 1, false)
    }

    fn item(number: u64) -> Json {
        Json::from(json!(number))
    }

    fn add(lane: &mut Lane) -> EventNumber {
        let data = item(lane.next);
        lane.add(1, Some(data))
    }

    #[test]
    fn only_what_is_recorded_can_be_taken() {
        let mut lane = lane();
        assert_eq!((add(&mut lane), add(&mut lane)), (1, 2));
        assert_eq!(lane.from(1), Found::Nothing);
        lane.committed(1);
        assert_eq!(lane.from(1), Found::Items(vec![item(1)]));
        lane.is_closed = true;
        assert_eq!(lane.from(2), Found::Nothing);
        lane.committed(2);
        assert_eq!((lane.from(1), lane.from(3)), (Found::Items(vec![item(1), item(2)]), Found::End));
    }

    #[test]
    fn what_was_taken_makes_room_and_is_read_from_the_journal_when_it_is_asked_for_again() {
        let mut lane = lane();
        lane.add(CHANNEL_UNREAD_BYTES_MAX, Some(item(1)));
        lane.committed(1);
        assert!(!lane.has_room());
        lane.take(1);
        assert!(lane.has_room());
        assert_eq!(lane.from(1), Found::InJournal);
    }

    #[test]
    fn what_a_reader_waits_for_is_not_unread() {
        let mut lane = lane();
        lane.take(2);
        lane.add(CHANNEL_UNREAD_BYTES_MAX, None);
        lane.add(CHANNEL_UNREAD_BYTES_MAX, None);
        assert!(lane.has_room());
        lane.add(CHANNEL_UNREAD_BYTES_MAX, None);
        assert!(!lane.has_room());
    }

    #[test]
    fn more_than_little_is_not_kept_in_memory() {
        let mut lane = lane();
        let large = Json::from(json!("x".repeat(CHANNEL_ITEM_BYTES_MAX - 2)));
        lane.add(1, Some(large.clone()));
        lane.add(1, Some(large.clone()));
        lane.committed(1);
        lane.committed(2);
        assert_eq!(lane.from(1), Found::Items(vec![large]));
        assert_eq!(lane.from(2), Found::InJournal);
    }

    #[test]
    fn a_direction_that_was_left_goes_on_at_its_number() {
        let lane = Lane::new(PromiseId::execution(SessionId(1), 1), 8, false);
        assert_eq!((lane.from(7), lane.from(8)), (Found::InJournal, Found::Nothing));
    }

    proptest! {
        /// Items are added, recorded, lost and taken in any order: numbers have no holes, sums are right.
        #[test]
        fn numbers_have_no_holes_and_sums_are_right(steps in prop::collection::vec((0..4, 0_u64..40), 0..200)) {
            let mut lane = lane();
            for (step, number) in steps {
                match step {
                    0 => prop_assert_eq!(add(&mut lane), lane.next - 1),
                    1 if number < lane.next => lane.committed(number),
                    2 if number >= 1 => lane.failed(number),
                    3 => lane.take(number),
                    _ => {}
                }
                prop_assert!(lane.recorded <= lane.next);
                let numbers: Vec<u64> = lane.unread.iter().map(|item| item.number).collect();
                let expected: Vec<u64> = (lane.next - numbers.len() as u64..lane.next).collect();
                prop_assert_eq!(&numbers, &expected);
                prop_assert_eq!(lane.unread_bytes, numbers.len());
                let kept: usize = lane.unread.iter().flat_map(|item| &item.data).map(|d| d.as_str().len()).sum();
                prop_assert_eq!(lane.kept_bytes, kept);
            }
        }
    }
}
