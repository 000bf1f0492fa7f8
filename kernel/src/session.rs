//! One session: one namespace, one worker at a time, one queue. The loop that everything passes through.
//!
//! **Invariants:** the loop owns the session's state and never waits in a handler for a client or for code, so
//! control is always served; the next request starts only when the last one has been replied to; a reply leaves
//! only after every output of its execution is recorded and on its way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cob_bridge::{Bridge, History};
use cob_pool::{
    Exit, Lane, LeaseError, Leased, Origin, Program, Request, StartError, Worker, WorkerEvent, Workers,
};
use cob_protocol::content::{ConnectReply, ExecutionState, StatusContent};
use cob_protocol::error::ErrorCode;
use cob_protocol::frame::{Done, DoneStatus, Frame, RequestNumber, Shutdown};
use cob_protocol::handshake::{Hello, Ready, VERSIONS};
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::limits::{
    FLUSH_MS_MAX, OUTPUT_BEFORE_REPLY_MS_MAX, SESSION_QUEUE_BYTES_MAX, SESSION_QUEUE_MAX, SHUTDOWN_GRACE_MS,
};
use cob_protocol::message::Outgoing;
use cob_protocol::promise::SessionState;
use cob_protocol::resources::Limits;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::calls::Question;
use crate::contexts::Contexts;
use crate::disk::{Measuring, measurement};
use crate::dispatch::{Queued, Work};
use crate::handlers::UsageSample;
use crate::ladder::{Ladder, TimeLeft};
use crate::outlet::Outlet;
use crate::request::{ClientRequest, Command, Inputs};

/// How a session is set up.
#[derive(Debug)]
pub struct Config {
    /// Its name.
    pub id: SessionId,
    /// The worker program.
    pub program: Program,
    /// Options for the executor, a JSON object.
    pub options: Json,
    /// What it may use.
    pub limits: Limits,
    /// Between an interrupt and the end by force of code that does not react; `None`: never.
    pub interrupt_grace: Option<Duration>,
    /// Its file mode creation mask; this process's own when absent.
    pub umask: Option<u32>,
    /// Whether its workers give up their power over processes that are not their own.
    pub is_confined: bool,
    /// Where its workers come from.
    pub workers: Workers,
    /// The ports of its channels, if it has any.
    pub ports: Option<ConnectReply>,
}

/// How a session ended.
#[derive(Debug)]
pub enum End {
    /// Somebody asked for it.
    Shutdown,
    /// Its worker could not be started.
    StartFailed(LeaseError),
}

/// See the module.
pub struct Session {
    pub(crate) config: Config,
    pub(crate) bridge: Bridge,
    pub(crate) outlet: Outlet,
    inputs: Inputs,
    pub(crate) worker: WorkerState,
    pub(crate) ready: Option<Ready>,
    /// Where the present worker came from.
    pub(crate) origin: Option<Origin>,
    /// What enforces its limits.
    pub(crate) enforced: Json,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) queue_bytes: usize,
    pub(crate) current: Option<Current>,
    finishing: Option<Finishing>,
    /// An execution that has ended, and is settled once its working directory is measured.
    pub(crate) measuring: Option<Measuring>,
    /// A subscriber did not take its output in time: replies do not wait for it again before it has caught up.
    is_lagging: bool,
    pub(crate) contexts: Contexts,
    pub(crate) count: u32,
    pub(crate) history: History,
    /// Open comms: id to target.
    pub(crate) comms: BTreeMap<String, String>,
    /// Questions that can only be answered once the worker has introduced itself.
    pub(crate) waiting_for_ready: Vec<ClientRequest>,
    /// Requests that joined an execution which has not ended yet.
    pub(crate) joined: Vec<(PromiseId, ClientRequest)>,
    pub(crate) next_question: RequestNumber,
    pub(crate) usage: Option<UsageSample>,
    /// What is to end, and how far it came.
    pub(crate) ladder: Ladder,
    /// The worker was killed by us: it is about to go, and nothing it says is an end.
    pub(crate) is_killed: bool,
    pub(crate) stopping: Option<Stopping>,
    end: Option<End>,
}

pub(crate) enum WorkerState {
    Starting(JoinHandle<Result<Leased, LeaseError>>),
    Live(Box<Worker>),
    None,
}

