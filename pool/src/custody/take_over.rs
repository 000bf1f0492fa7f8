//! How a server gets back a worker whose last server is gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use cob_protocol::crash_point;
use cob_protocol::frame::StreamName;
use cob_protocol::page::epoch_byte;
use rustix::process::Pid;
use tokio::net::UnixStream;

use super::process::is_hung_up;
use super::wire::{Ask, Belongings, Held, Reply};
use super::{Custodian, CustodyError, Progress};
use crate::drain::Drain;
use crate::enclosure::Enclosure;
use crate::frame_reader::FrameReader;
use crate::frame_writer::FrameWriter;
use crate::life::{Life, Parent, Process};
use crate::page::SharedPage;
use crate::share::Elsewhere;
use crate::staging::{Receipt, Source, unread};
use crate::survival::{Moving, Survival};
use crate::tree::Tree;
use crate::worker::{Parts, Worker};

/// A worker that has another server now.
#[derive(Debug)]
pub struct Taken {
    /// It. Its first frame is `attached`, as soon as it has time for it.
    pub worker: Worker,
    /// What was deposited with it.
    pub note: String,
    /// Who holds it on. It must be deposited again; then the secret that was used may be released.
    pub custodian: Custodian,
}

/// Fetches a worker from the custodian at `custody.0` by the secret `custody.1`. What the store has of it is `recorded`:
/// that does not come a second time.
///
/// # Errors
/// [`CustodyError`]: somebody else has the worker, or nobody any more.
pub async fn take_over(custody: (&Path, &str), recorded: Progress) -> Result<Taken, CustodyError> {
    let (path, secret) = custody;
    let custodian = Custodian::at(path).await?;
    let asked = custodian.ask(Ask::Take { secret: secret.to_owned() }, Vec::new()).await;
    let (held, belongings) = match asked {
        Ok((Reply::Taken { held, refused }, descriptors)) => {
            if refused > 0 {
                tracing::warn!(refused, "somebody came to the custodian with wrong secrets");
            }
            let belongings = Belongings::of(descriptors, held.extras);
            (held, belongings.ok_or_else(|| CustodyError::Worker(incomplete()))?)
        }
        Ok((Reply::Refused { reason }, _)) => return Err(CustodyError::Refused { reason }),
        Ok(_) => return Err(CustodyError::Lost(io::ErrorKind::InvalidData.into())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(CustodyError::WrongSecret);
        }
        Err(error) => return Err(CustodyError::Lost(error)),
    };
    crash_point!("custody_fetched");
    // Where it can be found: at the newer of two sockets, unless the last server died before it sent that.
    let from_next = belongings.next.as_ref().is_some_and(|next| !is_hung_up(next.as_fd()));
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(CustodyError::Worker)?;
    ours.set_nonblocking(true).map_err(CustodyError::Worker)?;
    let kept = ours.try_clone().map_err(CustodyError::Worker)?;
    // First of all: were we killed with it in our hands alone, nobody would ever reach the worker again.
    match custodian.ask(Ask::Move { from_next }, vec![kept.into()]).await {
        Ok((Reply::Done, _)) => {}
        Ok((Reply::Refused { reason }, _)) => return Err(CustodyError::Refused { reason }),
        Ok(_) => return Err(CustodyError::Lost(io::ErrorKind::InvalidData.into())),
        Err(error) => return Err(CustodyError::Lost(error)),
    }
    crash_point!("custody_moved");
    let note = held.note.clone();
    let worker = adopt(*held, belongings, (ours, theirs.into()), recorded).map_err(CustodyError::Worker)?;
    // It is the owner now, and whoever sweeps shall see that until a custodian is.
    worker.lend_to(std::process::id());
    worker.deposited(custodian.clone(), secret.to_owned());
    Ok(Taken { worker, note, custodian })
}

fn incomplete() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it came without its descriptors")
}

/// Makes a worker of what was held.
fn adopt(
    held: Held,
    belongings: Belongings<OwnedFd>,
    (ours, theirs): (std::os::unix::net::UnixStream, OwnedFd),
    recorded: Progress,
) -> io::Result<Worker> {
    let pid = i32::try_from(held.process.pid).ok().and_then(Pid::from_raw).ok_or_else(incomplete)?;
    let tree = Tree::found(held.process, &held.marker, &belongings.pipes());
    let Belongings { stdout, stderr, page, lifeline, pidfd, .. } = belongings;
    let enclosure = match belongings.server {
        Some(server) => Enclosure::Elsewhere(Elsewhere::of(server, tree)?),
        None => Enclosure::found(held.kept, tree),
    };
    let parent = belongings.status.map_or(Parent::Stranger, Parent::Zygote);
    let map = SharedPage::map(&page)?;
    let receipt = Receipt { reader: belongings.receipt_reader, writer: belongings.receipt_writer };
    let survival = Survival::new(held.marker, page, receipt);
    let receipt = &survival.receipt;
    let sources = [(StreamName::Stdout, &stdout), (StreamName::Stderr, &stderr)]
        .map(|(stream, pipe)| Source { stream, pipe: pipe.as_fd(), receipt, page: map.get() });
    let [at_stdout, at_stderr] = recover(sources, recorded)?;
    let stdout = Drain::staged(StreamName::Stdout, stdout, Arc::clone(receipt), at_stdout, true)?;
    let stderr = Drain::staged(StreamName::Stderr, stderr, Arc::clone(receipt), at_stderr, true)?;

    let old = if belongings.next.as_ref().is_some_and(|next| !is_hung_up(next.as_fd())) {
        [Some(belongings.socket), belongings.next]
    } else {
        [Some(belongings.socket), None]
    };
    let old = old
        .into_iter()
        .flatten()
        .map(|socket| UnixStream::from_std(std::os::unix::net::UnixStream::from(socket)));
    let old = old.collect::<io::Result<Vec<_>>>()?;
    let byte = epoch_byte(map.get().replace_socket());
    map.wake();
    let survival = survival.moving(recorded.frames, Moving::new(old, theirs, byte));
    let (read, write) = UnixStream::from_std(ours)?.into_split();
    let mut reader = FrameReader::new(read);
    reader.handshake_done();
    let life = Life::watch(Process { pid, pidfd, parent })?;
    let writer = FrameWriter::held(write);
    let parts = Parts { program: held.program, life, reader, writer, stdout, stderr, enclosure, lifeline };
    Ok(Worker::assemble(parts, map, Some(survival)))
}

/// Finishes what the last server was at, and takes out of the pipes what the store has. Says where each stream stands.
pub(super) fn recover(sources: [Source<'_>; 2], recorded: Progress) -> io::Result<[u64; 2]> {
    let mut totals = [0; 2];
    for (source, total) in sources.iter().zip(&mut totals) {
        *total = source.recover()?;
    }
    for source in sources {
        source.recovered()?;
    }
    for ((source, total), stored) in
        sources.into_iter().zip(&mut totals).zip([recorded.stdout, recorded.stderr])
    {
        // What is not in the pipe cannot be taken out: the worker wrote into the page what it must not.
        let there = unread(source.pipe)?;
        *total = total.saturating_add(source.consume(stored.saturating_sub(*total).min(there))?);
        if *total != stored {
            tracing::warn!(
                total = *total,
                stored,
                stream = source.stream.as_str(),
                "the counts of a pipe differ"
            );
        }
    }
    Ok(totals)
}
