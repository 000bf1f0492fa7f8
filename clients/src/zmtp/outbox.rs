//! What waits to be written to one peer: two lanes of encoded messages, with the order in which their bytes
//! leave.
//!
//! Sans-IO: [`Outbox::gather`] says what to write next, [`Outbox::advance`] is told how much was written.
//!
//! **Invariant:** the bytes that leave are whole messages, one after the other; between two of them the control
//! lane goes first.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use super::codec::Encoded;

/// Charged for every chunk beside its bytes, so that a queue of tiny messages is bounded too.
const CHUNK_COST: usize = 64;
/// A queue that grew beyond this many chunks gives its memory back when it is empty.
const KEPT_CHUNKS: usize = 1024;

/// Which messages go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Overtakes whatever waits in the data lane.
    Control,
    /// Everything else.
    Data,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    ends_message: bool,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    cost: usize,
}

/// The two lanes of one peer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    control: Queue,
    data: Queue,
    /// The lane whose first message is half written.
    open: Option<Lane>,
}

/// What a message costs in a queue.
pub(super) fn cost(message: &Encoded) -> usize {
    message.chunks.iter().map(|chunk| chunk.len() + CHUNK_COST).sum()
}

impl Outbox {
    pub(super) fn push(&mut self, message: &Encoded, lane: Lane) {
        let queue = self.queue(lane);
        queue.cost += cost(message);
        let last = message.chunks.len().saturating_sub(1);
        queue.chunks.extend(
            message
                .chunks
                .iter()
                .enumerate()
                .map(|(index, bytes)| Chunk { bytes: bytes.clone(), ends_message: index == last }),
        );
    }

    pub(super) fn cost(&self) -> usize {
        self.control.cost + self.data.cost
    }

    pub(super) fn lane_cost(&self, lane: Lane) -> usize {
        match lane {
            Lane::Control => self.control.cost,
            Lane::Data => self.data.cost,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.control.chunks.is_empty() && self.data.chunks.is_empty()
    }

    /// Fills `slices` with what is to be written next and returns how many were filled.
    pub(super) fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (data_first, data) = self.data_before_control();
        let order = data_first.chain(&self.control.chunks).chain(data);
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(order) {
            *slice = IoSlice::new(&chunk.bytes);
            filled += 1;
        }
        filled
    }

    /// Replaces the message that is written next by what `seal` makes of it, unless that was done already: from now on
    /// nothing overtakes it. Gives back what the message cost before, and what it costs now.
    pub(super) fn seal<E>(
        &mut self,
        seal: impl FnOnce(&Encoded) -> Result<Bytes, E>,
    ) -> Result<(usize, usize), E> {
        let lane = self.next_lane();
        if self.open.is_some() || self.queue(lane).chunks.is_empty() {
            return Ok((0, 0));
        }
        let queue = self.queue(lane);
        let last = queue.chunks.iter().position(|chunk| chunk.ends_message);
        let count = last.map_or(queue.chunks.len(), |last| last + 1);
        let message = Encoded { chunks: queue.chunks.drain(..count).map(|chunk| chunk.bytes).collect() };
        let bytes = seal(&message)?;
        let (before, after) = (cost(&message), bytes.len() + CHUNK_COST);
        queue.cost = queue.cost - before + after;
        queue.chunks.push_front(Chunk { bytes, ends_message: true });
        self.open = Some(lane);
        Ok((before, after))
    }

    /// What is left of the message that was sealed.
    pub(super) fn sealed(&self) -> &[u8] {
        let queue = if self.open == Some(Lane::Control) { &self.control } else { &self.data };
        queue.chunks.front().map_or(&[], |chunk| &chunk.bytes)
    }

    /// Forgets the first `written` bytes in the order of [`Outbox::gather`] and returns the cost they freed.
    pub(super) fn advance(&mut self, mut written: usize) -> usize {
        let before = self.cost();
        while written > 0 {
            let lane = self.next_lane();
            let queue = self.queue(lane);
            let Some(chunk) = queue.chunks.front_mut() else { break };
            let taken = written.min(chunk.bytes.len());
            chunk.bytes.advance(taken);
            written -= taken;
            queue.cost -= taken;
            let ends_message = chunk.ends_message;
            let is_done = chunk.bytes.is_empty();
            if is_done {
                queue.pop();
            }
            self.open = if is_done && ends_message { None } else { Some(lane) };
        }
        before - self.cost()
    }

