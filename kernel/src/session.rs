//! One session: one namespace, one worker at a time, one queue. The loop that everything passes through.
//!
//! **Invariants:** the loop owns the session's state and never waits in a handler for a client, for code or for the
//! store, so control is always served; the next request starts only when the last one has been replied to; a reply
//! leaves only after every output of its execution is recorded and on its way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use cob_bridge::{Bridge, Entry, History, Write};
use cob_pool::{LeaseError, Origin, Program, Progress, Worker, WorkerEvent, Workers};
use cob_protocol::checkpoint::{Policy, Restoration};
use cob_protocol::content::{ConnectReply, ExecutionState};
use cob_protocol::crash_point;
use cob_protocol::frame::RequestNumber;
use cob_protocol::handshake::Ready;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::limits::{EVENTS_AT_ONCE_MAX, FLUSH_MS_MAX, SESSION_QUEUE_BYTES_MAX, SESSION_QUEUE_MAX};
use cob_protocol::promise::{Durability, Promise};
use cob_protocol::resources::Limits;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::arrivals::Arrivals;
use crate::calls::{CallEnd, Question};
use crate::channels::Channels;
use crate::checkpoints::{Checkpoints, Held, Merging, NotStarted, Started, Successor};
use crate::contexts::Contexts;
use crate::disk::{Measuring, measurement};
use crate::dispatch::{Joined, Queued};
use crate::handlers::UsageSample;
use crate::hearing::News;
use crate::ladder::{Ladder, TimeLeft};
use crate::outlet::Outlet;
use crate::queue::Queue;
use crate::records::Records;
use crate::recovery::Past;
use crate::request::{Asked, ClientRequest, Inputs, Seed};
use crate::standing::Activity;
use crate::survival::{Kept, Survival};
use crate::tools::Tools;
use crate::waits::Wait;

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
    /// How safe its records are before anybody is told, unless a request says otherwise.
    pub durability: Durability,
    /// It is one of many in a server: that has recorded its beginning and looks at deadlines ([`Command::Overdue`]);
    /// after a recovery without its worker another one is started when it is needed.
    pub is_hosted: bool,
    /// Time without an execution after which it ends.
    pub idle_timeout: Option<Duration>,
    /// What is recorded about it: what people are told, and what it is started with again. Absent: program and folder.
    pub about: Option<Json>,
    /// How its workers outlive this process, if they do.
    pub survival: Option<Survival>,
    /// What was recorded of it before this process began.
    pub past: Option<Past>,
    /// What it does about checkpoints.
    pub checkpoints: Policy,
    /// Where it begins, if it is a branch of another session.
    pub seed: Option<Seed>,
    /// What was typed in it and in sessions before it, oldest first.
    pub history: Vec<(SessionId, Entry)>,
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
    pub(crate) records: Records,
    pub(crate) outlet: Outlet,
    pub(crate) inputs: Inputs,
    pub(crate) worker: WorkerState,
    /// Counts the workers: what was meant for one of them must not reach the next.
    pub(crate) generation: u64,
    /// Who keeps the present worker for the next server.
    pub(crate) kept: Option<Kept>,
    /// How far the present worker was last written down.
    pub(crate) progress: Option<Progress>,
    /// The last question of the running code, if it was answered before this process began.
    pub(crate) recalled: Option<CallEnd>,
    pub(crate) ready: Option<Ready>,
    /// Where the present worker came from.
    pub(crate) origin: Option<Origin>,
    /// What enforces its limits.
    pub(crate) enforced: Json,
    /// Requests whose promise is being recorded, and those that came after them.
    pub(crate) arrivals: Arrivals,
    pub(crate) queue: Queue<Queued>,
    pub(crate) queue_bytes: usize,
    pub(crate) current: Option<Current>,
    /// The execution that ended last is settled, but not everything of it is recorded.
    pub(crate) is_concluding: bool,
    /// It is recorded; what is left is its reply.
    pub(crate) finishing: Option<Box<Finishing>>,
    /// The executions that the last group settled, as they are recorded.
    pub(crate) settled: Vec<Promise>,
    /// What is recorded with the end of the running execution.
    pub(crate) later: Vec<Write>,
    /// Records that the store did not take: they are offered again.
    pub(crate) owed: Vec<Write>,
    /// An execution that has ended, and is settled once its working directory is measured.
    pub(crate) measuring: Option<Measuring>,
    /// A subscriber did not take its output in time: replies do not wait for it again before it has caught up.
    pub(crate) is_lagging: bool,
    pub(crate) contexts: Contexts,
    pub(crate) count: u32,
    pub(crate) history: History,
    /// Open comms: id to target.
    pub(crate) comms: BTreeMap<String, String>,
    /// Questions that can only be answered once the worker has introduced itself.
    pub(crate) waiting_for_ready: Vec<ClientRequest>,
    /// Requests that joined an execution which has not ended yet.
    pub(crate) joined: Vec<Joined>,
    pub(crate) next_question: RequestNumber,
    /// Questions up to this number were asked by servers before this one.
    pub(crate) first_question: RequestNumber,
    pub(crate) usage: Option<UsageSample>,
    /// What is to end, and how far it came.
    pub(crate) ladder: Ladder,
    /// The worker was killed by us: it is about to go, and nothing it says is an end.
    pub(crate) is_killed: bool,
    pub(crate) stopping: Option<Stopping>,
    pub(crate) end: Option<End>,
    pub(crate) is_closed: bool,
    /// Nothing new is taken, and it ends when everything else is done.
    pub(crate) is_draining: bool,
    /// Who waits for its end.
    pub(crate) closing: Vec<Asked<()>>,
    /// Who waits for the next worker, since the present one is to go.
    pub(crate) restarting: Vec<Asked<()>>,
    /// Promises whose deadline has passed, as somebody else has noticed.
    pub(crate) due: VecDeque<PromiseId>,
    pub(crate) activity: Activity,
    pub(crate) tools: Tools,
    pub(crate) channels: Channels,
    pub(crate) checkpoints: Checkpoints,
    /// What was lost with a worker, until it is known what became of the variables.
    pub(crate) held: Option<Box<Held>>,
    /// What takes the place of the worker when that is gone.
    pub(crate) successor: Option<Box<Successor>>,
}

