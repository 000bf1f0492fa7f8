//! Code that asks for something of a durable channel, and waits until it is there. Its questions are no promises: whoever
//! takes over has them asked again, and nothing is changed by that.

use std::time::Duration;

use cob_bridge::{BridgeError, Recorded};
use cob_protocol::event::{Event, EventNumber};
use cob_protocol::frame::{Call, Outcome, RequestNumber};
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::limits::{CHANNEL_ITEM_BYTES_MAX, READ_BYTES_MAX, READ_EVENTS_MAX};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::channels::{Both, Found, Lane, Way};
use crate::session::{Current, Session};

/// What code waits for.
#[derive(Debug)]
pub(crate) struct Wait {
    request: RequestNumber,
    pub(crate) channel: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Open,
    Send {
        number: EventNumber,
        data: Json,
    },
    /// It is on its way into the journal.
    Sending {
        number: EventNumber,
    },
    Receive {
        from: EventNumber,
        until: Option<Instant>,
    },
    Close,
}

/// The arguments of every question about a channel.
#[derive(Deserialize)]
struct Arguments {
    channel: String,
    #[serde(default)]
    number: EventNumber,
    #[serde(default)]
    data: Option<Json>,
    #[serde(default)]
    from: EventNumber,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

impl Session {
    /// Whether the code waits for this item of its own.
    pub(crate) fn is_sending(&self, channel: &str, item: EventNumber) -> bool {
        let is_it = |wait: &Wait| matches!(wait.what, What::Sending { number } if number == item);
        self.wait().is_some_and(|wait| wait.channel == channel && is_it(wait))
    }

    /// Code asks something about a channel.
    pub(crate) fn channel_call(&mut self, call: &Call) {
        let Ok(Arguments { channel, number, data, from, timeout_ms }) = call.arguments.read() else {
            let why = format!("the arguments of `{}` cannot be read", call.kind);
            return self.answer_call(call.request, Outcome::Declined(why));
        };
        let until = timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        let what = match (call.kind.as_str(), data) {
            ("channel_send", Some(data)) => What::Send { number, data },
            ("channel_recv", _) => What::Receive { from: from.max(1), until },
            ("channel_close", _) => What::Close,
            _ => What::Open,
        };
        let had = self.have_channel(&channel);
        let Some(Current::Run(running)) = &mut self.current else { return };
        running.wait = Some(Wait { request: call.request, channel, what });
        self.pause_clock();
        match had {
            Ok(()) => self.serve_wait(),
            Err(refusal) => self.answer_wait(Outcome::Declined(refusal.why)),
        }
    }

    pub(crate) fn wait(&self) -> Option<&Wait> {
        match &self.current {
            Some(Current::Run(running)) => running.wait.as_ref(),
            _ => None,
        }
    }

    fn take_wait(&mut self) -> Option<Wait> {
        match &mut self.current {
            Some(Current::Run(running)) => running.wait.take(),
            _ => None,
        }
    }

    pub(crate) fn answer_wait(&mut self, outcome: Outcome) {
        let Some(wait) = self.take_wait() else { return };
        self.channels.reading = None;
        self.resume_clock();
        self.answer_call(wait.request, outcome);
    }

    /// When code has waited for long enough.
    pub(crate) fn wait_until(&self) -> Option<Instant> {
        match self.wait()?.what {
            What::Receive { until, .. } if self.channels.reading.is_none() => until,
            _ => None,
        }
    }

    pub(crate) fn wait_is_over(&mut self) {
        self.answer_wait(Outcome::TimedOut("no item came in time".to_owned()));
    }

    /// Answers what code waits for, if that can be done by now.
    pub(crate) fn serve_wait(&mut self) {
        let Some(wait) = self.take_wait() else { return };
        let Wait { request, channel, what } = wait;
        let session = self.config.id;
        let (what, outcome) = match self.channels.open(&channel) {
            None => (what, None),
            Some(both) => match what {
                What::Open => (What::Open, Some(opened(session, both))),
                What::Close => {
                    self.close_lane(&channel, Way::Out);
                    (What::Close, Some(Outcome::Value(Json::object())))
                }
                What::Send { number, data } => self.send_item(&channel, number, data),
                What::Sending { number } => (What::Sending { number }, sent(&both.out, number)),
                What::Receive { from, until } => {
                    (What::Receive { from, until }, self.receive(&channel, request, from))
                }
            },
        };
        if let Some(Current::Run(running)) = &mut self.current {
            running.wait = Some(Wait { request, channel, what });
        }
        if let Some(outcome) = outcome {
            self.answer_wait(outcome);
        }
    }

