//! How a checkpoint comes to be: a frame to the worker, and the first word of the process that it forked.

use std::io;
use std::time::Duration;

use cob_protocol::checkpoint::Finding;
use cob_protocol::frame::{Freeze, Unfreeze};
use cob_protocol::limits::{
    FINDING_KIND_BYTES_MAX, FINDING_TEXT_BYTES_MAX, FINDINGS_MAX, FREEZE_MS_MAX, LAST_FREEZE_MS_MAX,
};
use cob_protocol::zygote::Report;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::task::Task;
use super::{FreezeError, Frozen};
use crate::frame_writer::{Lane, SendError};
use crate::household::Household;
use crate::life::{Life, Parent, Process};
use crate::limits::WithCheckpoint;
use crate::packets::{Packet, Packets};
use crate::pidfd;
use crate::worker::Worker;

/// A checkpoint that was asked for and has not said a word. Dropping it gives it up.
#[derive(Debug)]
pub struct Freezing {
    outcome: oneshot::Receiver<Result<Frozen, FreezeError>>,
}

impl Freezing {
    /// Waits for it.
    ///
    /// # Errors
    /// [`FreezeError`]
    pub async fn frozen(self) -> Result<Frozen, FreezeError> {
        self.outcome.await.unwrap_or_else(|_| Err(failed("the server is being closed")))
    }
}

/// The checkpoints of a worker that have not said a word. What is left of a worker is ended when these are known, since
/// they look like a part of that.
#[derive(Debug)]
pub(crate) struct OnTheirWay {
    /// Every one of them has a clone. Absent once no more will come.
    mark: Option<mpsc::Sender<()>>,
    last_is_gone: mpsc::Receiver<()>,
    until: Option<Instant>,
}

impl OnTheirWay {
    pub(crate) fn none() -> Self {
        let (mark, last_is_gone) = mpsc::channel(1);
        Self { mark: Some(mark), last_is_gone, until: None }
    }

    /// The worker is gone: waits for the last of them, for a while. Cancel-safe.
    pub(crate) async fn settled(&mut self) {
        self.mark = None;
        let patience = Duration::from_millis(LAST_FREEZE_MS_MAX);
        let until = *self.until.get_or_insert_with(|| Instant::now() + patience);
        // One that takes longer is ended with all else.
        let _ = timeout_at(until, self.last_is_gone.recv()).await;
    }
}

impl Worker {
    /// Asks for a checkpoint. The worker makes it when it comes to it, before any request that is sent after this.
    ///
    /// # Errors
    /// When there are no more descriptors, too much waits for the worker, or it is gone.
    pub fn freeze(&mut self, force: bool) -> io::Result<Freezing> {
        let (control, theirs) = Packets::pair()?;
        let household = self.household();
        let waiting = Waiting {
            program: self.program().to_owned(),
            group: household.expects_checkpoint(),
            household,
            control: control.signed()?,
            mark: self.on_their_way().mark.clone().ok_or(io::ErrorKind::BrokenPipe)?,
        };
        self.send_beside(&Freeze { force }.into(), theirs).map_err(send_failed)?;
        let (sender, outcome) = oneshot::channel();
        tokio::spawn(waiting.run(sender));
        Ok(Freezing { outcome })
    }

    /// No checkpoint of it is left.
    pub fn unfreeze(&mut self) {
        // A worker for which too much waits gets nothing more: what it does not undo costs it nothing.
        let _ = self.send(&Unfreeze {}.into(), Vec::new(), Lane::Data);
    }

    /// Bytes that only it holds. Takes milliseconds where much is mapped, on a thread that may block.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn private_bytes(&self) -> io::Result<u64> {
        super::private_bytes(self.pid()).await
    }
}

pub(super) fn send_failed(error: SendError) -> io::Error {
    match error {
        SendError::Full => io::Error::new(io::ErrorKind::WouldBlock, error),
        SendError::Codec(_) => io::Error::other(error),
    }
}

/// A checkpoint that has not said a word.
struct Waiting {
    program: String,
    household: Household,
    group: Option<WithCheckpoint>,
    control: Packets,
    /// See [`OnTheirWay`].
    mark: mpsc::Sender<()>,
}

impl Waiting {
    /// Waits for its first word, and goes on to look after it. By itself, so that it is spared from its first word on.
    async fn run(self, outcome: oneshot::Sender<Result<Frozen, FreezeError>>) {
        let Self { program, household, group, control, mark } = self;
        match first_word(&control).await {
            Ok((life, findings)) => {
                let (frozen, task) = Task::new(program, household, control, life, findings);
                drop((group, mark));
                // Whoever asked may have gone; then the handle is dropped here, and it ends.
                drop(outcome.send(Ok(frozen)));
                task.run().await;
            }
            Err(error) => drop(outcome.send(Err(error))),
        }
    }
}

