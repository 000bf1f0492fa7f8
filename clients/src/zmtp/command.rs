//! The commands of ZMTP 3.1: READY, ERROR, SUBSCRIBE, CANCEL, PING and PONG (RFC 37).
//!
//! Sans-IO: a command is parsed from and encoded to the body of one command frame.

use bytes::{BufMut, Bytes, BytesMut};
use cob_protocol::limits;

use super::socket_type::SocketType;

/// Longest context of a PING that RFC 37 allows.
const PING_CONTEXT_BYTES_MAX: usize = 16;

/// One command that a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The end of the peer's handshake.
    Ready(Ready),
    /// The peer gives up, and says why.
    Error(Bytes),
    /// The peer wants messages that begin with this topic.
    Subscribe(Bytes),
    /// The peer no longer wants them.
    Cancel(Bytes),
    /// Is anybody there? The context is to be sent back.
    Ping(Bytes),
    /// An answer to a PING; we send none.
    Pong,
    /// A command of a later version, to be ignored.
    Unknown,
}

/// What READY says about a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// `Socket-Type`; `None` when it is missing or none that we know.
    pub socket_type: Option<SocketType>,
    /// `Identity`, up to 255 bytes; empty when the peer leaves the choice to us.
    pub identity: Bytes,
}

/// A command that breaks the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The frame ends before the name does.
    #[error("the name of a command is cut off")]
    Name,
    /// The properties of READY do not add up.
    #[error("a property of READY is cut off")]
    Property,
    /// An identity longer than a frame of an envelope may be.
    #[error("the identity is longer than {} bytes", limits::ID_BYTES_MAX)]
    Identity,
    /// PING without its time to live, or with too long a context.
    #[error("PING is malformed")]
    Ping,
}

impl Command {
    /// Parses the body of a command frame.
    ///
    /// # Errors
    /// [`CommandError`] when the body is cut off or a field is too long.
    pub fn parse(body: &Bytes) -> Result<Command, CommandError> {
        let mut rest = body.clone();
        let name = take_short(&mut rest).ok_or(CommandError::Name)?;
        match name.as_ref() {
            b"READY" => Ready::parse(rest).map(Command::Ready),
            b"ERROR" => Ok(Command::Error(take_short(&mut rest).unwrap_or_default())),
            b"SUBSCRIBE" => Ok(Command::Subscribe(rest)),
            b"CANCEL" => Ok(Command::Cancel(rest)),
            b"PING" => ping(rest).map(Command::Ping),
            b"PONG" => Ok(Command::Pong),
            _ => Ok(Command::Unknown),
        }
    }
}

impl Ready {
    /// Names are compared without regard to case; unknown properties are ignored.
    pub(super) fn parse(mut rest: Bytes) -> Result<Ready, CommandError> {
        let mut ready = Ready::default();
        while !rest.is_empty() {
            let name = take_short(&mut rest).ok_or(CommandError::Property)?;
            let value = take_long(&mut rest).ok_or(CommandError::Property)?;
            if name.eq_ignore_ascii_case(b"Socket-Type") {
                ready.socket_type = SocketType::parse(&value);
            } else if name.eq_ignore_ascii_case(b"Identity") {
                ready.identity = value;
            }
        }
        if ready.identity.len() > limits::ID_BYTES_MAX {
            return Err(CommandError::Identity);
        }
        Ok(ready)
    }

    /// The body of a READY command.
    #[must_use]
    pub fn encode(socket_type: SocketType, identity: &[u8]) -> Bytes {
        let mut body = named(b"READY");
        body.put_slice(&Self::properties(socket_type, identity));
        body.freeze()
    }

    /// What READY says.
    #[must_use]
    pub fn properties(socket_type: SocketType, identity: &[u8]) -> Bytes {
        let mut properties = BytesMut::with_capacity(64);
        property(&mut properties, b"Socket-Type", socket_type.name().as_bytes());
        property(&mut properties, b"Identity", identity);
        properties.freeze()
    }
}

/// The body of an ERROR command; a reason longer than 255 bytes is cut.
#[must_use]
pub fn encode_error(reason: &str) -> Bytes {
    let mut body = named(b"ERROR");
    put_short(&mut body, reason.as_bytes());
    body.freeze()
}

/// The body of a PING without a context. Its time to live is 0, for ever: we ask only who says nothing, so that silence
/// of ours means nothing.
#[must_use]
pub fn encode_ping() -> Bytes {
    let mut body = named(b"PING");
    body.put_u16(0);
    body.freeze()
}

