//! How the peers of one socket prove who they are, beyond what their messages say.

use std::sync::Arc;

use super::curve::{Authorized, CurveServer};
use super::fault::Fault;
use super::greeting::Mechanism;
use super::stream::Stream;

/// What a socket asks of those who connect.
#[derive(Clone, Debug, Default)]
pub enum Security {
    /// Nothing: the layer above looks at signatures.
    #[default]
    Open,
    /// They are processes of this user, which the system knows of Unix sockets.
    SameUser(u32),
    /// They have one of these keys; what is said is encrypted.
    Curve(Arc<CurveServer>, Authorized),
}

impl Security {
    pub(super) fn mechanism(&self) -> Mechanism {
        match self {
            Security::Open | Security::SameUser(_) => Mechanism::Null,
            Security::Curve(..) => Mechanism::Curve,
        }
    }

    /// Looks at a connection before anything is said.
    pub(super) fn look(&self, stream: &Stream) -> Result<(), Fault> {
        match self {
            Security::Open | Security::Curve(..) => Ok(()),
            Security::SameUser(user) => match stream.user()? {
                found if found == *user => Ok(()),
                other => Err(Fault::OtherUser(other)),
            },
        }
    }
}
