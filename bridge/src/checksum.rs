//! A checksum of what was written, to find what a disk has changed. Not against people: that is what the audit trail
//! is for.
//!
//! Every step is a bijection of the state for a given word, and of the word for a given state, so a change within one
//! word of eight bytes is always found, and any other but for a chance of 2^-64. It runs at several gigabytes per
//! second, where SHA-256 would take as long as all the rest of a commit.

/// See the module.
#[derive(Clone, Copy)]
pub(crate) struct Checksum(u64);

impl Checksum {
    /// Of a row of this kind: rows of two tables never look alike.
    pub(crate) fn of(table: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15).word(table)
    }

    fn word(self, word: u64) -> Self {
        Self((self.0 ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29))
    }

    pub(crate) fn int(self, value: i64) -> Self {
        self.word(value.cast_unsigned())
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let sum = self.word(bytes.len() as u64);
        let sum = words.iter().fold(sum, |sum, word| sum.word(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        sum.word(u64::from_le_bytes(last))
    }

    /// Nothing differs from every value.
    pub(crate) fn optional<T>(self, value: Option<T>, some: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            None => self.word(0),
            Some(value) => some(self.word(1), value),
        }
    }

    pub(crate) fn finish(self) -> i64 {
        let Self(sum) = self.word(0);
        (sum ^ (sum >> 31)).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_seen() {
        let bytes: Vec<u8> = (0..=40).collect();
        let sum = |bytes: &[u8]| Checksum::of(1).bytes(bytes).finish();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(sum(&flipped), sum(&bytes), "bit {bit}");
        }
        assert_ne!(sum(&[]), sum(&[0]));
        assert_ne!(sum(&[0; 8]), sum(&[0; 16]));
    }
}
