//! The kinds of ZeroMQ sockets and which may talk to which (RFC 37, "socket-type").

/// The kind of a socket, as READY names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 28 and RFC 29 define the names")]
pub enum SocketType {
    Req,
    Rep,
    Dealer,
    Router,
    Sub,
    Xpub,
    Xsub,
}

impl SocketType {
    const NAMES: [(&str, SocketType); 7] = [
        ("REQ", SocketType::Req),
        ("REP", SocketType::Rep),
        ("DEALER", SocketType::Dealer),
        ("ROUTER", SocketType::Router),
        ("SUB", SocketType::Sub),
        ("XPUB", SocketType::Xpub),
        ("XSUB", SocketType::Xsub),
    ];

    /// The type of that name; `None` for kinds that no socket of ours could talk to.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, kind)| *kind)
    }

    /// The name as READY carries it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SocketType::Req => "REQ",
            SocketType::Rep => "REP",
            SocketType::Dealer => "DEALER",
            SocketType::Router => "ROUTER",
            SocketType::Sub => "SUB",
            SocketType::Xpub => "XPUB",
            SocketType::Xsub => "XSUB",
        }
    }

    /// Whether a socket of this kind may be bound here and answer a peer of that kind.
    #[must_use]
    pub fn accepts(self, peer: SocketType) -> bool {
        use SocketType::{Dealer, Rep, Req, Router, Sub, Xpub, Xsub};
        match self {
            Router => matches!(peer, Dealer | Req | Router),
            Xpub => matches!(peer, Sub | Xsub),
            Rep => matches!(peer, Req | Dealer),
            Req | Dealer | Sub | Xsub => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for (name, kind) in SocketType::NAMES {
            assert_eq!(SocketType::parse(name.as_bytes()), Some(kind));
            assert_eq!(kind.name(), name);
        }
        assert_eq!(SocketType::parse(b"PAIR"), None);
        assert_eq!(SocketType::parse(b"router"), None);
    }
}
