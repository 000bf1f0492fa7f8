//! One session: one namespace, one worker at a time, one queue. The loop that everything passes through.
//!
//! **Invariants:** the loop owns the session's state and never waits in a handler for a client or for code, so
//! control is always served; the next request starts only when the last one has been replied to; a reply leaves
//! only after every output of its execution is recorded and on its way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cob_bridge::{Bridge, History};
use cob_pool::{Exit, Lane, Program, StartError, Worker, WorkerEvent};
use cob_protocol::content::{ConnectReply, ExecutionState, StatusContent};
use cob_protocol::error::ErrorCode;
use cob_protocol::frame::{Done, DoneStatus, Frame, RequestNumber, Shutdown, question_target};
use cob_protocol::handshake::{Hello, Ready, VERSIONS};
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::limits::{
    FLUSH_MS_MAX, INTERRUPT_AGAIN_MS, OUTPUT_BEFORE_REPLY_MS_MAX, SESSION_QUEUE_BYTES_MAX, SESSION_QUEUE_MAX,
    SHUTDOWN_GRACE_MS,
};
use cob_protocol::message::Outgoing;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::calls::Question;
use crate::contexts::Contexts;
use crate::dispatch::{Queued, Work};
use crate::handlers::UsageSample;
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
    /// The ports of its channels, if it has any.
    pub ports: Option<ConnectReply>,
}

/// How a session ended.
#[derive(Debug)]
pub enum End {
    /// Somebody asked for it.
    Shutdown,
    /// Its worker could not be started.
    StartFailed(StartError),
}

/// See the module.
pub struct Session {
    pub(crate) config: Config,
    pub(crate) bridge: Bridge,
    pub(crate) outlet: Outlet,
    inputs: Inputs,
    pub(crate) worker: WorkerState,
    pub(crate) ready: Option<Ready>,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) queue_bytes: usize,
    pub(crate) current: Option<Current>,
    finishing: Option<Finishing>,
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
    /// An interrupt that has to be repeated if what it aimed at still runs then.
    interrupt_again: Option<(u64, Instant)>,
    stopping: Option<Stopping>,
    end: Option<End>,
}

