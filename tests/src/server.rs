//! A running `cob serve` with a runtime folder of its own, and what must be left of it when a test is over: nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::kernel::{Setup, TestKernel, command, launched, marker, runtime_folder};
use crate::log::Log;
use crate::{process, programs, teardown, within};

/// Zygotes and their workers get no variable but those that an interpreter reads when it starts, or that begin like
/// one of them.
const MARK: &str = "PYTHONCOBTESTMARK";

/// Workers that a server of a test keeps warm, unless it says otherwise.
pub const SPARES: usize = 2;

/// How a server is to be started.
#[derive(Debug)]
pub struct ServerSetup {
    python: PathBuf,
    imports: String,
    spares: usize,
    session_spares: usize,
    environment: Vec<(OsString, OsString)>,
    own: Vec<(OsString, OsString)>,
    arguments: Vec<OsString>,
    launcher: Vec<OsString>,
    is_warmed: bool,
}

/// A server process.
///
/// Dropping it ends it with SIGTERM, if it has not ended, and checks that it ends well, that no zygote and no worker
/// is left, nothing in its folder either, and that its log holds no panic and no error that was not announced. The
/// kernels that use its workers must have ended before.
#[derive(Debug)]
pub struct TestServer {
    setup: ServerSetup,
    child: Child,
    folder: TempDir,
    marker: String,
    log: Log,
    errors_expected: bool,
    killed: bool,
    /// What holds the workers that shall outlive a server ends by itself, a little later than that.
    custodians: Vec<u32>,
}

impl ServerSetup {
    /// One that keeps two workers warm on a bare Python, with nothing imported but `colorsys`, which nothing else
    /// imports.
    #[must_use]
    pub fn new() -> Self {
        Self {
            python: programs::python().to_owned(),
            imports: "colorsys".to_owned(),
            spares: SPARES,
            // Tests count what is there for kernels.
            session_spares: 0,
            environment: Vec::new(),
            own: Vec::new(),
            arguments: Vec::new(),
            launcher: Vec::new(),
            is_warmed: true,
        }
    }

    /// With another interpreter.
    #[must_use]
    pub fn python(mut self, python: impl Into<PathBuf>) -> Self {
        self.python = python.into();
        self
    }

    /// With these modules imported in advance.
    #[must_use]
    pub fn imports(mut self, imports: &str) -> Self {
        self.imports = imports.to_owned();
        self
    }

    /// With so many warm workers.
    #[must_use]
    pub fn spares(mut self, spares: usize) -> Self {
        self.spares = spares;
        self
    }

    /// With so many workers that are warm for sessions from the start.
    #[must_use]
    pub fn session_spares(mut self, spares: usize) -> Self {
        self.session_spares = spares;
        self
    }

    /// With a variable in the environment of the server and of the kernels that use it.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// With a variable in the environment of the server alone.
    #[must_use]
    pub fn own_env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.own.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// With one more argument on its command line.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Started by another program, which becomes it.
    #[must_use]
    pub fn launcher(mut self, command: impl IntoIterator<Item = OsString>) -> Self {
        self.launcher = command.into_iter().collect();
        self
    }

    /// Told of no interpreter: the first kernel that asks makes its own warm.
    #[must_use]
    pub fn cold(mut self) -> Self {
        self.is_warmed = false;
        self
    }

    /// Starts the server and waits until its workers are warm.
    ///
    /// # Panics
    /// When it does not start; the report contains its log.
    pub async fn start(self) -> TestServer {
        let server = self.launch();
        server.settled().await;
        server
    }