/// The body of the PONG that answers a PING with this context.
#[must_use]
pub fn encode_pong(context: &[u8]) -> Bytes {
    let mut body = named(b"PONG");
    body.put_slice(context);
    body.freeze()
}

fn ping(mut rest: Bytes) -> Result<Bytes, CommandError> {
    // The time to live is advice about when the peer will give us up; it says so by closing.
    let ttl = take(&mut rest, 2);
    if ttl.is_none() || rest.len() > PING_CONTEXT_BYTES_MAX { Err(CommandError::Ping) } else { Ok(rest) }
}

fn named(name: &[u8]) -> BytesMut {
    let mut body = BytesMut::with_capacity(64);
    put_short(&mut body, name);
    body
}

fn property(body: &mut BytesMut, name: &[u8], value: &[u8]) {
    put_short(body, name);
    body.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
    body.put_slice(value);
}

fn put_short(body: &mut BytesMut, text: &[u8]) {
    let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
    body.put_u8(len);
    body.extend(text.iter().take(usize::from(len)));
}

fn take_short(rest: &mut Bytes) -> Option<Bytes> {
    let len = take(rest, 1)?.first().copied()?;
    take(rest, usize::from(len))
}

fn take_long(rest: &mut Bytes) -> Option<Bytes> {
    let len = u32::from_be_bytes(*take(rest, 4)?.first_chunk::<4>()?);
    take(rest, usize::try_from(len).ok()?)
}

fn take(rest: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= rest.len()).then(|| rest.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &[u8]) -> Result<Command, CommandError> {
        Command::parse(&Bytes::copy_from_slice(body))
    }

    #[test]
    fn ready_is_read_back() {
        let body = Ready::encode(SocketType::Dealer, b"\x00\xffid");
        let ready =
            Ready { socket_type: Some(SocketType::Dealer), identity: Bytes::from_static(b"\x00\xffid") };
        assert_eq!(Command::parse(&body), Ok(Command::Ready(ready)));
    }

    #[test]
    fn names_of_properties_have_no_case_and_unknown_ones_are_ignored() {
        let body = b"\x05READY\x0bsocket-TYPE\x00\x00\x00\x03SUB\x03X-a\x00\x00\x00\x01b";
        let ready = Ready { socket_type: Some(SocketType::Sub), identity: Bytes::new() };
        assert_eq!(parse(body), Ok(Command::Ready(ready)));
    }

    #[test]
    fn every_prefix_of_ready_is_an_error_or_a_shorter_ready() {
        let body = Ready::encode(SocketType::Dealer, b"identity");
        for end in 0..body.len() {
            match Command::parse(&body.slice(..end)) {
                Err(CommandError::Name | CommandError::Property) => {}
                Ok(Command::Ready(ready)) => assert_eq!(ready.identity, Bytes::new(), "{end}"),
                other => unreachable!("{end}: {other:?}"),
            }
        }
    }

    #[test]
    fn hostile_commands_are_errors() {
        let long = [b"\x05READY\x08Identity\x00\x00\x01\x00".as_slice(), &[7; 256]].concat();
        for (body, error) in [
            (b"".as_slice(), CommandError::Name),
            (b"\xffREADY", CommandError::Name),
            (b"\x05READY\x08Identity\xff\xff\xff\xffx", CommandError::Property),
            (b"\x05READY\x08Identity\x00\x00", CommandError::Property),
            (&long, CommandError::Identity),
            (b"\x04PING\x00", CommandError::Ping),
            (b"\x04PING\x00\x0012345678901234567", CommandError::Ping),
        ] {
            assert_eq!(parse(body), Err(error), "{body:?}");
        }
    }

    #[test]
    fn the_other_commands_are_read() {
        assert_eq!(parse(b"\x09SUBSCRIBEtopic"), Ok(Command::Subscribe(Bytes::from_static(b"topic"))));
        assert_eq!(parse(b"\x06CANCEL"), Ok(Command::Cancel(Bytes::new())));
        assert_eq!(parse(b"\x04PING\x00\x0actx"), Ok(Command::Ping(Bytes::from_static(b"ctx"))));
        assert_eq!(parse(b"\x05ERROR\x02no"), Ok(Command::Error(Bytes::from_static(b"no"))));
        assert_eq!(parse(b"\x05ERROR\xffno"), Ok(Command::Error(Bytes::new())));
        assert_eq!(parse(&encode_pong(b"ctx")), Ok(Command::Pong));
        assert_eq!(parse(&encode_ping()), Ok(Command::Ping(Bytes::new())));
        assert_eq!(parse(b"\x03NEW"), Ok(Command::Unknown));
    }
}
