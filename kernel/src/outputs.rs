//! From what the worker says to events, and from events to broadcasts.
//!
//! **Invariant:** what is broadcast is what was recorded: every output goes through [`Session::emit`], which
//! appends it to the journal and publishes that very event.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cob_bridge::{Health, Write};
use cob_protocol::content::{ClearOutputContent, CommMsg, CommOpen, ExecutionState, StreamContent};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::{ErrorText, Event};
use cob_protocol::frame::{
    Comm, CommAction, Display, ExecutionNumber, Frame, Log, Mime, MimeEncoding, Outcome, StreamName,
    UpdateDisplay,
};
use cob_protocol::json::Json;
use cob_protocol::message::Outgoing;
use cob_protocol::promise::SessionState;
use serde::Serialize;

use crate::records::Effect;
use crate::request::Refusal;
use crate::session::{Cell, Current, Running, Session};
use crate::text::size;

/// What a worker must not send.
pub(crate) type Violation = &'static str;

impl Session {
    /// Bytes from one of the worker's pipes.
    pub(crate) fn output(&mut self, stream: StreamName, bytes: &Bytes) {
        let execution = self.contexts.latest();
        let Some(context) = self.contexts.get_mut(execution) else {
            tracing::debug!(stream = stream.as_str(), bytes = bytes.len(), "output before the first request");
            return;
        };
        let text = context.decoder(stream).decode(bytes);
        self.text(execution, stream, text);
        self.write_output(execution);
    }

    /// A frame that is no end of an execution.
    pub(crate) fn frame(&mut self, frame: Frame, payloads: Vec<Bytes>) -> Result<(), Violation> {
        match frame {
            Frame::Stream(stream) => {
                let text =
                    payloads.first().map(|p| String::from_utf8_lossy(p).into_owned()).unwrap_or_default();
                self.text(stream.execution, stream.name, text);
            }
            Frame::Display(display) => {
                let content = display_content(&display, &payloads, None)?;
                self.emit(display.execution, Event::Display(content));
            }
            Frame::UpdateDisplay(UpdateDisplay(display)) => {
                let content = display_content(&display, &payloads, None)?;
                self.emit(display.execution, Event::UpdateDisplay(content));
            }
            Frame::Result(result) => {
                let cell = self.running(result.display.execution)?.cell;
                if let (Some(text), Some(Cell { count, is_in_history: true, .. })) =
                    (plain_text(&result.display.data, &payloads), cell)
                {
                    let session = self.config.id;
                    self.later.push(Write::HistoryOutput { session, line: count, text: text.clone() });
                    self.history.set_output(text);
                }
                let content = display_content(&result.display, &payloads, Some(result.count))?;
                self.emit(result.display.execution, Event::Result(content));
            }
            Frame::ClearOutput(clear) => {
                self.emit(clear.execution, Event::ClearOutput { wait: clear.wait });
            }
            Frame::Error(failure) => {
                let running = self.running(failure.execution)?;
                let error =
                    ErrorText { ename: failure.ename, evalue: failure.evalue, traceback: failure.traceback };
                running.error = Some(error.clone());
                self.emit(failure.execution, Event::Error(error));
            }
            Frame::Comm(comm) => self.comm_from_code(comm, payloads),
            Frame::Call(call) => self.call(call)?,
            Frame::Attached(attached) => self.attached(&attached),
            Frame::Answer(answer) => {
                // The server before this one asked it.
                if answer.request <= self.first_question {
                    return Ok(());
                }
                let number = match &self.current {
                    Some(Current::Ask { number, .. } | Current::Look { number, .. }) => *number,
                    Some(Current::Load(merging)) => merging.number,
                    _ => return Err("an answer nobody asked for"),
                };
                if number != answer.request {
                    return Err("an answer to another question");
                }
                if self.is_killed {
                    return Ok(());
                }
                self.answered(answer.outcome);
            }
            Frame::Log(Log { level, text }) => match level.as_str() {
                "error" => tracing::error!(target: "cob::worker", "{text}"),
                "warn" => tracing::warn!(target: "cob::worker", "{text}"),
                _ => tracing::debug!(target: "cob::worker", "{text}"),
            },
            Frame::Pong(_) | Frame::Mark(_) => {}
            _ => return Err("a frame that only the kernel may send"),
        }
        Ok(())
    }