pub(crate) enum WorkerState {
    Starting(JoinHandle<Result<Started, NotStarted>>),
    Live(Box<Worker>),
    None,
}

/// The request that the worker is busy with.
pub(crate) enum Current {
    /// A cell or a comm message: code runs and may print.
    Run(Box<Running>),
    /// A question about code.
    Ask { request: Box<ClientRequest>, number: RequestNumber },
    /// A look at the namespace.
    Look { number: RequestNumber, asked: Asked<Json> },
    /// A bundle that it takes in.
    Load(Box<Merging>),
}

pub(crate) struct Running {
    pub(crate) request: ClientRequest,
    pub(crate) promise: PromiseId,
    /// Everything of the request is known: it can be sent to a worker.
    pub(crate) is_whole: bool,
    /// How safe its records are to be.
    pub(crate) durability: Durability,
    /// Questions it has asked so far.
    pub(crate) calls: u64,
    /// Why not everything of it is recorded.
    pub(crate) unrecorded: Option<cob_bridge::StoreError>,
    /// Its deadline has passed.
    pub(crate) is_overdue: bool,
    /// Another process began it, and the worker has not said how far it is.
    pub(crate) is_resumed: bool,
    /// Set for cells.
    pub(crate) cell: Option<Cell>,
    /// The error it ended with, once it is known.
    pub(crate) error: Option<cob_protocol::event::ErrorText>,
    /// What it asks and nobody has answered yet.
    pub(crate) question: Option<Question>,
    /// What it waits for that is no promise.
    pub(crate) wait: Option<Wait>,
    /// The time it may still take, if that is limited.
    pub(crate) time: Option<TimeLeft>,
    /// Where its variables came from, if nobody was told before; or, if its worker was lost, where they are from now.
    pub(crate) restored: Option<Box<Restoration>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) count: u32,
    pub(crate) silent: bool,
    pub(crate) stop_on_error: bool,
    pub(crate) is_in_history: bool,
}

