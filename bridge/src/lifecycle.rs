//! Ending everything: what is pending in a session is settled, with whatever it printed.

use std::sync::Arc;

use cob_protocol::event::Event;
use cob_protocol::frame::StreamName;
use cob_protocol::ids::SessionId;
use cob_protocol::limits::COMMIT_WRITES_MAX;
use cob_protocol::promise::{Durability, Kind, Settlement, Tally};

use crate::bridge::Bridge;
use crate::rules;
use crate::store::{BridgeError, OutputState, Unsettled, Write, Written};

impl Bridge {
    /// Settles everything that is pending in a session, also what was submitted and is not recorded yet; questions
    /// before the executions that ask them. What an execution printed is brought out first, and `settlement` gets its
    /// last event and its tally. Returns how many were settled by this call; what somebody else settled meanwhile is
    /// none of them, and a second call settles none.
    ///
    /// # Errors
    /// [`BridgeError::Store`]: what is not settled then can be settled by calling again.
    pub async fn cancel_all(&self, session: SessionId, settlement: Settlement) -> Result<usize, BridgeError> {
        // Whatever was submitted before is recorded when this is.
        self.submit(Durability::None, Vec::new()).await?;
        if self.pending_of(session).is_empty() {
            return Ok(0);
        }
        let mut unsettled = self.unsettled(session).await?;
        unsettled.sort_by_key(|one| rules::kind(one.promise.id) == Kind::Execution);
        let mut settled = 0;
        let mut writes = Vec::new();
        let mut durability = Durability::None;
        let last = unsettled.len().saturating_sub(1);
        for (index, one) in unsettled.iter().enumerate() {
            writes.extend(ending(one, settlement.clone()));
            durability = durability.max(one.promise.durability);
            if writes.len() >= COMMIT_WRITES_MAX / 2 || index == last {
                let outcomes = self.submit(durability, std::mem::take(&mut writes)).await?;
                let is_end = |outcome: &Result<Written, _>| matches!(outcome, Ok(Written::Settled(_)));
                settled += outcomes.iter().filter(|outcome| is_end(outcome)).count();
            }
        }
        Ok(settled)
    }
}

/// The writes that end a promise from what is recorded of it, when nobody else can: the end of its output that was
/// held back, the count of what was dropped, the last event, and the settlement with their number and its tally. A
/// character whose rest never came is U+FFFD, as it is when an execution ends by itself. A durable channel ends with its
/// last item.
#[must_use]
pub fn ending(unsettled: &Unsettled, settlement: Settlement) -> Vec<Write> {
    let id = unsettled.promise.id;
    if rules::kind(id) == Kind::Call {
        return vec![Write::Settle { id, settlement }];
    }
    if unsettled.promise.is_channel() {
        // Its items are all there is, and the last of them is its last event.
        let last_event = unsettled.next_event - 1;
        return vec![Write::Settle { id, settlement: Settlement { last_event, ..settlement } }];
    }
    let output = &finished(&unsettled.output);
    let tail: u64 = output.tail.iter().map(|(_, text)| text.len() as u64).sum();
    let dropped = output.written.saturating_sub(output.head.saturating_add(tail)).max(output.dropped);
    let tally = Tally { written: output.written, dropped };
    let mut events = Vec::new();
    if dropped > 0 {
        events.push(Event::Truncated { written: output.written, kept: tally.kept(), dropped });
    }
    events.extend(output.tail.iter().map(|(name, text)| Event::Stream { name: *name, text: text.clone() }));
    let mut number = unsettled.next_event;
    events.push(Event::Done { last: number + events.len() as u64 - 1 });
    let mut writes = Vec::with_capacity(events.len() + 1);
    for event in events {
        writes.push(Write::Append { id, number, event: Arc::new(event) });
        number += 1;
    }
    writes.push(Write::Settle { id, settlement: Settlement { last_event: number - 1, tally, ..settlement } });
    writes
}

/// The output when nothing more will come.
fn finished(output: &OutputState) -> OutputState {
    let mut output = output.clone();
    for (name, rest) in [StreamName::Stdout, StreamName::Stderr].into_iter().zip(&mut output.incomplete) {
        if std::mem::take(rest).is_empty() {
            continue;
        }
        let text = String::from(char::REPLACEMENT_CHARACTER);
        output.written = output.written.saturating_add(text.len() as u64);
        if output.dropped > 0 && output.tail.is_empty() {
            // Nothing that came after the head was kept.
            output.dropped = output.dropped.saturating_add(text.len() as u64);
        } else {
            output.tail.push((name, text));
        }
    }
    output
}
