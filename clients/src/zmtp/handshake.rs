//! Greeting and READY with a peer that has just connected.
//!
//! The NULL mechanism: greetings cross, the peer says READY, and the answer is ours or an ERROR. Our READY is
//! not sent here: it is the first message in the queue of the peer, so that nothing can be queued before it.

use super::codec::{Caps, Decoder, Encoded, Item};
use super::command::{Command, Ready, encode_error};
use super::fault::Fault;
use super::greeting::{GREETING_BYTES, Greeting, Mechanism};
use super::socket_type::SocketType;
use super::stream::{ReadHalf, WriteHalf};

/// Shakes hands as a socket of that kind, up to the peer's READY. The decoder holds what the peer sent after it.
pub(super) async fn shake(
    read: &mut ReadHalf,
    write: &WriteHalf,
    kind: SocketType,
) -> Result<(Ready, Decoder), Fault> {
    write.write_all(&Greeting::encode(Mechanism::Null)).await?;
    let (greeting, mut decoder) = greeting(read).await?;
    let ready = match greeting.mechanism {
        Mechanism::Null => ready(read, &mut decoder).await?,
    };
    match ready.socket_type {
        Some(peer) if kind.accepts(peer) => Ok((ready, decoder)),
        _ => Err(refuse(write, "incompatible socket type").await),
    }
}

/// Tells the peer why it is refused; the fault is the same.
pub(super) async fn refuse(write: &WriteHalf, reason: &'static str) -> Fault {
    let error = Encoded::command(&encode_error(reason));
    // Whether the peer still listens does not matter: it is refused either way.
    write.write_all(&error.to_vec()).await.ok();
    Fault::Refused(reason)
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
    loop {
        match decoder.pull()? {
            Some(Item::Command(body)) => match Command::parse(&body)? {
                Command::Ready(ready) => return Ok(ready),
                Command::Error(reason) => return Err(Fault::Reported(reason)),
                _ => return Err(Fault::Grammar("another command before READY")),
            },
            Some(Item::Message(_)) => return Err(Fault::Grammar("a message before READY")),
            None if read.read(|arrived| decoder.push(arrived)).await? => {}
            None => return Err(Fault::Ended),
        }
    }
}
