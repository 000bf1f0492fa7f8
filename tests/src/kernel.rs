//! A running `cob kernel` in a folder of its own, and what must be left of it when a test is over: nothing.

use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use cob_clients::notebook::ConnectionFile;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::TestClient;
use crate::log::Log;
use crate::server::TestServer;
use crate::{cgroups, process, programs, teardown, within};

/// Code that waits until the test calls [`TestKernel::open_gate`]. A cell can wait once.
pub const GATE: &str = "open('../gate').read()";

/// How the five channels are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Socket files in the kernel's folder.
    Ipc,
    /// Free ports of the loopback.
    Tcp,
}

/// How a kernel is to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    transport: Transport,
    python: PathBuf,
    environment: Vec<(OsString, OsString)>,
    arguments: Vec<OsString>,
    /// The marker of the server that it may get workers from.
    server: Option<String>,
    /// What starts it, if not the test itself.
    launcher: Vec<OsString>,
    /// Instead of Python.
    language: Option<String>,
}

/// A kernel process.
///
/// Dropping it ends it with SIGTERM, if it has not ended, and checks that it ends well, that no process it started
/// is left, no file either, and that its log holds no panic and no error that the test did not announce.
#[derive(Debug)]
pub struct TestKernel {
    /// How to connect to it.
    pub file: ConnectionFile,
    child: Child,
    marker: String,
    folder: TempDir,
    runtime: PathBuf,
    log: Log,
    /// The logs of those before it in this place: what they started may still hold them open.
    earlier: Vec<Log>,
    errors_expected: bool,
    killed: bool,
    /// Those before it in this place that were killed.
    dead: Vec<u32>,
    setup: Setup,
}

impl Setup {
    /// A Python kernel on socket files.
    #[must_use]
    pub fn new() -> Self {
        let python = programs::python().to_owned();
        Self {
            transport: Transport::Ipc,
            python,
            environment: Vec::new(),
            arguments: Vec::new(),
            server: None,
            launcher: Vec::new(),
            language: None,
        }
    }

