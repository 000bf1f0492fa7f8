//! The ZeroMQ sockets that a client may connect to: ROUTER, XPUB and the heartbeat's REP, in our own bind-side
//! ZMTP 3.1 on tokio.
//!
//! Our own because a socket that faces strangers needs properties which no published crate has together: caps
//! before every allocation, queues bounded in bytes, a deadline on everything a peer can hold open, subscribers
//! that lose nothing while they read and are cut off, with a reason, when they do not. The connecting side is
//! the `zeromq` crate's business and lives elsewhere.
//!
//! From the bytes outwards: [`greeting`], [`command`] and [`codec`] parse and never touch a socket; a `stream`
//! comes from a `listener`; a `connection` shakes hands and then reads for one `peer`, whose `outbox` is
//! written inline by whoever flushes and finished by the connection when the socket would block; [`Router`],
//! [`Hub`] (several ROUTERs with one inbox), [`Xpub`] and [`Heartbeat`] say what a message means. Under [`curve`] what
//! arrives is opened between decoder and connection, and what leaves is sealed between outbox and stream.
//!
//! **Invariants:** one task reads a socket; a message on the wire is never interleaved with another; within a
//! lane nothing overtakes; no byte of a peer can make this module panic, allocate ahead of what arrived, or
//! keep anything for ever.

#![forbid(unsafe_code)]

pub mod codec;
pub mod command;
mod connection;
mod counters;
pub mod curve;
mod endpoint;
mod fault;
mod frames;
pub mod greeting;
mod handshake;
mod heartbeat;
mod hub;
mod inbox;
mod limits;
mod listener;
mod mailbox;
mod outbox;
mod pace;
mod peer;
mod router;
mod security;
mod shared;
mod socket;
mod socket_type;
mod stream;
mod topics;
mod xpub;

pub use codec::Message;
pub use counters::Counters;
pub use endpoint::{Endpoint, EndpointError};
pub use heartbeat::Heartbeat;
pub use hub::{Arrival, Hub, HubPeer, HubSender};
pub use limits::Limits;
pub use outbox::Lane;
pub use peer::{PeerId, SendError};
pub use router::{Incoming, Router, RouterSender};
pub use security::Security;
pub use socket_type::SocketType;
pub use xpub::{Publisher, Welcome, Xpub, XpubEvent};