    fn answered(&mut self, outcome: Outcome) {
        let current = self.current.take();
        self.ladder.clear();
        let request = match current {
            Some(Current::Ask { request, .. }) => request,
            Some(Current::Look { asked, .. }) => return drop(asked.send(looked(outcome))),
            Some(Current::Load(merging)) => return self.merge_answered(merging, outcome),
            current => return self.current = current,
        };
        match outcome {
            Outcome::Value(content) => {
                if let Some(reply) = cob_protocol::registry::reply_type(&request.message.header.msg_type) {
                    self.reply(&request, reply, content);
                }
            }
            Outcome::Eof(why)
            | Outcome::Declined(why)
            | Outcome::TimedOut(why)
            | Outcome::Failed { evalue: why, .. } => {
                self.reply_error(&request, ErrorCode::BadRequest, &why, SessionState::Kept);
            }
            Outcome::Again => {}
        }
        self.status(ExecutionState::Idle, &request);
    }

    fn running(&mut self, execution: ExecutionNumber) -> Result<&mut Running, Violation> {
        match &mut self.current {
            Some(Current::Run(running)) if running.promise.execution == execution => Ok(running),
            _ => Err("an outcome of an execution that does not run"),
        }
    }

    /// Text of an execution: what is within its budget is an event, the rest is counted.
    fn text(&mut self, execution: ExecutionNumber, name: StreamName, text: String) {
        let is_running = matches!(&self.current, Some(Current::Run(r)) if r.promise.execution == execution);
        self.text_of(execution, is_running, name, text);
    }

    fn text_of(&mut self, execution: ExecutionNumber, is_running: bool, name: StreamName, text: String) {
        if text.is_empty() {
            return;
        }
        let takes_output = self.takes_output();
        let Some(context) = self.contexts.get_mut(execution) else { return };
        if !takes_output {
            // The store has room for the end of what runs, and for nothing else.
            return context.budget.refuse(text.len());
        }
        let admission = context.budget.admit(name, text);
        let (limit, tail) = context.budget.limits();
        if admission.is_held && !is_running {
            // Late output has no end at which a tail could be shown.
            let lost: u64 = context.budget.take_tail().iter().map(|(_, text)| text.len() as u64).sum();
            context.budget.dropped += lost;
        }
        if !admission.pass.is_empty() {
            self.emit(execution, Event::Stream { name, text: admission.pass });
        }
        if admission.is_first_drop {
            let text = format!(
                "\n[output limit of {} reached: what follows is counted, and its last {} shown at the end]\n",
                size(limit as u64),
                size(tail as u64),
            );
            self.emit(execution, Event::Stream { name: StreamName::Stderr, text });
        }
    }

    /// Brings out what was still held back of an execution that ends.
    pub(crate) fn end_output(&mut self, running: &Running) {
        let execution = running.promise.execution;
        for name in [StreamName::Stdout, StreamName::Stderr] {
            let Some(context) = self.contexts.get_mut(execution) else { return };
            let rest = context.decoder(name).finish();
            self.text_of(execution, true, name, rest);
        }
        let Some(context) = self.contexts.get_mut(execution) else { return };
        let (written, dropped) = (context.budget.written, context.budget.dropped);
        let tail = context.budget.take_tail();
        if dropped > 0 {
            let kept = written - dropped;
            self.emit(execution, Event::Truncated { written, kept, dropped });
        }
        for (name, text) in tail {
            self.emit(execution, Event::Stream { name, text });
        }
    }

    /// Whether the store has room for more than the end of what runs.
    fn takes_output(&self) -> bool {
        matches!(self.bridge.health(), Health::Good)
    }

    /// Records an event, then publishes it, if anybody hears that.
    pub(crate) fn emit(&mut self, execution: ExecutionNumber, event: Event) {
        let Some(context) = self.contexts.get_mut(execution) else {
            tracing::debug!(execution, "output of an execution that is long over");
            return;
        };
        let durability = match &self.current {
            Some(Current::Run(running)) if running.promise.execution == execution => {
                if running.unrecorded.is_some() {
                    return;
                }
                running.durability
            }
            _ => self.config.durability,
        };
        let (id, parent, number) = (context.promise, context.parent.clone(), context.next_event);
        context.next_event += 1;
        let event = Arc::new(event);
        let message = if self.outlet.is_heard() { message_of(&event, parent) } else { None };
        self.records.write(durability, Write::Append { id, number, event });
        if let Some(message) = message {
            self.records.then(Effect::Show(message));
        }
    }

