//! The road of an item of a durable channel: from the code or an agent into the journal, and only then to the other side.

use std::sync::Arc;

use cob_bridge::{BridgeError, Created, NewExecution, Outcomes, StoreError, Write, Written};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::{Event, EventNumber};
use cob_protocol::frame::Outcome;
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::SESSION_WAITING_MAX;
use cob_protocol::limits::{CHANNEL_ITEM_BYTES_MAX, READ_BYTES_MAX, SESSION_CHANNELS_MAX};
use cob_protocol::promise::{SessionState, Settlement, State};

use crate::channels::{Both, Channel, Happened, Lane, NAME_BYTES_MAX, Way, is_name, key};
use crate::commands::not_recorded;
use crate::records::Effect;
use crate::request::{Asked, ChannelState, Command, Refusal};
use crate::session::Session;
use crate::telling::{refusal_code, store_code};

/// An item that is being recorded.
#[derive(Debug)]
pub(crate) struct Sent {
    channel: String,
    way: Way,
    pub(crate) promise: PromiseId,
    number: EventNumber,
    /// The client that sent it.
    asked: Option<Asked<EventNumber>>,
}

impl Session {
    // --- Opening and closing ---------------------------------------------------------------------------------

    /// Sees to it that the channel is there or on its way.
    pub(crate) fn have_channel(&mut self, name: &str) -> Result<(), Refusal> {
        if self.channels.known.contains_key(name) {
            return Ok(());
        }
        // What a session that drains still runs may need one.
        if self.is_stopping() {
            let (code, why) = self.farewell();
            return Err(Refusal::new(code, why));
        }
        if !is_name(name) {
            let why =
                format!("the name of a channel has 1 to {NAME_BYTES_MAX} bytes and no control characters");
            return Err(Refusal::new(ErrorCode::BadRequest, why));
        }
        let names = self.channels.names();
        if names.len() >= SESSION_CHANNELS_MAX && !names.contains(name) {
            let why = format!("a session has at most {SESSION_CHANNELS_MAX} channels");
            return Err(Refusal::new(ErrorCode::Busy, why));
        }
        let durability = self.config.durability;
        let create = |way| {
            Write::CreateExecution(NewExecution {
                session: self.config.id,
                key: Some(key(name, way)),
                durability,
                deadline: None,
                request: None,
                start: None,
            })
        };
        let writes = vec![create(Way::Out), create(Way::In)];
        self.pay_debts();
        self.records.submit();
        self.channels.make(name, self.bridge.submit(durability, writes));
        Ok(())
    }

    /// Does what was asked of a channel, now or when its promises are there.
    pub(crate) fn channel_command(&mut self, command: Command) {
        let (Command::OpenChannel(name, ..)
        | Command::ChannelData(name, ..)
        | Command::CloseChannel(name, ..)
        | Command::ChannelGranted(name, ..)) = &command
        else {
            return;
        };
        let name = name.clone();
        if let Err(refusal) = self.have_channel(&name) {
            return refuse(command, refusal);
        }
        match self.channels.known.get_mut(&name) {
            Some(Channel::Open(_)) => self.do_command(command),
            Some(Channel::Opening(waiting)) if waiting.len() < SESSION_WAITING_MAX => waiting.push(command),
            _ => refuse(command, Refusal::new(ErrorCode::Busy, "too much waits for the channel")),
        }
    }

    fn do_command(&mut self, command: Command) {
        match command {
            Command::OpenChannel(name, asked) => {
                let Some(Both { out, into }) = self.channels.open(&name) else { return };
                let state =
                    ChannelState { from_code: out.promise, next: into.next, is_closed: into.is_closed };
                let _ = asked.send(Ok(state));
            }
            Command::ChannelData(name, number, data, asked) => self.take_item(name, number, data, asked),
            Command::CloseChannel(name, asked) => {
                self.close_lane(&name, Way::In);
                self.report(asked, ());
                self.serve_wait();
            }
            Command::ChannelGranted(name, number) => {
                if let Some(both) = self.channels.open(&name) {
                    both.out.take(number);
                }
                self.serve_wait();
            }
            _ => {}
        }
    }

    pub(crate) fn close_lane(&mut self, name: &str, way: Way) {
        let Some(both) = self.channels.open(name) else { return };
        let lane = both.lane(way);
        if !std::mem::replace(&mut lane.is_closed, true) {
            let (id, last) = (lane.promise, lane.next - 1);
            self.settle_lane(id, last);
        }
    }

    fn settle_lane(&mut self, id: PromiseId, last_event: EventNumber) {
        let silent = Settlement::silent(State::Resolved, Json::object(), SessionState::Kept);
        let settlement = Settlement { last_event, ..silent };
        self.write_surely(self.config.durability, Write::Settle { id, settlement });
    }

    /// The session ends, and its channels with it.
    pub(crate) fn close_channels(&mut self) {
        for (id, last_event) in self.channels.close_all() {
            self.settle_lane(id, last_event);
        }
    }

    pub(crate) fn channel_happened(&mut self, happened: Happened) {
        match happened {
            Happened::Opened(name, outcomes) => self.channel_opened(name, outcomes),
            Happened::Read(request, read) => self.channel_read(request, read),
        }
    }