    /// Starts the server and waits for nothing.
    ///
    /// # Panics
    /// When the process cannot be started.
    #[must_use]
    pub fn launch(self) -> TestServer {
        let folder = tempfile::Builder::new().prefix("cob").tempdir().expect("a temporary folder");
        for name in ["cwd", "tmp", "home"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        // It is there before the server, so that a test can watch it.
        let runtime = runtime_folder(folder.path());
        std::fs::DirBuilder::new().mode(0o700).create(runtime).expect("a folder");
        let marker = marker();
        let (child, log) = self.spawn(folder.path(), &marker, &[], &[]);
        let marker = format!("{MARK}={marker}");
        TestServer {
            setup: self,
            child,
            folder,
            marker,
            log,
            errors_expected: false,
            killed: false,
            custodians: Vec::new(),
        }
    }

    fn spawn(&self, folder: &Path, marker: &str, more: &[&str], variables: &[(&str, &str)]) -> (Child, Log) {
        let mut command = command(&[OsStr::new("serve"), OsStr::new("--import")], folder);
        command.arg(&self.imports).arg("--spares").arg(self.spares.to_string());
        command.arg("--session-spares").arg(self.session_spares.to_string());
        if self.is_warmed {
            command.arg("--python").arg(&self.python);
        }
        // What other tests do to the memory of this host must not reach the sessions of this one.
        command.arg("--ignore-pressure");
        command.args(&self.arguments).args(more).env("COB_LOG", "info,cob_pool=debug").env(MARK, marker);
        command.envs(self.environment.iter().chain(&self.own).map(|(name, value)| (name, value)));
        command.envs(variables.iter().copied());
        let mut command = launched(&self.launcher, command);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("cob starts");
        let log = Log::of(child.stderr.take().expect("a pipe"));
        (child, log)
    }
}

impl Default for ServerSetup {
    fn default() -> Self {
        Self::new()
    }
}

impl TestServer {
    /// A server with two warm workers on a bare Python.
    ///
    /// # Panics
    /// As [`ServerSetup::start`].
    pub async fn start() -> Self {
        ServerSetup::new().start().await
    }

    /// Starts another one in the place of this one, which has ended.
    ///
    /// # Panics
    /// As [`ServerSetup::start`].
    pub async fn start_again(&mut self) {
        self.launch_again();
        self.settled().await;
    }

    /// The same, and waits for nothing.
    ///
    /// # Panics
    /// When the process cannot be started, or the log of the one before has what it must not have.
    pub fn launch_again(&mut self) {
        self.launch_again_with(&[]);
    }

    /// The same, with more variables in the environment of that one process.
    ///
    /// # Panics
    /// As [`launch_again`](Self::launch_again).
    pub fn launch_again_with(&mut self, variables: &[(&str, &str)]) {
        let lines = self.log.finish();
        let marker = self.marker.split_once('=').map_or("", |(_, value)| value);
        let (child, log) = self.setup.spawn(self.folder.path(), marker, &[], variables);
        (self.child, self.log, self.killed) = (child, log, false);
        assert_eq!(teardown::lines(lines, self.errors_expected), Vec::<String>::new());
    }

    /// Starts another one that asks this one to make room; waits until this one has ended, which must go well. The log
    /// of this one.
    ///
    /// # Panics
    /// When the process cannot be started, or this one does not end well.
    pub async fn replace(&mut self) -> Vec<String> {
        self.look_for_custodians();
        let marker = self.marker.split_once('=').map_or("", |(_, value)| value);
        let (child, log) = self.setup.spawn(self.folder.path(), marker, &["--replace"], &[]);
        let status = self.end().await;
        let lines = self.log.finish();
        assert!(status.success(), "the one that was replaced ended with {status}:\n{}", lines.join("\n"));
        (self.child, self.log, self.killed) = (child, log, false);
        assert_eq!(teardown::lines(lines.clone(), self.errors_expected), Vec::<String>::new());
        lines
    }

    /// A kernel that may use its workers, once it is ready.
    ///
    /// # Panics
    /// As [`Setup::start`].
    pub async fn kernel(&self) -> TestKernel {
        Setup::new().server(self).start().await
    }

    /// A command line of cob that finds this server, and runs in its folder.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        let mut command = command(&arguments, self.folder.path());
        command.envs(self.environment());
        command
    }