pub(crate) enum WorkerState {
    Starting(JoinHandle<Result<(Worker, Ready), StartError>>),
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
struct Stopping {
    kill_at: Instant,
}

impl Session {
    /// A session that has not started yet; [`Session::run`] is its life.
    #[must_use]
    pub fn new(config: Config, bridge: Bridge, outlet: Outlet, inputs: Inputs) -> Self {
        Self {
            config,
            bridge,
            outlet,
            inputs,
            worker: WorkerState::None,
            ready: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
            current: None,
            finishing: None,
            is_lagging: false,
            contexts: Contexts::default(),
            count: 0,
            history: History::default(),
            comms: BTreeMap::new(),
            waiting_for_ready: Vec::new(),
            joined: Vec::new(),
            next_question: 0,
            usage: None,
            interrupt_again: None,
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
        let deadline = self.next_deadline();
        let finishing = self.finishing.as_ref().map(|f| f.deadline);
        tokio::select! {
            biased;
            Some(command) = self.inputs.commands.recv() => self.command(command).await,
            Some(request) = self.inputs.control.recv() => self.accept(request).await,
            Some(request) = self.inputs.stdin.recv() => self.take_answer(&request).await,
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                self.deadline_passed();
            }
            () = flushed_by(&self.outlet, finishing), if finishing.is_some() => self.finish().await,
            news = self.worker.news(), if has_room && finishing.is_none() => match news {
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
            && self.finishing.is_none()
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
            umask: None,
        };
        let started = Worker::start(&self.config.program, hello);
        self.worker = WorkerState::Starting(tokio::spawn(async move {
            let mut worker = started?;
            let ready = worker.ready().await?;
            Ok((worker, ready))
        }));
    }

    async fn worker_started(&mut self, started: Result<(Worker, Ready), StartError>) {
        match started {
            Ok((worker, ready)) => {
                tracing::info!(pid = worker.pid(), executor = ready.executor, "worker ready");
                self.worker = WorkerState::Live(Box::new(worker));
                self.ready = Some(ready);
                for request in std::mem::take(&mut self.waiting_for_ready) {
                    self.answer_kernel_info(&request);
                }
            }
            Err(error) => {
                self.worker = WorkerState::None;
                self.refuse_queue(ErrorCode::WorkerStartFailed, &error.to_string()).await;
                self.status(ExecutionState::Dead, Json::object());
                self.end = Some(End::StartFailed(error));
            }
        }
    }

    async fn worker_event(&mut self, event: WorkerEvent) {
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
        self.interrupt_again = None;
        self.comms.clear();
        let stopping = self.stopping.is_some();
        let code = if stopping { ErrorCode::ShuttingDown } else { ErrorCode::WorkerLost };
        match self.current.take() {
            Some(Current::Run(running)) => self.lose(running, code, exit).await,
            Some(Current::Ask { request, .. }) => {
                self.reply_error(&request, code, &format!("the worker {exit}"));
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

    fn condemn_worker(&mut self, violation: &str) {
        tracing::error!(violation, "the worker broke the protocol and is killed");
        if let WorkerState::Live(worker) = &mut self.worker {
            worker.condemn(violation);
        }
    }

    fn kill_worker(&mut self) {
        if let WorkerState::Live(worker) = &mut self.worker {
            worker.kill();
        }
    }

    // --- The end of an execution -----------------------------------------------------------------------------

    async fn done(&mut self, done: Done) {
        let is_current =
            matches!(&self.current, Some(Current::Run(r)) if r.promise.execution == done.execution);
        if !is_current {
            return self.condemn_worker("the end of an execution that does not run");
        }
        let Some(Current::Run(mut running)) = self.current.take() else { return };
        self.interrupt_again = None;
        self.end_output(&running).await;
        if done.status != DoneStatus::Ok && running.error.is_none() {
            running.error = Some(cob_protocol::event::ErrorText::coded(
                ErrorCode::WorkerLost,
                "the worker reported a failure without saying which",
            ));
        }
        self.settle(running, done.status, &done).await;
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

    // --- Interrupt and shutdown ------------------------------------------------------------------------------

    /// Interrupts what runs; nothing runs, nothing happens.
    pub(crate) fn interrupt(&mut self) {
        if let (Some(target), WorkerState::Live(worker)) = (self.interruptible(), &self.worker) {
            worker.interrupt(target);
            let again = Instant::now() + Duration::from_millis(INTERRUPT_AGAIN_MS);
            self.interrupt_again = Some((target, again));
        }
    }

    /// What an interrupt would aim at.
    fn interruptible(&self) -> Option<u64> {
        match self.current.as_ref()? {
            Current::Run(running) => Some(running.promise.execution),
            Current::Ask { number, .. } => Some(question_target(*number)),
        }
    }

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

    fn next_deadline(&self) -> Option<Instant> {
        let again = self.interrupt_again.map(|(_, at)| at);
        let kill = self.stopping.map(|stopping| stopping.kill_at);
        again.into_iter().chain(kill).min()
    }

    fn deadline_passed(&mut self) {
        let now = Instant::now();
        if self.stopping.is_some_and(|stopping| stopping.kill_at <= now) {
            self.stopping = Some(Stopping { kill_at: now + Duration::from_millis(SHUTDOWN_GRACE_MS) });
            self.kill_worker();
        }
        if let Some((target, at)) = self.interrupt_again
            && at <= now
        {
            self.interrupt_again = None;
            if let WorkerState::Live(worker) = &self.worker
                && self.interruptible() == Some(target)
            {
                worker.interrupt(target);
            }
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
    Started(Box<Result<(Worker, Ready), StartError>>),
    /// It did something.
    Event(WorkerEvent),
}

impl WorkerState {
    /// The next thing that happens; for ever nothing when there is no worker. Cancel-safe.
    async fn news(&mut self) -> News {
        match self {
            Self::Starting(task) => News::Started(Box::new(task.await.unwrap_or_else(|error| {
                let source = std::io::Error::other(error);
                Err(StartError::Spawn { program: "the worker".to_owned(), source })
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
