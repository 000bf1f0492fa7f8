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
    /// A peer that says nothing for this long is asked whether it is there, and given up after as long again. `None`:
    /// silence is nobody's business.
    pub silence: Option<Duration>,
    /// Time in which a peer that is behind must have read something worth mentioning.
    pub subscriber_stall: Duration,
    /// What is worth mentioning, in bytes.
    pub subscriber_progress_bytes: usize,
    /// Peers whose handshake is done.
    pub peers: usize,
    /// Peers whose handshake is not done; a newcomer displaces the oldest.
    pub half_open: usize,
    /// Bytes in the data lane beyond which a peer is behind, and whoever waits for room waits; half of the queue if
    /// that is less.
    pub send_ahead: usize,
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
            silence: None,
            subscriber_stall: Duration::from_millis(limits::ZMTP_SUBSCRIBER_STALL_MS_MAX),
            subscriber_progress_bytes: limits::ZMTP_SUBSCRIBER_PROGRESS_BYTES_MIN,
            peers: limits::ZMTP_PEERS_MAX,
            half_open: limits::ZMTP_HALF_OPEN_MAX,
            send_ahead: limits::ZMTP_PEER_QUEUE_BYTES_MAX / 2,
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

impl Limits {
    /// Bytes in the data lane beyond which a peer is behind.
    pub(super) fn behind(&self) -> usize {
        self.send_ahead.min(self.queue_bytes / 2)
    }

    /// For a socket that agents connect to: one peer holds up nobody but itself, so it may be slow, but not dead.
    #[must_use]
    pub fn agents() -> Self {
        Limits {
            silence: Some(Duration::from_millis(limits::PEER_SILENCE_MS)),
            subscriber_stall: Duration::from_millis(limits::SLOW_PEER_MS_MAX),
            subscriber_progress_bytes: 1,
            send_ahead: limits::AGENT_SEND_AHEAD_BYTES_MAX,
            ..Limits::default()
        }
    }
}