    /// What such a command does.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("cob runs")
    }

    /// What `cob info --json` says.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn info(&self) -> Value {
        let output = self.output(&["info", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("a JSON document")
    }

    /// The interpreter that it keeps warm.
    #[must_use]
    pub fn python(&self) -> &Path {
        &self.setup.python
    }

    /// The variables with which a kernel finds it and needs the same zygote.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let (name, value) = self.marker.split_once('=').unwrap_or_default();
        let mut environment = self.setup.environment.clone();
        environment.extend([
            ("COB_RUNTIME_DIR".into(), self.runtime().into()),
            ("HOME".into(), self.folder.path().join("home").into()),
            (name.into(), value.into()),
        ]);
        environment
    }

    /// The variable by which its zygotes and workers are known.
    #[must_use]
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// The folder in which everything of it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its runtime folder.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        runtime_folder(self.folder.path())
    }

    /// The process id of the server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process id of its only zygote.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[must_use]
    pub fn zygote(&self) -> u32 {
        let mut children = process::children(self.pid());
        // Another child is there for the workers that shall outlive the server, and workers whose zygote has ended are
        // adopted; those have two pipes for what they print, and a zygote has one.
        children.retain(|pid| !is_custodian(*pid) && has_one_output(*pid));
        let [zygote] = children.as_slice() else { unreachable!("children of the server: {children:?}") };
        *zygote
    }

    /// Open descriptors of the server and of its only zygote: how many, and what they are.
    #[must_use]
    pub fn descriptors(&self) -> [Vec<String>; 2] {
        [self.pid(), self.zygote()].map(|pid| {
            let mut all: Vec<_> = process::descriptors(pid).into_values().collect();
            all.sort();
            all
        })
    }

    /// Server and zygote have open what they had [`before`](Self::descriptors).
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn is_as_before(&self, before: &[Vec<String>; 2]) {
        // What ended just now is closed when somebody has looked at it: soon, and nothing tells when.
        let give_up = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut now = self.descriptors();
        while now != *before && std::time::Instant::now() < give_up {
            std::thread::yield_now();
            now = self.descriptors();
        }
        assert_eq!(now, *before);
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

    /// Waits until all its warm workers wait, and nobody uses one.
    ///
    /// # Panics
    /// When that does not come.
    pub async fn settled(&self) {
        self.holds(self.setup.spares, 0).await;
    }

    /// Waits until so many workers are warm and leased, and none is coming or going.
    ///
    /// # Panics
    /// When that does not come.
    pub async fn holds(&self, warm: usize, leased: usize) {
        let wanted = format!("workers warm={warm} starting=0 leased={leased} retiring=0");
        let reached = within(&wanted, self.log.at_last(": workers warm=", &wanted)).await;
        assert!(reached, "never {wanted}:\n{}", self.log.lines().join("\n"));
    }

    /// Announces that its log may contain lines of level ERROR.
    pub fn expect_errors(&mut self) {
        self.errors_expected = true;
    }

    /// Sends it a signal; whoever kills it need not announce that.
    pub fn signal(&mut self, signal: Signal) {
        self.killed |= signal == Signal::KILL;
        self.look_for_custodians();
        process::signal(self.pid(), signal);
    }

    /// Waits for the death that it brings on itself, at a crash point.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn dies(&mut self) -> ExitStatus {
        self.killed = true;
        self.look_for_custodians();
        self.end().await
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end(&mut self) -> ExitStatus {
        process::ended(self.pid()).await;
        self.child.wait().expect("a child of ours")
    }

    /// Its zygotes and workers, and itself; the kernels that use it as well.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        process::marked(&self.marker)
    }

    /// They cannot be known by their environment, only by the server that has not ended yet.
    fn look_for_custodians(&mut self) {
        self.custodians.extend(process::children(self.pid()).into_iter().filter(|pid| is_custodian(*pid)));
    }

    fn tear_down(&mut self) -> Vec<String> {
        self.look_for_custodians();
        let mut wrong = teardown::end(&mut self.child, self.killed);
        wrong.extend(teardown::gone(std::mem::take(&mut self.custodians)));
        wrong.extend(teardown::gone(self.processes()));
        wrong.extend(teardown::files(&self.folder.path().join("tmp"), |_| false));
        // A lock that were removed could be held twice.
        let is_of_killed = |name: &str| ["pool", "agent", "server.json"].contains(&name);
        let may_stay =
            |name: &str| name == "lock" || name == "sessions" || (self.killed && is_of_killed(name));
        wrong.extend(teardown::files(&self.runtime(), may_stay));
        wrong.extend(teardown::files(&self.runtime().join("sessions"), |_| false));
        wrong.extend(teardown::lines(self.log.finish(), self.errors_expected));
        wrong
    }
}

/// Whether its stdout and its stderr are the same pipe.
fn has_one_output(pid: u32) -> bool {
    let pipe = |number| std::fs::read_link(format!("/proc/{pid}/fd/{number}")).ok();
    pipe(1).is_some() && pipe(1) == pipe(2)
}

fn is_custodian(pid: u32) -> bool {
    process::command_line(pid).contains(" custodian")
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.processes().into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
            process::signal(self.pid(), Signal::KILL);
            let _ = self.child.wait();
            eprintln!("--- log of the server ---\n{}", self.log.finish().join("\n"));
            return;
        }
        let wrong = self.tear_down();
        assert!(
            wrong.is_empty(),
            "after the test:\n{}\nlog of the server:\n{}",
            wrong.join("\n"),
            self.log.lines().join("\n")
        );
    }
}
