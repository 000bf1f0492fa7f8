//! The host's handle on a zygote: a process that forks workers on request.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use cob_protocol::handshake::{NoCommonVersion, VERSIONS};
use cob_protocol::limits::{START_OUTPUT_BYTES_MAX, ZYGOTE_START_MS_MAX};
use cob_protocol::zygote::{Order, Prepare, Prepared, Report};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::exit::Exit;
use crate::forks::Forks;
use crate::life::{Life, Process};
use crate::packets::Packets;
use crate::parked::Parked;
use crate::readiness::watch;
use crate::spawn::{Program, output_pipe, spawn_zygote};

/// The exit status of an interpreter that cannot be used (EX_CONFIG): it will be so the next time, too.
const UNUSABLE: i32 = 78;

/// A zygote process. Dropping it ends it; the workers it forked live on.
#[derive(Debug)]
pub(crate) struct Zygote {
    program: String,
    life: Life,
    control: Packets,
    /// It has closed its end of the socket.
    is_deaf: bool,
    output: Option<AsyncFd<OwnedFd>>,
    said: Vec<u8>,
    importing: Option<String>,
    /// It must be prepared by then.
    deadline: Option<Instant>,
    forks: Forks,
    _lifeline: OwnedFd,
}

/// What a zygote does.
#[derive(Debug)]
pub(crate) enum ZygoteEvent {
    /// It can be forked.
    Prepared(Prepared),
    /// It forked a worker.
    Forked(u64, Box<Parked>),
    /// It could not.
    ForkFailed(u64, String),
    /// It is gone, or of no use: nothing more comes of it.
    Gone(Failed),
}

/// Why a zygote is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// The module to blame, if it is known.
    pub(crate) module: Option<String>,
    /// It would be so again: the zygote itself said that it must not be forked.
    pub(crate) is_final: bool,
    /// One sentence, with what the zygote said.
    pub(crate) reason: String,
}