/// The request that the worker is busy with.
pub(crate) enum Current {
    /// A cell or a comm message: code runs and may print.
    Run(Box<Running>),
    /// A question about code.
    Ask { request: Box<ClientRequest>, number: RequestNumber },
}

pub(crate) struct Running {
    pub(crate) request: ClientRequest,
    pub(crate) promise: PromiseId,
    /// Set for cells.
    pub(crate) cell: Option<Cell>,
    /// The error it ended with, once it is known.
    pub(crate) error: Option<cob_protocol::event::ErrorText>,
    /// What it asks and nobody has answered yet.
    pub(crate) question: Option<Question>,
    /// The time it may still take, if that is limited.
    pub(crate) time: Option<TimeLeft>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) count: u32,
    pub(crate) silent: bool,
    pub(crate) stop_on_error: bool,
}

/// A reply that waits until the output before it is on the wire.
struct Finishing {
    running: Box<Running>,
    reply: Option<Json>,
    failed: bool,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopping {
    pub(crate) kill_at: Instant,
}

impl Session {
    /// A session that has not started yet; [`Session::run`] is its life.
    #[must_use]
    pub fn new(config: Config, bridge: Bridge, outlet: Outlet, inputs: Inputs) -> Self {
        let ladder = Ladder::new(config.interrupt_grace);
        Self {
            config,
            bridge,
            outlet,
            inputs,
            worker: WorkerState::None,
            ready: None,
            origin: None,
            enforced: Json::array(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            current: None,
            finishing: None,
            measuring: None,
            is_lagging: false,
            contexts: Contexts::default(),
            count: 0,
            history: History::default(),
            comms: BTreeMap::new(),
            waiting_for_ready: Vec::new(),
            joined: Vec::new(),
            next_question: 0,
            usage: None,
            ladder,
            is_killed: false,
            stopping: None,
            end: None,
        }
    }

    /// Serves its clients until somebody ends it.
    pub async fn run(mut self) -> End {
        self.status(ExecutionState::Starting, Json::object());
        self.start_worker();
        loop {
            self.advance().await;
            self.outlet.flush();
            if let Some(end) = self.end.take() {
                self.outlet.finish(Duration::from_millis(FLUSH_MS_MAX)).await;
                return end;
            }
            self.step().await;
        }
    }

    /// Waits for one thing to happen and deals with it. Control comes first, then the worker, then new requests.
    async fn step(&mut self) {
        let has_room = self.outlet.has_room();
        let queue_has_room =
            self.queue.len() < SESSION_QUEUE_MAX && self.queue_bytes < SESSION_QUEUE_BYTES_MAX;
        let deadline = self.next_deadline(has_room);
        let finishing = self.finishing.as_ref().map(|f| f.deadline);
        tokio::select! {
            biased;
            Some(command) = self.inputs.commands.recv() => self.command(command).await,
            Some(request) = self.inputs.control.recv() => self.accept(request).await,
            Some(request) = self.inputs.stdin.recv() => self.take_answer(&request).await,
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                self.deadline_passed().await;
            }
            found = measurement(&mut self.measuring), if self.measuring.is_some() => self.measured(found).await,
            () = flushed_by(&self.outlet, finishing), if finishing.is_some() => self.finish().await,
            news = self.worker.news(), if has_room && !self.is_ending() => match news {
                News::Started(started) => self.worker_started(*started).await,
                News::Event(event) => {
                    self.worker_event(event).await;
                    // A worker that floods is always ready: without a look at the sockets in between, nobody else
                    // would be accepted, read or answered until it pauses.
                    tokio::task::yield_now().await;
                }
            },
            () = self.outlet.room(), if !has_room => {}
            Some(request) = self.inputs.shell.recv(), if queue_has_room => self.accept(request).await,
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Interrupt => self.interrupt(),
            Command::Shutdown => self.shut_down(false).await,
        }
    }

    /// Starts what is next in the queue, if nothing runs.
    async fn advance(&mut self) {
        while self.current.is_none()
            && !self.is_ending()
            && self.stopping.is_none()
            && matches!(self.worker, WorkerState::Live(_))
        {
            let Some(queued) = self.queue.pop_front() else { return };
            self.queue_bytes -= queued.request.bytes();
            self.begin(queued).await;
        }
    }

