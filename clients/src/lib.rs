//! How clients reach cob: the sockets that the server binds for them.

pub mod notebook;
pub mod zmtp;
