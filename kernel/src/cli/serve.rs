//! `cob serve`: sessions for agents and notebooks, and warm workers for every kernel of this user on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cob_kernel::server::{Defaults, Settings};
use cob_pool::{Build, Listener, Pool, PoolConfig, Program, Warmth};
use cob_protocol::checkpoint::{Mode, Policy};
use cob_protocol::limits::{CHECKPOINTS_MAX, FLUSH_MS_MAX};
use cob_protocol::permissions::Permissions;
use cob_protocol::resources::Limits;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::language::{Language, Runner};
use super::languages::{self, Installed};
use super::limits::seconds;
use super::serving::{self, Stops};
use super::{Failure, adopt_orphans, block_on, permissions, python, runtime};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The configuration: what neither a flag nor the environment says holds as that file says [default: what COB_CONFIG
    /// names, else `cob/cob.toml` in the folder that XDG_CONFIG_HOME or HOME names]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An interpreter to keep warm from the start, if need be with its own imports and number of spares:
    /// PATH[,import=MODULE+MODULE][,spares=NUMBER]. Others become warm when they are first used
    #[arg(long = "python", value_name = "PATH[,…]", value_parser = interpreter)]
    interpreters: Vec<(PathBuf, Warmth)>,
    /// Modules that workers have imported before they are asked for; one that is not installed is left out
    #[arg(long = "import", value_name = "MODULES", value_delimiter = ',', value_parser = module,
          default_value = "numpy,pandas")]
    imports: Vec<String>,
    /// Workers that wait, per interpreter and environment
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    spares: usize,
    /// Workers that wait for sessions from the start, per interpreter [default: as many]; 0: none before the first
    /// session has asked
    #[arg(long, value_name = "NUMBER")]
    session_spares: Option<usize>,
    /// Workers in JavaScript that wait from the start [default: none before the first session has asked, which costs that
    /// one some tens of milliseconds]
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    javascript: usize,
    /// Memory for everything that waits; environments not used for long make room first
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = size)]
    memory: u64,
    /// What no session may exceed, for example memory=4G,processes=256
    #[arg(long, value_name = "LIMITS", value_parser = limits, default_value = "", hide_default_value = true)]
    limits: Limits,
    /// The collector that spans are exported to (OTLP over HTTP), for example http://127.0.0.1:4318/v1/traces. Only in
    /// a cob that was built with the feature `otel`
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    #[command(flatten)]
    agents: serving::Options,
    #[command(flatten)]
    sessions: Sessions,
}

/// What holds for sessions that ask for nothing else.
#[derive(Debug, Args)]
// Its name would be that of the options that it is a part of.
#[group(skip)]
#[command(next_help_heading = "Sessions that ask for nothing else")]
struct Sessions {
    /// What they may use, for example memory=2G,time=60s
    #[arg(long, value_name = "LIMITS", value_parser = limits, default_value = "", hide_default_value = true)]
    session_limits: Limits,
    /// Seconds without an execution after which they are closed; 0: they stay
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    session_idle_timeout: Duration,
    /// Seconds after which code that does not react to an interrupt is killed, and its variables with it; 0: never
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    session_interrupt_grace: Duration,
    /// When checkpoints of them are taken, to go back to, to fork sessions off and to recover from: `auto`, between any
    /// two executions; `manual`, when somebody asks; `off`, never
    #[arg(long, value_name = "WHEN", default_value = "manual")]
    checkpoints: When,
    /// How many are kept of those that are taken between executions
    #[arg(long, value_name = "NUMBER", default_value = "8", value_parser = kept)]
    checkpoint_keep: usize,
    /// Memory that only the checkpoints of a session hold; beyond it those taken between executions go, oldest first, and
    /// others are refused
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    checkpoint_budget: u64,
    /// Seconds without an execution after which a session is put into the store and its worker ends, until the next
    /// request wakes it, if everything of it can be saved; 0: never
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    hibernate_after: Duration,
    /// Seconds after which a session that ran code takes a durable checkpoint, which it recovers from when server and
    /// worker are gone; 0: never
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    durable_every: Duration,
    /// Their interpreter [default: the first of --python, else that of the active virtual environment, else `python3`]
    #[arg(long, value_name = "PATH")]
    session_python: Option<PathBuf>,
    /// Folders whose files those in JavaScript may read and import; `.`: their working directory [default: none]
    #[arg(long, value_name = "DIR", value_parser = permissions::usual)]
    session_allow_read: Vec<String>,
    /// Folders in which those in JavaScript may write files; `.`: their working directory [default: none]
    #[arg(long, value_name = "DIR", value_parser = permissions::usual)]
    session_allow_write: Vec<String>,
}