    fn comm_from_code(&mut self, comm: Comm, payloads: Vec<Bytes>) {
        let parent =
            self.contexts.get_mut(comm.execution).map_or_else(Json::object, |context| context.parent.clone());
        let Comm { action, comm_id, target_name, target_module, data, metadata, .. } = comm;
        let (msg_type, content) = match action {
            CommAction::Open => {
                let target_name = target_name.unwrap_or_default();
                self.open_comm(&comm_id, &target_name);
                ("comm_open", Json::of(&CommOpen { comm_id, target_name, target_module, data }))
            }
            CommAction::Msg => ("comm_msg", Json::of(&CommMsg { comm_id, data })),
            CommAction::Close => {
                self.comms.remove(&comm_id);
                ("comm_close", Json::of(&CommMsg { comm_id, data }))
            }
        };
        if let Ok(content) = content {
            let mut message = Outgoing::new(msg_type, parent, content);
            message.metadata = metadata;
            message.buffers = payloads;
            self.records.then(Effect::Publish(message));
        }
    }
}

/// What a worker says of its namespace.
fn looked(outcome: Outcome) -> Result<Json, Refusal> {
    match outcome {
        Outcome::Value(summary) => Ok(summary),
        Outcome::Eof(why)
        | Outcome::Declined(why)
        | Outcome::TimedOut(why)
        | Outcome::Failed { evalue: why, .. } => Err(Refusal::new(ErrorCode::Busy, why)),
        Outcome::Again => Err(Refusal::new(ErrorCode::Busy, "the worker could not look")),
    }
}

/// The broadcast that shows an event; some show nothing.
fn message_of(event: &Event, parent: Json) -> Option<Outgoing> {
    let truncated;
    let (msg_type, content) = match event {
        Event::Stream { name, text } => ("stream", Json::of(&StreamContent { name: name.as_str(), text })),
        Event::Display(content) => ("display_data", Ok(content.clone())),
        Event::UpdateDisplay(content) => ("update_display_data", Ok(content.clone())),
        Event::Result(content) => ("execute_result", Ok(content.clone())),
        Event::ClearOutput { wait } => ("clear_output", Json::of(&ClearOutputContent { wait: *wait })),
        Event::Error(error) => ("error", Json::of(error)),
        Event::Truncated { written, kept, dropped } => {
            truncated = format!(
                "\n[output truncated: {written} bytes written, {kept} kept, {dropped} dropped; the end follows]\n"
            );
            let content = StreamContent { name: StreamName::Stderr.as_str(), text: &truncated };
            ("stream", Json::of(&content))
        }
        Event::CallOpened { .. } | Event::CallClosed { .. } | Event::Data(_) | Event::Done { .. } => {
            return None;
        }
    };
    Some(Outgoing::new(msg_type, parent, content.ok()?))
}

/// The content of a display: built once, recorded and sent as it is.
fn display_content(display: &Display, payloads: &[Bytes], count: Option<u32>) -> Result<Json, Violation> {
    if display.data.len() != payloads.len() {
        return Err("a display with more types than payloads, or fewer");
    }
    let mut documents = Vec::new();
    for (Mime { mime, encoding }, payload) in display.data.iter().zip(payloads) {
        let text = match encoding {
            MimeEncoding::Text => serde_json::to_string(&String::from_utf8_lossy(payload)),
            MimeEncoding::Binary => serde_json::to_string(&STANDARD.encode(payload)),
            MimeEncoding::Json => Ok(String::from_utf8_lossy(payload).into_owned()),
        };
        let json = text.ok().and_then(|text| Json::parse(text).ok()).ok_or("a display that is not JSON")?;
        documents.push((mime, json));
    }
    let content = DisplayContent {
        data: Bundle(&documents),
        metadata: &display.metadata,
        transient: count.is_none().then_some(&display.transient),
        execution_count: count,
    };
    Json::of(&content).map_err(|_| "a display that cannot be written")
}

#[derive(Serialize)]
struct DisplayContent<'a> {
    data: Bundle<'a>,
    metadata: &'a Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    transient: Option<&'a Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_count: Option<u32>,
}

/// MIME types and their values, in the worker's order.
struct Bundle<'a>(&'a [(&'a String, Json)]);

impl Serialize for Bundle<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(mime, json)| (mime, json)))
    }
}

fn plain_text(data: &[Mime], payloads: &[Bytes]) -> Option<String> {
    let index = data.iter().position(|mime| mime.mime == "text/plain")?;
    payloads.get(index).map(|text| String::from_utf8_lossy(text).into_owned())
}