/// A reply that waits until the output before it is on the wire.
pub(crate) struct Finishing {
    pub(crate) running: Box<Running>,
    pub(crate) reply: Option<Json>,
    pub(crate) failed: bool,
    pub(crate) deadline: Instant,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopping {
    pub(crate) kill_at: Instant,
}

impl Session {
    /// A session that has not started yet; [`Session::run`] is its life.
    #[must_use]
    pub fn new(mut config: Config, bridge: Bridge, outlet: Outlet, inputs: Inputs) -> Self {
        let ladder = Ladder::new(config.interrupt_grace);
        let session = config.id;
        let count = config.seed.as_ref().map_or(0, |seed| seed.count);
        let mut history = History::of(session);
        for (session, entry) in std::mem::take(&mut config.history) {
            history.remember(session, entry);
        }
        Self {
            config,
            checkpoints: Checkpoints::new(session),
            held: None,
            successor: None,
            activity: Activity::new(bridge.now()),
            tools: Tools::default(),
            channels: Channels::default(),
            records: Records::new(bridge.clone()),
            bridge,
            outlet,
            inputs,
            worker: WorkerState::None,
            generation: 0,
            kept: None,
            progress: None,
            recalled: None,
            ready: None,
            origin: None,
            enforced: Json::array(),
            arrivals: Arrivals::default(),
            queue: Queue::default(),
            queue_bytes: 0,
            current: None,
            is_concluding: false,
            finishing: None,
            settled: Vec::new(),
            later: Vec::new(),
            owed: Vec::new(),
            measuring: None,
            is_lagging: false,
            contexts: Contexts::default(),
            count,
            history,
            comms: BTreeMap::new(),
            waiting_for_ready: Vec::new(),
            joined: Vec::new(),
            next_question: 0,
            first_question: 0,
            usage: None,
            ladder,
            is_killed: false,
            stopping: None,
            end: None,
            is_closed: false,
            is_draining: false,
            closing: Vec::new(),
            restarting: Vec::new(),
            due: VecDeque::new(),
        }
    }

    /// Serves its clients until somebody ends it.
    pub async fn run(mut self) -> End {
        self.announce(ExecutionState::Starting);
        match self.config.past.take() {
            Some(past) => {
                crash_point!("store_opened");
                self.recover(past).await;
                crash_point!("recovered");
            }
            None => {
                if !self.config.is_hosted {
                    let (session, about) = (self.config.id, self.about());
                    self.write_surely(self.config.durability, Write::OpenSession { session, about });
                }
                self.start_worker();
            }
        }
        loop {
            // What is told may make room for what is next, and what begins has something to tell.
            while self.tell_on() | self.advance() {}
            self.outlet.flush();
            self.end_when_drained();
            self.tell_standing();
            if self.is_over() {
                if self.is_closed {
                    self.say_goodbye();
                    self.outlet.finish(Duration::from_millis(FLUSH_MS_MAX)).await;
                    return self.end.unwrap_or(End::Shutdown);
                }
                self.close();
                continue;
            }
            self.step().await;
        }
    }

    /// Waits for one thing to happen and deals with it. Control comes first, then what is recorded, then the worker,
    /// then new requests.
    async fn step(&mut self) {
        let outlet_has_room = self.outlet.has_room();
        let has_room = self.has_room();
        let is_held = self.finishing.is_some();
        let queue_has_room = self.queue.len() + self.arrivals.len() < SESSION_QUEUE_MAX
            && self.queue_bytes < SESSION_QUEUE_BYTES_MAX;
        let deadline = self.next_deadline(has_room);
        let finishing = self.finishing.as_ref().map(|f| f.deadline);
        tokio::select! {
            biased;
            Some(command) = self.inputs.commands.recv() => self.command(command),
            Some(request) = self.inputs.control.recv() => self.accept(request),
            Some(request) = self.inputs.stdin.recv() => self.take_answer(&request),
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                self.deadline_passed().await;
            }
            found = measurement(&mut self.measuring), if self.measuring.is_some() => self.measured(found),
            () = flushed_by(&self.outlet, finishing), if finishing.is_some() => self.finish(),
            () = self.records.due(), if !is_held => {}
            created = self.arrivals.next() => self.arrived(created),
            happened = self.channels.happened() => self.channel_happened(happened),
            Some(heard) = self.checkpoints.tasks.join_next(), if !self.checkpoints.tasks.is_empty() => {
                self.heard_of_checkpoint(heard);
            }
            due = due(&self.bridge, self.config.is_hosted, &mut self.due), if has_room && !self.is_ending() => {
                self.overdue(due).await;
            }
            () = custodian_lost(&self.kept), if self.kept.is_some() => self.keep_again().await,
            news = self.worker.news(), if has_room && !self.is_ending() => match news {
                News::Started(started) => self.worker_started(*started),
                News::Event(event) => {
                    if self.worker_events(event).await {
                        // A worker that floods is always ready: without a look at the sockets in between, nobody else
                        // would be accepted, read or answered until it pauses.
                        tokio::task::yield_now().await;
                    }
                }
            },
            () = self.outlet.room(), if !outlet_has_room => {}
            // What fills the session's own queue leaves it with the records that it waits for.
            () = self.bridge.room(), if !self.bridge.has_room() => {}
            Some(request) = self.inputs.shell.recv(), if queue_has_room && self.end.is_none() => self.accept(request),
        }
    }

