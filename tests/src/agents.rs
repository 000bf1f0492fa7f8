//! A server with agents: the real `cob serve` over a store, killed and started again in one place, and judged in the end.

mod client;
mod got;
mod watch;

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;

use cob_clients::agent::ServerFile;
use rustix::process::Signal;

use crate::checker::{self, Evidence};
use crate::effects::Effects;
use crate::history::History;
use crate::server::{ServerSetup, TestServer};
use crate::snapshot::Snapshot;
use crate::{process, within};

pub use client::{Agent, PLENTY, Place};
pub use got::{Got, are_whole, text};

/// How long workers of a test outlive their server, in seconds, unless the test says otherwise.
const GRACE: &str = "15";

/// A server over a store of its own, with the three recorders.
///
/// [`finish`](Self::finish) ends it and checks what was recorded; a test that only drops it checks what every server
/// of a test checks.
pub struct Serve {
    /// The process that runs now, or ran last.
    pub server: TestServer,
    /// Where its code leaves its traces.
    pub effects: Effects,
    /// What agents asked and saw that were told to write it down.
    pub history: History,
    snapshots: Vec<Snapshot>,
    earlier: Vec<String>,
    errors_expected: bool,
}

/// How a server with agents is started, unless the test says otherwise.
#[must_use]
pub fn setup() -> ServerSetup {
    // The store is relative to where it is started.
    let setup =
        ServerSetup::new().argument("--store").argument("../store").argument("--grace").argument(GRACE);
    // Sessions have this, so what is kept warm is for them; and what does not listen is soon given up.
    setup.env("PYTHONNOUSERSITE", "1").argument("--drain").argument("1")
}