    /// On ports of the loopback instead.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.transport = Transport::Tcp;
        self
    }

    /// In a language that needs no interpreter.
    #[must_use]
    pub fn language(mut self, language: &str) -> Self {
        self.language = Some(language.to_owned());
        self
    }

    /// With another program as the worker's interpreter.
    #[must_use]
    pub fn worker(mut self, program: impl Into<PathBuf>) -> Self {
        self.python = program.into();
        self
    }

    /// With workers of this server, if it gives any: the same interpreter, in the same environment.
    #[must_use]
    pub fn server(mut self, server: &TestServer) -> Self {
        self.python = server.python().to_owned();
        self.environment.extend(server.environment());
        self.server = Some(server.marker().to_owned());
        self
    }

    /// With the runtime folder of another kernel.
    #[must_use]
    pub fn runtime(self, other: &TestKernel) -> Self {
        let folder = other.runtime().to_owned();
        self.env("COB_RUNTIME_DIR", folder)
    }

    /// With a variable in the environment of the kernel and its worker.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// With one more argument on its command line.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Started by this command, which becomes it.
    #[must_use]
    pub fn launcher(mut self, command: impl IntoIterator<Item = OsString>) -> Self {
        self.launcher = command.into_iter().collect();
        self
    }

    /// With these limits of its session.
    #[must_use]
    pub fn limits(self, limits: &str) -> Self {
        self.argument("--limits").argument(limits)
    }

    /// Starts the kernel and waits until its worker is ready.
    ///
    /// # Panics
    /// When it does not start; the report contains its log.
    pub async fn start(&self) -> TestKernel {
        loop {
            let mut kernel = self.launch();
            if kernel.log_line("worker ready", 0).await.is_some() {
                return kernel;
            }
            // Between our looking for free ports and its taking them somebody else may have come.
            let lines = kernel.log.finish();
            let is_port_taken = lines.iter().any(|line| line.contains("Address already in use"));
            assert!(is_port_taken, "the kernel did not start:\n{}", lines.join("\n"));
            kernel.killed = true;
        }
    }

    /// Starts the kernel and waits for nothing.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn launch(&self) -> TestKernel {
        self.launch_with(&[])
    }

    /// The same, with more variables in the environment of this process, and not of those in its place later.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn launch_with(&self, variables: &[(&str, &str)]) -> TestKernel {
        let folder = tempfile::Builder::new().prefix("cob").tempdir().expect("a temporary folder");
        for name in ["cwd", "tmp", "home"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let gate = folder.path().join("gate");
        mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
        let file = connection_file(self.transport, folder.path());
        let path = folder.path().join("kernel.json");
        std::fs::write(&path, serde_json::to_vec(&file).expect("JSON")).expect("a connection file");
        let marker = marker();
        let (child, log) = self.spawn(folder.path(), &marker, variables);
        let runtime = self.environment.iter().rfind(|(name, _)| name == "COB_RUNTIME_DIR");
        let runtime = runtime.map_or_else(|| runtime_folder(folder.path()), |(_, folder)| folder.into());
        let marker = format!("COB_TEST_MARK={marker}");
        let (errors_expected, killed) = (false, false);
        let (earlier, dead, setup) = (Vec::new(), Vec::new(), self.clone());
        TestKernel {
            file,
            child,
            marker,
            folder,
            runtime,
            log,
            earlier,
            errors_expected,
            killed,
            dead,
            setup,
        }
    }

    fn spawn(&self, folder: &Path, marker: &str, variables: &[(&str, &str)]) -> (Child, Log) {
        let path = folder.join("kernel.json");
        let mut command = command(&[OsStr::new("kernel"), OsStr::new("-f"), path.as_os_str()], folder);
        match &self.language {
            Some(language) => command.arg("--language").arg(language),
            None => command.arg("--python").arg(&self.python),
        };
        command.env("COB_LOG", "info").env("COB_TEST_MARK", marker);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.envs(variables.iter().copied());
        let mut command = launched(&self.launcher, command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("cob starts");
        let log = Log::of(child.stderr.take().expect("a pipe"));
        (child, log)
    }
}

/// A command, started by another one that gets it as arguments.
pub(crate) fn launched(launcher: &[OsString], command: Command) -> Command {
    let [program, arguments @ ..] = launcher else { return command };
    let mut outer = Command::new(program);
    outer.args(arguments).arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        outer.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// A command line of cob that runs in `folder` and leaves its temporary files there.
#[must_use]
pub fn command(arguments: &[&OsStr], folder: &Path) -> Command {
    let mut command = Command::new(programs::cob());
    command.args(arguments).current_dir(folder.join("cwd")).stdin(Stdio::null());
    command.env("TMPDIR", folder.join("tmp")).env("HOME", folder.join("home"));
    // No server of anybody else is found.
    command.env("COB_RUNTIME_DIR", runtime_folder(folder));
    for name in [
        "JPY_PARENT_PID",
        "VIRTUAL_ENV",
        "PYTHONPATH",
        "PYTHONHOME",
        "COB_LOG",
        "COB_CONFIG",
        "XDG_CONFIG_HOME",
    ] {
        command.env_remove(name);
    }
    command
}

/// Where processes that run in `folder` find a server, unless they are told otherwise.
pub(crate) fn runtime_folder(folder: &Path) -> PathBuf {
    folder.join("run")
}

/// A text that no other process has in its environment.
pub(crate) fn marker() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What stands behind `name` in a log line.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(name).nth(1)?.split_whitespace().next()
}