    fn channel_opened(&mut self, name: String, outcomes: Result<Outcomes, StoreError>) {
        let Some(Channel::Opening(waiting)) = self.channels.known.remove(&name) else { return };
        match self.lanes(outcomes) {
            Ok((out, into)) => {
                self.channels.known.insert(name, Channel::Open(Box::new(Both { out, into })));
                waiting.into_iter().for_each(|command| self.channel_command(command));
                self.serve_wait();
            }
            Err(refusal) => {
                waiting.into_iter().for_each(|command| refuse(command, refusal.clone()));
                if self.wait().is_some_and(|wait| wait.channel == name) {
                    self.answer_wait(Outcome::Declined(refusal.why));
                }
            }
        }
    }

    fn lanes(&mut self, outcomes: Result<Outcomes, StoreError>) -> Result<(Lane, Lane), Refusal> {
        let refused = |error: BridgeError| Refusal::new(refusal_code(&error), error.to_string());
        let mut outcomes = outcomes.map_err(|error| refused(error.into()))?.into_iter();
        let mut lane = || match outcomes.next() {
            Some(Ok(Written::Created(Created::New(id)))) => Ok(Lane::new(id, 1, false)),
            Some(Ok(Written::Created(Created::Joined(known)))) => Ok(self.channels.found(&known)),
            Some(Err(error)) => Err(refused(error)),
            _ => Err(Refusal::new(ErrorCode::StoreFailed, "the channel could not be recorded")),
        };
        Ok((lane()?, lane()?))
    }

    // --- Items -----------------------------------------------------------------------------------------------

    /// An item of a client for the code.
    fn take_item(
        &mut self,
        name: String,
        number: Option<EventNumber>,
        data: Json,
        asked: Asked<EventNumber>,
    ) {
        let Some(Both { into, .. }) = self.channels.open(&name) else { return };
        let refusal = match number {
            _ if data.as_str().len() > CHANNEL_ITEM_BYTES_MAX => {
                let bytes = data.as_str().len();
                let why = format!("the item has {bytes} bytes; a channel takes {CHANNEL_ITEM_BYTES_MAX}");
                Refusal::new(ErrorCode::RequestTooLarge, why)
            }
            Some(0) => Refusal::new(ErrorCode::BadRequest, "items are numbered from 1"),
            Some(number) if number < into.recorded => {
                let promise = into.promise;
                return self.compare(promise, number, data, asked);
            }
            Some(number) if number < into.next => {
                Refusal::new(ErrorCode::Busy, format!("item {number} is being recorded"))
            }
            Some(number) if number > into.next => {
                let why = format!("item {number} is ahead of the next one, {}", into.next);
                Refusal::new(ErrorCode::BadRequest, why)
            }
            _ if into.is_closed => Refusal::new(ErrorCode::AlreadySettled, "the channel is closed"),
            _ if !into.has_room() => {
                Refusal::new(ErrorCode::Busy, "the code has not taken enough of what it was sent")
            }
            _ => return self.append(name, Way::In, data, Some(asked)),
        };
        let _ = asked.send(Err(refusal));
    }

    /// An item was sent again: it is acknowledged if it is the same.
    fn compare(&self, id: PromiseId, number: EventNumber, data: Json, asked: Asked<EventNumber>) {
        let bridge = self.bridge.clone();
        tokio::spawn(async move {
            let answer = match bridge.events(id, number, 1, READ_BYTES_MAX).await {
                Ok(found) if found.first().is_some_and(|known| *known.event == Event::Data(data)) => {
                    Ok(number)
                }
                // The journal has forgotten it, so nobody can tell: it was there.
                Err(BridgeError::Forgotten { .. }) => Ok(number),
                Ok(_) => {
                    let why = format!("item {number} is recorded, with other data");
                    Err(Refusal::new(ErrorCode::AlreadySettled, why))
                }
                Err(error) => Err(Refusal::new(refusal_code(&error), error.to_string())),
            };
            let _ = asked.send(answer);
        });
    }

    pub(crate) fn append(
        &mut self,
        channel: String,
        way: Way,
        data: Json,
        asked: Option<Asked<EventNumber>>,
    ) {
        let Some(both) = self.channels.open(&channel) else { return };
        let lane = both.lane(way);
        let event = Event::Data(data.clone());
        let number = lane.add(event.bytes(), (way == Way::In).then_some(data));
        let promise = lane.promise;
        let write = Write::Append { id: promise, number, event: Arc::new(event) };
        self.records.write(self.config.durability, write);
        self.records.then(Effect::Item(Box::new(Sent { channel, way, promise, number, asked })));
    }

    /// An item is recorded, or it is not.
    pub(crate) fn item_settled(&mut self, sent: Sent, recorded: Result<(), &StoreError>) {
        let Sent { channel, way, number, asked, .. } = sent;
        if let Some(both) = self.channels.open(&channel) {
            match recorded {
                Ok(()) => both.lane(way).committed(number),
                Err(_) => both.lane(way).failed(number),
            }
        }
        if let Some(asked) = asked {
            let _ = asked.send(recorded.map(|()| number).map_err(not_recorded));
        }
        match recorded {
            Err(error) if way == Way::Out && self.is_sending(&channel, number) => {
                let why = format!("{}: {error}", store_code(error).code());
                self.answer_wait(Outcome::Declined(why));
            }
            _ => self.serve_wait(),
        }
    }
}

fn refuse(command: Command, refusal: Refusal) {
    match command {
        Command::OpenChannel(_, asked) => drop(asked.send(Err(refusal))),
        Command::ChannelData(_, _, _, asked) => drop(asked.send(Err(refusal))),
        Command::CloseChannel(_, asked) => drop(asked.send(Err(refusal))),
        _ => {}
    }
}
