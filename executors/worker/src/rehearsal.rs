//! Going through a handshake without a host, in a worker that was just forked.
//!
//! Whatever a forked process writes to for the first time is copied by the system, page by page, and code that runs
//! for the first time is mapped. Done here, that is not paid for when a host waits. Nothing is left behind.

use bytes::Bytes;
use cob_protocol::codec::{FrameDecoder, encode};
use cob_protocol::handshake::{Hello, Ready, VERSIONS};
use cob_protocol::json::Json;

use crate::executor::Introduction;
use crate::surroundings::Surroundings;

/// An environment as it comes with `hello`. Not the one that the process has: the many small pieces of a copy of that
/// would lie on a hundred pages of a heap that imports have left full of holes.
const ENVIRONMENT: Bytes = Bytes::from_static(b"NAME=VALUE\0");

/// Packs and unpacks a `hello`.
pub fn hello() {
    let hello = Hello {
        versions: VERSIONS,
        session: String::new(),
        options: Json::object(),
        umask: None,
        confined: false,
        survives: false,
        resumes: false,
    };
    let Ok(head) = encode(&hello.into(), &[ENVIRONMENT], 1, 0) else { return };
    let mut decoder = FrameDecoder::of_worker();
    decoder.push(&head);
    decoder.push(&ENVIRONMENT);
    if let Ok(Some(envelope)) = decoder.next_frame() {
        drop(Surroundings::parse(&envelope.payloads));
    }
}

/// Packs a `ready` that nobody gets.
pub fn ready(introduction: Introduction) {
    let ready = Ready {
        versions: VERSIONS,
        executor: String::new(),
        pid: std::process::id(),
        language_info: introduction.language_info,
        banner: introduction.banner,
        confinement: Vec::new(),
    };
    drop(encode(&ready.into(), &[], 1, 0));
}