fn connection_file(transport: Transport, folder: &Path) -> ConnectionFile {
    let (name, ip, ports) = match transport {
        Transport::Ipc => ("ipc", folder.join("s").to_string_lossy().into_owned(), [1, 2, 3, 4, 5]),
        Transport::Tcp => ("tcp", "127.0.0.1".to_owned(), free_ports()),
    };
    let [shell_port, iopub_port, stdin_port, control_port, hb_port] = ports;
    ConnectionFile {
        transport: name.to_owned(),
        ip,
        shell_port,
        iopub_port,
        stdin_port,
        control_port,
        hb_port,
        key: "the key of a test".to_owned(),
        signature_scheme: "hmac-sha256".to_owned(),
    }
}

fn free_ports() -> [u16; 5] {
    let listeners = [(); 5].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

impl TestKernel {
    /// A Python kernel that is ready.
    ///
    /// # Panics
    /// As [`Setup::start`].
    pub async fn start() -> Self {
        Setup::new().start().await
    }

    /// A kernel and its first client.
    ///
    /// # Panics
    /// As [`Setup::start`] and [`TestClient::connect`].
    pub async fn with_client() -> (Self, TestClient) {
        let kernel = Self::start().await;
        let client = kernel.client().await;
        (kernel, client)
    }

    /// Waits until it serves a front end, whoever has its worker.
    ///
    /// # Panics
    /// When it ends before.
    pub async fn accepts(&self) {
        // Everything is bound before this is said.
        let line = self.log_line("attached to session", 0).await;
        assert!(line.is_some(), "it does not serve:\n{}", self.log.lines().join("\n"));
    }

    /// One more client, which sees everything from now on.
    ///
    /// # Panics
    /// As [`TestClient::connect`].
    pub async fn client(&self) -> TestClient {
        TestClient::connect(&self.file).await
    }

    /// The process id of the kernel.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of the `nth` worker (from 0), once it is ready.
    ///
    /// # Panics
    /// When the kernel ends without it.
    pub async fn worker(&self, nth: usize) -> u32 {
        self.worker_from(nth).await.0
    }

    /// The same, and where it came from: `Warm`, `Forked` or `Cold`.
    ///
    /// # Panics
    /// When the kernel ends without it.
    pub async fn worker_from(&self, nth: usize) -> (u32, String) {
        let line = self.log_line("worker ready", nth).await.unwrap_or_default();
        let found = field(&line, "pid=").and_then(|pid| Some((pid.parse().ok()?, field(&line, "origin=")?)));
        let (pid, origin) =
            found.unwrap_or_else(|| unreachable!("no worker {nth}:\n{}", self.log.lines().join("\n")));
        (pid, origin.to_owned())
    }

    /// The process id of its first worker, wherever that came from.
    ///
    /// # Panics
    /// When the kernel ends without it.
    pub async fn worker_pid(&self) -> u32 {
        let line = self.log_line("worker ready", 0).await.unwrap_or_default();
        let pid = field(&line, "pid=").and_then(|pid| pid.parse().ok());
        pid.unwrap_or_else(|| unreachable!("no worker:\n{}", self.log.lines().join("\n")))
    }

    /// The `nth` line (from 0) of its log with `text`, once it is there; `None` when the log ends first.
    ///
    /// # Panics
    /// When neither happens.
    pub async fn log_line(&self, text: &str, nth: usize) -> Option<String> {
        within(&format!("the log line `{text}`"), self.log.line(text, nth)).await
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Its folder; the code runs in `cwd` there.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its runtime folder.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Lets the code that waits at [`GATE`] go on; if none has come there yet, waits for it.
    ///
    /// # Panics
    /// When the gate is gone.
    pub fn open_gate(&self) {
        // A FIFO opens for writing when somebody opens it for reading.
        std::fs::write(self.folder.path().join("gate"), "").expect("a gate");
    }

    /// Announces that its log may contain lines of level ERROR.
    pub fn expect_errors(&mut self) {
        self.errors_expected = true;
    }

    /// Sends it a signal; whoever kills it need not announce that.
    pub fn signal(&mut self, signal: Signal) {
        self.killed |= signal == Signal::KILL;
        process::signal(self.pid(), signal);
    }

    /// Waits for an end that it may meet by a signal of its own.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end_by_itself(&mut self) -> ExitStatus {
        self.killed = true;
        self.end().await
    }

    /// Starts another one in the place of this one, which has ended, with more variables in its environment, and
    /// waits for nothing.
    ///
    /// # Panics
    /// When the process cannot be started.
    pub fn launch_again(&mut self, variables: &[(&str, &str)]) {
        self.dead.extend(self.killed.then_some(self.child.id()));
        let marker = self.marker.split_once('=').map_or("", |(_, value)| value);
        let (child, log) = self.setup.spawn(self.folder.path(), marker, variables);
        self.earlier.push(std::mem::replace(&mut self.log, log));
        (self.child, self.killed) = (child, false);
    }

    /// The same, by another command than the one before.
    ///
    /// # Panics
    /// When the process cannot be started.
    pub fn relaunch_by(&mut self, launcher: impl IntoIterator<Item = OsString>) {
        self.setup.launcher = launcher.into_iter().collect();
        self.launch_again(&[]);
    }

    /// What all of this place wrote to their logs so far.
    #[must_use]
    pub fn whole_log(&self) -> Vec<String> {
        self.earlier.iter().chain([&self.log]).flat_map(Log::lines).collect()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end(&mut self) -> ExitStatus {
        process::ended(self.pid()).await;
        self.child.wait().expect("a child of ours")
    }

    /// Every process that it started and that still is, itself included, and every worker it was given.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mut processes = process::marked(&self.marker);
        if let Some(marker) = &self.setup.server {
            let mut given = process::marked(marker);
            let ready = self.log.lines().into_iter().filter(|line| line.contains("worker ready"));
            let pids: Vec<u32> = ready.filter_map(|line| field(&line, "pid=")?.parse().ok()).collect();
            given.retain(|pid| pids.contains(pid) && !processes.contains(pid));
            processes.extend(given);
        }
        processes
    }

    /// Its descriptors that do not depend on who is connected, nor on whether the store looks through its folders.
    #[must_use]
    pub fn own_descriptors(&self) -> Vec<String> {
        let all = process::descriptors(self.pid()).into_values();
        let mut own: Vec<_> =
            all.filter(|what| what != "socket" && !std::path::Path::new(what).is_dir()).collect();
        own.sort();
        own
    }

    /// Ends it, and says everything that is not as it must be then.
    fn tear_down(&mut self) -> Vec<String> {
        let mut wrong = teardown::end(&mut self.child, self.killed);
        wrong.extend(teardown::gone(self.processes()));
        wrong.extend(cgroups::left(self.pid(), self.killed));
        wrong.extend(self.dead.iter().flat_map(|pid| cgroups::left(*pid, true)));
        wrong.extend(teardown::files(&self.folder.path().join("tmp"), |_| false));
        if !self.killed {
            wrong.extend(teardown::files(self.folder.path(), |name| !name.starts_with("s-")));
            // Elsewhere others may be.
            if self.runtime.starts_with(self.folder.path()) {
                wrong.extend(teardown::files(&self.runtime.join("sessions"), |_| false));
            }
        }
        self.earlier.iter_mut().chain([&mut self.log]).for_each(|log| drop(log.finish()));
        wrong.extend(teardown::lines(self.whole_log(), self.errors_expected));
        wrong
    }
}

impl Drop for TestKernel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.processes().into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
            process::signal(self.pid(), Signal::KILL);
            let _ = self.child.wait();
            self.log.finish();
            eprintln!("--- log of the kernel ---\n{}", self.whole_log().join("\n"));
            return;
        }
        let wrong = self.tear_down();
        assert!(
            wrong.is_empty(),
            "after the test:\n{}\nlog:\n{}",
            wrong.join("\n"),
            self.whole_log().join("\n")
        );
    }
}