impl Zygote {
    /// Starts `program` as a zygote that shall import `imports`.
    pub(crate) fn start(program: &Program) -> io::Result<Self> {
        let (control, theirs) = Packets::pair()?;
        let (output, output_writer) = output_pipe()?;
        let (lifeline_reader, lifeline) = pipe_with(PipeFlags::CLOEXEC)?;
        let child = spawn_zygote(program, theirs, lifeline_reader, output_writer)?;
        Ok(Self {
            program: program.name(),
            life: Life::watch(Process::ours(child)?)?,
            control,
            is_deaf: false,
            output: Some(watch(output)?),
            said: Vec::new(),
            importing: None,
            deadline: Some(Instant::now() + Duration::from_millis(ZYGOTE_START_MS_MAX)),
            forks: Forks::default(),
            _lifeline: lifeline,
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.life.pid()
    }

    /// Says what to import. What becomes of it is told by [`Zygote::next`].
    pub(crate) async fn prepare(&mut self, imports: Vec<String>) -> io::Result<()> {
        let prepare = Order::Prepare(Prepare { versions: VERSIONS, imports });
        self.control.send(&prepare.encode().map_err(io::Error::other)?, &[]).await
    }

    /// Asks for a worker.
    pub(crate) async fn fork(&mut self, number: u64) -> io::Result<()> {
        self.forks.order(&self.control, number).await
    }

    /// The next thing it does. After [`ZygoteEvent::Gone`] there is nothing more. Cancel-safe.
    pub(crate) async fn next(&mut self) -> ZygoteEvent {
        loop {
            match self.step().await {
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err(error) => {
                    self.life.kill();
                    return ZygoteEvent::Gone(self.failed(None, &format!("cannot be talked to: {error}")));
                }
            }
        }
    }

    async fn step(&mut self) -> io::Result<Option<ZygoteEvent>> {
        if let Some(exit) = self.life.ended() {
            self.hear()?;
            return Ok(Some(ZygoteEvent::Gone(self.died(&exit))));
        }
        let deadline = self.deadline;
        tokio::select! {
            biased;
            packet = self.control.receive(), if !self.is_deaf => {
                let received = packet?.map(|(packet, descriptors)| (Report::decode(&packet), descriptors));
                match received {
                    Some((report, descriptors)) => {
                        let report = report.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                        return self.take(report, descriptors);
                    }
                    None => self.is_deaf = true,
                }
            }
            ready = readable(self.output.as_ref()) => {
                ready?;
                self.hear()?;
            }
            changed = self.life.changed() => changed?,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                self.life.kill();
                let why = format!("was not ready within {} s", ZYGOTE_START_MS_MAX / 1000);
                return Ok(Some(ZygoteEvent::Gone(self.failed(self.importing.clone(), &why))));
            }
        }
        Ok(None)
    }

    /// Lets it end: it forks no more, and goes when its last worker has gone, whose end it tells until then.
    pub(crate) async fn retire(self) {
        let Self { mut life, control, forks, _lifeline, .. } = self;
        // A worker that was asked for and comes now belongs to nobody: it ends with our ends of its transport, and
        // the zygote waits for that.
        drop((control, forks));
        while life.ended().is_none() && life.changed().await.is_ok() {}
    }

    fn take(&mut self, report: Report, descriptors: Vec<OwnedFd>) -> io::Result<Option<ZygoteEvent>> {
        Ok(match report {
            Report::Importing { module } => {
                self.importing = Some(module);
                None
            }
            Report::Unfit { module, reason } => {
                self.life.kill();
                Some(ZygoteEvent::Gone(Failed { module, is_final: true, reason }))
            }
            Report::Prepared(prepared) => {
                self.deadline = None;
                self.importing = None;
                Some(match VERSIONS.agree(prepared.versions) {
                    Ok(_) => ZygoteEvent::Prepared(prepared),
                    Err(error) => ZygoteEvent::Gone(self.incompatible(&error)),
                })
            }
            Report::Forked { number, pid } if self.forks.expects(number) => {
                Some(match self.forks.forked(&self.program, (number, pid), descriptors)? {
                    Some(parked) => ZygoteEvent::Forked(number, Box::new(parked)),
                    None => ZygoteEvent::ForkFailed(number, "it ended at once".to_owned()),
                })
            }
            Report::Forked { .. } => None,
            Report::Frozen { .. } | Report::Refused { .. } => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a zygote that takes itself for a session",
                ));
            }
            Report::ForkFailed { number, reason } => {
                self.forks.failed(number);
                Some(ZygoteEvent::ForkFailed(number, reason))
            }
        })
    }

    fn incompatible(&self, error: &NoCommonVersion) -> Failed {
        self.life.kill();
        Failed { module: None, is_final: true, reason: error.to_string() }
    }

    fn died(&self, exit: &Exit) -> Failed {
        let is_final = *exit == Exit::Status(UNUSABLE);
        Failed { is_final, ..self.failed(self.importing.clone(), &exit.to_string()) }
    }

    fn failed(&self, module: Option<String>, what: &str) -> Failed {
        let during = module.as_ref().map_or_else(String::new, |m| format!(" while it imported `{m}`"));
        let said = String::from_utf8_lossy(&self.said);
        let said = match said.trim() {
            "" => String::new(),
            text => format!("; it said:\n{text}"),
        };
        Failed { module, is_final: false, reason: format!("`{}` {what}{during}{said}", self.program) }
    }

    /// Takes what it printed: the end of it is kept, to explain a failure.
    fn hear(&mut self) -> io::Result<()> {
        let Some(output) = &self.output else { return Ok(()) };
        let mut bytes = [0; START_OUTPUT_BYTES_MAX];
        loop {
            match output.try_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut bytes)?)) {
                Ok(0) => {
                    self.output = None;
                    return Ok(());
                }
                Ok(count) => {
                    self.said.extend_from_slice(&bytes[..count]);
                    let surplus = self.said.len().saturating_sub(START_OUTPUT_BYTES_MAX);
                    self.said.drain(..surplus);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

async fn readable(output: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    match output {
        Some(output) => output.readable().await.map(|mut ready| ready.retain_ready()),
        None => std::future::pending().await,
    }
}
