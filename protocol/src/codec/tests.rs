//! Frames survive the wire in any pieces; what is no frame is refused before anything is allocated for it.

use proptest::prelude::*;

use super::*;
use crate::frame::{Display, Done, DoneStatus, Execute, Mime, MimeEncoding, Ping, Position};
use crate::json::Json;
use crate::limits::{PLAIN_FRAME_BYTES_MAX, REQUEST_FRAME_BYTES_MAX};

fn execute(code: &str) -> (Frame, Vec<Bytes>) {
    let frame = Execute {
        execution: 7,
        count: 3,
        silent: false,
        store_history: true,
        allow_stdin: false,
        user_expressions: Json::object(),
        parent: Json::parse("{\"msg_id\":\"a\"}").unwrap(),
    };
    (frame.into(), vec![Bytes::copy_from_slice(code.as_bytes())])
}

fn display(payloads: &[Vec<u8>]) -> (Frame, Vec<Bytes>) {
    let data = payloads
        .iter()
        .enumerate()
        .map(|(i, _)| Mime { mime: format!("image/x{i}"), encoding: MimeEncoding::Binary })
        .collect();
    let frame = Display {
        execution: 1,
        data,
        metadata: Json::object(),
        transient: Json::object(),
        at: Position { stdout: 1 << 40, stderr: 2 },
    };
    (frame.into(), payloads.iter().map(|p| Bytes::copy_from_slice(p)).collect())
}

fn wire(frame: &Frame, payloads: &[Bytes], sequence: u64) -> Vec<u8> {
    let mut bytes = encode(frame, payloads, sequence, 0).unwrap().to_vec();
    payloads.iter().for_each(|p| bytes.extend_from_slice(p));
    bytes
}

fn decoder() -> FrameDecoder {
    let mut decoder = FrameDecoder::new();
    decoder.handshake_done();
    decoder
}

#[test]
fn a_frame_comes_back_as_it_was_sent() {
    let (frame, payloads) = execute("print('é')");
    let mut decoder = decoder();
    decoder.push(&wire(&frame, &payloads, 9));
    let envelope = decoder.next_frame().unwrap().unwrap();
    assert_eq!(envelope, Envelope { sequence: 9, acknowledged: 0, frame, payloads });
    assert_eq!(decoder.next_frame().unwrap(), None);
}

#[test]
fn a_stamped_frame_is_the_one_encoded_with_those_numbers() {
    let (frame, payloads) = execute("1");
    let stamped = stamp(encode(&frame, &payloads, 0, 0).unwrap(), 5, 6);
    assert_eq!(stamped, encode(&frame, &payloads, 5, 6).unwrap());
}

#[test]
fn every_result_kind_survives_the_trip() {
    let done = Done {
        execution: 1,
        status: DoneStatus::Interrupted,
        user_expressions: Json::object(),
        payload: Json::array(),
        at: Position::default(),
    };
    let (Frame::Display(shown), payloads) = display(&[b"x".to_vec()]) else { unreachable!() };
    let result = crate::frame::ResultValue { count: 4, display: shown.clone() };
    let update = crate::frame::UpdateDisplay(shown);
    for (frame, payloads) in
        [(Frame::from(done), vec![]), (result.into(), payloads.clone()), (update.into(), payloads)]
    {
        let mut decoder = decoder();
        decoder.push(&wire(&frame, &payloads, 1));
        assert_eq!(decoder.next_frame().unwrap().unwrap().frame, frame);
    }
}

#[test]
fn p01_a_frame_over_its_cap_is_refused_before_it_is_read() {
    for claimed in [u32::MAX, PLAIN_FRAME_BYTES_MAX as u32 + 1] {
        let mut decoder = decoder();
        decoder.push(&claimed.to_be_bytes());
        decoder.push(&[Kind::Ping as u8]);
        assert!(matches!(decoder.next_frame(), Err(CodecError::TooLarge { kind: "ping", .. })));
        assert!(decoder.capacity() < 1024);
    }
}

#[test]
fn p01_an_empty_frame_is_a_bad_frame() {
    for kind in [Kind::Ping as u8, 250] {
        let mut decoder = decoder();
        decoder.push(&[0, 0, 0, 0, kind]);
        assert!(matches!(decoder.next_frame(), Err(CodecError::Malformed(_))));
    }
}

#[test]
fn before_the_handshake_only_small_frames_pass() {
    let (frame, payloads) = execute(&"x".repeat(HANDSHAKE_FRAME_BYTES_MAX));
    let mut decoder = FrameDecoder::new();
    decoder.push(&wire(&frame, &payloads, 1));
    assert!(matches!(decoder.next_frame(), Err(CodecError::TooLarge { .. })));
}