    // --- The worker ------------------------------------------------------------------------------------------

    fn start_worker(&mut self) {
        let hello = Hello {
            versions: VERSIONS,
            session: self.config.id.to_string(),
            options: self.config.options.clone(),
            umask: self.config.umask,
            confined: self.config.is_confined,
            survives: false,
        };
        let request =
            Request { program: self.config.program.clone(), hello, limits: self.config.limits.clone() };
        let workers = self.config.workers.clone();
        self.worker = WorkerState::Starting(tokio::spawn(async move { workers.lease(&request).await }));
    }

    async fn worker_started(&mut self, started: Result<Leased, LeaseError>) {
        match started {
            Ok(Leased { worker, ready, origin, limits, enforced }) => {
                tracing::info!(pid = worker.pid(), executor = ready.executor, ?origin, "worker ready");
                for lacking in ready.confinement.iter().filter(|measure| measure.starts_with("not enforced"))
                {
                    tracing::warn!(lacking, "the session is less isolated than asked for");
                }
                self.origin = Some(origin);
                self.enforced = Json::from(enforced);
                self.config.limits = limits;
                self.worker = WorkerState::Live(Box::new(worker));
                self.ready = Some(ready);
                for request in std::mem::take(&mut self.waiting_for_ready) {
                    self.answer_kernel_info(&request);
                }
            }
            Err(error) => {
                self.worker = WorkerState::None;
                let code = match error {
                    LeaseError::Limits { .. } => ErrorCode::InvalidLimit,
                    _ => ErrorCode::WorkerStartFailed,
                };
                self.refuse_queue(code, &error.to_string()).await;
                self.status(ExecutionState::Dead, Json::object());
                self.end = Some(End::StartFailed(error));
            }
        }
    }

    pub(crate) async fn worker_event(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Output(stream, bytes) => self.output(stream, &bytes).await,
            WorkerEvent::Gone(exit) => self.worker_gone(&exit).await,
            WorkerEvent::Frame(Frame::Done(done), _) => self.done(done).await,
            WorkerEvent::Frame(frame, payloads) => {
                if let Err(violation) = self.frame(frame, payloads).await {
                    self.condemn_worker(violation);
                }
            }
        }
    }

    async fn worker_gone(&mut self, exit: &Exit) {
        self.worker = WorkerState::None;
        let loss = self.loss(exit);
        self.ladder.clear();
        self.is_killed = false;
        self.comms.clear();
        let stopping = self.stopping.is_some();
        match self.current.take() {
            Some(Current::Run(running)) => self.lose(running, loss).await,
            Some(Current::Ask { request, .. }) => {
                self.reply_error(&request, loss.code, &loss.evalue, SessionState::Lost);
                self.status(ExecutionState::Idle, request.parent());
            }
            None => {}
        }
        if stopping {
            self.end = Some(End::Shutdown);
            return;
        }
        tracing::warn!(%exit, "worker lost; starting another");
        self.status(ExecutionState::Restarting, Json::object());
        self.start_worker();
        self.status(ExecutionState::Starting, Json::object());
    }

    // --- The end of an execution -----------------------------------------------------------------------------

    async fn done(&mut self, done: Done) {
        if self.is_killed {
            return tracing::debug!("an end from a worker that was killed");
        }
        let is_current =
            matches!(&self.current, Some(Current::Run(r)) if r.promise.execution == done.execution);
        if !is_current {
            return self.condemn_worker("the end of an execution that does not run");
        }
        let Some(Current::Run(mut running)) = self.current.take() else { return };
        let verdict = self.time_verdict();
        self.ladder.clear();
        self.end_output(&running).await;
        if done.status != DoneStatus::Ok && running.error.is_none() {
            running.error = Some(cob_protocol::event::ErrorText::coded(
                ErrorCode::WorkerLost,
                "the worker reported a failure without saying which",
            ));
        }
        match verdict {
            None => self.measure_and_settle(running, done).await,
            verdict => self.settle(running, &done, verdict).await,
        }
    }

    /// One execution has ended and is not yet replied to: the worker is not heard, and gets nothing new.
    fn is_ending(&self) -> bool {
        self.finishing.is_some() || self.measuring.is_some()
    }

