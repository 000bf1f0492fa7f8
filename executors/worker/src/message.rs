//! A frame in wire form, and where it stands among the output.

use std::io::IoSlice;

use bytes::Bytes;
use cob_protocol::frame::{
    Call, ClearOutput, Comm, Display, Done, Failure, Frame, Mark, ResultValue, Stream, UpdateDisplay,
};

use crate::output::Output;

/// Pieces handed to the system at once.
pub(crate) const PIECES: usize = 64;

/// A frame in wire form: its bytes, and its payloads as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) head: &'a Bytes,
    pub(crate) payloads: &'a [Bytes],
}

impl<'a> Message<'a> {
    pub(crate) fn bytes(self) -> usize {
        self.head.len() + self.payloads.iter().map(Bytes::len).sum::<usize>()
    }

    /// Fills `pieces` with what follows the first `skip` bytes; returns how many there are.
    pub(crate) fn pieces(self, mut skip: usize, pieces: &mut [IoSlice<'a>; PIECES]) -> usize {
        let mut count = 0;
        for part in std::iter::once(self.head).chain(self.payloads) {
            match part.get(skip..) {
                Some(rest) if !rest.is_empty() && count < PIECES => {
                    pieces[count] = IoSlice::new(rest);
                    count += 1;
                    skip = 0;
                }
                _ => skip = skip.saturating_sub(part.len()),
            }
        }
        count
    }
}

/// Writes into `frame` where it stands among the output, if it is of a kind that has a place.
pub(crate) fn place(frame: &mut Frame, output: &Output) {
    match frame {
        Frame::Comm(Comm { at, .. })
        | Frame::Call(Call { at, .. })
        | Frame::Mark(Mark { at, .. })
        | Frame::Stream(Stream { at, .. })
        | Frame::Display(Display { at, .. })
        | Frame::UpdateDisplay(UpdateDisplay(Display { at, .. }))
        | Frame::ClearOutput(ClearOutput { at, .. })
        | Frame::Error(Failure { at, .. })
        | Frame::Result(ResultValue { display: Display { at, .. }, .. })
        | Frame::Done(Done { at, .. }) => *at = output.position(),
        Frame::Hello(_)
        | Frame::Ready(_)
        | Frame::Execute(_)
        | Frame::Complete(_)
        | Frame::Inspect(_)
        | Frame::IsComplete(_)
        | Frame::Answer(_)
        | Frame::Shutdown(_)
        | Frame::Ping(_)
        | Frame::Pong(_)
        | Frame::Parked(_)
        | Frame::Attached(_)
        | Frame::Namespace(_)
        | Frame::Freeze(_)
        | Frame::Unfreeze(_)
        | Frame::Load(_)
        | Frame::Log(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(message: &Message<'_>, skip: usize) -> Vec<u8> {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let count = message.pieces(skip, &mut pieces);
        pieces[..count].iter().flat_map(|piece| piece.to_vec()).collect()
    }

    #[test]
    fn pieces_continue_anywhere_in_a_message() {
        let head = Bytes::from("ab");
        let payloads = [Bytes::from("cd"), Bytes::new(), Bytes::from("efg")];
        let message = Message { head: &head, payloads: &payloads };
        for skip in 0..7 {
            assert_eq!(joined(&message, skip), b"abcdefg"[skip..].to_vec(), "from {skip}");
        }
    }

    #[test]
    fn many_payloads_go_out_in_several_turns() {
        let head = Bytes::from("h");
        let payloads = vec![Bytes::from("x"); 3 * PIECES];
        let message = Message { head: &head, payloads: &payloads };
        assert_eq!(joined(&message, 0).len(), PIECES);
        assert_eq!(joined(&message, PIECES).len(), PIECES);
        assert_eq!(joined(&message, message.bytes() - 1).len(), 1);
    }
}