/// When checkpoints are taken.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum When {
    /// Between any two executions
    Auto,
    /// When somebody asks
    Manual,
    /// Never
    Off,
}

impl From<When> for Mode {
    fn from(when: When) -> Self {
        match when {
            When::Auto => Self::Auto,
            When::Manual => Self::Manual,
            When::Off => Self::Off,
        }
    }
}

impl Options {
    /// Where spans are to go.
    pub(crate) fn otlp(&self) -> Option<&str> {
        self.otlp.as_deref()
    }
}

impl Sessions {
    fn defaults(&self) -> Defaults {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let after = |duration| Some(ms(duration)).filter(|ms| *ms > 0);
        Defaults {
            limits: self.session_limits.clone(),
            idle_timeout_ms: after(self.session_idle_timeout),
            interrupt_grace_ms: Some(ms(self.session_interrupt_grace)),
            checkpoints: Policy {
                mode: self.checkpoints.into(),
                keep: self.checkpoint_keep,
                budget_bytes: self.checkpoint_budget,
                hibernate_after_ms: after(self.hibernate_after),
                durable_every_ms: after(self.durable_every),
                ..Policy::default()
            },
            permissions: Permissions {
                read: self.session_allow_read.clone(),
                write: self.session_allow_write.clone(),
            },
        }
    }
}

fn interpreter(text: &str) -> Result<(PathBuf, Warmth), String> {
    let mut parts = text.split(',');
    let path = PathBuf::from(parts.next().unwrap_or_default());
    let mut warmth = Warmth::default();
    for part in parts {
        match part.split_once('=') {
            Some(("import", modules)) => {
                warmth.imports =
                    Some(modules.split('+').filter(|m| !m.is_empty()).map(module).collect::<Result<_, _>>()?);
            }
            Some(("spares", number)) => {
                let number = number.parse().map_err(|_| format!("spares={number} is no number"))?;
                warmth.spares = Some(number);
            }
            _ => return Err(format!("`{part}` is neither import=MODULE+MODULE nor spares=NUMBER")),
        }
    }
    Ok((path, warmth))
}

fn module(name: &str) -> Result<String, String> {
    let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_');
    // No name at all asks for no import.
    let is_module = name.is_empty() || name.split('.').all(is_word);
    if is_module { Ok(name.to_owned()) } else { Err(format!("`{name}` is no name of a module")) }
}

fn size(text: &str) -> Result<u64, String> {
    let limits = Limits::parse(&format!("memory={text}")).map_err(|error| error.to_string())?;
    limits.memory_bytes.ok_or_else(|| "a size, for example 2G".to_owned())
}

fn kept(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=CHECKPOINTS_MAX).contains(count));
    count.ok_or_else(|| format!("a number from 1 to {CHECKPOINTS_MAX}"))
}

fn limits(text: &str) -> Result<Limits, String> {
    Limits::parse(text).map_err(|error| error.to_string())
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    if options.imports.len() > 1 && options.imports.iter().any(String::is_empty) {
        return Err(Failure::usage("--import: an empty name is no name of a module"));
    }
    let plan = plan(&options)?;
    if let Err(error) = cob_pool::raise_open_files() {
        tracing::warn!(%error, "no more descriptors than usual: fewer workers than there could be");
    }
    block_on(serve(options, plan))?
}

/// Which interpreters are used, and what of them is kept warm from the start.
struct Plan {
    /// Of sessions that name none, if one is named here.
    session_python: Option<PathBuf>,
    warm: Vec<(Program, Warmth)>,
}

fn plan(options: &Options) -> Result<Plan, Failure> {
    let resolved = |named: Option<&Path>| python::choose(named).and_then(python::resolve);
    let mut named = Vec::new();
    for (interpreter, warmth) in &options.interpreters {
        named.push((resolved(Some(interpreter))?, warmth.clone()));
    }
    let session_python = match &options.sessions.session_python {
        Some(path) => Some(resolved(Some(path))?),
        None => named.first().map(|(path, _)| path.clone()),
    };
    let mut warm = Vec::new();
    // What sessions need is made first: agents wait for it.
    if options.session_spares != Some(0) {
        // Where there is none at all, sessions are told so.
        let usual = session_python.clone().or_else(|| resolved(None).ok());
        let usual = usual.filter(|usual| named.iter().all(|(path, _)| path != usual));
        for (path, warmth) in named.iter().cloned().chain(usual.map(|path| (path, Warmth::default()))) {
            let spares = options.session_spares.or(warmth.spares);
            let runner = Runner::at(Language::Python, path);
            warm.push((languages::in_advance(runner), Warmth { spares, ..warmth }));
        }
    }
    if options.javascript > 0 {
        let runner = Runner::find(Language::JavaScript, None)?;
        let warmth = Warmth { spares: Some(options.javascript), ..Warmth::default() };
        warm.push((languages::in_advance(runner), warmth));
    }
    let of_kernel = |path| python::program(path, std::env::vars_os().collect(), None);
    warm.extend(named.into_iter().map(|(path, warmth)| (of_kernel(path), warmth)));
    Ok(Plan { session_python, warm })
}