    /// Holds the reply back until the output before it is on the wire; usually it already is.
    pub(crate) async fn finish_when_flushed(
        &mut self,
        running: Box<Running>,
        reply: Option<Json>,
        failed: bool,
    ) {
        let deadline = Instant::now() + Duration::from_millis(OUTPUT_BEFORE_REPLY_MS_MAX);
        self.finishing = Some(Finishing { running, reply, failed, deadline });
        self.outlet.flush();
        if self.is_lagging || self.outlet.is_flushed() {
            self.finish().await;
        }
    }

    /// Reply, then idle, then what else depends on the outcome.
    async fn finish(&mut self) {
        let Some(Finishing { running, reply, failed, .. }) = self.finishing.take() else { return };
        self.is_lagging = !self.outlet.is_flushed();
        let Running { request, promise, cell, .. } = *running;
        if let Some(content) = reply {
            self.reply(&request, "execute_reply", content.clone());
            self.reply_to_joined(promise, &content);
        }
        self.status(ExecutionState::Idle, request.parent());
        if failed && cell.is_some_and(|cell| cell.stop_on_error) {
            self.abort_queued_of(&request.client).await;
        }
    }

    // --- Shutdown --------------------------------------------------------------------------------------------

    /// Ends the session: what waits is refused, what runs is interrupted, the worker gets a moment for its exit
    /// hooks.
    pub(crate) async fn shut_down(&mut self, restart: bool) {
        if self.stopping.is_some() {
            return;
        }
        self.interrupt();
        self.refuse_queue(ErrorCode::ShuttingDown, "the kernel shuts down").await;
        match &mut self.worker {
            WorkerState::Live(worker) => {
                // If it cannot be told it is killed in a moment.
                let _ = worker.send(&Shutdown { restart }.into(), Vec::new(), Lane::Control);
                let kill_at = Instant::now() + Duration::from_millis(SHUTDOWN_GRACE_MS);
                self.stopping = Some(Stopping { kill_at });
            }
            WorkerState::Starting(task) => {
                task.abort();
                self.worker = WorkerState::None;
                self.end = Some(End::Shutdown);
            }
            WorkerState::None => self.end = Some(End::Shutdown),
        }
    }

    // --- Messages --------------------------------------------------------------------------------------------

    pub(crate) fn status(&self, state: ExecutionState, parent: Json) {
        self.publish("status", parent, &StatusContent { execution_state: state });
    }

    pub(crate) fn publish(&self, msg_type: &'static str, parent: Json, content: &impl serde::Serialize) {
        match Json::of(content) {
            Ok(content) => self.outlet.publish(Outgoing::new(msg_type, parent, content)),
            Err(error) => tracing::error!(msg_type, %error, "message not published"),
        }
    }

    pub(crate) fn reply(&self, request: &ClientRequest, msg_type: &'static str, content: Json) {
        let message = Outgoing::new(msg_type, request.parent(), content);
        self.outlet.reply(request.channel, &request.client.identity, message);
    }
}

/// Waits until everything published is on the wire, at most until `deadline`.
async fn flushed_by(outlet: &Outlet, deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        outlet.flushed(deadline.saturating_duration_since(Instant::now())).await;
    }
}

/// What comes from a worker.
enum News {
    /// It is there, or will never be.
    Started(Box<Result<Leased, LeaseError>>),
    /// It did something.
    Event(WorkerEvent),
}

impl WorkerState {
    /// The next thing that happens; for ever nothing when there is no worker. Cancel-safe.
    async fn news(&mut self) -> News {
        match self {
            Self::Starting(task) => News::Started(Box::new(task.await.unwrap_or_else(|error| {
                let source = std::io::Error::other(error);
                Err(StartError::Spawn { program: "the worker".to_owned(), source }.into())
            }))),
            Self::Live(worker) => News::Event(worker.next().await),
            Self::None => std::future::pending().await,
        }
    }
}

/// What a session needs to know about the work it takes from the queue.
impl Queued {
    pub(crate) fn promise(&self) -> Option<PromiseId> {
        match &self.work {
            Work::Execute { promise, .. } | Work::Comm { promise, .. } => Some(*promise),
            Work::Ask(..) | Work::History(_) | Work::CommInfo(_) => None,
        }
    }
}
