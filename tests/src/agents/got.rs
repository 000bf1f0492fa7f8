//! Messages as an agent gets them.

use std::fmt;

use bytes::Bytes;
use cob_protocol::signing::{ReplayWindow, Signer};
use cob_protocol::wire;
use serde_json::Value;

use crate::history::Entry;

/// A message that came.
#[derive(Clone)]
pub struct Got {
    /// Its type.
    pub msg_type: String,
    /// Id of the request that caused it; empty when none did.
    pub parent: String,
    /// Its metadata.
    pub metadata: Value,
    /// Its content.
    pub content: Value,
    /// The same, byte for byte.
    pub text: String,
}

impl Got {
    /// Reads the parts of a message.
    ///
    /// # Panics
    /// When they are none, or signed otherwise.
    pub(crate) fn read(parts: &[Bytes], signer: &Signer) -> Self {
        let window = &mut ReplayWindow::default();
        let (message, parent) = wire::parse_answer(parts, signer, window).expect("a signed message");
        let parent: Value = serde_json::from_slice(&parent).unwrap_or_default();
        let text = String::from_utf8(message.content.to_vec()).expect("JSON is UTF-8");
        Self {
            msg_type: message.header.msg_type,
            parent: parent["msg_id"].as_str().unwrap_or_default().to_owned(),
            metadata: message.metadata.read().unwrap_or_default(),
            content: serde_json::from_str(&text).expect("content that is JSON"),
            text,
        }
    }

    /// Whether it is the one reply to this request.
    #[must_use]
    pub fn is_reply_to(&self, id: &str) -> bool {
        self.parent == id && self.msg_type.ends_with("_reply")
    }

    /// Whether it is an event of this subscription.
    #[must_use]
    pub fn is_event_of(&self, subscription: &str) -> bool {
        self.msg_type == "event" && self.content["subscription"] == subscription
    }

    /// The number of an event; 0 if it is none.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.content["number"].as_u64().unwrap_or_default()
    }

    /// The kind of an event; empty if it is none.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.content["kind"].as_str().unwrap_or_default()
    }

    /// What it shows of a stream; empty for everything else.
    #[must_use]
    pub fn stream(&self) -> &str {
        let is_stream = self.kind() == "stream";
        self.content["content"]["text"].as_str().filter(|_| is_stream).unwrap_or_default()
    }

    /// What a front end would be shown, for the history; `None` for what it would not see.
    pub(crate) fn broadcast(&self) -> Option<Entry> {
        let msg_type = match self.kind() {
            "stream" => "stream",
            "display" => "display_data",
            "update_display" => "update_display_data",
            "result" => "execute_result",
            "clear_output" => "clear_output",
            "error" => "error",
            _ => return None,
        };
        let (msg_type, content) = (msg_type.to_owned(), self.content["content"].clone());
        Some(Entry::Saw { msg_type, content, is_late: false })
    }
}

impl fmt::Debug for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self.text.chars().take(400).collect();
        write!(f, "{} for {:?}: {text}", self.msg_type, self.parent)
    }
}

/// The text of all these events together.
#[must_use]
pub fn text(events: &[Got]) -> String {
    events.iter().map(Got::stream).collect()
}

/// The events are 1..n without gaps, and the last one is `done`, which says so.
///
/// # Panics
/// When they are not.
#[track_caller]
pub fn are_whole(events: &[Got]) {
    let numbers: Vec<u64> = events.iter().map(Got::number).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>(), "{events:#?}");
    let last = events.last().expect("an event");
    assert_eq!((last.kind(), last.content["content"]["last"].as_u64()), ("done", Some(last.number() - 1)));
}
