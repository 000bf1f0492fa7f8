//! Sending a reader the events of one promise: as many as it has granted, no faster than it reads.

use cob_bridge::{BridgeError, Follower, Recorded};
use cob_protocol::event::{Event, EventNumber};
use cob_protocol::json::Json;
use cob_protocol::promise::Promise;
use serde::Serialize;
use tokio::sync::mpsc;

use super::line::Line;
use crate::request::Command;

/// One who reads.
pub(crate) struct Reader {
    pub(crate) line: Line,
    pub(crate) follower: Follower,
    style: Style,
    /// It was said that the promise is settled.
    is_told: bool,
}

/// As what the events are sent.
pub(crate) enum Style {
    /// `event`
    Events,
    /// `channel_data`, without anything that is no item.
    Channel {
        name: String,
        /// Where grants are told.
        commands: mpsc::Sender<Command>,
        /// What was told.
        granted: EventNumber,
    },
}

/// Why it stopped sending.
pub(crate) enum Pause {
    /// The promise is settled, and events are left for which there is no credit. Said once.
    Settled(Box<Promise>),
    /// It is settled, and everything was sent.
    Complete(Box<Promise>),
    /// The reader wants no more.
    Stopped,
    /// The connection has ended.
    Gone,
    /// It cannot be read on.
    Failed(BridgeError),
}

#[derive(Serialize)]
struct ItemContent<'a> {
    subscription: &'a str,
    channel: &'a str,
    number: EventNumber,
    data: &'a Json,
}

impl Reader {
    pub(crate) fn new(line: Line, follower: Follower, style: Style) -> Self {
        Self { line, follower, style, is_told: false }
    }

    /// Sends what credit allows, until there is something else to say.
    pub(crate) async fn read_on(&mut self) -> Pause {
        loop {
            if self.line.flow.is_stopped() {
                return Pause::Stopped;
            }
            let credit = self.line.flow.credit();
            self.pass_grant(credit).await;
            let paused = if credit == 0 { self.wait().await } else { self.take(credit).await };
            if let Some(pause) = paused {
                return pause;
            }
        }
    }

    /// Without credit: waits for some, or for the end.
    async fn wait(&mut self) -> Option<Pause> {
        if self.is_told {
            if let Some(promise) = self.follower.settled().filter(|promise| self.has_all(promise)) {
                return Some(Pause::Complete(Box::new(promise.clone())));
            }
            self.line.flow.changed().await;
            return None;
        }
        let settled = tokio::select! {
            biased;
            () = self.line.flow.changed() => return None,
            settled = self.follower.wait_settled() => settled,
        };
        self.is_told = true;
        Some(match settled {
            Ok(promise) if self.has_all(&promise) => Pause::Complete(Box::new(promise)),
            Ok(promise) => Pause::Settled(Box::new(promise)),
            Err(error) => Pause::Failed(error),
        })
    }

    /// Whether every event of a settled promise was sent.
    fn has_all(&self, promise: &Promise) -> bool {
        self.follower.next_number() > promise.last_event
    }

    /// With credit: waits for events and sends them.
    async fn take(&mut self, credit: u64) -> Option<Pause> {
        let count = usize::try_from(credit).unwrap_or(usize::MAX);
        let found = tokio::select! {
            biased;
            () = self.line.flow.changed() => return None,
            found = self.follower.next(count) => found,
        };
        match found {
            Ok(events) if events.is_empty() => Some(match self.follower.settled() {
                Some(promise) => Pause::Complete(Box::new(promise.clone())),
                None => Pause::Failed(BridgeError::Unknown(self.follower.promise())),
            }),
            Ok(events) => self.send(&events).await,
            Err(BridgeError::Forgotten { first, .. }) => self.skip(first).await,
            Err(BridgeError::Damaged { number, .. }) => self.skip(number + 1).await,
            Err(error) => Some(Pause::Failed(error)),
        }
    }

    async fn send(&mut self, events: &[Recorded]) -> Option<Pause> {
        for recorded in events {
            if self.line.flow.is_stopped() {
                return Some(Pause::Stopped);
            }
            let is_sent = match (&self.style, &*recorded.event) {
                (Style::Events, _) => self.line.event(self.follower.promise(), recorded).await,
                (Style::Channel { name, .. }, Event::Data(data)) => {
                    let (subscription, number) = (self.line.name.as_str(), recorded.number);
                    let item = ItemContent { subscription, channel: name, number, data };
                    let is_sent = self.line.send("channel_data", &item).await;
                    self.line.flow.spend();
                    is_sent
                }
                (Style::Channel { .. }, _) => true,
            };
            if !is_sent {
                return Some(Pause::Gone);
            }
        }
        None
    }

    /// Goes on behind what the journal does not have any more.
    async fn skip(&mut self, next: EventNumber) -> Option<Pause> {
        let (promise, from) = (self.follower.promise(), self.follower.next_number());
        self.follower.skip_to(next);
        let is_sent = self.line.gap(promise, from, next).await;
        (!is_sent).then_some(Pause::Gone)
    }

    /// Tells the sender of a channel how far it may go.
    async fn pass_grant(&mut self, credit: u64) {
        let up_to = (self.follower.next_number() - 1).saturating_add(credit);
        if let Style::Channel { name, commands, granted } = &mut self.style
            && up_to > *granted
        {
            *granted = up_to;
            // It fails when the session has ended, and then nobody sends.
            let _ = commands.send(Command::ChannelGranted(name.clone(), up_to)).await;
        }
    }
}
