//! What a bundle may look like on its way: blobs, outline, end. Nothing else, and not more than is allowed.

use cob_protocol::bundle::{RECORD_HEAD_BYTES, RecordHead, Tag};
use cob_protocol::limits::{BUNDLE_BLOBS_MAX, BUNDLE_PIECE_BYTES, OUTLINE_BYTES_MAX};

/// How far a bundle has come that is being saved.
#[derive(Debug, Default)]
pub(super) struct Progress {
    blobs: usize,
    /// Pieces of the present blob have come; whether the last one was full.
    in_blob: Option<bool>,
    outline_bytes: usize,
}

impl Progress {
    /// Whether `head` may come next.
    ///
    /// # Errors
    /// What is wrong, to be put after "it wrote".
    pub(super) fn take(&mut self, head: RecordHead) -> Result<(), &'static str> {
        let RecordHead { tag, bytes } = head;
        match tag {
            Tag::Piece | Tag::BlobEnd if self.outline_bytes > 0 => return Err("a blob behind the outline"),
            Tag::Piece if self.in_blob == Some(false) => return Err("a piece behind the last one of a blob"),
            Tag::Piece if bytes == 0 => return Err("a piece without bytes"),
            Tag::Piece => self.in_blob = Some(bytes == BUNDLE_PIECE_BYTES),
            Tag::BlobEnd | Tag::End if bytes > 0 => return Err("an end with bytes"),
            Tag::BlobEnd if self.blobs == BUNDLE_BLOBS_MAX => return Err("too many blobs"),
            Tag::BlobEnd => {
                self.blobs += 1;
                self.in_blob = None;
            }
            Tag::Outline | Tag::End if self.in_blob.is_some() => return Err("a blob without an end"),
            Tag::Outline if bytes == 0 => return Err("a part of an outline without bytes"),
            Tag::Outline if self.outline_bytes + bytes > OUTLINE_BYTES_MAX => {
                return Err("too long an outline");
            }
            Tag::Outline => self.outline_bytes += bytes,
            Tag::End if self.outline_bytes == 0 => return Err("a bundle without an outline"),
            Tag::End | Tag::Failed => {}
        }
        Ok(())
    }
}

/// The record that stands at the beginning of `bytes`, or how many bytes of it there must be before more is known.
///
/// # Errors
/// When no record begins so.
pub(super) fn first(bytes: &[u8]) -> Result<Result<RecordHead, usize>, String> {
    let Some(head) = bytes.first_chunk::<RECORD_HEAD_BYTES>() else { return Ok(Err(RECORD_HEAD_BYTES)) };
    let head = RecordHead::from_bytes(*head).map_err(|error| error.to_string())?;
    let whole = RECORD_HEAD_BYTES + head.bytes;
    Ok(if bytes.len() < whole { Err(whole) } else { Ok(head) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judge(records: &[(Tag, usize)]) -> Result<(), &'static str> {
        let mut progress = Progress::default();
        records.iter().try_for_each(|(tag, bytes)| progress.take(RecordHead { tag: *tag, bytes: *bytes }))
    }

    #[test]
    fn a_bundle_is_blobs_then_its_outline_then_the_end() {
        use Tag::{BlobEnd, End, Outline, Piece};
        let full = BUNDLE_PIECE_BYTES;
        judge(&[(Piece, full), (Piece, 1), (BlobEnd, 0), (BlobEnd, 0), (Outline, 7), (Outline, 7), (End, 0)])
            .unwrap();
        judge(&[(Outline, 2), (End, 0)]).unwrap();
        for wrong in [
            &[(End, 0)][..],
            &[(Piece, 1), (Piece, 1)],
            &[(Piece, 0)],
            &[(Piece, 1), (Outline, 1)],
            &[(Outline, 1), (Piece, 1)],
            &[(Outline, 1), (BlobEnd, 0)],
            &[(BlobEnd, 1)],
            &[(Outline, 1), (End, 1)],
            &[(Outline, 0)],
            &[(Piece, full), (End, 0)],
        ] {
            assert!(judge(wrong).is_err(), "{wrong:?}");
        }
        assert!(judge(&vec![(Outline, full); OUTLINE_BYTES_MAX / full + 1]).is_err());
        assert!(judge(&vec![(BlobEnd, 0); BUNDLE_BLOBS_MAX + 1]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_more_than_a_record_or_make_us_wait_for_more_than_one(
            bytes in proptest::collection::vec(any::<u8>(), 0..40)
        ) {
            match first(&bytes) {
                Ok(Ok(head)) => prop_assert!(RECORD_HEAD_BYTES + head.bytes <= bytes.len()),
                Ok(Err(wanted)) => {
                    prop_assert!(wanted > bytes.len() && wanted <= RECORD_HEAD_BYTES + BUNDLE_PIECE_BYTES);
                }
                Err(_) => {}
            }
        }
    }
}