    /// Whether there is room for what a worker may say: on the way out, and on the way into the store.
    pub(crate) fn has_room(&self) -> bool {
        self.outlet.has_room() && self.records.has_room()
    }

    /// Deals with what a worker did, and with whatever else it has done by now: what belongs together is recorded
    /// together. Whether it may have done more.
    async fn worker_events(&mut self, event: WorkerEvent) -> bool {
        self.worker_event(event);
        for _ in 1..EVENTS_AT_ONCE_MAX {
            if self.is_ending() || !self.has_room() {
                return true;
            }
            let WorkerState::Live(worker) = &mut self.worker else { return true };
            let arrived = tokio::select! {
                biased;
                event = worker.next() => event,
                () = std::future::ready(()) => return false,
            };
            self.worker_event(arrived);
        }
        true
    }

    /// What people are told of the session when only its record is left.
    fn about(&self) -> Json {
        let program = self.config.program.name();
        let directory = self.config.program.directory.clone().or_else(|| std::env::current_dir().ok());
        Json::from(
            serde_json::json!({ "program": program, "directory": directory, "pid": std::process::id() }),
        )
    }

    /// Starts what is next in the queue, if nothing runs; whether there was something.
    fn advance(&mut self) -> bool {
        self.wake();
        if !self.is_free() {
            return false;
        }
        if self.serve_wishes() {
            return true;
        }
        let Some(queued) = self.queue.pop() else { return false };
        self.queue_bytes -= queued.request.bytes();
        self.begin(queued);
        true
    }

    /// Starts a worker when there is none and something needs one.
    fn wake(&mut self) {
        let is_needed = !self.queue.is_empty()
            || !self.waiting_for_ready.is_empty()
            || !self.restarting.is_empty()
            || self.checkpoints.has_wishes();
        let may_start = !self.is_stopping() && !self.checkpoints.is_moving();
        if is_needed && may_start && matches!(self.worker, WorkerState::None) {
            self.start_worker();
        }
    }

    /// Refuses what lies in the lanes when the session has ended.
    pub(crate) fn refuse_late_requests(&mut self) {
        for lane in [&mut self.inputs.control, &mut self.inputs.stdin, &mut self.inputs.shell] {
            lane.close();
        }
        let late =
            |lane: &mut mpsc::Receiver<ClientRequest>| std::iter::from_fn(|| lane.try_recv().ok()).collect();
        let mut requests: Vec<ClientRequest> = late(&mut self.inputs.control);
        requests.append(&mut late(&mut self.inputs.shell));
        for request in requests {
            self.accept(request);
        }
        self.tell_on();
    }

    /// Whether the worker is there and has nothing to do.
    pub(crate) fn is_free(&self) -> bool {
        self.current.is_none()
            && !self.is_ending()
            && !self.is_stopping()
            && !self.is_killed
            && !self.checkpoints.is_moving()
            && matches!(self.worker, WorkerState::Live(_))
    }
}

/// Waits until everything published is on the wire, at most until `deadline`.
async fn flushed_by(outlet: &Outlet, deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        outlet.flushed(deadline.saturating_duration_since(Instant::now())).await;
    }
}

/// The next promise whose deadline has passed: in a server somebody else watches the clock. Cancel-safe.
async fn due(bridge: &Bridge, is_hosted: bool, routed: &mut VecDeque<PromiseId>) -> PromiseId {
    match routed.pop_front() {
        Some(id) => id,
        None if is_hosted => std::future::pending().await,
        None => bridge.due().await,
    }
}

/// Waits for the end of the one who keeps the worker; for ever when nobody does. Cancel-safe.
async fn custodian_lost(kept: &Option<Kept>) {
    match kept {
        Some(kept) => kept.lost().await,
        None => std::future::pending().await,
    }
}
