//! The bounds of one socket: the rows of `cob_protocol::limits` by default, others in tests.

use std::time::Duration;

use cob_protocol::limits;

use super::codec::Caps;

/// What one socket allows its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What one peer may send.
    pub caps: Caps,
    /// Time for greeting and READY.
    pub handshake: Duration,
    /// Time to finish a message, or to bring another `READ_AHEAD_BYTES_MAX` of it.
    pub message_stall: Duration,
    /// Time in which a subscriber over half its queue must have read something worth mentioning.
    pub subscriber_stall: Duration,
    /// What is worth mentioning, in bytes.
    pub subscriber_progress_bytes: usize,
    /// Peers whose handshake is done.
    pub peers: usize,
    /// Peers whose handshake is not done; a newcomer displaces the oldest.
    pub half_open: usize,
    /// Bytes queued for one peer in the data lane.
    pub queue_bytes: usize,
    /// Bytes queued for one peer in the control lane.
    pub control_queue_bytes: usize,
    /// Bytes of incomplete messages of all peers.
    pub inbound_bytes: usize,
    /// Messages received and not taken.
    pub inbox: usize,
    /// Bytes of messages received and not taken.
    pub inbox_bytes: usize,
    /// Subscriptions of one peer.
    pub subscriptions: usize,
    /// Bytes of the topics of one peer.
    pub subscription_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            caps: Caps::default(),
            handshake: Duration::from_millis(limits::ZMTP_HANDSHAKE_MS_MAX),
            message_stall: Duration::from_millis(limits::ZMTP_STALL_MS_MAX),
            subscriber_stall: Duration::from_millis(limits::ZMTP_SUBSCRIBER_STALL_MS_MAX),
            subscriber_progress_bytes: limits::ZMTP_SUBSCRIBER_PROGRESS_BYTES_MIN,
            peers: limits::ZMTP_PEERS_MAX,
            half_open: limits::ZMTP_HALF_OPEN_MAX,
            queue_bytes: limits::ZMTP_PEER_QUEUE_BYTES_MAX,
            control_queue_bytes: limits::ZMTP_CONTROL_QUEUE_BYTES_MAX,
            inbound_bytes: limits::ZMTP_INBOUND_BYTES_MAX,
            inbox: limits::ZMTP_INBOX_MAX,
            inbox_bytes: limits::ZMTP_INBOX_BYTES_MAX,
            subscriptions: limits::ZMTP_SUBSCRIPTIONS_MAX,
            subscription_bytes: limits::ZMTP_SUBSCRIPTION_BYTES_MAX,
        }
    }
}