/// That of the copy, or of the worker. If neither says one, the connection ends with the last of them.
async fn first_word(control: &Packets) -> Result<(Life, Vec<Finding>), FreezeError> {
    match timeout(Duration::from_millis(FREEZE_MS_MAX), control.receive_signed()).await {
        Ok(Ok(Some(packet))) => read(packet),
        Ok(Ok(None)) => {
            Err(failed("what was to be the checkpoint has ended, or its worker had before it made it"))
        }
        Ok(Err(error)) => Err(failed(&format!("the worker does not keep to the protocol: {error}"))),
        Err(_) => Err(failed(&format!("the worker made no checkpoint within {} s", FREEZE_MS_MAX / 1000))),
    }
}

fn failed(why: &str) -> FreezeError {
    FreezeError::Failed(why.to_owned())
}

/// What the first word says: that of the process that waits, or of the worker.
fn read(packet: Packet) -> Result<(Life, Vec<Finding>), FreezeError> {
    let Packet { bytes, descriptors, sender } = packet;
    let nonsense = |why: &str| failed(&format!("the worker does not keep to the protocol: {why}"));
    match Report::decode(&bytes).map_err(|error| nonsense(&error.to_string()))? {
        Report::Refused { findings } => {
            let findings = bounded(findings);
            match findings.iter().any(|finding| finding.blocks) {
                true => Err(FreezeError::Refused(findings)),
                false => Err(nonsense("it refuses for no reason")),
            }
        }
        Report::Frozen { pid, findings } => {
            // Only who waits speaks here, so that nobody else is ended in its place.
            let said_so = sender.is_some_and(|it| it.as_raw_pid().unsigned_abs() == pid);
            if !said_so {
                return Err(nonsense("another process speaks for the one that waits"));
            }
            let named = pidfd::named(pid, descriptors).map_err(|error| nonsense(&error.to_string()))?;
            let (pid, pidfd) = named.ok_or_else(|| failed(super::GONE))?;
            let life = Life::watch(Process { pid, pidfd, parent: Parent::Stranger });
            let life = life.map_err(|error| failed(&format!("it cannot be watched: {error}")))?;
            Ok((life, bounded(findings)))
        }
        _ => Err(nonsense("it speaks as a zygote does")),
    }
}

/// Not more than is worth reading.
fn bounded(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.truncate(FINDINGS_MAX);
    for finding in &mut findings {
        cut(&mut finding.kind, FINDING_KIND_BYTES_MAX);
        cut(&mut finding.text, FINDING_TEXT_BYTES_MAX);
    }
    findings
}

pub(super) fn cut(text: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

    use super::*;

    fn finding(kind: &str, text: &str, blocks: bool) -> Finding {
        Finding { kind: kind.to_owned(), text: text.to_owned(), blocks }
    }

    fn packet(report: &Report) -> Packet {
        let descriptors = vec![pidfd_open(getpid(), PidfdFlags::empty()).unwrap()];
        Packet { bytes: report.encode().unwrap(), descriptors, sender: Some(getpid()) }
    }

    #[tokio::test]
    async fn only_a_process_that_speaks_for_itself_is_a_checkpoint() {
        let frozen = |pid| Report::Frozen { pid, findings: Vec::new() };
        let other = Packet { sender: Pid::from_raw(1), ..packet(&frozen(1)) };
        let nobody = Packet { sender: None, ..packet(&frozen(std::process::id())) };
        let strange = packet(&Report::Forked { number: 1, pid: 1 });
        for packet in [packet(&frozen(1)), other, nobody, strange] {
            let error = read(packet).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("protocol"), "{error}");
        }
    }

    #[test]
    fn what_a_worker_says_is_cut_to_what_is_worth_reading() {
        let many =
            vec![finding(&"k".repeat(1000), &"ü".repeat(FINDING_TEXT_BYTES_MAX), true); FINDINGS_MAX + 7];
        let Err(FreezeError::Refused(findings)) = read(packet(&Report::Refused { findings: many })) else {
            unreachable!("it was refused")
        };
        assert_eq!(findings.len(), FINDINGS_MAX);
        assert_eq!(findings[0].kind.len(), FINDING_KIND_BYTES_MAX);
        assert_eq!(findings[0].text.len(), FINDING_TEXT_BYTES_MAX - FINDING_TEXT_BYTES_MAX % 2);
        let none = read(packet(&Report::Refused { findings: vec![finding("file", "a file", false)] }));
        assert!(matches!(none, Err(FreezeError::Failed(_))));
    }
}
