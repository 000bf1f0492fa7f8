//! Sessions at one moment: a process that was forked off a worker, waits, and forks workers that go on from there.
//!
//! | file | what lives there |
//! |---|---|
//! | `task` | the task that owns the process and the connection to it |
//! | `freezing` | how one comes to be |
//! | `thaw` | workers that go on from one |
//! | `saving`, `loading` | bundles on their way out of one, and into a worker |
//! | `records` | what a bundle may look like on the way |
//!
//! **Invariants:** a checkpoint ends with the last handle on it, or when memory runs out before the live worker does;
//! whatever is ended for the sake of a worker spares the checkpoints of its session, and the workers that came of them.

mod freezing;
mod loading;
mod records;
mod saving;
mod task;
mod thaw;

use std::io;
use std::sync::Arc;

use cob_protocol::checkpoint::Finding;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

pub use freezing::Freezing;
pub(crate) use freezing::OnTheirWay;
pub use loading::Loading;
pub use saving::Saving;
pub use thaw::{Place, Thaw};

use crate::enclosure::UnderWay;
use crate::household::Household;
use crate::usage::MemorySample;
use task::Wanted;

/// A session at one moment. Cheap to clone; the process ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Frozen(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    pid: u32,
    findings: Vec<Finding>,
    household: Household,
    wanted: mpsc::Sender<Wanted>,
    is_gone: watch::Receiver<bool>,
    /// Who waits until all is gone waits for the end of this one as well, once it is not wanted any more.
    ending: Option<oneshot::Sender<UnderWay>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // If nobody hears it, the process has gone already.
        let _ = self.ending.take().map(|ending| ending.send(UnderWay::new()));
    }
}

/// No checkpoint.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FreezeError {
    /// Something would be missing in it.
    #[error("{}", said(.0))]
    Refused(Vec<Finding>),
    /// The worker could not make one, or the one that waits is gone.
    #[error("{0}")]
    Failed(String),
}

fn said(findings: &[Finding]) -> String {
    let texts: Vec<_> = findings.iter().filter(|finding| finding.blocks).map(|it| it.text.as_str()).collect();
    texts.join("; ")
}

/// Why nothing more comes of a checkpoint.
const GONE: &str = "the process that was the checkpoint is gone";

impl Frozen {
    /// What it does not hold, or not as it was.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.0.findings
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Whether it has ended, or is about to.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        *self.0.is_gone.borrow()
    }

    /// Waits for its end. Cancel-safe.
    pub async fn gone(&self) {
        // The other half goes with the process.
        let _ = self.0.is_gone.clone().wait_for(|is_gone| *is_gone).await;
    }

    /// Bytes that only it holds. Takes milliseconds where much is mapped, on a thread that may block.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn private_bytes(&self) -> io::Result<u64> {
        private_bytes(self.pid()).await
    }
}

/// Bytes that only process `pid` holds.
pub(crate) async fn private_bytes(pid: u32) -> io::Result<u64> {
    let sample = tokio::task::spawn_blocking(move || MemorySample::take(pid)).await;
    Ok(sample.map_err(io::Error::other)??.private_bytes)
}
