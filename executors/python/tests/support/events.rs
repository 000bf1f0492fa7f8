//! What a run has shown.

use std::fs::File;
use std::io::Read;

use cob_protocol::frame::{Done, Frame};

use super::Event;

/// Text of both streams, joined.
pub fn text(events: &[Event]) -> String {
    let bytes = events.iter().filter_map(|event| match event {
        Event::Text(_, bytes) => Some(bytes.as_slice()),
        _ => None,
    });
    String::from_utf8_lossy(&bytes.collect::<Vec<_>>().concat()).into_owned()
}

/// The end of a run.
#[track_caller]
pub fn done(events: &[Event]) -> &Done {
    match events.last() {
        Some(Event::Frame(Frame::Done(done), _)) => done,
        other => panic!("{other:?} is not the end; before: {events:#?}"),
    }
}

/// `text/plain` of a run's result.
pub fn result(events: &[Event]) -> Option<String> {
    events.iter().find_map(|event| match event {
        Event::Frame(Frame::Result(result), payloads) => {
            let index = result.display.data.iter().position(|mime| mime.mime == "text/plain")?;
            Some(String::from_utf8_lossy(&payloads[index]).into_owned())
        }
        _ => None,
    })
}

/// Reads a file of `/proc` that has no length.
pub fn read_text(path: &str) -> String {
    let mut text = String::new();
    File::open(path).unwrap().read_to_string(&mut text).unwrap();
    text
}