async fn serve(options: Options, plan: Plan) -> Result<(), Failure> {
    adopt_orphans();
    // From here on a request to end is carried out in order.
    let mut stopped = signals()?;
    let folder = runtime::folder();
    if options.agents.replace {
        options.agents.take_place(&folder).await?;
    }
    let listener = Listener::bind(&folder).map_err(Failure::failed)?;
    let swept = listener.sweep().await;
    if swept > 0 {
        tracing::warn!(swept, "processes that an earlier server left behind were ended");
    }
    let config = PoolConfig {
        imports: options.imports.into_iter().filter(|module| !module.is_empty()).collect(),
        spares: options.spares,
        memory_bytes: options.memory,
        ..PoolConfig::default()
    };
    let pool = Pool::start(config);
    let settings = options.agents.settings(&folder, &pool).await?;
    let (ceiling, defaults) = (options.limits.clone(), options.sessions.defaults());
    let settings = Settings { ceiling, defaults, ..settings };
    let survival = settings.survival.clone();
    let languages = Installed::new(plan.session_python);
    let serving = options.agents.begin(&folder, &pool, settings, languages).await?;
    for (program, warmth) in plan.warm {
        pool.warm(&program, warmth).await;
    }
    let image = |language| (language == Language::Python).then_some(cob_python::MODULE);
    let builds: Vec<_> =
        Language::all().map(|language| Build { name: language.build(), image: image(language) }).collect();
    let open = match serving.open() {
        0 => String::new(),
        open => format!("; {open} sessions go on"),
    };
    println!(
        "serving agents and keeping workers warm in {}{open}; `cob info` shows them, Ctrl-C ends this",
        folder.display()
    );
    let sharing = listener.serve(&pool, &builds, &options.limits);
    serving.run(sharing, &mut stopped).await;
    drop(listener);
    pool.close().await;
    if let Some(survival) = survival {
        survival.end(Duration::from_millis(FLUSH_MS_MAX)).await;
    }
    Ok(())
}

/// SIGINT or SIGTERM, and SIGHUP unless whoever started this has it ignored (`nohup`).
fn signals() -> Result<Stops, Failure> {
    let failed = |error| Failure::Failed(format!("signals cannot be watched: {error}"));
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let wanted = kinds.into_iter().filter(|kind| *kind != SignalKind::hangup() || !is_hangup_ignored());
    let (told, stops) = watch::channel(0);
    let told = Arc::new(told);
    for kind in wanted {
        let mut signals = signal(kind).map_err(failed)?;
        let told = Arc::clone(&told);
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                told.send_modify(|count| *count += 1);
            }
        });
    }
    Ok(Stops(stops))
}

fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The lowest bit stands for signal 1.
    ignored.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        sessions: Sessions,
    }

    #[test]
    fn the_defaults_of_the_flags_are_those_of_the_policy() {
        let policy = |arguments: &[&str]| {
            let line = Line::try_parse_from(["x"].iter().chain(arguments));
            line.map(|line| line.sessions.defaults().checkpoints).map_err(|error| error.to_string())
        };
        assert_eq!(policy(&[]), Ok(Policy::default()));
        let other = policy(&[
            "--checkpoints=auto",
            "--checkpoint-keep=3",
            "--checkpoint-budget=32M",
            "--hibernate-after=1.5",
            "--durable-every=60",
        ]);
        let expected = Policy {
            mode: Mode::Auto,
            keep: 3,
            budget_bytes: 32 << 20,
            recover: true,
            hibernate_after_ms: Some(1500),
            durable_every_ms: Some(60_000),
        };
        assert_eq!(other, Ok(expected));
        for wrong in ["--checkpoint-keep=0", "--checkpoint-keep=65", "--checkpoints=never"] {
            assert!(policy(&[wrong]).is_err(), "{wrong}");
        }
    }
}
