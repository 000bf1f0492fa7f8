//! Multipart messages to [`Incoming`] and back: `<IDS|MSG>`, signature, header, parent, metadata, content,
//! buffers. (Jupyter messaging specification, "The wire protocol".)
//!
//! The signature is checked before any JSON is parsed; the parts are named once, here, and nowhere counted again.

use bytes::Bytes;
use thiserror::Error;

use crate::json::Json;
use crate::limits::{ID_BYTES_MAX, MESSAGE_PARTS_MAX};
use crate::message::{Header, HeaderWriter, Incoming, Outgoing};
use crate::signing::{ReplayWindow, SignatureError, Signer};
use crate::time::Timestamp;

/// Stands between the routing identities and the message.
pub const DELIMITER: &[u8] = b"<IDS|MSG>";

/// Why a multipart message was dropped.
#[derive(Debug, Error)]
pub enum WireError {
    /// No delimiter, or nothing like a message after it.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// Not signed with our key, or seen before.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Signed well, but its header or metadata cannot be read.
    #[error("malformed: the {part} cannot be read: {source}")]
    Json {
        /// `header` or `metadata`.
        part: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Reads what came after the routing identity of a ROUTER socket.
///
/// # Errors
/// [`WireError`]; the message is to be dropped and counted, the connection may stay.
pub fn parse(parts: &[Bytes], signer: &Signer, window: &mut ReplayWindow) -> Result<Incoming, WireError> {
    parse_answer(parts, signer, window).map(|(message, _)| message)
}

/// As [`parse`], with the header of the message that this one answers: what a client needs.
///
/// # Errors
/// As [`parse`].
pub fn parse_answer(
    parts: &[Bytes],
    signer: &Signer,
    window: &mut ReplayWindow,
) -> Result<(Incoming, Bytes), WireError> {
    if parts.len() > MESSAGE_PARTS_MAX {
        return Err(WireError::Malformed("too many parts"));
    }
    let start = parts
        .iter()
        .position(|part| part.as_ref() == DELIMITER)
        .ok_or(WireError::Malformed("no <IDS|MSG> delimiter"))?;
    let message = parts.get(start + 1..).unwrap_or_default();
    let [signature, header, parent, metadata, content, buffers @ ..] = message else {
        return Err(WireError::Malformed("fewer than five parts after the delimiter"));
    };
    if !signer.verify(signature, &[header, parent, metadata, content]) {
        return Err(SignatureError::Bad.into());
    }
    if signer.is_enabled() {
        window.admit(signature)?;
    }
    let header_json = json("header", header)?;
    let header: Header = header_json.read().map_err(|source| WireError::Json { part: "header", source })?;
    if header.msg_id.len() > ID_BYTES_MAX || header.session.len() > ID_BYTES_MAX {
        return Err(WireError::Malformed("an id is too long"));
    }
    let message = Incoming {
        header,
        header_json,
        metadata: json("metadata", metadata)?,
        content: content.clone(),
        buffers: buffers.to_vec(),
    };
    Ok((message, parent.clone()))
}

fn json(part: &'static str, bytes: &Bytes) -> Result<Json, WireError> {
    let text = std::str::from_utf8(bytes).map_err(|_| WireError::Malformed("text is not UTF-8"))?;
    Json::parse(text).map_err(|source| WireError::Json { part, source })
}

/// Writes a message: delimiter, signature, the four JSON parts, buffers. Identities or topic go before it.
#[must_use]
pub fn write(message: Outgoing, signer: &Signer, headers: &mut HeaderWriter, now: Timestamp) -> Vec<Bytes> {
    let header = headers.write(message.msg_type, now);
    let signed: [Bytes; 4] = [
        header.into(),
        message.parent.into_bytes(),
        message.metadata.into_bytes(),
        message.content.into_bytes(),
    ];
    let [header, parent, metadata, content] = &signed;
    let signature = signer.sign(&[header, parent, metadata, content]);
    let mut parts = Vec::with_capacity(6 + message.buffers.len());
    parts.push(Bytes::from_static(DELIMITER));
    parts.push(signature.into());
    parts.extend(signed);
    parts.extend(message.buffers);
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::{Clock, SystemClock};

    fn signer() -> Signer {
        Signer::new("hmac-sha256", b"secret").unwrap()
    }

    fn sample(buffers: Vec<Bytes>) -> Vec<Bytes> {
        let mut message =
            Outgoing::new("execute_request", Json::object(), Json::parse("{\"code\":\"1\"}").unwrap());
        message.buffers = buffers;
        write(message, &signer(), &mut HeaderWriter::new("client".into()), SystemClock.now())
    }

    fn read(parts: &[Bytes]) -> Result<Incoming, WireError> {
        parse(parts, &signer(), &mut ReplayWindow::default())
    }

    #[test]
    fn what_is_written_can_be_read() {
        let message = read(&sample(vec![Bytes::from_static(b"\0\xff")])).unwrap();
        assert_eq!(message.header.msg_type, "execute_request");
        assert_eq!(message.header.session, "client");
        assert_eq!(message.content.as_ref(), b"{\"code\":\"1\"}");
        assert_eq!(message.buffers, [Bytes::from_static(b"\0\xff")]);
    }

    #[test]
    fn p06_missing_doubled_and_late_delimiters_are_dropped_without_a_panic() {
        let good = sample(vec![]);
        let without: Vec<_> = good[1..].to_vec();
        let late: Vec<_> = good[1..].iter().chain(&good[..1]).cloned().collect();
        let doubled: Vec<_> = good[..1].iter().chain(&good).cloned().collect();
        for parts in [without, late, doubled, vec![], vec![Bytes::new(); MESSAGE_PARTS_MAX + 1]] {
            assert!(read(&parts).is_err());
        }
        for end in 0..good.len() {
            assert!(read(&good[..end]).is_err());
        }
    }

    #[test]
    fn p08_the_same_message_twice_is_a_replay() {
        let (parts, mut window) = (sample(vec![]), ReplayWindow::default());
        assert!(parse(&parts, &signer(), &mut window).is_ok());
        let again = parse(&parts, &signer(), &mut window);
        assert!(matches!(again, Err(WireError::Signature(SignatureError::Replayed))));
    }

    #[test]
    fn a_forged_message_does_not_enter_the_window() {
        let (good, mut window) = (sample(vec![]), ReplayWindow::default());
        let mut forged = good.clone();
        forged[5] = Bytes::from_static(b"{}");
        assert!(matches!(
            parse(&forged, &signer(), &mut window),
            Err(WireError::Signature(SignatureError::Bad))
        ));
        assert!(parse(&good, &signer(), &mut window).is_ok());
    }

    #[test]
    fn a_header_without_date_or_session_is_good_enough() {
        let signer = Signer::new("hmac-sha256", b"").unwrap();
        let parts: Vec<Bytes> =
            [DELIMITER, b"", br#"{"msg_id":"a","msg_type":"kernel_info_request"}"#, b"{}", b"{}", b"{}"]
                .into_iter()
                .map(Bytes::from_static)
                .collect();
        assert!(parse(&parts, &signer, &mut ReplayWindow::default()).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_parts_never_panic(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12), at in 0usize..12) {
            let mut parts: Vec<Bytes> = parts.into_iter().map(Bytes::from).collect();
            parts.insert(at.min(parts.len()), Bytes::from_static(DELIMITER));
            let unsigned = Signer::new("", b"").unwrap();
            let _ = parse(&parts, &unsigned, &mut ReplayWindow::default());
            let _ = read(&parts);
        }
    }
}
