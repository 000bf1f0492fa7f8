//! Which executions have begun: found in the store, or told by commits.

use cob_protocol::ids::PromiseId;
use cob_protocol::limits::FEED_PAGE;
use cob_protocol::promise::{Kind, Promise, State};

use super::{SessionFollower, Step};
use crate::news::Begun;
use crate::store::{BridgeError, Filter, Read};

/// How far the store was looked through.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scan {
    /// From the beginning: also what is known to wait.
    First,
    /// One more page.
    Next,
}

impl SessionFollower {
    /// One page of what the store has.
    pub(super) async fn look_through(&mut self, scan: Scan) -> Result<Step, BridgeError> {
        let (session, after) = (self.session, self.after);
        let again: Vec<u64> = match scan {
            Scan::First => self.waiting.iter().copied().collect(),
            Scan::Next => Vec::new(),
        };
        if matches!(scan, Scan::First) {
            // Before the look: what was told so far is in the store.
            self.listener.told().forget();
        }
        let ask = move |store: &mut dyn Read| {
            let record = store.session(session)?.ok_or(BridgeError::UnknownSession(session))?;
            let mut known = Vec::with_capacity(again.len());
            for number in again {
                known.push((number, store.promise(PromiseId::execution(session, number))?));
            }
            let filter = Filter {
                session: Some(session),
                kind: Some(Kind::Execution),
                after: Some(PromiseId::execution(session, after)),
                count_max: FEED_PAGE,
                ..Filter::default()
            };
            Ok((record.closed_at.is_some(), known, store.promises(&filter)?))
        };
        let (is_closed, known, page) = self.bridge.read(ask).await?;
        for (number, promise) in known {
            if promise.as_ref().is_none_or(has_begun) {
                self.waiting.remove(&number);
            }
            if promise.as_ref().is_some_and(has_begun) {
                self.ready.push_back(Begun { number, count: None, is_channel: false });
            }
        }
        let is_last = page.len() < FEED_PAGE;
        for promise in page {
            let number = promise.id.execution;
            self.after = number;
            if promise.is_channel() {
                continue;
            }
            if has_begun(&promise) {
                self.ready.push_back(Begun { number, count: None, is_channel: false });
            } else {
                self.waiting.insert(number);
            }
        }
        self.is_closed |= is_last && is_closed;
        self.scan = (!is_last).then_some(Scan::Next);
        Ok(Step::Forward)
    }

    /// A commit told of it: perhaps the store has shown it already.
    pub(super) fn hear(&mut self, begun: Begun) {
        if begun.number <= self.after {
            if self.waiting.remove(&begun.number) && !begun.is_channel {
                self.ready.push_back(begun);
            }
            return;
        }
        self.waiting.extend(self.after + 1..begun.number);
        self.after = begun.number;
        if !begun.is_channel {
            self.ready.push_back(begun);
        }
    }
}

fn has_begun(promise: &Promise) -> bool {
    promise.state != State::Pending
}
