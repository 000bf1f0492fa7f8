//! Z85 (RFC 32): how ZeroMQ writes keys, four bytes in five printable characters.

use zeroize::Zeroizing;

const DIGITS: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
/// Characters of a key.
pub(super) const KEY_TEXT_BYTES: usize = 40;

/// The text of a key.
pub(super) fn encode(key: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(KEY_TEXT_BYTES));
    for word in key.as_chunks::<4>().0 {
        let number = u32::from_be_bytes(*word);
        for power in [85 * 85 * 85 * 85, 85 * 85 * 85, 85 * 85, 85, 1] {
            let digit = usize::try_from(number / power % 85).unwrap_or_default();
            text.push(DIGITS.get(digit).copied().map_or('0', char::from));
        }
    }
    text
}

/// The key of a text; `None` when it is none.
pub(super) fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let text: &[u8; KEY_TEXT_BYTES] = text.as_bytes().try_into().ok()?;
    let mut key = Zeroizing::new([0; 32]);
    for (word, digits) in key.as_chunks_mut::<4>().0.iter_mut().zip(text.as_chunks::<5>().0) {
        let mut number = 0u64;
        for digit in digits {
            number = number * 85 + DIGITS.iter().position(|known| known == digit)? as u64;
        }
        *word = u32::try_from(number).ok()?.to_be_bytes();
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        let bytes = [0x86, 0x4f, 0xd2, 0x6f, 0xb5, 0x59, 0xf7, 0x5b];
        let mut key = [0; 32];
        key[..8].copy_from_slice(&bytes);
        let text = format!("HelloWorld{}", "0".repeat(30));
        assert_eq!(*encode(&key), text);
        assert_eq!(decode(&text).map(|found| *found), Some(key));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            String::new(),
            "0".repeat(39),
            "0".repeat(41),
            format!("{}é", "0".repeat(38)),
            "~".repeat(40),
            // More than four bytes can say.
            "#".repeat(40),
        ] {
            assert!(decode(&text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_key_is_read_back(key in any::<[u8; 32]>()) {
            prop_assert_eq!(decode(&encode(&key)).map(|found| *found), Some(key));
        }
    }
}
