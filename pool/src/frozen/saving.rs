//! A bundle on its way out of a checkpoint: a process that was forked off it writes records into a pipe.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use cob_protocol::bundle::{RECORD_HEAD_BYTES, RecordHead, Tag};
use cob_protocol::limits::{
    BUNDLE_PIPE_BYTES, LAST_WORDS_MS_MAX, SAVE_MS_MAX, SENTENCE_BYTES_MAX, WORKER_START_MS_MAX,
};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::freezing::cut;
use super::records::{Progress, first};
use super::task::Wanted;
use super::{FreezeError, Frozen, GONE};
use crate::life::Life;

/// A bundle that is being written by a worker. Dropping it ends the process that writes.
#[derive(Debug)]
pub struct Saving {
    pipe: pipe::Receiver,
    buffer: BytesMut,
    progress: Progress,
    is_over: bool,
    deadline: Instant,
    life: Life,
    _lifeline: OwnedFd,
    /// Its parent, which says how it ended.
    _checkpoint: Frozen,
}

impl Frozen {
    /// Has a process that is forked off it write down what the session holds.
    ///
    /// # Errors
    /// [`FreezeError::Failed`]
    pub async fn save(&self) -> Result<Saving, FreezeError> {
        let system = |error: io::Error| failed(format!("there is no way for a bundle: {error}"));
        let deadline = Instant::now() + Duration::from_millis(SAVE_MS_MAX);
        let (reader, pipe) = bundle_pipe().map_err(system)?;
        let reader = pipe::Receiver::from_owned_fd(reader).map_err(system)?;
        let (lifeline, ours) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| system(error.into()))?;
        let (answer, answered) = oneshot::channel();
        let forked = async {
            self.0.wanted.send(Wanted::Saver { pipe, lifeline, answer }).await.ok()?;
            answered.await.ok()
        };
        let forked = timeout(Duration::from_millis(WORKER_START_MS_MAX), forked).await;
        let late = |_| failed("the checkpoint does not answer".to_owned());
        let life = forked.map_err(late)?.unwrap_or_else(|| Err(GONE.to_owned())).map_err(failed)?;
        Ok(Saving {
            pipe: reader,
            buffer: BytesMut::new(),
            progress: Progress::default(),
            is_over: false,
            deadline,
            life,
            _lifeline: ours,
            _checkpoint: self.clone(),
        })
    }
}

impl Saving {
    /// The next record; `None` after the end of the bundle. Cancel-safe.
    ///
    /// # Errors
    /// When the writer ends before the bundle does, takes too long, or writes what is no bundle: what it said of it.
    pub async fn next(&mut self) -> Result<Option<(Tag, Bytes)>, FreezeError> {
        if self.is_over {
            return Ok(None);
        }
        let next = timeout_at(self.deadline, self.read()).await;
        let late = |_| failed(format!("the bundle was not written within {} s", SAVE_MS_MAX / 1000));
        let next = next.map_err(late).flatten();
        match &next {
            Ok((Tag::End, _)) => self.is_over = true,
            Ok(_) => {}
            // Nothing more is read, and the writer must not wait for that.
            Err(_) => {
                self.is_over = true;
                self.life.kill();
            }
        }
        next.map(Some)
    }

    async fn read(&mut self) -> Result<(Tag, Bytes), FreezeError> {
        let nonsense =
            |what: &str| failed(format!("the process that wrote the bundle is of no use: it wrote {what}"));
        loop {
            match first(&self.buffer).map_err(|error| nonsense(&format!("what is no bundle ({error})")))? {
                Ok(head) => return self.record(head).map_err(nonsense)?,
                Err(wanted) => self.buffer.reserve(wanted - self.buffer.len()),
            }
            match self.pipe.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(self.ended().await),
                Ok(_) => {}
                Err(error) => return Err(failed(format!("the bundle cannot be read: {error}"))),
            }
        }
    }

    /// Takes a record that is there.
    fn record(&mut self, head: RecordHead) -> Result<Result<(Tag, Bytes), FreezeError>, &'static str> {
        self.progress.take(head)?;
        self.buffer.advance(RECORD_HEAD_BYTES);
        let bytes = self.buffer.split_to(head.bytes).freeze();
        if head.tag == Tag::Failed {
            let mut sentence = String::from_utf8_lossy(&bytes).into_owned();
            cut(&mut sentence, SENTENCE_BYTES_MAX);
            return Ok(Err(FreezeError::Failed(sentence)));
        }
        Ok(Ok((head.tag, bytes)))
    }

    /// It wrote no end, and nothing more.
    async fn ended(&mut self) -> FreezeError {
        let life = &mut self.life;
        let gone = async { while life.ended().is_none() && life.changed().await.is_ok() {} };
        let _ = timeout(Duration::from_millis(LAST_WORDS_MS_MAX), gone).await;
        failed(match self.life.ended() {
            Some(exit) => format!("the process that wrote the bundle {exit}"),
            None => "the process that wrote the bundle has stopped to write".to_owned(),
        })
    }
}

fn failed(why: String) -> FreezeError {
    FreezeError::Failed(why)
}

/// The way of a bundle: its reading end, its writing end.
pub(super) fn bundle_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // Unprivileged users may have used up their share of pipe memory; a smaller pipe is only slower.
    let _ = fcntl_setpipe_size(&reader, BUNDLE_PIPE_BYTES);
    Ok((reader, writer))
}
