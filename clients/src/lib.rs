//! How clients reach cob: the sockets that the server binds for them.

pub mod agent;
pub mod notebook;
mod verifier;
pub mod zmtp;
