//! Tests of the codec: round trips under any chunking, and bytes of strangers.

use proptest::prelude::*;

use super::*;

fn pull_all(decoder: &mut Decoder) -> Result<Vec<Item>, CodecError> {
    let mut items = Vec::new();
    while let Some(item) = decoder.pull()? {
        items.push(item);
    }
    Ok(items)
}

fn decode(bytes: &[u8], caps: Caps) -> Result<Vec<Item>, CodecError> {
    let mut decoder = Decoder::new(caps);
    decoder.push(bytes);
    pull_all(&mut decoder)
}

fn item() -> impl Strategy<Value = Item> {
    let part = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..40),
        2 => (200usize..300).prop_map(|len| vec![7; len]),
        1 => (60_000usize..70_000).prop_map(|len| vec![9; len]),
    ]
    .prop_map(Bytes::from);
    prop_oneof![
        3 => proptest::collection::vec(part, 1..6).prop_map(Item::Message),
        1 => proptest::collection::vec(any::<u8>(), 0..300).prop_map(|body| Item::Command(body.into())),
    ]
}

fn encode(item: &Item) -> Vec<u8> {
    match item {
        Item::Message(parts) => Encoded::message(parts).to_vec(),
        Item::Command(body) => Encoded::command(body).to_vec(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_encoded_is_decoded_however_it_is_cut(
        items in proptest::collection::vec(item(), 0..6),
        cuts in proptest::collection::vec(1usize..5000, 1..50),
    ) {
        let bytes: Vec<u8> = items.iter().flat_map(encode).collect();
        let mut decoder = Decoder::new(Caps::default());
        let (mut rest, mut found, mut cuts) = (bytes.as_slice(), Vec::new(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            decoder.push(now);
            found.extend(pull_all(&mut decoder)?);
            prop_assert!(decoder.allocated() <= decoder.held() + READ_AHEAD_BYTES_MAX);
            rest = later;
        }
        prop_assert_eq!(found, items);
        prop_assert!(!decoder.is_mid_message());
    }

    #[test]
    fn bytes_of_strangers_never_panic_and_never_allocate_ahead(
        chunks in proptest::collection::vec(proptest::collection::vec(
            prop_oneof![0u8..8, any::<u8>()], 0..200), 0..20),
    ) {
        let mut decoder = Decoder::new(Caps::default());
        let mut arrived = 0;
        for chunk in chunks {
            arrived += chunk.len();
            decoder.push(&chunk);
            let outcome = pull_all(&mut decoder);
            prop_assert!(decoder.allocated() <= arrived + READ_AHEAD_BYTES_MAX);
            if outcome.is_err() {
                prop_assert_eq!(decoder.pull(), outcome.map(|_| None));
                break;
            }
        }
    }
}

#[test]
fn huge_lengths_are_refused_at_the_header_in_every_state() {
    for len in [1u64 << 32, 1 << 40, 1 << 63, u64::MAX, MESSAGE_BYTES_MAX as u64 + 1] {
        for (flags, caps, error) in [
            (LONG, Caps::default(), CodecError::MessageTooLarge(len)),
            (LONG | MORE, Caps::default(), CodecError::MessageTooLarge(len)),
            (LONG | COMMAND, Caps::default(), CodecError::CommandTooLarge(len)),
            (LONG, Caps::HANDSHAKE, CodecError::TooManyParts(0)),
            (LONG | COMMAND, Caps::HANDSHAKE, CodecError::CommandTooLarge(len)),
        ] {
            let mut decoder = Decoder::new(caps);
            decoder.push(&[&[flags], len.to_be_bytes().as_slice()].concat());
            assert_eq!(decoder.pull(), Err(error));
            assert!(decoder.allocated() < 64);
        }
    }
}

#[test]
fn a_claimed_length_allocates_only_what_arrives() {
    let mut decoder = Decoder::new(Caps::default());
    decoder.push(&[&[LONG], (MESSAGE_BYTES_MAX as u64).to_be_bytes().as_slice()].concat());
    assert_eq!(decoder.pull(), Ok(None));
    assert!(decoder.is_mid_message());
    assert!(decoder.allocated() <= READ_AHEAD_BYTES_MAX);
}

#[test]
fn a_large_message_never_runs_ahead_by_more_than_an_eighth() {
    let wire = Encoded::message(&[Bytes::from(vec![7; 4 << 20])]).to_vec();
    let mut decoder = Decoder::new(Caps::default());
    for piece in wire.chunks(1000) {
        decoder.push(piece);
        let item = decoder.pull();
        assert!(decoder.allocated() <= decoder.held() + READ_AHEAD_BYTES_MAX.max(decoder.held() / 8));
        assert!(matches!(item, Ok(None | Some(Item::Message(_)))));
    }
    assert!(!decoder.is_mid_message());
}

#[test]
fn endless_parts_are_refused_empty_or_not() {
    let empty = [MORE, 0].repeat(MESSAGE_PARTS_MAX + 1);
    assert_eq!(decode(&empty, Caps::default()), Err(CodecError::TooManyParts(MESSAGE_PARTS_MAX)));
    let caps = Caps { message_bytes: 10, ..Caps::default() };
    let full = [MORE, 1, b'x'].repeat(11);
    assert_eq!(decode(&full, caps), Err(CodecError::MessageTooLarge(1)));
}

#[test]
fn reserved_flags_are_refused() {
    for flags in 0..=u8::MAX {
        let allowed = matches!(flags, 0..=4 | 6);
        assert_eq!(decode(&[flags, 0, 0, 0, 0, 0, 0, 0, 0], Caps::default()).is_ok(), allowed, "{flags:#x}");
    }
}

#[test]
fn a_command_may_stand_between_the_parts_of_a_message() {
    let bytes = [MORE, 1, b'a', COMMAND, 1, b'p', 0, 1, b'b'];
    let parts = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
    let items = vec![Item::Command(Bytes::from_static(b"p")), Item::Message(parts)];
    assert_eq!(decode(&bytes, Caps::default()), Ok(items));
}

#[test]
fn large_parts_are_not_copied() {
    let large = Bytes::from(vec![1; COPIED_PART_BYTES_MAX + 1]);
    let encoded = Encoded::message(&[Bytes::from_static(b"a"), large.clone(), Bytes::from_static(b"b")]);
    assert_eq!(encoded.chunks.len(), 3);
    assert_eq!(encoded.chunks[1].as_ptr(), large.as_ptr());
}