    /// Forgets everything and returns the cost it freed.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).cost()
    }

    fn queue(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Control => &mut self.control,
            Lane::Data => &mut self.data,
        }
    }

    fn next_lane(&self) -> Lane {
        let control = if self.control.chunks.is_empty() { Lane::Data } else { Lane::Control };
        self.open.unwrap_or(control)
    }

    /// The data lane in two: the rest of a half-written message, and all that control overtakes.
    fn data_before_control(&self) -> (impl Iterator<Item = &Chunk>, impl Iterator<Item = &Chunk>) {
        let chunks = &self.data.chunks;
        let first = match self.open {
            Some(Lane::Data) => chunks.iter().position(|chunk| chunk.ends_message).map_or(0, |last| last + 1),
            Some(Lane::Control) | None => 0,
        };
        (chunks.iter().take(first), chunks.iter().skip(first))
    }
}

impl Queue {
    fn pop(&mut self) {
        self.chunks.pop_front();
        self.cost -= CHUNK_COST;
        if self.chunks.is_empty() && self.chunks.capacity() > KEPT_CHUNKS {
            self.chunks = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::zmtp::codec::{Caps, Decoder, Item};

    fn message(lane: Lane, number: usize, len: usize) -> Vec<Bytes> {
        let name = format!("{lane:?} {number}");
        vec![Bytes::from(name), Bytes::from(vec![0; len])]
    }

    fn write(outbox: &mut Outbox, most: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 3];
        let filled = outbox.gather(&mut slices);
        let mut bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
        bytes.truncate(most);
        outbox.advance(bytes.len());
        bytes
    }

    #[test]
    fn control_overtakes_at_the_boundary_of_a_message() {
        let mut outbox = Outbox::default();
        let large = Encoded::message(&message(Lane::Data, 0, 40_000));
        outbox.push(&large, Lane::Data);
        outbox.push(&Encoded::message(&message(Lane::Data, 1, 1)), Lane::Data);
        let mut wire = write(&mut outbox, 5);
        outbox.push(&Encoded::message(&message(Lane::Control, 0, 1)), Lane::Control);
        while !outbox.is_empty() {
            wire.extend(write(&mut outbox, 10_000));
        }
        let mut decoder = Decoder::new(Caps::default());
        decoder.push(&wire);
        for name in ["Data 0", "Control 0", "Data 1"] {
            let Ok(Some(Item::Message(parts))) = decoder.pull() else { unreachable!("{name} is missing") };
            assert_eq!(parts[0], name);
        }
    }

    proptest! {
        #[test]
        fn messages_leave_whole_in_order_per_lane_and_free_what_they_cost(
            steps in proptest::collection::vec((any::<bool>(), 0usize..40_000, 1usize..30_000), 1..30),
        ) {
            let (mut outbox, mut wire, mut freed, mut charged) = (Outbox::default(), Vec::new(), 0, 0);
            let mut sent = [Vec::new(), Vec::new()];
            for (number, (is_control, len, most)) in steps.into_iter().enumerate() {
                let lane = if is_control { Lane::Control } else { Lane::Data };
                let parts = message(lane, number, len);
                let encoded = Encoded::message(&parts);
                charged += cost(&encoded);
                outbox.push(&encoded, lane);
                sent[usize::from(is_control)].push(parts);
                let before = outbox.cost();
                wire.extend(write(&mut outbox, most));
                freed += before - outbox.cost();
            }
            while !outbox.is_empty() {
                let before = outbox.cost();
                wire.extend(write(&mut outbox, usize::MAX));
                freed += before - outbox.cost();
            }
            prop_assert_eq!((freed, outbox.cost()), (charged, 0));
            let mut decoder = Decoder::new(Caps::default());
            decoder.push(&wire);
            let mut found = [Vec::new(), Vec::new()];
            while let Some(Item::Message(parts)) = decoder.pull()? {
                found[usize::from(parts[0].starts_with(b"Control"))].push(parts);
            }
            prop_assert_eq!(found, sent);
        }
    }
}