    /// An item of the code. One that it sends again, since it was not told, is there once.
    fn send_item(&mut self, channel: &str, number: EventNumber, data: Json) -> (What, Option<Outcome>) {
        let Some(Both { out, .. }) = self.channels.open(channel) else {
            return (What::Send { number, data }, None);
        };
        if number < out.next {
            let outcome = sent(out, number);
            return (What::Sending { number }, outcome);
        }
        let why = if data.as_str().len() > CHANNEL_ITEM_BYTES_MAX {
            Some(format!("an item of a channel has at most {CHANNEL_ITEM_BYTES_MAX} bytes"))
        } else if number > out.next {
            Some(format!("item {number} is ahead of the next one, {}", out.next))
        } else {
            None
        };
        if let Some(why) = why {
            return (What::Sending { number }, Some(Outcome::Declined(why)));
        }
        if out.is_closed {
            return (What::Sending { number }, Some(closed()));
        }
        if !out.has_room() {
            return (What::Send { number, data }, None);
        }
        self.append(channel.to_owned(), Way::Out, data, None);
        (What::Sending { number }, None)
    }

    /// Items for the code, which has taken everything before `from`.
    fn receive(&mut self, channel: &str, request: RequestNumber, from: EventNumber) -> Option<Outcome> {
        let Both { into, .. } = self.channels.open(channel)?;
        into.take(from.min(into.next) - 1);
        let promise = into.promise;
        match into.from(from) {
            Found::Items(items) => Some(received(from, &items)),
            Found::End => Some(closed()),
            Found::Nothing => None,
            Found::InJournal => {
                if self.channels.reading.is_none() {
                    let bridge = self.bridge.clone();
                    let reading = tokio::spawn(async move {
                        match bridge.events(promise, from, READ_EVENTS_MAX, READ_BYTES_MAX).await {
                            Err(BridgeError::Forgotten { first, .. }) => {
                                bridge.events(promise, first, READ_EVENTS_MAX, READ_BYTES_MAX).await
                            }
                            read => read,
                        }
                    });
                    self.channels.reading = Some((request, reading));
                }
                None
            }
        }
    }

    pub(crate) fn channel_read(&mut self, request: RequestNumber, read: Result<Vec<Recorded>, BridgeError>) {
        if self.wait().is_none_or(|wait| wait.request != request) {
            return;
        }
        let outcome = match read {
            Ok(events) => {
                let Some(first) = events.first().map(|event| event.number) else {
                    let why = "the journal no longer has the items that come next";
                    return self.answer_wait(Outcome::Declined(why.to_owned()));
                };
                let items = events.iter().filter_map(|known| match &*known.event {
                    Event::Data(data) => Some(data.clone()),
                    _ => None,
                });
                received(first, &items.collect::<Vec<_>>())
            }
            Err(error) => Outcome::Declined(error.to_string()),
        };
        self.answer_wait(outcome);
    }
}

/// With the session, so that code in a copy of it can tell that the channels are other ones.
fn opened(session: SessionId, Both { out, into }: &Both) -> Outcome {
    Outcome::Value(Json::from(json!({ "session": session, "next": out.next, "from": into.taken + 1 })))
}

fn sent(lane: &Lane, number: EventNumber) -> Option<Outcome> {
    (number < lane.recorded).then(|| Outcome::Value(Json::object()))
}

fn closed() -> Outcome {
    Outcome::Eof("the channel is closed".to_owned())
}

fn received(first: EventNumber, items: &[Json]) -> Outcome {
    #[derive(serde::Serialize)]
    struct Batch<'a> {
        first: EventNumber,
        items: &'a [Json],
    }
    Outcome::Value(Json::of(&Batch { first, items }).unwrap_or_default())
}