#[test]
fn the_largest_frame_of_a_kind_can_be_sent_and_one_byte_more_cannot() {
    let (frame, _) = execute("");
    let overhead = encode(&frame, &[Bytes::new()], 1, 0).unwrap().len() - LENGTH;
    let fits = Bytes::from(vec![b'x'; REQUEST_FRAME_BYTES_MAX - overhead]);
    assert!(encode(&frame, std::slice::from_ref(&fits), 1, 0).is_ok());
    let over = Bytes::from(vec![b'x'; fits.len() + 1]);
    assert!(matches!(encode(&frame, &[over], 1, 0), Err(CodecError::TooLarge { .. })));
}

#[test]
fn what_no_frame_could_claim_is_not_skipped() {
    for (ready, length) in [(false, HANDSHAKE_FRAME_BYTES_MAX + 1), (true, REQUEST_FRAME_BYTES_MAX + 1)] {
        let mut decoder = FrameDecoder::new();
        if ready {
            decoder.handshake_done();
        }
        decoder.push(&u32::try_from(length).unwrap().to_be_bytes());
        decoder.push(&[200]);
        assert!(matches!(decoder.next_frame(), Err(CodecError::TooLarge { kind: "unknown", .. })));
    }
}

#[test]
fn frames_of_unknown_kind_are_skipped_and_counted() {
    let (frame, payloads) = execute("1");
    let mut decoder = decoder();
    let mut unknown = 100_000u32.to_be_bytes().to_vec();
    unknown.push(200);
    unknown.extend(vec![0; 99_999]);
    for chunk in unknown.chunks(1000) {
        decoder.push(chunk);
        assert_eq!(decoder.next_frame().unwrap(), None);
        assert!(decoder.pending_bytes() <= 1000, "what is skipped must not be kept");
    }
    decoder.push(&wire(&frame, &payloads, 2));
    assert_eq!(decoder.next_frame().unwrap().unwrap().sequence, 2);
    assert_eq!(decoder.unknown_frames(), 1);
}

#[test]
fn every_prefix_of_a_conversation_is_either_incomplete_or_whole() {
    let (frame, payloads) = display(&[vec![1, 2, 3], vec![]]);
    let bytes = wire(&frame, &payloads, 1);
    for end in 0..bytes.len() {
        let mut decoder = decoder();
        decoder.push(&bytes[..end]);
        assert_eq!(decoder.next_frame().unwrap(), None, "at {end}");
    }
}

proptest! {
    #[test]
    fn frames_arrive_whole_and_in_order_however_the_bytes_are_cut(
        codes in prop::collection::vec(".{0,40}", 1..6),
        blobs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4),
        cuts in prop::collection::vec(1usize..200, 1..50),
    ) {
        let mut sent = Vec::new();
        let mut bytes = Vec::new();
        for (i, code) in codes.iter().enumerate() {
            let (frame, payloads) = if i % 2 == 0 { execute(code) } else { display(&blobs) };
            bytes.extend(wire(&frame, &payloads, i as u64 + 1));
            sent.push((frame, payloads));
        }
        let mut decoder = decoder();
        let mut got = Vec::new();
        let mut rest = bytes.as_slice();
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            rest = later;
            decoder.push(now);
            while let Some(envelope) = decoder.next_frame().unwrap() {
                prop_assert_eq!(envelope.sequence, got.len() as u64 + 1);
                got.push((envelope.frame, envelope.payloads));
            }
        }
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn arbitrary_bytes_end_in_an_error_or_in_waiting_never_in_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..2000), kind in 0u8..30, length in 0u32..400,
    ) {
        let mut decoder = decoder();
        decoder.push(&length.to_be_bytes());
        decoder.push(&[kind]);
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}
        prop_assert!(decoder.capacity() <= 8192);
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0usize..200, value in any::<u8>()) {
        let (frame, payloads) = execute("x = 1");
        let mut bytes = wire(&frame, &payloads, 1);
        let at = at % bytes.len();
        bytes[at] = value;
        let mut decoder = decoder();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}
    }
}

#[test]
fn a_frame_that_was_cut_short_is_forgotten_with_its_stream() {
    let (frame, payloads) = execute("x = 1");
    let whole = wire(&frame, &payloads, 1);
    let unknown = [0, 0, 0, 9, 250, 0];
    for cut in [&whole[..3], &whole[..whole.len() - 1], &unknown[..]] {
        let mut decoder = decoder();
        decoder.push(cut);
        assert!(decoder.next_frame().unwrap().is_none());
        decoder.reset();
        decoder.push(&whole);
        assert_eq!(decoder.next_frame().unwrap().unwrap().frame, frame);
    }
}

#[test]
fn the_table_is_its_own_inverse() {
    for kind in Kind::ALL {
        assert_eq!(Kind::from_byte(*kind as u8), Some(*kind));
    }
    assert_eq!(Frame::from(Ping { number: 1 }).kind().name(), "ping");
}
