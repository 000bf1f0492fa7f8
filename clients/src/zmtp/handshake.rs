//! Greeting and READY with a peer that has just connected.
//!
//! The NULL mechanism: greetings cross, the peer says READY, and the answer is ours or an ERROR. CURVE: HELLO is answered
//! by WELCOME and INITIATE by READY, or one of them by an ERROR. READY is not sent here: it is the first thing that a peer
//! gets once there is a place for it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::codec::{Caps, Decoder, Encoded, Item};
use super::command::{Command, Ready, encode_error};
use super::curve::{Authorized, CurveServer, Session};
use super::fault::Fault;
use super::greeting::{GREETING_BYTES, Greeting, GreetingError, Mechanism};
use super::security::Security;
use super::socket_type::SocketType;
use super::stream::{ReadHalf, WriteHalf};

/// What is known of a peer after its READY or INITIATE.
#[derive(Debug)]
pub(super) struct Shaken {
    pub(super) ready: Ready,
    /// Holds what the peer sent after it.
    pub(super) decoder: Decoder,
    /// Whether it understands PING: peers of ZMTP 3.0 need not.
    pub(super) can_ping: bool,
    /// Who it is and how to talk to it, under CURVE.
    pub(super) curve: Option<(Arc<str>, Session)>,
}

/// What libzmq tells its user as "authentication failed".
const UNAUTHORISED: &str = "400";

/// Shakes hands as a socket of that kind, up to the peer's READY or INITIATE.
pub(super) async fn shake(
    read: &mut ReadHalf,
    write: &WriteHalf,
    kind: SocketType,
    security: &Security,
) -> Result<Shaken, Fault> {
    let mechanism = security.mechanism();
    write.write_all(&Greeting::encode(mechanism)).await?;
    let (greeting, mut decoder) = agree(read, write, mechanism).await?;
    let (ready, curve) = match security {
        Security::Open | Security::SameUser(_) => (ready(read, &mut decoder).await?, None),
        Security::Curve(server, authorized) => {
            let (name, session) = curve(read, write, &mut decoder, server, authorized).await?;
            (Ready::parse(session.metadata.clone())?, Some((name, session)))
        }
    };
    match ready.socket_type {
        Some(peer) if kind.accepts(peer) => {
            Ok(Shaken { ready, decoder, can_ping: greeting.minor >= 1, curve })
        }
        _ => Err(refuse(write, "incompatible socket type").await),
    }
}

/// Exchanges greetings: both sides must speak of the same mechanism.
async fn agree(
    read: &mut ReadHalf,
    write: &WriteHalf,
    mechanism: Mechanism,
) -> Result<(Greeting, Decoder), Fault> {
    match greeting(read).await {
        Ok(found) if found.0.mechanism == mechanism => Ok(found),
        Ok(_) | Err(Fault::Greeting(GreetingError::Mechanism)) => {
            Err(decline(write, "another security mechanism is required", GreetingError::Mechanism.into())
                .await)
        }
        Err(fault) => Err(fault),
    }
}

/// Tells the peer why it is refused; the fault is the same.
pub(super) async fn refuse(write: &WriteHalf, reason: &'static str) -> Fault {
    decline(write, reason, Fault::Refused(reason)).await
}

/// Tells the peer as much of a fault as concerns it.
async fn decline(write: &WriteHalf, reason: &'static str, fault: Fault) -> Fault {
    let error = Encoded::command(&encode_error(reason));
    // Whether the peer still listens does not matter: it is refused either way.
    write.write_all(&error.to_vec()).await.ok();
    fault
}

async fn greeting(read: &mut ReadHalf) -> Result<(Greeting, Decoder), Fault> {
    let mut bytes = Vec::with_capacity(GREETING_BYTES);
    loop {
        if !read.read(|arrived| bytes.extend_from_slice(arrived)).await? {
            return Err(Fault::Ended);
        }
        if let Some(greeting) = Greeting::parse(&bytes)? {
            let mut decoder = Decoder::new(Caps::HANDSHAKE);
            decoder.push(bytes.get(GREETING_BYTES..).unwrap_or_default());
            return Ok((greeting, decoder));
        }
    }
}

async fn ready(read: &mut ReadHalf, decoder: &mut Decoder) -> Result<Ready, Fault> {
    match Command::parse(&command(read, decoder).await?)? {
        Command::Ready(ready) => Ok(ready),
        _ => Err(Fault::Grammar("another command before READY")),
    }
}

/// Everything up to INITIATE, and whose key it is.
async fn curve(
    read: &mut ReadHalf,
    write: &WriteHalf,
    decoder: &mut Decoder,
    server: &Arc<CurveServer>,
    authorized: &Authorized,
) -> Result<(Arc<str>, Session), Fault> {
    let handshake = server.begin()?;
    let welcome = match handshake.hello(&command(read, decoder).await?) {
        Ok(welcome) => welcome,
        Err(error) => return Err(decline(write, UNAUTHORISED, error.into()).await),
    };
    write.write_all(&Encoded::command(&welcome).to_vec()).await?;
    let session = handshake.initiate(&command(read, decoder).await?)?;
    let (authorized, client) = (authorized.clone(), session.client);
    // The disk is waited for where that holds up nobody.
    let found = tokio::task::spawn_blocking(move || authorized.find(&client)).await;
    match found.map_err(io::Error::other)?? {
        Some(name) => Ok((name.into(), session)),
        None => Err(decline(write, UNAUTHORISED, Fault::UnknownKey(client)).await),
    }
}

/// The body of the next command, which is not ERROR.
async fn command(read: &mut ReadHalf, decoder: &mut Decoder) -> Result<Bytes, Fault> {
    loop {
        match decoder.pull()? {
            Some(Item::Command(body)) => match Command::parse(&body)? {
                Command::Error(reason) => return Err(Fault::Reported(reason)),
                _ => return Ok(body),
            },
            Some(Item::Message(_)) => return Err(Fault::Grammar("a message before the handshake is done")),
            None if read.read(|arrived| decoder.push(arrived)).await? => {}
            None => return Err(Fault::Ended),
        }
    }
}
