//! Why a connection ended: one table, from which the log line and the counter follow.

use std::io;

use bytes::Bytes;
use cob_protocol::error::ErrorCode;

use super::codec::CodecError;
use super::command::CommandError;
use super::curve::{CurveError, OpenError, PublicKey};
use super::greeting::GreetingError;

/// The end of a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("the peer closed the connection")]
    Ended,
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the socket was dropped")]
    Dropped,
    #[error("another connection took over the identity")]
    TakenOver,
    #[error("the peer reports: {}", String::from_utf8_lossy(.0))]
    Reported(Bytes),
    #[error("refused: {0}")]
    Refused(&'static str),
    #[error("the handshake was not done in time")]
    HandshakeDeadline,
    #[error("displaced: too many handshakes at once")]
    Displaced,
    #[error("the peer stopped in the middle of a message")]
    MessageStalled,
    #[error("the peer said nothing, not even when it was asked")]
    Silent,
    #[error("it is a process of another user ({0})")]
    OtherUser(u32),
    #[error("{0}")]
    Curve(#[from] CurveError),
    #[error("its key is not authorised; `cob keys add NAME --public '{0}'` lets it in")]
    UnknownKey(PublicKey),
    #[error("{}: too far behind, and it read next to nothing in time", ErrorCode::SlowSubscriber.code())]
    SubscriberStalled,
    #[error("{}: its queue is full", ErrorCode::SlowSubscriber.code())]
    QueueFull,
    #[error("malformed: {0}")]
    Greeting(#[from] GreetingError),
    #[error("malformed: {0}")]
    Codec(#[from] CodecError),
    #[error("malformed: {0}")]
    Command(#[from] CommandError),
    #[error("malformed: {0}")]
    Grammar(&'static str),
    #[error("too many subscriptions")]
    Subscriptions,
}

/// What kind of end it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Nobody's fault.
    Ended,
    /// A peer that speaks ZMTP and may not talk to this socket.
    Rejected,
    /// A peer that is probably gone: nothing of it came for too long.
    Silent,
    /// A peer that does not speak ZMTP properly, or stopped half-way.
    Malformed,
    /// A peer that did not keep up.
    CutOff,
}

impl Fault {
    pub(super) fn class(&self) -> Class {
        match self {
            Fault::Ended | Fault::Io(_) | Fault::Dropped | Fault::TakenOver | Fault::Reported(_) => {
                Class::Ended
            }
            Fault::Silent => Class::Silent,
            Fault::UnknownKey(_) | Fault::Curve(CurveError::OtherServer) => Class::Rejected,
            Fault::Refused(_) | Fault::OtherUser(_) | Fault::HandshakeDeadline | Fault::Displaced => {
                Class::Rejected
            }
            Fault::Greeting(GreetingError::Mechanism | GreetingError::Version(_)) => Class::Rejected,
            Fault::SubscriberStalled | Fault::QueueFull => Class::CutOff,
            Fault::MessageStalled
            | Fault::Greeting(GreetingError::Signature)
            | Fault::Codec(_)
            | Fault::Command(_)
            | Fault::Curve(_)
            | Fault::Grammar(_)
            | Fault::Subscriptions => Class::Malformed,
        }
    }
}

impl From<OpenError> for Fault {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Curve(error) => Fault::Curve(error),
            OpenError::Codec(error) => Fault::Codec(error),
        }
    }
}
