//! Durable kernels: started over a store, killed, started again in the same place, and judged in the end.

pub mod client;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::checker::{self, Evidence};
use crate::effects::Effects;
use crate::history::History;
use crate::kernel::{Setup, TestKernel};
use crate::snapshot::Snapshot;

pub use client::{Came, Client};

/// How long workers of a test outlive their server, unless the test says otherwise: longer than any start takes,
/// and shorter than a teardown waits for those whom a server was about to write down when it was killed.
pub const GRACE: &str = "15";

/// A kernel over a store, with the three recorders.
///
/// [`finish`](Self::finish) ends it and checks what was recorded; a test that only drops it checks what every kernel
/// of a test checks.
pub struct Durable {
    /// The process that runs now, or ran last.
    pub kernel: TestKernel,
    /// Where its code leaves its traces.
    pub effects: Effects,
    /// What its clients asked and saw.
    pub history: History,
    snapshots: Vec<Snapshot>,
    store: PathBuf,
    errors_expected: bool,
    has_ended: bool,
}

/// A kernel over a new store in its own folder.
#[must_use]
pub fn setup() -> Setup {
    setup_with(GRACE)
}

/// The same, with another grace.
#[must_use]
pub fn setup_with(grace: &str) -> Setup {
    // Relative to where it is started.
    Setup::new().argument("--store").argument("../store").argument("--grace").argument(grace)
}

impl Durable {
    /// One that is ready.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        Self::start_as(&setup()).await
    }

    /// One that is ready.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_as(setup: &Setup) -> Self {
        let durable = Self::launch(setup);
        assert!(durable.is_ready().await, "it did not start:\n{}", durable.kernel.whole_log().join("\n"));
        durable
    }

    /// One that may die before it is ready.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn launch(setup: &Setup) -> Self {
        Self::launch_with(setup, &[])
    }

    /// The same, with more variables in the environment of its first process.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn launch_with(setup: &Setup, variables: &[(&str, &str)]) -> Self {
        let kernel = setup.launch_with(variables);
        let effects = Effects::new(kernel.folder());
        let history = History::default();
        let store = kernel.folder().join("store");
        Self {
            kernel,
            effects,
            history,
            snapshots: Vec::new(),
            store,
            errors_expected: false,
            has_ended: false,
        }
    }

    /// Waits until it has a worker; `false` when it ends before.
    pub async fn is_ready(&self) -> bool {
        tokio::select! {
            biased;
            line = self.kernel.log_line("worker ready", 0) => line.is_some(),
            () = crate::process::ended(self.kernel.pid()) => false,
        }
    }

    /// A client with this name, which it keeps over connections; `None` when the kernel ends meanwhile.
    pub async fn try_client(&self, name: &str) -> Option<Client> {
        Client::connect(&self.kernel.file, &self.history, name).await
    }

    /// The same, of a kernel that lives.
    ///
    /// # Panics
    /// When it does not.
    pub async fn client(&self, name: &str) -> Client {
        self.try_client(name).await.expect("a kernel to connect to")
    }

    /// Kills it, and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn kill(&mut self) {
        self.kernel.signal(Signal::KILL);
        self.kernel.end().await;
    }

    /// Waits for its death at a crash point.
    ///
    /// # Panics
    /// When it does not end, or otherwise.
    pub async fn dies(&mut self) {
        let status = self.kernel.end_by_itself().await;
        assert!(was_killed(status), "{status}:\n{}", self.kernel.whole_log().join("\n"));
    }

    /// Starts another one in its place, which must become ready.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start_again(&mut self) {
        self.launch_again(&[]);
        let is_ready = self.is_ready().await;
        assert!(is_ready, "it did not start again:\n{}", self.kernel.whole_log().join("\n"));
    }

    /// Starts another one in its place, with more variables in its environment, and waits for nothing.
    ///
    /// # Panics
    /// When the process cannot be started.
    pub fn launch_again(&mut self, variables: &[(&str, &str)]) {
        self.kernel.launch_again(variables);
    }

    /// Announces that its log may contain lines of level ERROR.
    pub fn expect_errors(&mut self) {
        self.errors_expected = true;
        self.kernel.expect_errors();
    }

    /// The folder of the store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.store.clone()
    }

    /// Its store was where the command line said: what is there is copied to where it is looked for.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn fetch_store(&mut self, from: &Path) {
        fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
            std::fs::create_dir(to)?;
            for entry in std::fs::read_dir(from)? {
                let entry = entry?;
                let (from, to) = (entry.path(), to.join(entry.file_name()));
                if from.is_dir() {
                    copy(&from, &to)?;
                } else {
                    std::fs::copy(from, to)?;
                }
            }
            Ok(())
        }
        copy(from, &self.store).expect("a store to copy");
    }

    /// The process id of its worker.
    ///
    /// # Panics
    /// When it has none.
    pub async fn worker(&self) -> u32 {
        self.kernel.worker_pid().await
    }

    /// Remembers the store as it is now.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn look(&mut self) -> &Snapshot {
        self.snapshots.push(Snapshot::of(&self.store()));
        self.snapshots.last().expect("just pushed")
    }

    /// What is known so far.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        Evidence {
            history: self.history.clone(),
            effects: self.effects.counts(),
            snapshots: self.snapshots.clone(),
            log: self.kernel.whole_log(),
            errors_expected: self.errors_expected,
            is_busy: false,
        }
    }

    /// Ends it in order; one that dies over that at a crash point is started again, and ended.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end(&mut self) {
        self.kernel.signal(Signal::TERM);
        if was_killed(self.kernel.end().await) {
            // It has gone; the teardown shall know how.
            self.kernel.end_by_itself().await;
            self.start_again().await;
            self.kernel.signal(Signal::TERM);
            self.kernel.end().await;
        }
        self.has_ended = true;
    }

    /// Ends it in order, if that was not done, and checks everything. Clients must be gone.
    ///
    /// # Panics
    /// When an invariant does not hold, or the kernel leaves something behind.
    pub async fn finish(mut self) {
        if !self.has_ended {
            self.end().await;
        }
        self.look();
        checker::check(&self.evidence());
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- history ---\n{}", self.history);
        }
    }
}

fn was_killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(Signal::KILL.as_raw())
}

/// A folder in memory if the system has a place for that, for tests that make and remove a great many files.
///
/// # Panics
/// When no folder can be made.
#[must_use]
pub fn memory_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("cob");
    builder.tempdir_in(memory).or_else(|_| builder.tempdir()).expect("a temporary folder")
}

/// A variable that makes a kernel die when it passes a crash point.
#[must_use]
pub fn crash_at(point: &str) -> [(&str, &str); 1] {
    [("COB_CRASH_AT", point)]
}

/// Whether kernels of this build have crash points; says so when they have not.
#[must_use]
pub fn has_crash_points() -> bool {
    let has = cfg!(debug_assertions);
    if !has {
        crate::cgroups::skipped("a release build has no crash points");
    }
    has
}