impl Serve {
    /// One that listens.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        Self::start_as(setup()).await
    }

    /// One that also listens on a loopback port, with a key.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn with_port() -> Self {
        Self::start_as(setup().argument("--tcp").argument("127.0.0.1:0")).await
    }

    /// One that listens.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_as(setup: ServerSetup) -> Self {
        let server = setup.launch();
        let effects = Effects::new(server.folder());
        let (history, snapshots, earlier) = (History::default(), Vec::new(), Vec::new());
        let serve = Self { server, effects, history, snapshots, earlier, errors_expected: false };
        serve.listens().await;
        serve
    }

    /// Waits until this very process has written where it listens.
    ///
    /// # Panics
    /// When it ends before.
    pub async fn listens(&self) -> ServerFile {
        let (path, pid) = (ServerFile::path_in(&self.server.runtime()), self.server.pid());
        let look =
            move || watch::until(&path, pid, || ServerFile::read(&path).ok().filter(|file| file.pid == pid));
        let found = within("server.json", tokio::task::spawn_blocking(look)).await.expect("a thread");
        found.unwrap_or_else(|| unreachable!("it did not start:\n{}", self.server.log().join("\n")))
    }

    /// Where agents of the same user find it.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn place(&self) -> Place {
        let endpoint = self.file().ipc.parse().expect("an endpoint");
        Place { endpoint, key: String::new() }
    }

    /// Its loopback port.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn port(&self) -> Place {
        let signed = self.file().tcp.expect("a loopback port");
        Place { endpoint: signed.endpoint.parse().expect("an endpoint"), key: signed.key }
    }

    /// What it says about itself.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn file(&self) -> ServerFile {
        ServerFile::read(&ServerFile::path_in(&self.server.runtime())).expect("a running server")
    }

    /// An agent that was welcomed.
    ///
    /// # Panics
    /// When it is not.
    pub async fn agent(&self, name: &str) -> Agent {
        self.agent_at(&self.place(), name).await
    }

    /// The same, by another way.
    ///
    /// # Panics
    /// When it is not.
    pub async fn agent_at(&self, place: &Place, name: &str) -> Agent {
        let mut agent = Agent::greeted(place, name).await;
        let (variable, value) = self.server.marker().split_once('=').unwrap_or_default();
        agent.mark(variable, value);
        agent
    }

    /// The same; what happens to its executions is written down.
    ///
    /// # Panics
    /// When it is not welcomed.
    pub async fn recorded(&self, name: &str) -> Agent {
        let mut agent = self.agent(name).await;
        agent.record(&self.history);
        agent
    }

    /// Kills it, and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn kill(&mut self) {
        self.server.signal(Signal::KILL);
        self.server.end().await;
    }

    /// Starts another one in its place, which must listen.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start_again(&mut self) {
        self.start_again_with(&[]).await;
    }

    /// The same, with more variables in the environment of that one process.
    ///
    /// # Panics
    /// When it does not listen.
    pub async fn start_again_with(&mut self, variables: &[(&str, &str)]) {
        self.earlier.extend(self.server.log());
        self.server.launch_again_with(variables);
        self.listens().await;
    }

    /// Waits for its death at a crash point.
    ///
    /// # Panics
    /// When it does not end, or otherwise.
    pub async fn dies(&mut self) {
        let status = self.server.dies().await;
        assert!(
            status.signal() == Some(Signal::KILL.as_raw()),
            "{status}:\n{}",
            self.server.log().join("\n")
        );
    }

    /// Starts another one that takes its place while it runs; the one before must end well.
    ///
    /// # Panics
    /// When that does not happen.
    pub async fn replace(&mut self) {
        self.earlier.extend(self.server.replace().await);
        self.listens().await;
    }

    /// Ends it in order.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end(&mut self) -> ExitStatus {
        self.server.signal(Signal::TERM);
        self.server.end().await
    }

    /// Announces that its log may contain lines of level ERROR.
    pub fn expect_errors(&mut self) {
        self.errors_expected = true;
        self.server.expect_errors();
    }

    /// The folder of the store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.server.folder().join("store")
    }

    /// The named pipe at which code waits for the test.
    #[must_use]
    pub fn gate(&self, name: &str) -> Gate {
        Gate::new(self.server.folder().join(name))
    }

    /// Resident bytes of the server.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        process::resident_bytes(self.server.pid())
    }

    /// Remembers the store as it is now.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn look(&mut self) -> &Snapshot {
        self.snapshots.push(Snapshot::of(&self.store()));
        self.snapshots.last().expect("just pushed")
    }

    /// Ends it in order, and checks only what every server of a test checks: what was asked was not written down, or keys
    /// mean different things in different sessions of it.
    ///
    /// # Panics
    /// When it does not end, or leaves something behind.
    pub async fn end_unchecked(mut self) {
        self.end().await;
    }

    /// Ends it in order, if that was not done, and checks everything. Agents that write down must be gone.
    ///
    /// # Panics
    /// When an invariant does not hold, or the server leaves something behind.
    pub async fn finish(mut self) {
        self.end().await;
        self.look();
        let mut log = std::mem::take(&mut self.earlier);
        log.extend(self.server.log());
        checker::check(&Evidence {
            history: self.history.clone(),
            effects: self.effects.counts(),
            snapshots: std::mem::take(&mut self.snapshots),
            log,
            errors_expected: self.errors_expected,
            is_busy: false,
        });
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- history ---\n{}", self.history);
        }
    }
}

/// A place where code waits until the test lets it go on.
#[derive(Debug)]
pub struct Gate {
    path: PathBuf,
}

impl Gate {
    fn new(path: PathBuf) -> Self {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        Self { path }
    }

    /// Python code, one line, that waits.
    #[must_use]
    pub fn python(&self) -> String {
        format!("open({:?}).read()", self.path)
    }

    /// Lets one that waits go on; if none has come yet, waits for it.
    ///
    /// # Panics
    /// When the gate is gone.
    pub async fn open(&self) {
        let path = self.path.clone();
        // A FIFO opens for writing when somebody opens it for reading.
        let opened = tokio::task::spawn_blocking(move || std::fs::write(path, ""));
        within("somebody at the gate", opened).await.expect("a thread").expect("a gate");
    }
}
