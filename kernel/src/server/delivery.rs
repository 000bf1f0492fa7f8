//! What becomes of an execution, for the agent that asked for it: `ack`, events, reply.
//!
//! **Invariant:** what is sent was recorded before; the reply comes after every event that credit allowed.

use std::pin::Pin;

use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::message::Outgoing;
use cob_protocol::promise::{Durability, Promise, State};
use cob_protocol::registry::Lane;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use super::flow::Flow;
use super::interceptors::Observation;
use super::line::Line;
use super::outlet::outcome;
use super::reading::{Pause, Reader, Style};
use super::ticket::Ticket;
use super::views;
use crate::replies;
use crate::request::Refusal;

/// An `execute_request` on its way to its promise.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) ticket: Ticket,
    /// Its place among the open executions of the session.
    pub(crate) place: OwnedSemaphorePermit,
    /// Events that it wants.
    pub(crate) credit: u64,
}

/// The promise of an [`Asking`].
pub(crate) struct Accepted<U> {
    pub(crate) promise: PromiseId,
    pub(crate) durability: Durability,
    /// It was asked for before.
    pub(crate) is_known: bool,
    /// The reply of an end that cannot be recorded.
    pub(crate) unrecorded: U,
}

/// An execution that is delivered.
struct Delivery {
    ticket: Ticket,
    reader: Reader,
    /// Whether it wants events.
    is_followed: bool,
    /// It could not be sent at once.
    ack: Option<Outgoing>,
    unrecorded: Pin<Box<dyn Future<Output = Json> + Send>>,
    place: Option<OwnedSemaphorePermit>,
    /// Somebody else asked for it first, and has a place for as long as it takes.
    is_joined: bool,
}

impl Asking {
    /// Tells the agent so, and delivers in a task of its own whatever happens from now on.
    pub(crate) fn accepted(self, accepted: Accepted<impl Future<Output = Json> + Send + 'static>) {
        let Accepted { promise, durability, is_known, unrecorded } = accepted;
        let Self { ticket, place, credit } = self;
        let bridge = &ticket.agents.bridge;
        // From here on no event is missed.
        let follower = if is_known { bridge.follow(promise, 1) } else { bridge.follow_new(promise) };
        let line = match Line::open(&ticket, Flow::new(credit, false)) {
            Ok(line) => line,
            Err(refusal) => return ticket.refuse(&refusal),
        };
        let content = json!({ "promise": promise, "durability": durability, "joined": is_known });
        let ack = Outgoing::new("ack", ticket.parent.clone(), Json::from(content));
        let ack = ticket.connection.try_send(ack.clone(), Lane::Data).is_err().then_some(ack);
        // The worker is about to be given the code, and may take the processor.
        ticket.connection.hurry();
        let took = ticket.asked_at.elapsed();
        ticket.agents.interceptors.observe(Observation::Acknowledged { promise, took });
        let reader = Reader::new(line, follower, Style::Events);
        let (unrecorded, place) = (Box::pin(unrecorded), Some(place));
        let is_followed = credit > 0;
        let delivery = Delivery { ticket, reader, is_followed, ack, unrecorded, place, is_joined: is_known };
        let span = tracing::debug_span!("delivery", session = %promise.session, %promise);
        delivery.ticket.adopt(&span);
        tokio::spawn(delivery.run().instrument(span));
    }
}

impl Delivery {
    async fn run(mut self) {
        let connection = self.ticket.connection.clone();
        let is_delivered = tokio::select! {
            biased;
            () = connection.gone() => false,
            () = self.deliver() => true,
        };
        if !is_delivered && !self.is_joined {
            tracing::debug!("the agent has gone; it may ask again");
            // Its place is free when it does not wait or run any more.
            tokio::select! {
                biased;
                _ = self.reader.follower.wait_settled() => {}
                _ = &mut self.unrecorded => {}
            }
        }
    }

    async fn deliver(&mut self) {
        if let Some(ack) = self.ack.take()
            && !self.reader.line.connection.deliver(|| ack.clone(), Lane::Data).await
        {
            return std::future::pending().await;
        }
        let mut paused = self.read_on().await;
        if matches!(paused, Paused::Reader(Pause::Stopped)) {
            // It wants no events any more, but its reply.
            self.reader.line.end("unsubscribed", None, None).await;
            paused = tokio::select! {
                biased;
                settled = self.reader.follower.wait_settled() => Paused::Reader(match settled {
                    Ok(promise) => Pause::Complete(Box::new(promise)),
                    Err(error) => Pause::Failed(error),
                }),
                reply = &mut self.unrecorded => Paused::Unrecorded(reply),
            };
        }
        match paused {
            Paused::Unrecorded(reply) => {
                let code = outcome(&reply);
                self.ticket.answer(reply, Json::object(), code);
            }
            Paused::Reader(Pause::Complete(promise)) => self.reply(&promise),
            Paused::Reader(Pause::Settled(promise)) => {
                self.reply(&promise);
                if self.is_followed {
                    self.send_rest().await;
                }
            }
            Paused::Reader(Pause::Failed(error)) => {
                let refusal = Refusal::from(error);
                self.ticket.answer(refusal.content(), Json::object(), Some(refusal.code.code()));
            }
            // The end of the connection is noticed by whoever runs this.
            Paused::Reader(Pause::Gone | Pause::Stopped) => std::future::pending().await,
        }
    }

    async fn read_on(&mut self) -> Paused {
        tokio::select! {
            biased;
            pause = self.reader.read_on() => Paused::Reader(pause),
            reply = &mut self.unrecorded => Paused::Unrecorded(reply),
        }
    }

    fn reply(&mut self, promise: &Promise) {
        let value = promise.value.clone().unwrap_or_default();
        let code = if promise.state == State::Resolved { None } else { outcome(&value) };
        self.ticket.answer(value, replies::metadata(promise), code);
        let took = self.ticket.asked_at.elapsed();
        let observation = Observation::Executed { promise: promise.id, state: promise.state, took };
        self.ticket.agents.interceptors.observe(observation);
        tracing::debug!(state = promise.state.as_str(), last_event = promise.last_event, "delivered");
        self.place = None;
    }

    /// The events for which there was no credit when the reply was due.
    async fn send_rest(&mut self) {
        match self.reader.read_on().await {
            Pause::Complete(promise) | Pause::Settled(promise) => {
                self.reader.line.end("settled", Some(views::promise(&promise, None)), None).await;
            }
            Pause::Stopped => self.reader.line.end("unsubscribed", None, None).await,
            Pause::Failed(error) => self.reader.line.fail(error).await,
            Pause::Gone => std::future::pending().await,
        }
    }
}

enum Paused {
    Reader(Pause),
    Unrecorded(Json),
}
